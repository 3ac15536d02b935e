--- The order of targets: rounds over the priorities, see perilune.candidates.
--
-- A draw gives a target, reserved, or says that there is one but the back-off is due before.

local balance = require "perilune.balance"
local fitness = require "perilune.candidates.fitness"
local record = require("perilune.candidates.state").record
local now_ms_of = require("perilune.candidates.state").now_ms

local is_fit, is_ready = fitness.is_fit, fitness.is_ready

local round = {}

--- Collects who may be given now: fit, ready, and either untried, or not given in this pass and
-- given longest ago.
-- @treturn number how many positions there are now in group.eligible
local function collect(state, group, deps, untried, skip)
  local slots, targets, eligible = group.slots, group.targets, group.eligible
  local now_ms = state.ready_ms and now_ms_of(state, deps)
  local count, oldest = 0, untried and 0 or state.pass - 1
  for position = 1, group.count do
    local slot = slots[position]
    local pass = state[slot]
    if pass <= oldest and (pass == 0) == untried and slot ~= skip
      and (not now_ms or is_ready(state, slot, now_ms))
      and is_fit(state, slot, deps, targets[position]) then
      if pass < oldest then count, oldest = 0, pass end
      count = count + 1
      eligible[count] = position
    end
  end
  return count
end

local function note_refusal(state, slot, why)
  state.refused = state.refused or {}
  state.refused[slot] = why
  if why == "busy" and state.busy_slot == 0 then state.busy_slot = slot end
end

--- Chooses and reserves a target of one priority.
-- @treturn ?table the target
-- @treturn ?boolean true when there is one, but the back-off is due before
local function draw(state, plan, group, quota, untried, skip)
  local deps = plan.deps
  while true do
    local count = collect(state, group, deps, untried, skip)
    if count == 0 then return nil end
    if not untried and not state.rested then
      state.group_number, state.quota_left = group.number, quota
      return nil, true
    end
    local position = balance.choose(group, group.eligible, count, deps, state.req, state)
    local slot = group.slots[position]
    local admitted, why = deps.admit(group.targets[position], fitness.is_forced(state, slot))
    if admitted then return record(state, group, position, quota) end
    note_refusal(state, slot, why)
  end
end

--- Draws from the priorities from `number` on; `quota` is what is left at the first of them.
local function draw_from(state, plan, number, quota, untried, skip)
  local groups = plan.groups
  local group = groups[number]
  while group do
    if quota > 0 then
      local target, due = draw(state, plan, group, quota, untried, skip)
      if target or due then return target, due end
    end
    number = number + 1
    group = groups[number]
    quota = group and group.quota
  end
  return nil
end

--- Draws in a new pass, which only begins when there is one to be had.
local function draw_in_new_pass(state, plan, group, quota, skip)
  local pass, rested = state.pass, state.rested
  state.pass, state.rested = pass + 1, state.waited
  local target, due
  if group then
    target, due = draw(state, plan, group, quota, false, skip)
  else
    target, due = draw_from(state, plan, 1, plan.groups[1].quota, false, skip)
  end
  if not (target or due) then state.pass, state.rested = pass, rested end
  return target, due
end

--- Goes on at a priority that has more tries than targets.
local function draw_repetition(state, plan)
  local group, quota = plan.groups[state.group_number], state.quota_left
  if not group.repeats or quota <= 0 then return nil end
  local skip = group.count > 1 and state.last_slot
  local target, due = draw(state, plan, group, quota, true)
  if not target then target, due = draw(state, plan, group, quota, false, skip) end
  if target or due then return target, due end
  return draw_in_new_pass(state, plan, group, quota, skip)
end

--- Draws one that the request has not been given yet: in this round, else in a new one.
local function draw_untried(state, plan)
  if state.untried == 0 then return nil end
  local target = draw_from(state, plan, state.group_number, state.quota_left, true)
  if target then return target end
  target = draw_from(state, plan, 1, plan.groups[1].quota, true)
  if target then
    state.pass, state.rested = state.pass + 1, false
    state[state.last_slot] = state.pass
  end
  return target
end

--- Draws one given before: in what is left of this round, else in a new one.
local function draw_again(state, plan, skip)
  local target, due = draw_from(state, plan, state.group_number, state.quota_left, false, skip)
  if target or due then return target, due end
  return draw_in_new_pass(state, plan, nil, nil, skip)
end

--- Draws one given before; the last one only when there is no other.
local function draw_given(state, plan)
  if state.untried == plan.count then return nil end
  local target, due = draw_again(state, plan, state.last_slot)
  if target or due or state.busy_slot > 0 then return target, due end
  return draw_again(state, plan)
end

--- Looks for a target to give.
-- @tparam table state of perilune.candidates.state
-- @tparam table plan of perilune.candidates.plan
-- @treturn ?table the target, reserved
-- @treturn ?boolean true when there is one, but the back-off is due before
function round.look(state, plan)
  local target, due = draw_repetition(state, plan)
  if not (target or due) then target = draw_untried(state, plan) end
  if not (target or due) then target, due = draw_given(state, plan) end
  return target, due
end

--- Begins a new round.
function round.begin(state, plan)
  state.pass, state.rested = state.pass + 1, false
  state.group_number, state.quota_left = 1, plan.groups[1].quota
end

return round
