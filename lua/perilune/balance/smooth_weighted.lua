--- nginx's smooth weighted round robin: exact shares over short stretches, well mixed. With weights
-- 5, 1, 1 seven requests go a a b a c a a. The turn is kept per route, priority and worker.

local share = require("perilune.balance.weighted").share

local smooth_weighted = {}

--- See perilune.balance.weighted.
function smooth_weighted.choose(group, eligible, count, deps)
  local credit = group.credit
  if not credit then
    credit = {}
    for position = 1, group.count do credit[position] = 0 end
    group.credit = credit
  end
  local total, chosen = 0, nil
  for i = 1, count do
    local position = eligible[i]
    local weight = share(group, position, deps.load)
    total = total + weight
    credit[position] = credit[position] + weight
    if not chosen or credit[position] > credit[chosen] then chosen = position end
  end
  credit[chosen] = credit[chosen] - total
  return chosen
end

return smooth_weighted
