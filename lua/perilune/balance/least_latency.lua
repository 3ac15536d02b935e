--- The target whose first tokens come soonest, by the moving average of its good answers. Those
-- that nothing is known of come first. One request in twenty goes to any, so that a target which
-- has become faster is found out. Weights do not matter.

local EXPLORED = 0.05

local least_latency = { spares_beginners = true }

--- See perilune.balance.weighted.
function least_latency.choose(group, eligible, count, deps)
  local random = deps.random
  if count > 1 and random() < EXPLORED then return eligible[math.floor(random() * count) + 1] end
  local chosen, lowest, ties = nil, math.huge, 0
  for i = 1, count do
    local _, first_token_ms = deps.load(group.targets[eligible[i]])
    if first_token_ms < lowest then
      chosen, lowest, ties = eligible[i], first_token_ms, 1
    elseif first_token_ms == lowest then
      ties = ties + 1
      if random() * ties < 1 then chosen = eligible[i] end
    end
  end
  return chosen
end

return least_latency
