--- What is tried again, how often, and after which wait: one object per route.
--
-- A list of triggers holds statuses (429), hundreds of them ("5xx"), outcome classes ("billing")
-- and the groups "connect", "reset" and "timeout" of perilune.classify. A list is compiled to a set
-- once; lists that policies pass in are remembered by identity, so write them as constants.
--
-- A route's reactions stand above every list: trigger -> "again" (the same target once more, then
-- the next), "next" or "give_up". Of several that fit, a status counts before a class, a class
-- before a group, and hundreds come last.
--
-- The statuses of a policy's list do not stand for filtered content, which is for the client to
-- know: that takes the class, or the operator's own list.
--
-- `ok` and `timeout_deadline` never call for another try, whatever a list says by status; nor does
-- a try whose work the operator does not want repeated (`uncertain`, `partly_generated`).

local classify = require "perilune.classify"
local frozen = require "perilune.frozen"

local retry = {}

local NEVER = { ok = true, timeout_deadline = true }

--- What can be done about an outcome, in the order of perilune.schema.
retry.REACTIONS = { "again", "next", "give_up" }

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

--- Sorts reactions by what they hang on, once.
local function compile_reactions(reactions)
  if not reactions or not next(reactions) then return nil end
  local self = { status = {}, class = {}, hundred = {} }
  for _, wants_group in ipairs { true, false } do -- groups first: a class of its own replaces them
    for trigger, reaction in pairs(reactions) do
      local part, _, message = retry.expand(trigger)
      if not part then error("perilune.retry: reactions: " .. message, 3) end
      if (classify.GROUPS[trigger] ~= nil) == wants_group then
        for key in pairs(part) do
          local where = type(key) == "string" and self.class or key < 10 and self.hundred
            or self.status
          where[key] = reaction
        end
      end
    end
  end
  return self
end

local function reaction_of(reactions, class, status)
  if not reactions then return nil end
  return status and reactions.status[status] or reactions.class[class]
    or status and reactions.hundred[math.floor(status / 100)] or nil
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
-- the request's start; later no further try begins; nil for no limit), `uncertain` and
-- `partly_generated` (whether such work may be repeated), `wants`, `reaction`, `allows` and
-- `backoff_ms`. It is read-only.
-- @tparam table options attempts, per_priority, budget, on, reactions, uncertain,
-- partly_generated, base_ms, max_ms, floor_ms, reserve_ms, within_ms
-- @tparam[opt] function last_work() -> what the upstream did for the last try of the request at
-- hand: "not_sent", "refused", "uncertain", "partly_generated", or nil
-- @treturn table
function retry.new(options, last_work)
  local limits = {}
  for name, default in pairs(DEFAULTS) do limits[name] = options[name] or default end
  local own_set = options.on and compile(options.on, 2)
  local reactions = compile_reactions(options.reactions)
  local forbidden = { uncertain = options.uncertain == false,
    partly_generated = options.partly_generated == false }
  local asks_for_work = last_work ~= nil and (forbidden.uncertain or forbidden.partly_generated)
  local self = { attempts = limits.attempts, per_priority = options.per_priority,
    budget = options.budget and frozen.view("perilune.retry.budget", options.budget),
    reserve_ms = options.reserve_ms, within_ms = options.within_ms,
    uncertain = not forbidden.uncertain, partly_generated = not forbidden.partly_generated }

  --- Whether the work of the last try of the request at hand may be asked for once more.
  -- @treturn boolean
  function self.allows()
    return not asks_for_work or not forbidden[last_work()]
  end

  --- What the route's reactions say of an outcome.
  -- @tparam string class
  -- @tparam ?number status
  -- @treturn ?string one of retry.REACTIONS; nil when they do not mention it
  function self.reaction(_, class, status)
    return reaction_of(reactions, class, status)
  end

  --- Whether an outcome calls for another try. The route's reactions decide, then its own list,
  -- when it has one; else `default_on`; else the library's.
  -- @tparam string class
  -- @tparam ?number status nil for failures without an answer
  -- @tparam[opt] table default_on the policy's list of triggers
  -- @treturn boolean
  function self.wants(_, class, status, default_on)
    check_status(status)
    local set = own_set or set_of(default_on)
    if NEVER[class] or not self.allows() then return false end
    local reaction = reaction_of(reactions, class, status)
    if reaction then return reaction ~= "give_up" end
    if set[class] then return true end
    if class == "content_filter" and not own_set then return false end
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
