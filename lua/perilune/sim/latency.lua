--- How long the simulated model takes. Formulas of llm-d-inference-sim; pure, given a generator.
local latency = {}

--- The factor by which load slows things down: 1 for one running request, growing evenly to
-- --time-factor-under-load for --max-num-seqs of them.
function latency.load_factor(config, running_count)
  if config.max_num_seqs <= 1 then return 1 end
  return 1 + (config.time_factor_under_load - 1) * (running_count - 1) / (config.max_num_seqs - 1)
end

local function is_constant(config)
  if config.latency_calculator ~= "" then return config.latency_calculator == "constant" end
  return config.time_to_first_token_ms > 0 or config.time_to_first_token_std_dev_ms > 0
end

--- Milliseconds until the first token.
function latency.first_token_ms(config, random, prompt_count, running_count)
  local factor = latency.load_factor(config, running_count)
  if is_constant(config) then
    return random:normal(config.time_to_first_token_ms * factor,
      config.time_to_first_token_std_dev_ms)
  end
  local prefill_ms = config.prefill_overhead_ms + prompt_count * config.prefill_time_per_token_ms
  return random:normal(prefill_ms * factor, config.prefill_time_std_dev_ms)
end

--- Milliseconds before each further token.
function latency.inter_token_ms(config, random, running_count)
  return random:normal(config.inter_token_latency_ms * latency.load_factor(config, running_count),
    config.inter_token_latency_std_dev_ms)
end

return latency
