--- What happens to an answer between its arrival and the policy's judgement of it.
--
-- In this order, so that a Retry-After which the route adds itself counts:
--
--  1. the route's `response.headers`: removes, sets and adds headers of the answer
--  2. health.retry_after of the provider: a status of its list with a time in its headers
--     (perilune.retry_after) keeps the target out until then, at most for its cap; a 429 keeps out
--     the key instead where the provider has others
--  3. health.auth: an answer that refuses our own key keeps that key out, and with the last one the
--     whole provider. That is what its code says (perilune.classify.refuses_key), or its status
--     where it is in the list. Never where clients bring their own
--  4. health.unhealthy: the operator's function has the last word on an answer; true ejects the
--     target. An error in it is logged, and the answer counts as healthy. It may read the body of
--     an error; to read that of a good answer is to wait for its end
--
-- Failures without an answer have no headers and no status: the core counts them on its own.
--
-- Rules are prepared once per configuration. Where there are none the core need not call at all;
-- an answer that concerns no rule costs one look at its status.

local refuses_key = require("perilune.classify").refuses_key
local retry_after = require "perilune.retry_after"

local health = {}

-- What may refuse a key without being in health.auth.
local REFUSING = { [400] = true, [401] = true, [403] = true }
local RATE_LIMITED = 429

-- An operator's function that fails does so for every answer: one line a second will do.
local LOG_EVERY_MS = 1000

-- ---- rules ---------------------------------------------------------------------------------

local function set_of(list)
  local set = {}
  for _, status in ipairs(list or {}) do set[status] = true end
  return next(set) and set
end

--- The statuses that refuse a key whatever the body says; false where none does anything.
local function auth_of(provider, own)
  if provider.auth ~= "key" or not own.auth_statuses then return false end
  return set_of(own.auth_statuses) or {}
end

--- The rules for a provider's answers, nil when it has none.
local function make_rules(provider)
  local own = provider.health or {}
  local rules = {
    name = provider.name, retry_after = own.retry_after and set_of(own.retry_after.statuses),
    cap_ms = own.retry_after and own.retry_after.cap_ms,
    auth = auth_of(provider, own),
    unhealthy = own.unhealthy, logged_ms = -math.huge,
    base_ms = own.base_ejection_ms, max_ms = own.max_ejection_ms, jitter_ratio = own.jitter_ratio,
  }
  return (rules.retry_after or rules.auth or rules.unhealthy) and rules
end

--- Target object -> the rules of its provider.
local function rules_by_target(config, targets)
  local by_provider, by_target = {}, {}
  for index, provider in ipairs(config.providers) do by_provider[index] = make_rules(provider) end
  for index, target in ipairs(config.targets) do
    by_target[targets[index]] = by_provider[target.provider] or nil
  end
  return by_target
end

--- The statuses that some rule looks at; all of them where an operator's function does.
local function statuses_of(by_target)
  local statuses = {}
  for _, rules in pairs(by_target) do
    for status in pairs(rules.retry_after or {}) do statuses[status] = true end
    for status in pairs(rules.auth or {}) do statuses[status] = true end
    for status in pairs(rules.auth and REFUSING or {}) do statuses[status] = true end
    if rules.unhealthy then setmetatable(statuses, { __index = function() return true end }) end
  end
  return statuses
end

--- Route's name -> the changes to its answers' headers; nil when no route has any.
local function changes_by_route(config)
  local by_route = {}
  for _, route in ipairs(config.routes) do by_route[route.name] = route.response end
  return next(by_route) and by_route
end

-- ---- one answer ----------------------------------------------------------------------------

local function change_headers(req, changes, change)
  for _, name in ipairs(changes.remove or {}) do change(req, name) end
  for _, pair in ipairs(changes.set or {}) do change(req, pair[1], pair[2]) end
  for _, pair in ipairs(changes.add or {}) do change(req, pair[1], pair[2], true) end
end

local function heed_retry_after(rules, req, res, native)
  local wait_ms = retry_after.of(res, native.now_wall_ms)
  if not wait_ms or wait_ms <= 0 then return end
  wait_ms = math.min(wait_ms, rules.cap_ms)
  if res.status == RATE_LIMITED and native.pause_key(req, wait_ms) then return end
  native.eject(res.target, wait_ms, "retry_after")
end

local function log_failure(rules, problem, native)
  local now_ms = native.now_ms()
  if now_ms - rules.logged_ms < LOG_EVERY_MS then return end
  rules.logged_ms = now_ms
  native.log("error", ("provider %s: health.unhealthy: %s"):format(rules.name, tostring(problem)))
end

--- As the core computes it for its own rules: longer each time, up to the maximum, jittered.
local function ejection_ms(rules, target, native)
  local grown_ms = rules.base_ms * (native.view(target).ejections + 1)
  return math.min(grown_ms, rules.max_ms) * (1 + rules.jitter_ratio * native.random())
end

local function ask_operator(rules, res, target, native)
  local ran, verdict = pcall(rules.unhealthy, res)
  if not ran then return log_failure(rules, verdict, native) end
  if verdict then native.eject(target, ejection_ms(rules, target, native), "unhealthy") end
end

local function apply(rules, req, res, target, native)
  local status = res.status
  if rules.retry_after and rules.retry_after[status] then
    heed_retry_after(rules, req, res, native)
  end
  if rules.auth and (rules.auth[status] or REFUSING[status] and refuses_key(res)) then
    native.refuse_key(req)
  end
  if rules.unhealthy then ask_operator(rules, res, target, native) end
end

--- Prepares a configuration's rules.
-- @tparam table deps
--
--  * config: the normalised configuration
--  * targets: target objects by their index in config.targets
--  * native: now_ms(), now_wall_ms(), random(), log(level, text), view(target) -> { ejections },
--    eject(target, ms, reason), refuse_key(req), pause_key(req, ms) -> boolean,
--    change_response_header(req, name, value or nil, add or nil)
--
-- @treturn ?function after_send(req, res, err), to be called with what a send has brought before
-- the policy sees it; may yield where an operator's function reads a body. `req.route` is the
-- route's name. Of failures only an error in place of an answer counts, that refuses a key. Nil
-- when there are no rules at all
function health.new(deps)
  local native = deps.native
  local by_target = rules_by_target(deps.config, deps.targets)
  local by_route = changes_by_route(deps.config)
  if not next(by_target) and not by_route then return nil end
  local statuses = statuses_of(by_target)

  return function(req, res, err)
    if res == nil then
      local rules = err and err.class == "auth" and by_target[err.target]
      if rules and rules.auth and err.status == 401 then native.refuse_key(req) end
      return
    end
    local changes = by_route and by_route[req.route]
    if changes then change_headers(req, changes, native.change_response_header) end
    local status = res.status
    if not statuses[status] then return end
    local target = res.target
    local rules = by_target[target]
    if rules then apply(rules, req, res, target, native) end
  end
end

return health
