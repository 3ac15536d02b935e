--- The target with the fewest requests under way for its weight. Ties are drawn by lot.

local share = require("perilune.balance.weighted").share

local least_busy = {}

--- See perilune.balance.weighted.
function least_busy.choose(group, eligible, count, deps)
  local chosen, lowest, ties = nil, math.huge, 0
  for i = 1, count do
    local position = eligible[i]
    local in_flight, weight = deps.load(group.targets[position]),
      share(group, position, deps.load)
    -- those that are to get nothing at all come after the busiest
    local busy = weight > 0 and in_flight / weight or math.huge
    if busy < lowest or not chosen then
      chosen, lowest, ties = position, busy, 1
    elseif busy == lowest then
      ties = ties + 1
      if deps.random() * ties < 1 then chosen = position end
    end
  end
  return chosen
end

return least_busy
