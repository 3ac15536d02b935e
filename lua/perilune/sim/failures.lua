--- Decides which requests fail, and how.
-- The six kinds of error answer are llm-d-inference-sim's; the others only come when named.
local errors = require "perilune.sim.errors"
local format = string.format

local failures = {}
failures.__index = failures

--- Every type by name, the six of error answers first.
failures.TYPES = {
  "rate_limit", "invalid_api_key", "context_length", "server_error", "invalid_request",
  "model_not_found",
  "reset_before_headers", "reset_after_headers", "hang", "slow_first_token", "cut", "stall",
  "garbage", "no_done", "empty", "content_filter",
}

local ERROR_TYPE_COUNT = 6
local FAIL = ("x"):byte()

local ERRORS = {
  rate_limit = function(model)
    return errors.new(429, format("Rate limit reached for %s in organization org-xxx on requests "
      .. "per min (RPM): Limit 3, Used 3, Requested 1.", model))
  end,
  invalid_api_key = function()
    return errors.new(401, "Incorrect API key provided.")
  end,
  context_length = function()
    return errors.new(400, "This model's maximum context length is 4096 tokens. However, your "
      .. "messages resulted in 4500 tokens.", "messages")
  end,
  server_error = function()
    return errors.new(503, "The server is overloaded or not ready yet.")
  end,
  invalid_request = function()
    return errors.new(400, "Invalid request: missing required parameter 'model'.", "model")
  end,
  content_filter = function()
    return errors.new(400, "Output blocked by content filtering policy.", nil,
      "content_policy_violation")
  end,
  model_not_found = function(model)
    return errors.new(404, format("The model '%s-nonexistent' does not exist", model), "model")
  end,
}

local IS_TYPE = {}
local DEFAULT_TYPES = {}
for index, name in ipairs(failures.TYPES) do
  IS_TYPE[name] = true
  if index <= ERROR_TYPE_COUNT then DEFAULT_TYPES[index] = name end
end

--- Whether a name is one of the types.
function failures.is_type(name)
  return IS_TYPE[name] == true
end

--- The error answer of a type; nil for the types that are not error answers.
function failures.error_of(name, model)
  local make = ERRORS[name]
  return make and make(model)
end

--- The state of one simulator: how many requests are still to fail, where the pattern stands.
function failures.new(config)
  return setmetatable({ first_left = config.fail_first, pattern_position = 0, turn = 0 }, failures)
end

--- Begin anew with what has been set anew.
-- @tparam table config the new configuration
-- @tparam table changed true by flag
function failures:restart(config, changed)
  if changed["fail-first"] then self.first_left = config.fail_first end
  if changed["fail-pattern"] then self.pattern_position = 0 end
  if changed["fail-first"] or changed["fail-pattern"] or changed["failure-types"] then
    self.turn = 0
  end
end

local function types_of(config)
  return #config.failure_types > 0 and config.failure_types or DEFAULT_TYPES
end

local function next_in_turn(self, config)
  local types = types_of(config)
  self.turn = self.turn % #types + 1
  return types[self.turn]
end

--- How the next request fails.
-- --fail-first goes before --fail-pattern, that before --failure-injection-rate. The first two
-- take the types in turn, the rate draws one.
-- @tparam table config
-- @tparam table random the request's generator
-- @treturn string|nil a type; nil when it does not
function failures:choose(config, random)
  if self.first_left > 0 then
    self.first_left = self.first_left - 1
    return next_in_turn(self, config)
  end
  local pattern = config.fail_pattern
  if pattern ~= "" then
    self.pattern_position = self.pattern_position % #pattern + 1
    return pattern:byte(self.pattern_position) == FAIL and next_in_turn(self, config) or nil
  end
  local rate = config.failure_injection_rate
  if rate == 0 or random:integer(1, 100) > rate then return nil end
  local types = types_of(config)
  return types[random:integer(1, #types)]
end

return failures
