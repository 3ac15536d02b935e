--- The targets of a route, one after the other, as a policy should try them.
--
-- Order. A round walks the priorities, 0 first. At one priority it gives `retry.per_priority`
-- targets, by default as many as there are; which one of them is up to the route's balance
-- (perilune.balance). Targets that this request has not been given yet come before all others; then
-- those that were given longest ago. When per_priority is larger than the number of targets, they
-- are gone through again before the next priority is reached: the operator's explicit choice. After
-- the last priority the next round begins. Apart from that explicit choice, the target that was
-- given last is not given again while another one can be had.
--
-- Health. Only fit targets are given, and each is reserved for the request as it is given
-- (native.admit). Of a route's n targets no more than floor(n * max_ejection_ratio) count as out:
-- those whose time is farthest off; the others are given as if they were fit. When all are out, the
-- route's `panic` says what then: "use" forgets about health, which gives the highest priority
-- first; "fail" ends the loop.
--
-- Limits. A target that has as many requests under way as it may (busy) is passed over. When there
-- is no other, the request waits in the queue of the best one and looks at all of them again every
-- few milliseconds: whoever asks first gets the place that has come free. When the queue is full or
-- its time is up, the loop ends.
--
-- Waiting. A fit target that this request has not been given yet is given at once. Before targets
-- are given again there is one back-off per pass (a round, or a repetition by per_priority):
-- exponential in the number of back-offs so far, fully jittered, with a floor, see perilune.retry.
--
-- Retry-After. An answer 429 or 503 that names a time (perilune.retry_after) keeps its target out
-- of this request until then, while any other target may be given; this holds without health, too,
-- and in panic. When all are kept out, the earliest is waited for, and for no less than the
-- back-off. A target that has asked for a few seconds is waited for rather than that an ejected one
-- is used.
--
-- The last try. One that was too long for its target (class context_length) keeps this target out
-- of this request for good, and with it all that are known to have no more room (`context_tokens`
-- of both); where the route's reactions say "again", its target is given once more before all
-- others, after a back-off; and at once when it was refused for the key that it was sent with, and
-- its provider has another one. The class is the one that gw.classify has told the core.
--
-- Reserve. With `retry.reserve_ms` the core is told with each target how much of the time is for
-- others (perilune.candidates.reserve): the next try has so much less to begin its answer.
--
-- End. After `retry.attempts` targets; when the retry budget is used up, as any target after the
-- first counts as a retry (as in Envoy); when the work of the last try must not be asked for once
-- more (retry.allows); when what is left of the deadline, after a wait that may be due, is too
-- little for a try; or when another try would begin later than `retry.within_ms` after the
-- request. Then the policy still holds the last answer and can relay
-- it. Where it may hold none, because nothing could be given, the core is told why
-- (native.give_up). The first target is given whatever the deadline says. A route without targets
-- gives none.
--
-- The iterator counts what it has given, not what the policy did with it: a policy may break out,
-- skip a target, or send to targets of its own in between. What it knows of answers it reads from
-- `req.last` at each step. It holds nothing that must be released: reservations and places in
-- queues belong to the request and end with it.
--
-- Cost: the first target takes one small table, and by weight one random number and no look at any
-- other target. Where each priority has one target the next ones take no more, as long as each can
-- be had at once; what other steps need is made at the first of them. What can be known of a route
-- beforehand is prepared once and kept as long as the route lives.

local balance = require "perilune.balance"
local fitness = require "perilune.candidates.fitness"
local make_plan = require("perilune.candidates.plan").new
local reserve = require "perilune.candidates.reserve"
local round = require "perilune.candidates.round"
local states = require "perilune.candidates.state"
local waiting = require "perilune.candidates.waiting"

local candidates = {}

local LABEL = "perilune.candidates"

--- Looks at the targets: as health allows, else as the route's `panic` does.
-- @treturn ?table the target, reserved
-- @treturn ?boolean true when the back-off is due before
-- @treturn ?boolean true when all are out and the route prefers to fail
local function look(state, plan)
  states.look_again(state)
  if plan.is_limited then fitness.spare(state, plan) end
  local target, due = round.look(state, plan)
  if target or due or not fitness.all_are_out(state, plan) then return target, due end
  if fitness.is_ready_soon(state, plan) then return nil end
  if plan.panic == "fail" then return nil, nil, true end
  states.look_again(state)
  state.panic = true
  return round.look(state, plan)
end

--- Waits until one may be given.
-- @treturn boolean false when the wait does not fit, or nobody knows how long it would be
local function wait_for_any(state, plan, due)
  if due then return waiting.wait(state, plan.deps, waiting.backoff_ms(state, plan)) end
  local until_ms = fitness.until_any_ms(state, plan)
  if not until_ms then return false end
  round.begin(state, plan)
  local wait_ms = math.max(waiting.backoff_ms(state, plan), until_ms, 1)
  return waiting.wait(state, plan.deps, wait_ms)
end

--- Finds the next target, whatever waits it takes. May leave the request in a queue.
local function search(state, plan)
  while true do
    local target, due, fails = look(state, plan)
    if target then return target end
    if fails then
      plan.deps.give_up("all_ejected", fitness.until_any_ms(state, plan))
      return nil
    end
    if not due and state.busy_slot > 0 then
      if not waiting.queue(state, plan) then return nil end
    else
      waiting.leave_queue(state, plan)
      if not wait_for_any(state, plan, due) then return nil end
    end
  end
end

--- Gives the last target once more, when that is due and it can be had.
local function repeat_last(state, plan)
  local slot = state.again_slot
  if not slot then return nil end
  local deps, target = plan.deps, plan.targets[slot]
  state.again_slot = nil
  states.look_again(state)
  if not fitness.is_fit(state, slot, deps, target) then return nil end
  if state.ready_ms and not fitness.is_ready(state, slot, states.now_ms(state, deps)) then
    return nil
  end
  if state.again_rests and not waiting.wait(state, deps, waiting.backoff_ms(state, plan)) then
    return nil
  end
  if not deps.admit(target, false) then return nil end
  return states.record_again(state, plan, slot)
end

--- Any step but a plain first one.
local function advance(state, plan)
  if state.given_count >= plan.attempts then return nil end
  states.learn(state, plan)
  if state.given_count > 0 then
    local budget = plan.budget
    if not waiting.is_in_time(state) then return nil end
    if budget and not plan.deps.retry_allowed(budget.ratio, budget.min_count) then return nil end
  end
  local target = repeat_last(state, plan) or search(state, plan)
  waiting.leave_queue(state, plan)
  if state.queue_until_ms then state.queue_until_ms = nil end
  return target
end

--- A plain first step: no state, no look at more targets than it takes. Nil when it is not plain.
local function first(walk, plan)
  if walk.req.last ~= nil or plan.is_limited then return nil end
  local deps, group = plan.deps, plan.groups[1]
  local position = balance.first(group, deps, walk.req)
  if not position then return nil end
  local target = group.targets[position]
  if not deps.admit(target, false) then return nil end
  walk.last_slot = group.slots[position]
  return target
end

--- A plain further step, of a chain: no state, either. Nil when it is not plain.
local function follow(walk, plan)
  local slot, deps, budget = walk.last_slot + 1, plan.deps, plan.budget
  if slot > plan.count or slot > plan.attempts or states.asks_to_wait(walk.req) then return nil end
  if not states.is_plain(plan) then return nil end
  if not waiting.is_in_time(walk) then return nil end
  if budget and not deps.retry_allowed(budget.ratio, budget.min_count) then return nil end
  local target = plan.targets[slot]
  if not deps.admit(target, false) then return nil end
  walk.last_slot = slot
  return target
end

local function plain_step(walk, plan)
  if walk.last_slot == 0 then return first(walk, plan) end
  return plan.is_chain and not plan.within_ms and follow(walk, plan)
end

--- A step that waits for nothing, to a target that has not been given yet and is fit and free.
local function step_at_once(walk, plan)
  if plan.count == 0 then return nil end
  local state = walk.state or states.new(plan, walk.req, walk.last_slot)
  local budget = plan.budget
  walk.state = state
  if state.untried == 0 or state.given_count >= plan.attempts then return nil end
  if not waiting.is_in_time(state) then return nil end
  if budget and not plan.deps.retry_allowed(budget.ratio, budget.min_count) then return nil end
  states.look_again(state)
  local target = round.look(state, plan)
  if target and plan.reserve_ms then reserve.note(walk, plan) end
  return target
end

--- A walk is { route, req, last_slot, state }: last_slot as long as there is no state.
local function next_target(walk, plan)
  if not plan.allows() then
    if walk.last_slot == 0 and not walk.state then plan.deps.give_up("work_uncertain") end
    return nil
  end
  if not walk.state then
    if plan.count == 0 then return nil end
    local target = plain_step(walk, plan)
    if target then return target end
    walk.state = states.new(plan, walk.req, walk.last_slot)
  end
  return advance(walk.state, plan)
end

local function step(walk, plan)
  local target = next_target(walk, plan)
  if target and plan.reserve_ms then reserve.note(walk, plan) end
  return target
end

--- Makes the `candidates` function of the public module.
-- @tparam table deps
--
--  * now_ms(), now_wall_ms(), random() -> [0, 1), sleep_ms(ms), current() -> req
--  * is_fit(target), admit(target, forced) -> true | nil, "out" | "busy", load(target),
--    out_until_ms(target) -> time or nil, retry_allowed(ratio, min_count)
--  * last_try() -> which try of the request it was, target.index, class, status, and whether its
--    target can be had with another key at once; nothing when there was none
--  * queue_limits(target) -> places, ms; queue_enter(target, places) -> boolean;
--    queue_leave(target); give_up(code, retry_after_ms or nil)
--  * keep_ms(ms): how much of the time the next try must leave for others
--
-- as perilune.native has them.
-- @treturn function candidates(route) -> iterator
-- @treturn table what perilune.hedge does with iterators: is_walk(value), at_once(walk) -> target
-- or nil, and note(walk): reads the last answer, which the policy will not see
function candidates.new(deps)
  local plans = setmetatable({}, { __mode = "k" })

  local function plan_of(route)
    if type(route) ~= "table" or type(route.retry) ~= "table" then
      error("perilune.candidates: a route is expected", 3)
    end
    return make_plan(route, deps)
  end

  -- what walks share is out of the policies' reach
  local Walk = {
    __call = function(walk) return step(walk, plans[walk.route]) end,
    __metatable = LABEL,
  }

  --- Iterates over the targets to try: `for target in gw.candidates(route) do`.
  -- Yields where it waits. The order, the waits and the end are described at the head of this file.
  -- @tparam table route the policy's route, or a table with its own `targets` and a `retry`, and if
  -- wanted `balance`, `panic` and `max_ejection_ratio`
  -- @treturn function-like each call gives a target, or nil at the end
  local function walk_over(route)
    if not plans[route] then plans[route] = plan_of(route) end
    local walk = { route = route, req = deps.current(), last_slot = 0, state = false }
    return setmetatable(walk, Walk)
  end

  return walk_over, {
    is_walk = function(value) return getmetatable(value) == LABEL end,
    at_once = function(walk) return step_at_once(walk, plans[walk.route]) end,
    note = function(walk)
      if walk.state then states.learn(walk.state, plans[walk.route]) end
    end,
  }
end

return candidates
