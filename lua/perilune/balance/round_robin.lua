--- One after the other, whatever their weights. The turn is kept per route, priority and worker,
-- and begins at a random place, so that workers do not move in step.

local round_robin = { spares_beginners = true }

--- See perilune.balance.weighted.
function round_robin.choose(group, eligible, count, deps)
  local turn = group.turn or math.floor(deps.random() * group.count)
  local chosen, nearest = nil, math.huge
  for i = 1, count do
    local distance = (eligible[i] - turn - 1) % group.count
    if distance < nearest then chosen, nearest = eligible[i], distance end
  end
  group.turn = chosen
  return chosen
end

return round_robin
