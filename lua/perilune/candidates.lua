--- The targets of a route, one after the other, as a policy should try them.
--
-- Order. A round walks the priorities, 0 first. At one priority it gives `retry.per_priority`
-- targets, by default as many as there are, in a weighted random order without replacement; those
-- that this request has been given less often come first, and weight 0 comes after all others of
-- its priority. When per_priority is larger than the number of targets, they are gone through
-- again before the next priority is reached: the operator's explicit choice. After the last
-- priority the next round begins, in a new order.
--
-- Waiting. A target that this request has not been given yet is given at once. Before targets are
-- given again there is one back-off per pass (a round, or a repetition by per_priority):
-- exponential in the number of back-offs so far, fully jittered, with a floor, see perilune.retry.
--
-- Retry-After. An answer 429 or 503 that names a time (perilune.retry_after) keeps its target out
-- until then, while any other target may be given. When all are kept out, the earliest is waited
-- for, and for no less than the back-off.
--
-- End. After `retry.attempts` targets, or when what is left of the deadline, after a wait that may
-- be due, is too little for a try: then the policy still holds the last answer and can relay it.
-- The first target is given whatever the deadline says. A route without targets gives none.
--
-- The iterator counts what it has given, not what the policy did with it: a policy may break out,
-- skip a target, or send to targets of its own in between. What it knows of answers it reads from
-- `req.last` at each step. It holds nothing that must be released, and nothing that is shared with
-- other requests can be reached through it.
--
-- Cost: the first target takes one table and one random number. What can be known of a route
-- beforehand is prepared once and kept as long as the route lives.

local balance = require "perilune.balance"
local retry_after = require "perilune.retry_after"

local candidates = {}

-- A try with less time than this would only turn the last answer into a timeout.
local USEFUL_MS = 100
local ASKS_TO_WAIT = { [429] = true, [503] = true }

-- ---- the plan of a route -------------------------------------------------------------------

local function by_priority(a, b)
  return a.priority < b.priority
end

--- Sorts targets into one list per priority, best first.
local function make_levels(targets)
  local levels, level_of = {}, {}
  for _, target in ipairs(targets) do
    local priority = target.priority or 0
    local level = level_of[priority]
    if not level then
      level = { priority = priority, targets = {} }
      level_of[priority] = level
      levels[#levels + 1] = level
    end
    level.targets[#level.targets + 1] = target
  end
  table.sort(levels, by_priority)
  return levels
end

local function make_plan(route)
  local retry = route.retry
  local plan = { retry = retry, attempts = retry.attempts, groups = {}, indexes = {} }
  for number, level in ipairs(make_levels(route.targets)) do
    local group = balance.group(level.targets)
    group.indexes = {}
    for position, target in ipairs(group.targets) do
      group.indexes[position] = target.index
      plan.indexes[#plan.indexes + 1] = target.index
    end
    group.quota = math.max(retry.per_priority or group.count, 1)
    plan.groups[number] = group
  end
  return plan
end

-- ---- one request's walk --------------------------------------------------------------------
--
-- A walk is { route, req, given_count, first_index } until its second step, which adds:
--   given_times   index -> how often this request was given it
--   pass, pass_of the number of this pass; index -> in which pass it was given last
--   rested        this pass has had its back-off (the first needs none)
--   wait_count    back-offs so far
--   ready_ms      index -> not before that time, from Retry-After
--   group_number, quota_left   where in the round it is
--   seen          the last answer that was looked at

--- Notes the Retry-After of the last answer, once per answer.
local function learn(walk, deps, now_ms)
  local res = walk.req.last
  if res == nil or res == walk.seen then return end
  walk.seen = res
  local target = ASKS_TO_WAIT[res.status] and res.target
  if not target then return end
  local headers = res.headers
  local function get(name) return headers[name] end
  local wait_ms = retry_after.parse(get, deps.now_wall_ms())
  walk.ready_ms[target.index] = wait_ms and now_ms + wait_ms
end

local function is_ready(walk, index, now_ms)
  return (walk.ready_ms[index] or now_ms) <= now_ms
end

--- Waits if the deadline leaves enough for a try afterwards.
-- @treturn ?number the time then, nil when the wait does not fit
local function wait(walk, deps, now_ms, wait_ms)
  local remaining_ms = walk.req:remaining_ms() or math.huge
  if remaining_ms - wait_ms < USEFUL_MS then return nil end
  if wait_ms <= 0 then return now_ms end
  deps.sleep_ms(wait_ms)
  return math.max(deps.now_ms(), now_ms + wait_ms) -- timers may be early by a little
end

local function next_backoff_ms(walk, deps, plan)
  walk.rested = true
  walk.wait_count = walk.wait_count + 1
  return plan.retry:backoff_ms(walk.wait_count, deps.random)
end

--- Positions of a group that may be given now: ready, not yet in this pass, least often given.
local function eligible(walk, group, now_ms)
  local allowed, fewest = {}, math.huge
  for position = 1, group.count do
    local index = group.indexes[position]
    local times = walk.given_times[index] or 0
    if times <= fewest and walk.pass_of[index] ~= walk.pass and is_ready(walk, index, now_ms) then
      if times < fewest then allowed, fewest = {}, times end
      allowed[position] = true
    end
  end
  return allowed
end

--- Draws from a group, beginning a repetition where per_priority asks for one.
local function draw(walk, deps, group, now_ms)
  local position = balance.draw(group, eligible(walk, group, now_ms), deps.random)
  if position or group.quota <= group.count then return position end
  walk.pass = walk.pass + 1
  position = balance.draw(group, eligible(walk, group, now_ms), deps.random)
  if position then walk.rested = false end
  return position
end

--- The next target within this round.
-- @treturn ?table group, nil when the round is over
-- @treturn ?number position in it
local function draw_in_round(walk, deps, plan, now_ms)
  local group = plan.groups[walk.group_number]
  while group do
    local position = walk.quota_left > 0 and draw(walk, deps, group, now_ms)
    if position then return group, position end
    walk.group_number = walk.group_number + 1
    group = plan.groups[walk.group_number]
    walk.quota_left = group and group.quota
  end
  return nil
end

--- The time before which no target may be given, or nil when one that is new to this request may
-- be given now and no wait is due.
local function earliest_ms(walk, plan, now_ms)
  local earliest = math.huge
  for _, index in ipairs(plan.indexes) do
    local ready = is_ready(walk, index, now_ms)
    if ready and not walk.given_times[index] then return nil end
    earliest = math.min(earliest, ready and now_ms or walk.ready_ms[index])
  end
  return earliest
end

--- Begins the next round, after the wait that is due.
-- @treturn ?number the time then, nil when the wait does not fit
local function begin_round(walk, deps, plan, now_ms)
  walk.pass, walk.rested = walk.pass + 1, false
  walk.group_number, walk.quota_left = 1, plan.groups[1].quota
  local earliest = earliest_ms(walk, plan, now_ms)
  if not earliest then return now_ms end
  local wait_ms = math.max(next_backoff_ms(walk, deps, plan), earliest - now_ms)
  return wait(walk, deps, now_ms, wait_ms)
end

local function give(walk, group, position)
  local index = group.indexes[position]
  walk.given_count = walk.given_count + 1
  walk.given_times[index] = (walk.given_times[index] or 0) + 1
  walk.pass_of[index] = walk.pass
  walk.quota_left = walk.quota_left - 1
  return group.targets[position]
end

--- Any step but a plain first one.
local function advance(walk, deps, plan)
  local now_ms = deps.now_ms()
  learn(walk, deps, now_ms)
  if walk.given_count > 0 and not wait(walk, deps, now_ms, 0) then return nil end
  local group, position = draw_in_round(walk, deps, plan, now_ms)
  while not group do
    now_ms = begin_round(walk, deps, plan, now_ms)
    if not now_ms then return nil end
    group, position = draw_in_round(walk, deps, plan, now_ms)
  end
  if walk.given_times[group.indexes[position]] and not walk.rested
    and not wait(walk, deps, now_ms, next_backoff_ms(walk, deps, plan)) then
    return nil
  end
  return give(walk, group, position)
end

--- Adds what only a second step needs.
local function unfold(walk, plan)
  local first = walk.first_index
  walk.given_times, walk.pass_of, walk.ready_ms = {}, {}, {}
  walk.pass, walk.rested, walk.wait_count = 1, true, 0
  walk.group_number, walk.quota_left = 1, plan.groups[1].quota
  if not first then return end
  walk.given_times[first], walk.pass_of[first] = 1, 1
  walk.quota_left = walk.quota_left - 1
end

local function step(walk, deps, plan)
  if walk.given_count >= plan.attempts or not plan.groups[1] then return nil end
  if walk.given_count == 0 and walk.req.last == nil then
    local group = plan.groups[1]
    local position = balance.first(group, deps.random)
    walk.given_count, walk.first_index = 1, group.indexes[position]
    return group.targets[position]
  end
  if not walk.given_times then unfold(walk, plan) end
  return advance(walk, deps, plan)
end

--- Makes the `candidates` function of the public module.
-- @tparam table deps now_ms(), now_wall_ms(), random() -> [0, 1), sleep_ms(ms), current() -> req
-- @treturn function candidates(route) -> iterator
function candidates.new(deps)
  local plans = setmetatable({}, { __mode = "k" })

  local function plan_of(route)
    local plan = plans[route]
    if not plan then
      plan = make_plan(route)
      plans[route] = plan
    end
    return plan
  end

  local Walk = {
    __call = function(walk) return step(walk, deps, plan_of(walk.route)) end,
    __metatable = "perilune.candidates",
  }

  --- Iterates over the targets to try: `for target in gw.candidates(route) do`.
  -- Yields where it waits. The order, the waits and the end are described at the head of this file.
  -- @tparam table route the policy's route, or a table with its own `targets` and a `retry`
  -- @treturn function-like each call gives a target, or nil at the end
  return function(route)
    if type(route) ~= "table" or type(route.retry) ~= "table" then
      error("perilune.candidates: a route is expected", 2)
    end
    return setmetatable({ route = route, req = deps.current(), given_count = 0 }, Walk)
  end
end

return candidates
