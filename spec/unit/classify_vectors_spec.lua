--- perilune.classify against errors as four families of providers write them: OpenAI (with Azure),
-- Anthropic, Gemini, Bedrock; as answers, and within streams under status 200.

local cjson = require "cjson.safe"
local classify = require "perilune.classify"
local support = require "spec.unit.support"

-- { what it is, class, status, body, headers }
local ANSWERS = {
  -- OpenAI
  { "openai key", "auth", 401, [[{"error":{"message":"Incorrect API key provided: sk-abc. You can
    find your API key at https://platform.openai.com/account/api-keys.","type":
    "invalid_request_error","param":null,"code":"invalid_api_key"}}]] },
  { "openai country", "auth", 403, [[{"error":{"code":"unsupported_country_region_territory",
    "message":"Country, region, or territory not supported","param":null,
    "type":"request_forbidden"}}]] },
  { "openai model", "model_not_found", 404, [[{"error":{"message":"The model `gpt-9` does not exist
    or you do not have access to it.","type":"invalid_request_error","param":null,
    "code":"model_not_found"}}]] },
  { "openai project", "model_not_found", 403, [[{"error":{"message":"Project `proj_x` does not have
    access to model `gpt-9`","type":"invalid_request_error","param":null,
    "code":"model_not_found"}}]] },
  { "openai requests", "rate_limited", 429, [[{"error":{"message":"Rate limit reached for gpt-4o in
    organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in
    20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}]] },
  { "openai tokens", "rate_limited", 429, [[{"error":{"message":"Request too large for gpt-4o on
    tokens per min (TPM): Limit 30000, Requested 45000.","type":"tokens","param":null,
    "code":"rate_limit_exceeded"}}]] },
  { "openai quota", "billing", 429, [[{"error":{"message":"You exceeded your current quota, please
    check your plan and billing details.","type":"insufficient_quota","param":null,
    "code":"insufficient_quota"}}]] },
  { "openai inactive", "billing", 429, [[{"error":{"message":"Your account is not active, please
    check your billing details on our website.","type":"billing_not_active","param":null,
    "code":"billing_not_active"}}]] },
  { "openai context", "context_length", 400, [[{"error":{"message":"This model's maximum context
    length is 8192 tokens. However, your messages resulted in 10014 tokens. Please reduce the length
    of the messages.","type":"invalid_request_error","param":"messages",
    "code":"context_length_exceeded"}}]] },
  { "openai responses context", "context_length", 400, [[{"error":{"message":"Your input exceeds the
    context window of this model. Please adjust your input and try again.",
    "type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}]] },
  { "openai prompt", "content_filter", 400, [[{"error":{"message":"Invalid prompt: your prompt was
    flagged as potentially violating our usage policy.","type":"invalid_request_error",
    "param":null,"code":"invalid_prompt"}}]] },
  { "openai images", "content_filter", 400, [[{"error":{"code":"moderation_blocked","message":"Your
    request was rejected by the safety system.","param":null,"type":"image_generation_user_error"}}
    ]] },
  { "openai parameter", "client_fault", 400, [[{"error":{"message":"Unsupported parameter:
    'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}]] },
  { "openai file", "client_fault", 404, [[{"error":{"message":"No such File object: file-x",
    "type":"invalid_request_error","param":"id","code":null}}]] },
  { "openai error", "server_error", 500, [[{"error":{"message":"The server had an error while
    processing your request. Sorry about that!","type":"server_error","param":null,"code":null}}
    ]] },
  { "openai overload", "overloaded", 503, [[{"error":{"message":"The engine is currently overloaded,
    please try again later","type":"server_error","param":null,"code":null}}]] },
  -- Azure
  { "azure filter", "content_filter", 400, [[{"error":{"message":"The response was filtered due to
    the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt",
    "code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation",
    "content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}]] },
  { "azure deployment", "model_not_found", 404, [[{"error":{"code":"DeploymentNotFound","message":
    "The API deployment for this resource does not exist."}}]] },
  { "azure key", "auth", 401, [[{"error":{"code":"401","message":"Access denied due to invalid
    subscription key or wrong API endpoint."}}]] },
  { "azure limit", "rate_limited", 429, [[{"error":{"code":"429","message":"Requests to the
    ChatCompletions_Create Operation have exceeded token rate limit. Please retry after 2 seconds."
    }}]] },
  -- Anthropic
  { "anthropic key", "auth", 401, [[{"type":"error","error":{"type":"authentication_error",
    "message":"invalid x-api-key"},"request_id":"req_1"}]] },
  { "anthropic permission", "auth", 403, [[{"type":"error","error":{"type":"permission_error",
    "message":"Your API key does not have permission to use the specified resource."}}]] },
  { "anthropic money", "billing", 400, [[{"type":"error","error":{"type":"invalid_request_error",
    "message":"Your credit balance is too low to access the Anthropic API. Please go to Plans &
    Billing to upgrade or purchase credits."}}]] },
  { "anthropic billing", "billing", 402, [[{"type":"error","error":{"type":"billing_error",
    "message":"m"}}]] },
  { "anthropic model", "model_not_found", 404, [[{"type":"error","error":{"type":"not_found_error",
    "message":"model: claude-9"}}]] },
  { "anthropic too large", "context_length", 413, [[{"type":"error","error":{
    "type":"request_too_large","message":"Request exceeds the maximum size"}}]] },
  { "anthropic long", "context_length", 400, [[{"type":"error","error":{
    "type":"invalid_request_error","message":"prompt is too long: 211000 tokens > 200000 maximum"}}
    ]] },
  { "anthropic with answer", "context_length", 400, [[{"type":"error","error":{
    "type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit:
    188240 + 21333 > 200000, decrease input length or `max_tokens` and try again"}}]] },
  { "anthropic filter", "content_filter", 400, [[{"type":"error","error":{
    "type":"invalid_request_error","message":"Output blocked by content filtering policy"}}]] },
  { "anthropic field", "client_fault", 400, [[{"type":"error","error":{
    "type":"invalid_request_error","message":"max_tokens: Field required"}}]] },
  { "anthropic limit", "rate_limited", 429, [[{"type":"error","error":{"type":"rate_limit_error",
    "message":"This request would exceed your organization's rate limit of 40,000 input tokens per
    minute"}}]] },
  { "anthropic error", "server_error", 500, [[{"type":"error","error":{"type":"api_error",
    "message":"Internal server error"}}]] },
  { "anthropic timeout", "server_error", 504, [[{"type":"error","error":{"type":"timeout_error",
    "message":"Request timed out"}}]] },
  { "anthropic overload", "overloaded", 529, [[{"type":"error","error":{"type":"overloaded_error",
    "message":"Overloaded"}}]] },
  { "anthropic overload as 500", "overloaded", 500, [[{"type":"error","error":{
    "type":"overloaded_error","message":"Overloaded"}}]] },
  -- Gemini
  { "gemini key", "auth", 400, [[{"error":{"code":400,"message":"API key not valid. Please pass a
    valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":
    "type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID",
    "domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}]}}]] },
  { "gemini permission", "auth", 403, [[{"error":{"code":403,"message":"Method doesn't allow
    unregistered callers","status":"PERMISSION_DENIED"}}]] },
  { "gemini model", "model_not_found", 404, [[{"error":{"code":404,"message":"models/gemini-9 is not
    found for API version v1beta, or is not supported for generateContent.","status":"NOT_FOUND"}}
    ]] },
  { "gemini context", "context_length", 400, [[{"error":{"code":400,"message":"The input token count
    (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "status":"INVALID_ARGUMENT"}}]] },
  { "gemini argument", "client_fault", 400, [[{"error":{"code":400,"message":"Invalid JSON payload
    received. Unknown name \"x\"","status":"INVALID_ARGUMENT"}}]] },
  { "gemini exhausted", "rate_limited", 429, [[{"error":{"code":429,"message":"You exceeded your
    current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED",
    "details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":
    "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]},{"@type":
    "type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]] },
  { "gemini exhausted in an array", "rate_limited", 429, [=[[{"error":{"code":429,"message":"Resource
    has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}]]=] },
  { "gemini internal", "server_error", 500, [[{"error":{"code":500,"message":"An internal error has
    occurred.","status":"INTERNAL"}}]] },
  { "gemini overload", "overloaded", 503, [[{"error":{"code":503,"message":"The model is overloaded.
    Please try again later.","status":"UNAVAILABLE"}}]] },
  { "gemini deadline", "server_error", 504, [[{"error":{"code":504,"message":"The request timed out.",
    "status":"DEADLINE_EXCEEDED"}}]] },
  -- Bedrock
  { "bedrock throttled", "rate_limited", 429, [[{"message":"Too many requests, please wait before
    trying again."}]], { ["x-amzn-errortype"] = "ThrottlingException" } },
  { "bedrock tokens", "rate_limited", 429, [[{"message":"Too many tokens, please wait before trying
    again."}]], { ["x-amzn-errortype"] = "ThrottlingException:http://internal.amazon.com/" } },
  { "bedrock not ready", "overloaded", 429, [[{"message":"Model is not ready for inference."}]],
    { ["x-amzn-errortype"] = "ModelNotReadyException" } },
  { "bedrock quota", "rate_limited", 400, [[{"message":"Your request exceeds the service quota for
    your account."}]], { ["x-amzn-errortype"] = "ServiceQuotaExceededException" } },
  { "bedrock long", "context_length", 400, [[{"message":"Input is too long for requested model."}]],
    { ["x-amzn-errortype"] = "ValidationException" } },
  { "bedrock model", "model_not_found", 400, [[{"message":"The provided model identifier is invalid."
    }]], { ["x-amzn-errortype"] = "ValidationException" } },
  { "bedrock validation", "client_fault", 400, [[{"message":"Malformed input request: #: required key
    [messages] not found, please reformat your input and try again."}]],
    { ["x-amzn-errortype"] = "ValidationException" } },
  { "bedrock access", "model_not_found", 403, [[{"message":"You don't have access to the model with
    the specified model ID."}]], { ["x-amzn-errortype"] = "AccessDeniedException" } },
  { "bedrock token", "auth", 403, [[{"message":"The security token included in the request is
    invalid."}]], { ["x-amzn-errortype"] = "UnrecognizedClientException" } },
  { "bedrock expired", "auth", 403, [[{"message":"The security token included in the request is
    expired"}]], { ["x-amzn-errortype"] = "ExpiredTokenException" } },
  { "bedrock missing", "model_not_found", 404, [[{"message":"Could not resolve the foundation model
    from the provided model identifier."}]],
    { ["x-amzn-errortype"] = "ResourceNotFoundException" } },
  { "bedrock timeout", "server_error", 408, [[{"message":"Model has timed out in processing the
    request."}]], { ["x-amzn-errortype"] = "ModelTimeoutException" } },
  { "bedrock model error", "server_error", 424, [[{"message":"The system encountered an unexpected
    error during processing.","originalStatusCode":500}]],
    { ["x-amzn-errortype"] = "ModelErrorException" } },
  { "bedrock stream error", "server_error", 424, [[{"message":"m"}]],
    { ["x-amzn-errortype"] = "ModelStreamErrorException" } },
  { "bedrock internal", "server_error", 500, [[{"message":"The system encountered an unexpected
    error."}]], { ["x-amzn-errortype"] = "InternalServerException" } },
  { "bedrock unavailable", "overloaded", 503, [[{"message":"Bedrock is unable to process your
    request."}]], { ["x-amzn-errortype"] = "ServiceUnavailableException" } },
}

-- { what it is, class, status that it would have had, event's data }
local EVENTS = {
  { "openai chat", "server_error", 500, [[{"error":{"message":"The server had an error processing
    your request.","type":"server_error","param":null,"code":null}}]] },
  { "openai responses", "rate_limited", 429, [[{"type":"error","code":"rate_limit_exceeded",
    "message":"Rate limit reached","param":null,"sequence_number":1}]] },
  { "openai response failed", "server_error", 500, [[{"type":"response.failed","response":{
    "id":"resp_1","status":"failed","error":{"code":"server_error","message":"m"}}}]] },
  { "openai prompt", "content_filter", 400, [[{"type":"response.failed","response":{"error":{
    "code":"invalid_prompt","message":"flagged"}}}]] },
  { "openai context", "context_length", 400, [[{"error":{"message":"m","type":
    "invalid_request_error","code":"context_length_exceeded"}}]] },
  { "anthropic overload", "overloaded", 503, [[{"type":"error","error":{"type":"overloaded_error",
    "message":"Overloaded"}}]] },
  { "anthropic error", "server_error", 500, [[{"type":"error","error":{"type":"api_error",
    "message":"Internal server error"}}]] },
  { "anthropic limit", "rate_limited", 429, [[{"type":"error","error":{"type":"rate_limit_error",
    "message":"m"}}]] },
  { "anthropic long", "context_length", 400, [[{"type":"error","error":{
    "type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}]] },
  { "gemini overload", "overloaded", 503, [[{"error":{"code":503,"message":"The model is
    overloaded.","status":"UNAVAILABLE"}}]] },
  { "gemini exhausted", "rate_limited", 429, [=[[{"error":{"code":429,"message":"m",
    "status":"RESOURCE_EXHAUSTED"}}]]=] },
  { "gemini internal", "server_error", 500, [[{"error":{"message":"m","status":"INTERNAL"}}]] },
  { "bedrock throttled", "rate_limited", 429, [[{"throttlingException":{"message":"Too many tokens,
    please wait before trying again."}}]] },
  { "bedrock internal", "server_error", 500, [[{"internalServerException":{"message":"m"}}]] },
  { "bedrock unavailable", "overloaded", 503, [[{"serviceUnavailableException":{"message":"m"}}]] },
  { "bedrock model", "server_error", 500, [[{"modelStreamErrorException":{"message":"m",
    "originalStatusCode":500}}]] },
  { "bedrock timeout", "server_error", 500, [[{"modelTimeoutException":{"message":"m"}}]] },
  { "bedrock long", "context_length", 400, [[{"validationException":{"message":"Input is too long
    for requested model."}}]] },
  { "bedrock validation", "client_fault", 400, [[{"validationException":{"message":"m"}}]] },
}

--- Line breaks are for this file only.
local function joined(text) return (text:gsub("\n%s+", " ")) end

describe("errors of providers", function()
  it("are classed as answers", function()
    for _, case in ipairs(ANSWERS) do
      local body = joined(case[4])
      assert.is_truthy(cjson.decode(body), case[1])
      local res = support.res({ case[3], body = body, headers = case[5] })
      local class, status = classify.classify(res)
      assert.same({ case[2], case[3] }, { class, status }, case[1])
    end
  end)

  it("are classed within streams", function()
    for _, case in ipairs(EVENTS) do
      local decoded = cjson.decode(joined(case[4]))
      assert.is_truthy(decoded, case[1])
      local class, status = classify.classify_error(decoded)
      assert.same({ case[2], case[3] }, { class, status }, case[1])
    end
  end)

  it("blame a key only when they are about the key", function()
    local refuses = { ["openai key"] = true, ["azure key"] = true, ["anthropic key"] = true,
      ["gemini key"] = true, ["bedrock token"] = true, ["bedrock expired"] = true }
    for _, case in ipairs(ANSWERS) do
      local res = support.res({ case[3], body = joined(case[4]), headers = case[5] })
      assert.equal(refuses[case[1]] or false, classify.refuses_key(res), case[1])
    end
  end)

  it("tell the codes that routes may class themselves", function()
    local function codes(text, headers)
      return classify.codes_of(support.res({ 400, body = joined(text), headers = headers }))
    end
    assert.same({ "insufficient_quota", "insufficient_quota" }, codes(
      [[{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}]]))
    assert.same({ "responsibleaipolicyviolation", "content_filter" }, codes(
      [[{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}]]))
    assert.same({ "api_key_invalid", "invalid_argument" }, codes([[{"error":{"code":400,
      "status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]]))
    assert.same({ "validationexception" }, codes([[{"message":"m"}]],
      { ["x-amzn-errortype"] = "ValidationException:http://x/" }))
    assert.same({}, codes("no JSON"))
    assert.same({ "throttlingexception" },
      classify.codes_of(nil, { throttlingException = { message = "m" } }))
    assert.same({}, classify.codes_of(nil, nil))
  end)
end)
