--- What can be known of a route before any request: its targets in groups, one per priority.
--
-- Each target has a slot, 1 to plan.count, in the order in which rounds reach it.

local balance = require "perilune.balance"

local plan = {}

local function always() return true end

local function by_priority(a, b)
  return a.priority < b.priority
end

--- Sorts targets into one list per priority, best first.
-- @tparam {target,...} targets
-- @tparam[opt] table ranks target.index -> what counts instead of its priority
local function make_levels(targets, ranks)
  local levels, level_of = {}, {}
  for _, target in ipairs(targets) do
    local priority = ranks and ranks[target.index] or target.priority or 0
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

local function add_group(self, level, route)
  local group = balance.group(level.targets, route.balance)
  group.number, group.slots = #self.groups + 1, {}
  for position, target in ipairs(group.targets) do
    self.count = self.count + 1
    self.targets[self.count] = target
    self.slot_of[target.index] = self.count
    self.room_tokens[self.count] = target.context_tokens
    group.slots[position] = self.count
  end
  group.quota = math.max(self.retry.per_priority or group.count, 1)
  group.repeats = group.quota > group.count
  self.groups[group.number] = group
end

local function is_chain(self)
  for _, group in ipairs(self.groups) do
    if group.count ~= 1 or group.quota ~= 1 then return false end
  end
  return not self.is_limited
end

--- Prepares a route.
-- @tparam table route targets, retry, and where wanted balance, panic, max_ejection_ratio, and
-- ranks (perilune.ranked)
-- @tparam table deps see perilune.candidates
-- @treturn table the plan, shared by all requests and not changed any more
--
--  * deps, retry, attempts, budget, allows, reserve_ms, within_ms, panic
--  * count, targets (slot -> target), slot_of (target.index -> slot)
--  * room_tokens: slot -> how long a request may be, as far as that is known
--  * groups, in the order of priorities: as of perilune.balance, with number, slots (position ->),
--    quota (targets given in a round), and repeats when that is more than there are
--  * max_out, how many may count as out, and is_limited when that is less than all
--  * is_chain when each priority has one target, to be given once: then the slots are the order
function plan.new(route, deps)
  local retry = route.retry
  local self = { deps = deps, retry = retry, attempts = retry.attempts, budget = retry.budget,
    allows = retry.allows or always, reserve_ms = retry.reserve_ms, within_ms = retry.within_ms,
    panic = route.panic or "use", count = 0, targets = {}, slot_of = {}, groups = {},
    room_tokens = {} }
  local levels = make_levels(route.targets, route.ranks)
  for _, level in ipairs(levels) do add_group(self, level, route) end
  self.max_out = math.floor(self.count * (route.max_ejection_ratio or 1))
  self.is_limited = self.max_out < self.count
  self.is_chain = is_chain(self)
  return self
end

return plan
