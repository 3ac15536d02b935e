--- Answers from a decision log: each upstream behaves as it did at that moment.
--
-- What a call gets, the first of these that there is:
--
--  1. an outage that the scenario adds
--  2. "own": what this very request got from this target in the log, try by try
--  3. "near": what another request got from it; at random one of the 8 tries nearest in time, none
--     further away than 30 seconds
--  4. "described": what the scenario says of the target
--  5. "guessed": the nearest try of that target, or else of another target of its provider, or else
--     of any target that answered well, however far away
--
-- A try that ended by a time limit of the gateway's stands for an upstream that said no more: what
-- it would have said with more patience is not known. Pure.

local faults = require "perilune.simulate.faults"
local random = require "perilune.simulate.random"

local replay = {}
replay.__index = replay

local PURPOSE_REPLAY = 5
local NEAR_MS = 30000
local NEAR_COUNT = 8
local FEW_TOKENS = 32

-- Tries by name, in the order of their times -----------------------------------------------------

local function add(lists, name, index)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = index
end

local function is_good(attempt, index)
  local class, status = attempt.class[index], attempt.status[index]
  if class then return class == "ok" end
  return status and status < 300
end

--- Whether a try says anything of its target. What the client's leaving cut short does not.
local function is_usable(attempt, index)
  local class, status = attempt.class[index], attempt.status[index]
  if is_good(attempt, index) then return true end
  return status and status >= 300 and status <= 599 or class and faults.plan(class) ~= nil
end

local function index_attempts(attempt)
  local lists = { target = {}, provider = {}, good = {} }
  for index = 1, attempt.count do
    if is_usable(attempt, index) then
      add(lists.target, attempt.target[index], index)
      add(lists.provider, attempt.provider[index], index)
      if is_good(attempt, index) then add(lists, "good", index) end
    end
  end
  local start_ms = attempt.start_ms
  local function before(a, b)
    if start_ms[a] ~= start_ms[b] then return start_ms[a] < start_ms[b] end
    return a < b
  end
  for _, list in pairs(lists.target) do table.sort(list, before) end
  for _, list in pairs(lists.provider) do table.sort(list, before) end
  table.sort(lists.good, before)
  return lists
end

--- Answers from a log.
-- @tparam table log see perilune.simulate.log; it keeps the index that is made of it
-- @tparam table upstreams what a scenario adds, see perilune.simulate.upstreams
-- @tparam number seed
function replay.new(log, upstreams, seed)
  log.index = log.index or index_attempts(log.attempt)
  return setmetatable({
    log = log, attempt = log.attempt, upstreams = upstreams, seed = seed, lists = log.index,
  }, replay)
end

-- Which try ---------------------------------------------------------------------------------------

--- The nth try of a target by a request of the log.
local function own(self, call)
  local log, attempt, record = self.log, self.attempt, call.request.record
  local left = call.nth
  for index = log.first[record], log.first[record + 1] - 1 do
    if attempt.target[index] == call.target then
      left = left - 1
      if left == 0 then return is_usable(attempt, index) and index or nil end
    end
  end
  return nil
end

--- The position of the first try in a list that began at `at_ms` or later.
local function position_at(list, start_ms, at_ms)
  local low, high = 1, #list + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if start_ms[list[middle]] < at_ms then low = middle + 1 else high = middle end
  end
  return low
end

--- How many of the tries just before `after`, and from it on, are among the nearest.
local function near_span(list, start_ms, at_ms, max_ms, max_count)
  local after = position_at(list, start_ms, at_ms)
  local low, high = after, after - 1 -- empty
  while high - low + 1 < max_count do
    local before_ms = low > 1 and at_ms - start_ms[list[low - 1]] or math.huge
    local after_ms = high < #list and start_ms[list[high + 1]] - at_ms or math.huge
    if math.min(before_ms, after_ms) > max_ms or before_ms == after_ms and before_ms == math.huge
    then
      break
    end
    if before_ms <= after_ms then low = low - 1 else high = high + 1 end
  end
  return low, high
end

local function near(self, call)
  local list = self.lists.target[call.target]
  if not list then return nil end
  local low, high = near_span(list, self.attempt.start_ms, call.at_ms, NEAR_MS, NEAR_COUNT)
  if high < low then return nil end
  local luck = random.stream(self.seed, PURPOSE_REPLAY, call.request.number,
    self.upstreams:hash(call.target), call.nth)
  return list[low - 1 + luck:below(high - low + 1)]
end

local function nearest(self, list, at_ms)
  if not list or #list == 0 then return nil end
  return list[(near_span(list, self.attempt.start_ms, at_ms, math.huge, 1))]
end

local function guess(self, call)
  local lists, at_ms = self.lists, call.at_ms
  return nearest(self, lists.target[call.target], at_ms)
    or nearest(self, lists.provider[call.provider], at_ms)
    or nearest(self, lists.good, at_ms)
end

-- From a try to a plan ----------------------------------------------------------------------------

--- How many tokens the time of a try is shared out among. A short answer tells little of the speed:
-- for a longer one its time stands for as many as FEW_TOKENS.
local function tokens_of(self, index, wanted)
  local log = self.log
  local count = log.output_tokens[self.attempt.request[index]] or log.usual_output_tokens
  return math.max(1, count, math.min(wanted, FEW_TOKENS))
end

--- Times of a good answer: until the head, until the first token, between tokens. An answer in one
-- piece comes when all of its tokens are there, so its time is shared out among them.
local function set_times(self, plan, index, token_count)
  local attempt = self.attempt
  local head_ms, total_ms = attempt.head_ms[index], attempt.total_ms[index]
  if not self.log.stream[attempt.request[index]] then
    plan.every_ms = total_ms / token_count
    plan.after_ms, plan.first_ms = 0, plan.every_ms
    return
  end
  local first_token_ms = math.max(attempt.first_token_ms[index], head_ms)
  plan.after_ms, plan.first_ms = head_ms, first_token_ms - head_ms
  plan.every_ms = math.max(0, total_ms - first_token_ms) / math.max(1, token_count - 1)
end

local function base_plan(attempt, index)
  local class, status = attempt.class[index], attempt.status[index]
  if is_good(attempt, index) then return { status = status or 200 } end
  local named = class and faults.plan(class)
  -- the status is what was seen; the class only tells what its body said, or that none came whole
  if status and status >= 300 then return { status = status, code = named and named.code } end
  return named
end

--- The plan that a try of the log stands for, made for a call.
local function plan_of(self, index, call)
  local attempt, tokens = self.attempt, tokens_of(self, index, call.request.output_tokens)
  local base = base_plan(attempt, index)
  local plan = { failure = base.failure, status = base.status, code = base.code, body = base.body }
  if attempt.retry_after_ms[index] > 0 then
    plan.headers = {
      ["retry-after"] = ("%.0f"):format(math.ceil(attempt.retry_after_ms[index] / 1000)),
    }
  end
  plan.tokens = math.min(call.request.output_tokens, call.max_tokens or math.huge)
  set_times(self, plan, index, tokens)
  if plan.failure or plan.status >= 300 then
    plan.after_ms = base.after and base.after.p50 or attempt.total_ms[index]
    plan.first_ms, plan.every_ms = 0, 0
  end
  local share = base.cut_after or base.stall_after
  if share then
    plan.every_ms = plan.every_ms / math.max(share, 0.5)
    plan.cut_after = base.cut_after and math.floor(base.cut_after * plan.tokens)
    plan.stall_after = base.stall_after and math.floor(base.stall_after * plan.tokens)
  end
  return plan
end

--- What an active check meets: a provider that could not be reached about then, cannot now.
-- @tparam table check provider, at_ms, number
-- @treturn ?table a plan with nothing left open; nil when all is well, as far as the log tells
function replay:check(check)
  local struck = self.upstreams:check(check)
  if struck then return struck end
  local list = self.lists.provider[check.provider]
  if not list then return nil end
  local low, high = near_span(list, self.attempt.start_ms, check.at_ms, NEAR_MS, 1)
  if high < low then return nil end
  local base = base_plan(self.attempt, list[low])
  return base.failure and base or nil
end

--- How a call is answered.
-- @tparam table call see perilune.simulate.upstreams
-- @treturn table a plan, see perilune.simulate.faults, with nothing left open
-- @treturn string where it is from: "outage", "own", "near", "described" or "guessed"
function replay:answer(call)
  local struck = self.upstreams:outage(call)
  if struck then return struck, "outage" end
  local index = own(self, call)
  if index then return plan_of(self, index, call), "own" end
  index = near(self, call)
  if index then return plan_of(self, index, call), "near" end
  if self.upstreams:knows(call.target, call.provider) then
    return self.upstreams:answer(call), "described"
  end
  index = guess(self, call)
  if index then return plan_of(self, index, call), "guessed" end
  return self.upstreams:answer(call), "guessed"
end

return replay
