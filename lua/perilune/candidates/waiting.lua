--- The waits of a request between targets: back-offs, for Retry-After, in a queue. Each leaves
-- enough of the deadline for a try, and ends before the route's retry_within, or is not begun.

local waiting = {}

-- A try with less time than this would only turn the last answer into a timeout.
local USEFUL_MS = 100
-- How often a queued request asks for its target, on average.
local POLL_MS = 4

--- The least time that a try is begun with.
waiting.USEFUL_MS = USEFUL_MS

--- How long waits before the next try may last: what the deadline leaves, and, for another try than
-- the first, what the route's retry_within does.
local function spare_ms(state)
  local req = state.req
  local left_ms = (req:remaining_ms() or math.huge) - USEFUL_MS
  if not state.within_ms or state.given_count == 0 then return left_ms end
  return math.min(left_ms, state.within_ms - req:elapsed_ms())
end

--- Whether there is time to begin another try.
-- @tparam table state of perilune.candidates.state; or a walk without one, of a route without
-- retry_within
function waiting.is_in_time(state)
  return spare_ms(state) >= 0
end

--- Waits, if there is time to.
-- @treturn boolean whether it did
function waiting.wait(state, deps, wait_ms)
  if spare_ms(state) < wait_ms then return false end
  state.waited = true
  if wait_ms <= 0 then return true end
  state.waited_to_ms = deps.now_ms() + wait_ms
  deps.sleep_ms(wait_ms)
  return true
end

--- The back-off of this pass, which counts as taken.
function waiting.backoff_ms(state, plan)
  state.rested = true
  state.wait_count = state.wait_count + 1
  return plan.retry:backoff_ms(state.wait_count, plan.deps.random)
end

--- Waits a moment in the queue of the best busy target, which it enters first.
-- @treturn boolean whether to look again; false ends the loop
function waiting.queue(state, plan)
  local deps = plan.deps
  if state.queued_slot == 0 then
    local target = plan.targets[state.busy_slot]
    local max_count, max_ms = deps.queue_limits(target)
    if max_count <= 0 or not deps.queue_enter(target, max_count) then
      deps.give_up("queue_full")
      return false
    end
    state.queued_slot = state.busy_slot
    state.queue_until_ms = state.queue_until_ms or deps.now_ms() + max_ms
  end
  local left_ms = math.min(state.queue_until_ms - deps.now_ms(), spare_ms(state))
  if left_ms <= 0 then
    deps.give_up("queue_timeout")
    return false
  end
  deps.sleep_ms(math.min(POLL_MS * (0.5 + deps.random()), left_ms))
  return true
end

--- Gives the place in the queue back, if there is one.
function waiting.leave_queue(state, plan)
  if state.queued_slot == 0 then return end
  plan.deps.queue_leave(plan.targets[state.queued_slot])
  state.queued_slot = 0
end

return waiting
