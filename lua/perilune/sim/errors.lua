--- Error answers, in OpenAI's form as llm-d-inference-sim writes it and in Anthropic's. Pure.
local json = require "perilune.sim.json"
local format = string.format

local errors = {}

local OPENAI_TYPES = {
  [400] = "BadRequestError", [401] = "AuthenticationError", [403] = "PermissionDeniedError",
  [404] = "NotFoundError", [422] = "UnprocessableEntityError", [429] = "RateLimitError",
}

local ANTHROPIC_TYPES = {
  [401] = "authentication_error", [402] = "billing_error", [403] = "permission_error",
  [404] = "not_found_error", [413] = "request_too_large", [429] = "rate_limit_error",
  [504] = "timeout_error", [529] = "overloaded_error",
}

--- An error.
-- @tparam number status HTTP status
-- @tparam string message
-- @tparam[opt] string param the request's member at fault
-- @tparam[opt] string code in OpenAI's form, where it is not the status
function errors.new(status, message, param, code)
  return { status = status, message = message, param = param, code = code }
end

--- The body that could not be read.
function errors.unreadable(detail)
  return errors.new(400, "Failed to read and parse request body, " .. detail)
end

--- The model that is not served.
function errors.no_such_model(model)
  return errors.new(404, format("The model `%s` does not exist.", model))
end

local function openai_type(status)
  return OPENAI_TYPES[status] or (status >= 500 and "InternalServerError" or "APIConnectionError")
end

local function anthropic_type(status)
  return ANTHROPIC_TYPES[status] or (status >= 500 and "api_error" or "invalid_request_error")
end

--- The body of an OpenAI endpoint's error answer.
function errors.openai_body(err)
  return format('{"error":{"message":%s,"type":"%s","param":%s,"code":%s}}',
    json.string(err.message), openai_type(err.status),
    err.param and json.string(err.param) or "null",
    err.code and json.string(err.code) or format("%d", err.status))
end

--- The body of an Anthropic endpoint's error answer.
function errors.anthropic_body(err)
  return format('{"type":"error","error":{"type":"%s","message":%s}}',
    anthropic_type(err.status), json.string(err.message))
end

return errors
