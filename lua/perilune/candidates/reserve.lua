--- How much of a request's time is kept for the targets that may still be tried: the route's
-- `reserve` for each of them, so that one that is slow to answer leaves the others a chance.
--
-- Who may still be tried: fit targets that this request has not been given yet, as many as there
-- are attempts left. When there is too little time for all, each gets an equal share of it, but
-- nobody less than a try is begun with (waiting.USEFUL_MS): then there are fewer of them. With
-- `retry_within` the last of them must also begin before that, or it would not have its chance.

local waiting = require "perilune.candidates.waiting"

local reserve = {}

local USEFUL_MS = waiting.USEFUL_MS

--- Whether the target of a slot has been given, and how many have; of a walk without a state.
local function given_plainly(walk, plan)
  local first = plan.is_chain and 1 or walk.last_slot
  return function(slot) return slot >= first and slot <= walk.last_slot end,
    walk.last_slot - first + 1
end

local function given_of(walk, plan)
  local state = walk.state
  if not state then return given_plainly(walk, plan) end
  return function(slot) return state[slot] > 0 end, state.given_count
end

--- How many others may still be tried.
local function count_others(walk, plan)
  local is_given, given_count = given_of(walk, plan)
  local count, max_count = 0, plan.attempts - given_count
  for slot = 1, plan.count do
    if count >= max_count then break end
    if not is_given(slot) and plan.deps.is_fit(plan.targets[slot]) then count = count + 1 end
  end
  return count
end

--- How much of the time that is left is for others.
-- @tparam number left_ms until the deadline
-- @tparam number elapsed_ms since the request's start
-- @tparam number count of the others
-- @tparam table options reserve_ms, within_ms or nil
-- @treturn number milliseconds
function reserve.keep_ms(left_ms, elapsed_ms, count, options)
  -- when the last of the others must begin; timers are late by a little
  local begin_ms = options.within_ms and options.within_ms - elapsed_ms - USEFUL_MS or math.huge
  count = math.min(count, math.floor(left_ms / USEFUL_MS) - 1, math.floor(begin_ms / USEFUL_MS))
  if count <= 0 then return 0 end
  local each_ms = math.min(options.reserve_ms, left_ms / (count + 1), begin_ms / count)
  if begin_ms == math.huge then return count * each_ms end
  return math.max(count * each_ms, left_ms - begin_ms + (count - 1) * each_ms)
end

--- Tells the core how much the next try must leave.
-- @tparam table walk of perilune.candidates, which has just given a target
-- @tparam table plan with reserve_ms
function reserve.note(walk, plan)
  local req = walk.req
  local left_ms = req:remaining_ms() or math.huge
  plan.deps.keep_ms(reserve.keep_ms(left_ms, req:elapsed_ms(), count_others(walk, plan), plan))
end

return reserve
