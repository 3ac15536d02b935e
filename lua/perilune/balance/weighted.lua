--- Random by weight: every request on its own, shares exact over many. The default.
--
-- Also what the other ways fall back on, and the quick draw that spares the first candidate of most
-- requests a look at all targets.

local weighted = {}

--- The target's share just now: its weight, less while it is in slow start.
-- @tparam table group
-- @tparam number position
-- @tparam function load native.load
-- @treturn number
function weighted.share(group, position, load)
  local _, _, _, ramp = load(group.targets[position])
  return group.weights[position] * ramp
end

--- Prepares the quick draw.
function weighted.prepare(group)
  local upto, total = {}, 0
  group.last_weighted = group.count
  for position = 1, group.count do
    local weight = group.weights[position]
    total = total + weight
    upto[position] = total
    if weight > 0 then group.last_weighted = position end
  end
  group.upto, group.total = upto, total
end

local function draw(group, random)
  if group.total <= 0 then return math.floor(random() * group.count) + 1 end
  local point, upto = random() * group.total, group.upto
  for position = 1, group.last_weighted - 1 do
    if point < upto[position] then return position end
  end
  return group.last_weighted
end

--- Draws from the whole group without a look at the others: one random number.
-- Nil when a target in slow start has been drawn and is to be spared this time; then `choose` among
-- all gives every target its due: p + (1 - sum) * p / sum = p / sum, p being weight times ramp.
function weighted.first(group, deps)
  local random = deps.random
  local position = draw(group, random)
  local _, _, _, ramp = deps.load(group.targets[position])
  if ramp < 1 and random() >= ramp then return nil end
  return position
end

--- Draws among some.
-- @tparam table group
-- @tparam {number,...} eligible positions in the group
-- @tparam number count how many of them, at least one
-- @tparam table deps random(), load(target)
-- @treturn number position
function weighted.choose(group, eligible, count, deps)
  local shares, total = group.scratch, 0
  for i = 1, count do
    shares[i] = weighted.share(group, eligible[i], deps.load)
    total = total + shares[i]
  end
  if total <= 0 then return eligible[math.floor(deps.random() * count) + 1] end
  local point = deps.random() * total
  local chosen
  for i = 1, count do
    if shares[i] > 0 then
      chosen = eligible[i]
      if point < shares[i] then break end
      point = point - shares[i]
    end
  end
  return chosen -- the last one, when rounding took the point past the end of the scale
end

return weighted
