--- What happens to an answer between its arrival and the policy's judgement of it.
--
-- In this order, so that a Retry-After which the route adds itself counts:
--
--  1. the route's `response.headers`: removes, sets and adds headers of the answer
--  2. health.retry_after of the provider: a status of its list with a time in its headers
--     (perilune.retry_after) keeps the target out until then, at most for its cap
--  3. health.auth: a status that refuses our own key keeps out the whole provider, as all its
--     targets use that key. Never where clients bring their own
--  4. health.unhealthy: the operator's function has the last word on an answer; true ejects the
--     target. An error in it is logged, and the answer counts as healthy. It may read the body of
--     an error; to read that of a good answer is to wait for its end
--
-- Failures without an answer have no headers and no status: the core counts them on its own.
--
-- Rules are prepared once per configuration. Where there are none the core need not call at all;
-- an answer that concerns no rule costs one look at its status.

local retry_after = require "perilune.retry_after"

local health = {}

-- An operator's function that fails does so for every answer: one line a second will do.
local LOG_EVERY_MS = 1000

-- ---- rules ---------------------------------------------------------------------------------

local function set_of(list)
  local set = {}
  for _, status in ipairs(list or {}) do set[status] = true end
  return next(set) and set
end

--- The rules for a provider's answers, nil when it has none.
local function make_rules(provider)
  local own = provider.health or {}
  local rules = {
    name = provider.name, retry_after = own.retry_after and set_of(own.retry_after.statuses),
    cap_ms = own.retry_after and own.retry_after.cap_ms,
    auth = provider.auth == "key" and set_of(own.auth_statuses),
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

local function heed_retry_after(rules, res, target, native)
  local wait_ms = retry_after.of(res, native.now_wall_ms)
  if not wait_ms or wait_ms <= 0 then return end
  native.eject(target, math.min(wait_ms, rules.cap_ms), "retry_after")
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

local function apply(rules, res, status, target, native)
  if rules.retry_after and rules.retry_after[status] then
    heed_retry_after(rules, res, target, native)
  end
  if rules.auth and rules.auth[status] then
    native.eject_provider(target, rules.base_ms, "auth")
  end
  if rules.unhealthy then ask_operator(rules, res, target, native) end
end

--- Prepares a configuration's rules.
-- @tparam table deps
--
--  * config: the normalised configuration
--  * targets: target objects by their index in config.targets
--  * native: now_ms(), now_wall_ms(), random(), log(level, text), view(target) -> { ejections },
--    eject(target, ms, reason), eject_provider(target, ms, reason),
--    change_response_header(req, name, value or nil, add or nil)
--
-- @treturn ?function after_send(req, res, err), to be called with what a send has brought before
-- the policy sees it; may yield where an operator's function reads a body. `req.route` is the
-- route's name. Nil when there are no rules at all
function health.new(deps)
  local native = deps.native
  local by_target = rules_by_target(deps.config, deps.targets)
  local by_route = changes_by_route(deps.config)
  if not next(by_target) and not by_route then return nil end
  local statuses = statuses_of(by_target)

  return function(req, res)
    if res == nil then return end
    local changes = by_route and by_route[req.route]
    if changes then change_headers(req, changes, native.change_response_header) end
    local status = res.status
    if not statuses[status] then return end
    local target = res.target
    local rules = by_target[target]
    if rules then apply(rules, res, status, target, native) end
  end
end

return health
