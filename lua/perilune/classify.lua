--- Names what came of a try: one vocabulary for retries, health, log and metrics.
--
-- By status, first of all:
--
--     2xx, 304     ok (304 answers a condition that the client itself set)
--     other < 400  server_error: redirects are not followed, so the target did not serve
--     401          auth, or model_not_found when a code in the body says that only the model is
--                  out of the key's reach
--     402          billing
--     403          auth, unless the body says otherwise
--     404          model_not_found or client_fault, see below
--     408          server_error: the target gave up on itself, no limit of ours has run out
--     413          context_length: too large for this target, another may take it
--     429          rate_limited; billing when the code says that the money has run out, overloaded
--                  when it says that the model is still being loaded
--     503, 529     overloaded
--     other 5xx    server_error
--     other 4xx    client_fault, unless the body says otherwise
--
-- A 404 is model_not_found when its error says so, client_fault when it has a JSON error that
-- speaks of something else (a file, a batch). Without a JSON error it is model_not_found: a bare
-- 404 comes from a server that lacks the endpoint or the model, and to ask another one is cheap.
--
-- An error under status 200, as an event of a stream or as the whole answer, has the class that its
-- codes, its status or its message say; server_error when they say nothing.
--
-- The body is read only for statuses that leave a question open. It comes from outside: every type
-- is checked before it is indexed. Error forms known: OpenAI and what imitates it (Azure, vLLM,
-- Ollama's plain string), Anthropic, Gemini (also wrapped in an array), Bedrock.
--
-- Pure. `res` needs `.status`, `.headers[name]` and `:json()`.

local find = string.find

local CLASS_NAMES = {
  "ok", "rate_limited", "auth", "billing", "model_not_found", "context_length", "content_filter",
  "client_fault", "overloaded", "server_error", "dns", "connect", "tls", "reset", "timeout_connect",
  "timeout_head", "timeout_first_token", "timeout_idle", "timeout_try", "timeout_deadline",
  "truncated", "malformed", "empty",
}

--- Every outcome class, as a set: name -> true.
local CLASSES = {}
for _, name in ipairs(CLASS_NAMES) do CLASSES[name] = true end

--- Names that stand for several classes in a list of triggers: name -> set of classes.
-- A name that is both a group and a class ("connect", "reset") means the group there.
-- `timeout_deadline` is in no group: when the deadline has passed there is nothing left to try.
local GROUPS = {
  -- no connection, so the target has seen nothing of the request
  connect = { dns = true, connect = true, tls = true, timeout_connect = true },
  -- the connection was lost before the answer was whole
  reset = { reset = true, truncated = true },
  -- a time limit of one try has run out
  timeout = {
    timeout_connect = true, timeout_head = true, timeout_first_token = true, timeout_idle = true,
    timeout_try = true,
  },
}

-- Codes, types and exception names of providers, lower case.
local CODE_CLASS = {
  insufficient_quota = "billing", -- OpenAI, with 429
  billing_not_active = "billing", -- OpenAI, with 429
  billing_hard_limit_reached = "billing", -- OpenAI images, with 400
  billing_error = "billing", -- Anthropic, with 402 and 403
  insufficient_balance = "billing",
  insufficient_credits = "billing",
  insufficient_funds = "billing",
  arrearage = "billing", -- DashScope, with 400
  invalid_api_key = "auth",
  api_key_invalid = "auth", -- Gemini, with 400
  authentication_error = "auth", -- Anthropic
  unrecognizedclientexception = "auth", -- AWS
  expiredtokenexception = "auth", -- AWS, with 400
  invalidsignatureexception = "auth", -- AWS
  key_model_access_denied = "model_not_found", -- LiteLLM, with 401
  team_model_access_denied = "model_not_found", -- LiteLLM, with 401
  model_not_found = "model_not_found", -- OpenAI, with 404, and 403 for a project without access
  deploymentnotfound = "model_not_found", -- Azure
  resourcenotfoundexception = "model_not_found", -- Bedrock
  context_length_exceeded = "context_length", -- OpenAI
  exceed_context_size_error = "context_length", -- llama.cpp
  request_too_large = "context_length", -- Anthropic
  content_filter = "content_filter", -- Azure
  content_policy_violation = "content_filter", -- OpenAI images
  responsibleaipolicyviolation = "content_filter", -- Azure, the inner error
  moderation_blocked = "content_filter", -- OpenAI images
  invalid_prompt = "content_filter", -- OpenAI reasoning models: prompt against the usage policy
  data_inspection_failed = "content_filter", -- DashScope
  throttlingexception = "rate_limited", -- AWS
  servicequotaexceededexception = "rate_limited", -- Bedrock, with 400
  overloaded_error = "overloaded", -- Anthropic
  modelerrorexception = "server_error", -- Bedrock, with 424
  modelstreamerrorexception = "server_error", -- Bedrock, with 424
  modelnotreadyexception = "overloaded", -- Bedrock, with 429: it is being loaded
}

-- The members of Bedrock's streams that stand for an error.
local EXCEPTIONS = {
  internalServerException = true, modelStreamErrorException = true, modelTimeoutException = true,
  serviceUnavailableException = true, throttlingException = true, validationException = true,
}

-- What errors under status 200 are called: where there is a status, it says as much by itself.
local EVENT_CODE_CLASS = {
  rate_limit_exceeded = "rate_limited", -- OpenAI
  rate_limit_error = "rate_limited", -- Anthropic
  too_many_requests = "rate_limited",
  resource_exhausted = "rate_limited", -- Gemini
  permission_error = "auth", -- Anthropic
  permission_denied = "auth", -- Gemini
  unauthenticated = "auth", -- Gemini
  not_found_error = "model_not_found", -- Anthropic
  not_found = "model_not_found", -- Gemini
  overloaded = "overloaded",
  unavailable = "overloaded", -- Gemini
  service_unavailable = "overloaded",
  server_error = "server_error", -- OpenAI
  internalserverexception = "server_error", -- Bedrock
  modeltimeoutexception = "server_error", -- Bedrock
  serviceunavailableexception = "overloaded", -- Bedrock
  internal = "server_error", -- Gemini
  deadline_exceeded = "server_error", -- Gemini
  internal_error = "server_error",
  internal_server_error = "server_error",
  api_error = "server_error", -- Anthropic
  timeout_error = "server_error", -- Anthropic
}
-- Only when the message says nothing either.
local FAULT_CODES = {
  invalid_request_error = true, -- OpenAI, Anthropic
  invalid_argument = true, -- Gemini
  failed_precondition = true, -- Gemini
  validationexception = true, -- Bedrock
  badrequesterror = true, -- vLLM
}
-- The status that an error under 200 would have had, for lists of triggers by status.
local STATUS_OF_CLASS = {
  rate_limited = 429, auth = 401, billing = 402, model_not_found = 404, context_length = 400,
  content_filter = 400, client_fault = 400, overloaded = 503, server_error = 500,
}

-- What messages say, lower case, looked for as they are. Only for errors whose code says nothing.
local CONTEXT_MESSAGES = {
  "maximum context length", -- OpenAI, vLLM, DeepSeek, Mistral
  "context length exceeded",
  "context_length_exceeded",
  "prompt is too long", -- Anthropic, Bedrock
  "input is too long", -- Bedrock
  "exceeds the context window", -- OpenAI responses
  "exceed context limit", -- Anthropic, prompt and max_tokens together
  "exceeds the maximum number of tokens allowed", -- Gemini
  "maximum prompt length", -- xAI
  "longer than the maximum model length", -- vLLM
  "longer than the model's context length", -- SGLang
  "exceeds the available context size", -- llama.cpp
  "exceeds the context length", -- Ollama
  "reduce the length of the messages", -- Groq
  "too many tokens", -- Cohere
  "tokens + `max_new_tokens` must be", -- Text Generation Inference, Together
}
local FILTER_MESSAGES = {
  "content management policy", -- Azure
  "violating our usage policy", -- OpenAI
  "rejected as a result of our safety system", -- OpenAI images
  "content filtering policy", -- Anthropic, of what it would have said
  "flagged as potentially violating", -- OpenAI reasoning models
}
local BILLING_MESSAGES = {
  "credit balance is too low", -- Anthropic, with 400
}
local AUTH_MESSAGES = {
  "api key not valid", -- Gemini, with 400
  "api key expired", -- Gemini, with 400
  "make sure your api key is valid", -- Bedrock, with 403
}
local BAD_MODEL_MESSAGES = {
  "model identifier is invalid", -- Bedrock, with 400
  "is not a valid model", -- OpenRouter, with 400
  "have access to the model", -- Bedrock, with 403
}
local MESSAGE_MAX_BYTES = 4096
local DETAILS_MAX = 8

local function find_any(message, phrases)
  for i = 1, #phrases do
    if message:find(phrases[i], 1, true) then return true end
  end
  return false
end

--- The part of a decoded answer that describes the error, and the answer itself, both tables.
local function error_parts(res)
  local body = res:json()
  if type(body) ~= "table" then return nil end
  if body.error == nil and type(body[1]) == "table" then body = body[1] end -- Gemini: an array
  local inner = body.error
  if type(inner) == "table" then return inner, body end
  if inner == nil then
    for name in pairs(EXCEPTIONS) do -- Bedrock: {"throttlingException": {"message": ...}}
      local thrown = body[name]
      if type(thrown) == "table" then return { code = name, message = thrown.message }, body end
    end
  end
  if type(inner) == "string" then return { message = inner }, body end -- Ollama, TGI
  return body, body -- vLLM before 0.10 and Bedrock have no wrapper
end

local function class_of_code(code)
  if type(code) ~= "string" then return nil end
  local class = CODE_CLASS[code]
  if class or not find(code, "[%u#:]") then return class end
  code = code:lower():gsub("^.*#", ""):gsub(":.*$", "") -- com.amazon.x#Name, Name:http://...
  return CODE_CLASS[code]
end

--- Gemini keeps the telling word in error.details[i].reason.
local function class_of_details(details)
  if type(details) ~= "table" then return nil end
  for i = 1, DETAILS_MAX do
    local detail = details[i]
    local class = type(detail) == "table" and class_of_code(detail.reason)
    if class then return class end
  end
  return nil
end

local function class_of_codes(res, inner, body)
  local nested = inner.innererror
  local class = class_of_code(inner.code) or class_of_code(inner.type)
    or class_of_code(inner.status) or class_of_code(type(nested) == "table" and nested.code)
    or class_of_details(inner.details)
  if class or inner ~= body then return class end
  -- AWS: no wrapper in the body, the name of the error there or in a header
  return class_of_code(body.__type) or class_of_code(res.headers["x-amzn-errortype"])
end

local function message_of(inner)
  local message = inner.message
  if type(message) ~= "string" then return "" end
  return message:sub(1, MESSAGE_MAX_BYTES):lower()
end

local function says_model_not_found(message)
  if message:find("^model:") then return true end -- Anthropic: "model: claude-x"
  return message:find("model", 1, true) ~= nil
    and (message:find("does not exist", 1, true) or message:find("not found", 1, true)) ~= nil
end

local function class_of_message(message)
  if find_any(message, CONTEXT_MESSAGES) then return "context_length" end
  if find_any(message, FILTER_MESSAGES) then return "content_filter" end
  if find_any(message, BILLING_MESSAGES) then return "billing" end
  if find_any(message, AUTH_MESSAGES) then return "auth" end
  if find_any(message, BAD_MODEL_MESSAGES) then return "model_not_found" end
  if message:find("model", 1, true) and message:find("does not exist", 1, true) then
    return "model_not_found"
  end
  return nil
end

local function classify_404(res)
  local inner, body = error_parts(res)
  if not inner then return "model_not_found" end
  local class = class_of_codes(res, inner, body)
  if class then return class end
  return says_model_not_found(message_of(inner)) and "model_not_found" or "client_fault"
end

--- Any other 4xx: what the body says, or client_fault.
local function classify_client_error(res)
  local inner, body = error_parts(res)
  if not inner then return class_of_code(res.headers["x-amzn-errortype"]) or "client_fault" end
  return class_of_codes(res, inner, body) or class_of_message(message_of(inner)) or "client_fault"
end

local function classify_by_code(res, otherwise, wanted)
  local inner, body = error_parts(res)
  local class = inner and class_of_codes(res, inner, body)
  if class and (not wanted or wanted == class) then return class end
  return otherwise
end

--- The credential, unless the error says that it is about the model.
local function classify_403(res)
  local inner, body = error_parts(res)
  local class = inner and class_of_codes(res, inner, body)
  if class then return class end
  if inner and find_any(message_of(inner), BAD_MODEL_MESSAGES) then return "model_not_found" end
  return "auth"
end

local NOT_A_LIMIT = { billing = true, overloaded = true }

--- A limit, unless the money has run out, or the model is not there yet.
local function classify_429(res)
  local inner, body = error_parts(res)
  local class = inner and class_of_codes(res, inner, body)
    or class_of_code(res.headers["x-amzn-errortype"])
  return NOT_A_LIMIT[class] and class or "rate_limited"
end

local FIXED = {
  [304] = "ok", [402] = "billing", [408] = "server_error",
  [413] = "context_length", [503] = "overloaded", [529] = "overloaded",
}
local BY_BODY = {
  [401] = function(res) return classify_by_code(res, "auth", "model_not_found") end,
  [403] = classify_403,
  [404] = classify_404,
  [429] = classify_429,
  [500] = function(res) return classify_by_code(res, "server_error", "overloaded") end,
}

local function classify_status(res, status)
  if status >= 200 and status < 300 then return "ok" end
  local class = FIXED[status]
  if class then return class end
  local by_body = BY_BODY[status]
  if by_body then return by_body(res) end
  if status >= 400 and status < 500 then return classify_client_error(res) end
  return "server_error"
end

-- Errors under status 200 ------------------------------------------------------------------------

local function status_in(inner, body)
  for _, value in ipairs { inner.code or false, inner.status or false, body.code or false,
    body.status or false, inner.status_code or false } do
    local status = tonumber(value)
    if status and status % 1 == 0 and status >= 400 and status <= 599 then return status end
  end
  return nil
end

local function class_in(table_of, inner)
  for _, code in ipairs { inner.code or false, inner.type or false, inner.status or false } do
    local class = type(code) == "string" and table_of[code:lower()]
    if class then return class end
  end
  return nil
end

--- The class of an error that came under status 200.
-- @tparam ?table decoded the event's data, or the body; nil when it is no JSON
-- @treturn string one of CLASSES, from rate_limited to server_error
-- @treturn number the status that it names, or the one that its class would have
-- @treturn ?string what it says to people
local function classify_error(decoded)
  local res = { headers = {}, json = function() return decoded end }
  if type(decoded) == "table" and type(decoded.response) == "table" then
    decoded = decoded.response -- response.failed
  end
  local inner, body = error_parts(res)
  if not inner then return "server_error", 500, nil end
  local status = status_in(inner, body)
  local class = class_of_codes(res, inner, body) or class_in(EVENT_CODE_CLASS, inner)
    or class_of_message(message_of(inner))
  if not class and status then
    class = classify_status(res, status)
  elseif not class then
    class = class_in(FAULT_CODES, inner) and "client_fault" or "server_error"
  end
  local message = type(inner.message) == "string" and inner.message or nil
  return class, status or STATUS_OF_CLASS[class], message
end

local function add_code(list, code)
  if type(code) ~= "string" or code == "" then return end
  list[#list + 1] = (code:lower():gsub("^.*#", ""):gsub(":.*$", ""))
end

--- What an error calls itself: codes, types and the like, lower case, the most specific first.
-- @param[opt] res an answer from status 400 on
-- @tparam[opt] table said instead of it, what came in place of an answer, decoded
-- @treturn {string,...}
local function codes_of(res, said)
  local list = {}
  if type(said) == "table" and type(said.response) == "table" then said = said.response end
  local inner, body = error_parts(res or { json = function() return said end })
  if inner then
    local nested, details = inner.innererror, inner.details
    add_code(list, type(nested) == "table" and nested.code)
    for position = 1, type(details) == "table" and DETAILS_MAX or 0 do
      add_code(list, type(details[position]) == "table" and details[position].reason)
    end
    for _, key in ipairs { "code", "type", "status" } do add_code(list, inner[key]) end
    if inner == body then add_code(list, body.__type) end
  end
  if res then add_code(list, res.headers["x-amzn-errortype"]) end
  return list
end

--- Whether an answer says that the credential itself is not accepted: not for this model, or for
-- this request, but at all. A client must not be able to bring that about.
-- @param res the answer
-- @treturn boolean
local function refuses_key(res)
  local status = res.status
  if status == 401 then return classify_status(res, status) == "auth" end
  if status ~= 400 and status ~= 403 then return false end
  local inner, body = error_parts(res)
  if not inner then return class_of_code(res.headers["x-amzn-errortype"]) == "auth" end
  return (class_of_codes(res, inner, body) or find_any(message_of(inner), AUTH_MESSAGES) and "auth")
    == "auth"
end

--- The class of what `req:send` returned.
-- A failure's own class passes through. Neither answer nor failure (no try was made) is "empty".
-- @param[opt] res the answer, when there is one
-- @tparam[opt] table err the failure, when there is none
-- @treturn string one of CLASSES
-- @treturn ?number the status of the answer, or of the error that came in place of one; nil for any
-- other failure
local function classify(res, err)
  if res == nil then
    local class = type(err) == "table" and err.class
    local status = type(err) == "table" and err.status
    if type(class) == "string" then return class, type(status) == "number" and status or nil end
    return err == nil and "empty" or "malformed", nil
  end
  local status = res.status
  if type(status) ~= "number" then return "malformed", nil end
  return classify_status(res, status), status
end

return {
  classify = classify, classify_error = classify_error, refuses_key = refuses_key,
  codes_of = codes_of,
  CLASSES = CLASSES, CLASS_NAMES = CLASS_NAMES, GROUPS = GROUPS,
}
