--- A route's own classes: what perilune.classify says of an outcome, corrected by the operator.
--
-- The first of these that has a say decides:
--
--  1. `decide`, a function(res, err, class) that gives a class, or nil for no opinion. It may read
--     the body of an error; to read that of a good answer is to wait for its end. An error in it is
--     logged, and counts as no opinion
--  2. `code`: the codes and types that the error names, lower case, the more specific ones first
--  3. `status`: that of the answer, or of the error that came in place of one
--  4. `class`: another name for one of our own
--
-- An outcome is judged once, as the send that has brought it ends: its class is the one that the
-- health of the target, log, metrics, retries and policies get. A passed deadline stays one, and
-- what is no answer cannot be made a good one.

local classify = require "perilune.classify"

local classes = {}

local LOG_EVERY_MS = 1000

--- The classes that an outcome can be made: those that say something of an answer.
classes.CHOICES = {
  "ok", "rate_limited", "auth", "billing", "model_not_found", "context_length", "content_filter",
  "client_fault", "overloaded", "server_error",
}
local IS_CHOICE = {}
for _, name in ipairs(classes.CHOICES) do IS_CHOICE[name] = true end

local function lower_keys(map)
  local lower = {}
  for code, class in pairs(map or {}) do lower[code:lower()] = class end
  return next(lower) and lower
end

--- Prepares a route's rules; nil when there are none.
local function make_rules(entry)
  local own = entry.classes
  if not own then return nil end
  return { route = entry.name, decide = own.decide, code = lower_keys(own.code),
    status = own.status or {}, class = own.class or {}, logged_ms = -math.huge }
end

local function log_failure(rules, problem, native)
  local now_ms = native.now_ms()
  if now_ms - rules.logged_ms < LOG_EVERY_MS then return end
  rules.logged_ms = now_ms
  native.log("error", ("route %s: classes.decide: %s"):format(rules.route, tostring(problem)))
end

local function ask_operator(rules, res, err, class, native)
  local ran, own = pcall(rules.decide, res, err, class)
  if not ran then return log_failure(rules, own, native) end
  if own == nil or own == false or IS_CHOICE[own] then return own end
  log_failure(rules, "gives what is no outcome class: " .. tostring(own), native)
end

local function by_code(rules, res, said)
  if not rules.code or res and res.status < 400 then return nil end
  for _, code in ipairs(classify.codes_of(res, said)) do
    if rules.code[code] then return rules.code[code] end
  end
  return nil
end

local function judge(rules, res, err, said, native)
  local class, status = classify.classify(res, err)
  if class == "timeout_deadline" then return class end
  local own = rules.decide and ask_operator(rules, res, err, class, native)
    or (res or said) and by_code(rules, res, said)
    or status and rules.status[status] or rules.class[class]
  if not own or own == "ok" and not res then return class end
  return own
end

--- Prepares a configuration's rules.
-- @tparam table config normalised
-- @tparam table native now_ms(), log(level, text)
-- @treturn ?table nil when no route has any
--
--  * judge(req, res, err, said): the class of what a send has brought; nil when the request's route
--    leaves that to perilune.classify. `said`: what came in place of an answer, decoded. May yield
--    where `decide` reads a body. err.class becomes that class
--  * classify(res, err): as perilune.classify has it, but what was judged stays as it was judged
function classes.new(config, native)
  local by_route = {}
  for _, entry in ipairs(config.routes) do by_route[entry.name] = make_rules(entry) end
  if not next(by_route) then return nil end
  local judged = setmetatable({}, { __mode = "k" })
  local self = {}

  function self.judge(req, res, err, said)
    local rules = by_route[req.route]
    if not rules then return nil end
    local class = judge(rules, res, err, said, native)
    judged[res or err] = class
    if err then err.class = class end
    return class
  end

  function self.classify(res, err)
    local class, status = classify.classify(res, err)
    local outcome = res or err
    return outcome ~= nil and judged[outcome] or class, status
  end

  return self
end

return classes
