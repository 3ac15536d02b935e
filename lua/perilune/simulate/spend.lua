--- What a call costs: the tokens that the upstream has read and made, whether or not anybody got
-- them. Pure.
--
-- A prompt is paid for once the upstream has begun to answer it well: errors and broken connections
-- before that are free. Then each token is paid for that was made until the call ended, also where
-- the gateway had gone to another target by then.

local spend = {}

local TOKENS = 1000000 -- prices are for so many
local ROUNDING_MS = 0.01

--- The tokens to be paid for.
-- @tparam table plan with nothing left open, see perilune.simulate.faults
-- @tparam number input_tokens of the prompt
-- @tparam number elapsed_ms how long the call lasted
-- @treturn number input tokens
-- @treturn number output tokens
function spend.tokens(plan, input_tokens, elapsed_ms)
  if plan.failure or plan.status >= 300 or elapsed_ms + ROUNDING_MS < plan.after_ms then
    return 0, 0
  end
  local made = plan.tokens
  local generating_ms = elapsed_ms + ROUNDING_MS - plan.after_ms - plan.first_ms
  if generating_ms < 0 then return input_tokens, 0 end
  if plan.every_ms > 0 then
    made = math.min(made, 1 + math.floor(generating_ms / plan.every_ms))
  end
  return input_tokens, math.min(made, plan.cut_after or made, plan.stall_after or made)
end

--- The price of tokens.
-- @tparam table price input and output, for a million tokens each
function spend.cost(price, input_tokens, output_tokens)
  return (input_tokens * price.input + output_tokens * price.output) / TOKENS
end

return spend
