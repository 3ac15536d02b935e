--- Weighted random choice without replacement, within one priority.
--
-- A group is prepared once and shared by all requests; what has been drawn is the caller's to keep.
-- The first draw allocates nothing and takes one random number; the others walk the group.
-- Weight 0 means last resort: such a target is drawn only when no other of its group is left. When
-- all that is left has weight 0, each is as likely as the next.

local balance = {}

--- Prepares targets of one priority.
-- @tparam {target,...} targets with `.weight` (>= 0, 1 when absent)
-- @treturn table group: `targets`, `count`, and what draws need
function balance.group(targets)
  local group = { targets = {}, weights = {}, upto = {}, count = #targets, total = 0 }
  group.last_weighted = group.count
  for position, target in ipairs(targets) do
    local weight = math.max(target.weight or 1, 0)
    group.total = group.total + weight
    group.targets[position] = target
    group.weights[position] = weight
    group.upto[position] = group.total
    if weight > 0 then group.last_weighted = position end
  end
  return group
end

--- Draws from the whole group.
-- @tparam table group not empty
-- @tparam function random random() -> [0, 1)
-- @treturn number position in group.targets
function balance.first(group, random)
  local count = group.count
  if count == 1 then return 1 end
  if group.total <= 0 then return math.floor(random() * count) + 1 end
  local point, upto = random() * group.total, group.upto
  for position = 1, group.last_weighted - 1 do
    if point < upto[position] then return position end
  end
  return group.last_weighted
end

--- The sum of the weights that may be drawn, and how many targets have them.
local function allowed_total(group, allowed)
  local total, count = 0, 0
  for position = 1, group.count do
    if allowed[position] then
      total, count = total + group.weights[position], count + 1
    end
  end
  return total, count
end

--- Draws among some positions only.
-- @tparam table group
-- @tparam table allowed position -> true
-- @tparam function random random() -> [0, 1)
-- @treturn ?number position, nil when none is allowed
function balance.draw(group, allowed, random)
  local total, count = allowed_total(group, allowed)
  if count == 0 then return nil end
  local by_weight = total > 0
  local point = random() * (by_weight and total or count)
  local chosen
  for position = 1, group.count do
    local share = by_weight and group.weights[position] or 1
    if share > 0 and allowed[position] then
      chosen = position
      if point < share then break end
      point = point - share
    end
  end
  return chosen -- the last one, when rounding took the point past the end of the scale
end

return balance
