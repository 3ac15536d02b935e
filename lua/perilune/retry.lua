--- What is tried again, how often, and after which wait: one object per route.
--
-- A list of triggers holds statuses (429), hundreds of them ("5xx"), outcome classes ("billing")
-- and the groups "connect", "reset" and "timeout" of perilune.classify. A list is compiled to a set
-- once; lists that policies pass in are remembered by identity, so write them as constants.
--
-- `ok` and `timeout_deadline` never call for another try, whatever a list says by status.

local classify = require "perilune.classify"
local frozen = require "perilune.frozen"

local retry = {}

local NEVER = { ok = true, timeout_deadline = true }

--- The triggers when neither the route nor the policy names any.
retry.DEFAULT_ON = {
  "rate_limited", "auth", "billing", "model_not_found", "context_length", "overloaded",
  "server_error", "connect", "reset", "timeout", "malformed", "empty",
}
local DEFAULTS = { attempts = 5, base_ms = 100, max_ms = 10000, floor_ms = 25 }

--- Whether one entry of a trigger list means anything.
-- @param entry
-- @treturn[1] table set that the entry adds to: statuses, hundreds (1..5) and classes -> true
-- @treturn[2] nil
-- @treturn[2] string "bad_trigger"
-- @treturn[2] string what is wrong with it
function retry.expand(entry)
  if type(entry) == "number" then
    if entry % 1 == 0 and entry >= 300 and entry <= 599 then return { [entry] = true } end
    return nil, "bad_trigger", "status " .. tostring(entry) .. " is not within 300 to 599"
  end
  if type(entry) ~= "string" then
    return nil, "bad_trigger", "a trigger is a status or a name, not a " .. type(entry)
  end
  local hundred = entry:match("^([345])xx$")
  if hundred then return { [tonumber(hundred)] = true } end
  if classify.GROUPS[entry] then return classify.GROUPS[entry] end
  if NEVER[entry] then return nil, "bad_trigger", "\"" .. entry .. "\" can never be tried again" end
  if classify.CLASSES[entry] then return { [entry] = true } end
  return nil, "bad_trigger", "\"" .. entry .. "\" is neither an outcome class nor a group"
end

local function compile(list, level)
  if type(list) ~= "table" then
    error("perilune.retry: a list of triggers is expected, not a " .. type(list), level + 1)
  end
  local set = {}
  for position, entry in ipairs(list) do
    local part, _, message = retry.expand(entry)
    if not part then
      error("perilune.retry: trigger " .. position .. ": " .. message, level + 1)
    end
    for key in pairs(part) do set[key] = true end
  end
  return set
end

local default_set = compile(retry.DEFAULT_ON, 1)
local sets_by_list = setmetatable({}, { __mode = "k" })

local function set_of(list)
  if list == nil then return default_set end
  local set = sets_by_list[list]
  if not set then
    set = compile(list, 3)
    sets_by_list[list] = set
  end
  return set
end

local function check_status(status)
  if status == nil or type(status) == "number" then return end
  error("perilune.retry: wants(class, status, list): the status is a " .. type(status)
    .. "; write local class, status = gw.classify(res, err)", 3)
end

--- The wait before the n-th repetition: exponential, fully jittered, never below the floor.
local function backoff_ms(limits, n, random)
  local lowest_ms = math.min(limits.floor_ms, limits.max_ms)
  local highest_ms = math.min(limits.max_ms, limits.base_ms * 2 ^ (n - 1))
  if highest_ms <= lowest_ms then return lowest_ms end
  return lowest_ms + random() * (highest_ms - lowest_ms)
end

--- Makes a route's retry object: `attempts` (tries in all), `per_priority` (tries at one priority
-- in a round, nil for as many as it has targets), `budget` ({ ratio, min_count }, nil for none),
-- `reserve_ms` (kept for each target that may still be tried, nil for nothing), `within_ms` (since
-- the request's start; later no further try begins; nil for no limit), `wants` and `backoff_ms`. It
-- is read-only.
-- @tparam table options attempts, per_priority, budget, on, base_ms, max_ms, floor_ms, reserve_ms,
-- within_ms
-- @treturn table
function retry.new(options)
  local limits = {}
  for name, default in pairs(DEFAULTS) do limits[name] = options[name] or default end
  local own_set = options.on and compile(options.on, 2)
  local self = { attempts = limits.attempts, per_priority = options.per_priority,
    budget = options.budget and frozen.view("perilune.retry.budget", options.budget),
    reserve_ms = options.reserve_ms, within_ms = options.within_ms }

  --- Whether an outcome calls for another try. The route's own list, when it has one, decides;
  -- else `default_on`; else the library's.
  -- @tparam string class
  -- @tparam ?number status nil for failures without an answer
  -- @tparam[opt] table default_on the policy's list of triggers
  -- @treturn boolean
  function self.wants(_, class, status, default_on)
    check_status(status)
    local set = own_set or set_of(default_on)
    if NEVER[class] then return false end
    if set[class] then return true end
    return status ~= nil and (set[status] or set[math.floor(status / 100)]) or false
  end

  --- How long to wait before the n-th repetition.
  -- @tparam number n 1, 2, ...
  -- @tparam function random random() -> [0, 1)
  -- @treturn number milliseconds
  function self.backoff_ms(_, n, random)
    return backoff_ms(limits, n, random)
  end

  return frozen.view("perilune.retry", self)
end

return retry
