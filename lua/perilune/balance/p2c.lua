--- Power of two choices, as agentgateway has it: two draws, which may hit the same target, and the
-- one with the higher score wins: success / (1 + seconds to the first token * (1 + 0.1 * in
-- flight)). A target that nothing is known of has a perfect score. Weights do not matter.

local p2c = { spares_beginners = true }

--- The higher, the better.
-- @tparam number in_flight requests under way
-- @tparam number first_token_ms moving average, 0 when unknown
-- @tparam number success_ratio moving average
-- @treturn number
function p2c.score(in_flight, first_token_ms, success_ratio)
  return success_ratio / (1 + first_token_ms / 1000 * (1 + 0.1 * in_flight))
end

--- See perilune.balance.weighted.
function p2c.choose(group, eligible, count, deps)
  if count == 1 then return eligible[1] end
  local random, load, targets = deps.random, deps.load, group.targets
  local one = eligible[math.floor(random() * count) + 1]
  local other = eligible[math.floor(random() * count) + 1]
  if one == other then return one end
  return p2c.score(load(targets[one])) >= p2c.score(load(targets[other])) and one or other
end

return p2c
