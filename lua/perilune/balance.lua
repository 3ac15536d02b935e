--- Which of several targets of one priority a request goes to.
--
-- A group is prepared once per route and priority, and shared by the requests of a worker; so is
-- the turn that some ways keep. Who may be chosen at all (fit, not tried yet, not asked to be left
-- alone) is the caller's business: it passes the positions.
--
-- For every way: weight 0 means last resort, such a target is chosen only when no other is left. A
-- target in slow start gets the share of its weight that its ramp allows; ways that know no weights
-- leave it out as often as that.
--
-- A way is a module with
--
--     choose(group, eligible, count, deps, req, memo) -> position
--     prepare(group)       optional, once per group
--     first(group, deps)   optional: draws from the whole group without a look at each target
--     spares_beginners     true: weights do not count in choose, so targets in slow start are
--                          left out at random before it

local hash = require "perilune.balance.hash"
local least_busy = require "perilune.balance.least_busy"
local least_latency = require "perilune.balance.least_latency"
local p2c = require "perilune.balance.p2c"
local round_robin = require "perilune.balance.round_robin"
local smooth_weighted = require "perilune.balance.smooth_weighted"
local weighted = require "perilune.balance.weighted"

local balance = {}

local WAYS = {
  weighted = weighted, smooth_weighted = smooth_weighted, round_robin = round_robin,
  least_busy = least_busy, least_latency = least_latency, p2c = p2c, hash = hash,
}
local DEFAULT = { by = "weighted" }

--- Prepares targets of one priority.
-- @tparam {target,...} targets with `.weight` (>= 0, 1 when absent)
-- @tparam[opt] table|string rule by = "weighted" (the default) or another way, and for "hash"
-- header, field or client_key, and load_ratio
-- @treturn table group: `targets`, `weights`, `count`, and what its way needs
function balance.group(targets, rule)
  if type(rule) == "string" then rule = { by = rule } end
  rule = rule or DEFAULT
  local way = WAYS[rule.by]
  if not way then
    error("perilune.balance: there is no \"" .. tostring(rule.by) .. "\"", 0)
  end
  local group = { targets = {}, weights = {}, count = #targets, rule = rule, way = way,
    eligible = {}, scratch = {} }
  for position, target in ipairs(targets) do
    group.targets[position] = target
    group.weights[position] = math.max(target.weight or 1, 0)
  end
  if way.prepare then way.prepare(group) end
  return group
end

--- Leaves out weight 0 where there is another.
local function without_last_resorts(group, eligible, count)
  local weights, kept = group.weights, 0
  for i = 1, count do
    if weights[eligible[i]] > 0 then
      kept = kept + 1
      eligible[kept], eligible[i] = eligible[i], eligible[kept]
    end
  end
  return kept > 0 and kept or count
end

--- Leaves out targets in slow start, at random, as long as another is left.
local function without_beginners(group, eligible, count, deps)
  local kept = 0
  for i = 1, count do
    local _, _, _, ramp = deps.load(group.targets[eligible[i]])
    if ramp >= 1 or deps.random() < ramp then
      kept = kept + 1
      eligible[kept], eligible[i] = eligible[i], eligible[kept]
    end
  end
  return kept > 0 and kept or count
end

--- Chooses among some.
-- @tparam table group
-- @tparam {number,...} eligible positions in the group; their order is changed
-- @tparam number count how many of them, at least one
-- @tparam table deps random() -> [0, 1), load(target) -> in flight, first token ms (0: unknown),
-- success ratio, ramp ratio
-- @param req the request, for its key; nil will do where there is none
-- @tparam[opt] table memo what may be noted of this request
-- @treturn number position
function balance.choose(group, eligible, count, deps, req, memo)
  if count == 1 then return eligible[1] end
  count = without_last_resorts(group, eligible, count)
  local way = group.way
  if way.spares_beginners and count > 1 then
    count = without_beginners(group, eligible, count, deps)
  end
  return way.choose(group, eligible, count, deps, req, memo)
end

--- Chooses for a request that has been given nothing yet, as cheaply as can be. Whether the choice
-- is fit is for the caller to find out.
-- @tparam table group not empty
-- @tparam table deps random, load, is_fit(target)
-- @param req the request
-- @treturn ?number position, nil when it takes a closer look
function balance.first(group, deps, req)
  if group.count == 1 then return 1 end
  local way = group.way
  if way.first then return way.first(group, deps) end
  local targets, eligible, count = group.targets, group.eligible, 0
  for position = 1, group.count do
    if deps.is_fit(targets[position]) then
      count = count + 1
      eligible[count] = position
    end
  end
  if count == 0 then return nil end
  return balance.choose(group, eligible, count, deps, req, nil)
end

return balance
