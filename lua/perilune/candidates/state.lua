--- What is remembered of one request's walk over its targets, from the second step on; or from the
-- first, when that is not a plain one.
--
--   req
--   [slot]        the pass in which this request was given it last, 0 for never
--   last_slot     the slot of the target given last, 0 for none
--   given_count   targets given
--   untried       how many have never been given
--   pass          the number of this pass
--   rested        this pass has had its back-off (the first needs none)
--   wait_count    back-offs so far
--   waited        nothing has been given since the last wait, so none is due, whatever the pass
--   waited_to_ms  its end
--   group_number, quota_left   where in the round it is
--   within_ms     no further try begins later than that after the request's start; or nil
--   ready_ms      slot -> not before that time, from Retry-After; or nil
--   seen          the last answer whose headers were read, or nil
--   try_number    the last try of the request that was looked at
--   shut          slot -> true: has no room for this request, whatever the round; or nil
--   again_slot    the target that is to be given once more before all others; or nil
--   again_rests   whether a back-off is due before
--   repeated      slot -> true: was given once more already; or nil
--   queued_slot   whose queue it waits in, 0 for none
--   queue_until_ms   until when at most, at this step; or nil
--
-- and, as found by the present look at the targets:
--
--   panic         health does not matter
--   spared        slot -> out, but to be given as max_ejection_ratio demands; or nil
--   refused       slot -> "out" or "busy" from native.admit; or nil
--   busy_slot     the best of the busy, 0 for none
--
-- What is rarely needed is nil, so that the table stays small.

local retry_after = require "perilune.retry_after"

local state = {}

local ASKS_TO_WAIT = { [429] = true, [503] = true }

--- Whether the last answer may name a time to come again.
function state.asks_to_wait(req)
  local res = req.last
  return res ~= nil and ASKS_TO_WAIT[res.status] and res.has_wait_hint ~= false
end

--- Makes the state of a walk that has given no target, one, or the first ones of a chain.
-- @tparam table plan of perilune.candidates.plan
-- @param req the request
-- @tparam number last_slot the slot of the last of them, 0 for none
function state.new(plan, req, last_slot)
  local self = { 0, 0, 0, 0, req = req, last_slot = last_slot, given_count = 0,
    untried = plan.count, pass = 1, rested = true, wait_count = 0, waited = false,
    waited_to_ms = 0, group_number = 1, quota_left = plan.groups[1].quota, queued_slot = 0,
    panic = false, busy_slot = 0, try_number = 0 }
  if plan.within_ms then self.within_ms = plan.within_ms end
  for slot = 5, plan.count do self[slot] = 0 end
  if last_slot == 0 then return self end
  if plan.is_chain then self.group_number, self.given_count = last_slot, last_slot - 1 end
  for slot = last_slot - self.given_count, last_slot do self[slot] = 1 end
  self.given_count = self.given_count + 1
  self.untried = plan.count - self.given_count
  self.quota_left = plan.groups[self.group_number].quota - 1
  return self
end

--- Notes that a target is given.
-- @tparam table self
-- @tparam table group its group
-- @tparam number position in the group
-- @tparam number quota what was left of the group's in this round
-- @treturn table the target
function state.record(self, group, position, quota)
  local slot = group.slots[position]
  if self[slot] == 0 then self.untried = self.untried - 1 end
  self[slot] = self.pass
  self.given_count, self.waited = self.given_count + 1, false
  self.group_number, self.quota_left = group.number, quota - 1
  self.last_slot = slot
  return group.targets[position]
end

--- Notes that the target given last is given once more, wherever in the round that is.
-- @treturn table the target
function state.record_again(self, plan, slot)
  self[slot] = self.pass
  self.given_count, self.waited, self.last_slot = self.given_count + 1, false, slot
  return plan.targets[slot]
end

--- Notes the Retry-After of the last answer, once per answer.
local function learn_time(self, plan)
  local res = self.req.last
  if res == nil or not ASKS_TO_WAIT[res.status] then return end
  local ready_ms = self.ready_ms
  if not ready_ms and res.has_wait_hint == false or res == self.seen then return end
  self.seen = res
  local slot = res.target and plan.slot_of[res.target.index]
  if not slot then return end
  if slot == self.again_slot and not self.again_rests then return end -- it was said of another key
  local wait_ms = retry_after.of(res, plan.deps.now_wall_ms)
  if wait_ms and not ready_ms then
    ready_ms = {}
    self.ready_ms = ready_ms
  end
  if ready_ms then ready_ms[slot] = wait_ms and plan.deps.now_ms() + wait_ms end
end

--- The request is too long for a target, and so for those that are known to have no more room.
local function shut(self, plan, slot)
  local room_tokens = plan.room_tokens
  self.shut = self.shut or {}
  self.shut[slot] = true
  if not room_tokens[slot] then return end
  for other = 1, plan.count do
    if room_tokens[other] and room_tokens[other] <= room_tokens[slot] then
      self.shut[other] = true
    end
  end
end

local function asks_again(plan, class, status)
  local retry = plan.retry
  return retry.reaction ~= nil and retry:reaction(class, status) == "again"
end

--- Notes what the last try says of the next, once per try.
local function learn_class(self, plan)
  local number, index, class, status, has_other_key = plan.deps.last_try()
  if not number or number == self.try_number then return end
  self.try_number, self.again_slot = number, nil
  local slot = plan.slot_of[index]
  if not slot then return end
  local again = asks_again(plan, class, status)
  if has_other_key then
    self.again_slot, self.again_rests = slot, false
  elseif again and not (self.repeated and self.repeated[slot]) then
    self.repeated = self.repeated or {}
    self.repeated[slot] = true
    self.again_slot, self.again_rests = slot, true
  elseif class == "context_length" and not again then
    shut(self, plan, slot)
  end
end

--- Notes what the last try has told: when its target may be asked again, whether at once, whether
-- ever.
-- @tparam table self
-- @tparam table plan
function state.learn(self, plan)
  learn_class(self, plan)
  learn_time(self, plan)
end

--- Whether the last try may have told anything that a plain step does not heed.
function state.is_plain(plan)
  local number, _, class, status, has_other_key = plan.deps.last_try()
  return not number or class ~= "context_length" and not has_other_key
    and not asks_again(plan, class, status)
end

--- Forgets what the last look at the targets has found.
function state.look_again(self)
  self.panic, self.busy_slot = false, 0
  if self.spared then self.spared = nil end -- only if: nil would make a field, too
  if self.refused then self.refused = nil end
end

--- The time, but not before the end of a wait: timers may be early by a little.
function state.now_ms(self, deps)
  return math.max(deps.now_ms(), self.waited_to_ms)
end

return state
