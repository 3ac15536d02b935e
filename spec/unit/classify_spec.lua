local cjson = require "cjson.safe"
local classify = require "perilune.classify"
local support = require "spec.unit.support"

local function class_of(status, body, headers)
  return (classify.classify(support.res({ status, body = body, headers = headers })))
end

describe("perilune.classify", function()
  it("gives class and status of an answer", function()
    local class, status = classify.classify(support.res(503))
    assert.equal("overloaded", class)
    assert.equal(503, status)
  end)

  it("passes a failure's class through, without a status", function()
    for _, name in ipairs { "dns", "timeout_head", "truncated", "empty" } do
      local class, status = classify.classify(nil, { class = name })
      assert.equal(name, class)
      assert.is_nil(status)
    end
  end)

  it("survives what is neither answer nor failure", function()
    assert.equal("empty", (classify.classify(nil, nil)))
    assert.equal("malformed", (classify.classify(nil, "reset")))
    assert.equal("malformed", (classify.classify(nil, { class = 7 })))
    assert.equal("malformed", (classify.classify({ status = "200" })))
  end)

  it("knows statuses that need no body", function()
    local expected = {
      [200] = "ok", [201] = "ok", [204] = "ok", [299] = "ok", [304] = "ok",
      [101] = "server_error", [301] = "server_error", [302] = "server_error",
        [307] = "server_error",
      [400] = "client_fault", [401] = "auth", [402] = "billing", [403] = "auth",
      [404] = "model_not_found", [408] = "server_error", [409] = "client_fault",
      [413] = "context_length", [422] = "client_fault", [429] = "rate_limited",
      [500] = "server_error", [501] = "server_error", [502] = "server_error", [503] = "overloaded",
      [504] = "server_error", [529] = "overloaded", [599] = "server_error",
    }
    for status, class in pairs(expected) do assert.equal(class, class_of(status), status) end
  end)

  it("does not read the body of a good answer", function()
    local res = { status = 200, headers = {} }
    function res.json() error("not to be called") end
    assert.equal("ok", (classify.classify(res)))
  end)

  it("gives only known classes", function()
    local errors = { "{", "{}", "[]", "null", "\"x\"", "{\"error\":{\"code\":\"content_filter\"}}" }
    for status = 100, 599 do
      for _, body in ipairs(errors) do
        assert.is_true(classify.CLASSES[class_of(status, body)])
      end
    end
  end)

  describe("on 429", function()
    it("tells a rate limit from an empty account", function()
      assert.equal("rate_limited", class_of(429, { error = { code = "rate_limit_exceeded",
        message = "Rate limit reached for gpt-4" } }))
      assert.equal("billing", class_of(429, { error = { type = "insufficient_quota",
        code = "insufficient_quota", message = "You exceeded your current quota" } }))
      assert.equal("billing", class_of(429, { error = { code = "billing_not_active" } }))
    end)

    it("takes Gemini's quota for a rate limit, alone and in an array", function()
      local body = { error = { code = 429, status = "RESOURCE_EXHAUSTED",
        message = "You exceeded your current quota, please check your plan and billing details." } }
      assert.equal("rate_limited", class_of(429, body))
      assert.equal("rate_limited", class_of(429, { body }))
    end)

    it("stays a rate limit whatever else the body says", function()
      assert.equal("rate_limited", class_of(429, { error = { code = "context_length_exceeded" } }))
    end)
  end)

  describe("on 401 and 403", function()
    it("is about the credential", function()
      assert.equal("auth", class_of(401, { error = { message = "Incorrect API key provided." } }))
      assert.equal("auth", class_of(403, { error = { type = "permission_error" } }))
      assert.equal("auth", class_of(403, { message = "denied" },
        { ["x-amzn-errortype"] = "AccessDeniedException:http://internal/" }))
    end)

    it("is about money or the model when a code says so", function()
      assert.equal("billing", class_of(403, { error = { code = "insufficient_quota" } }))
      assert.equal("billing", class_of(403, { type = "error", error = { type = "billing_error" } }))
      assert.equal("model_not_found", class_of(403, { error = { code = "model_not_found",
        message = "Project `p` does not have access to model `gpt-4`" } }))
    end)
  end)

  describe("on 404", function()
    it("recognises a model that is not there", function()
      local bodies = {
        { error = { code = "model_not_found", message = "no" } }, -- OpenAI
        { error = { message = "The model `x` does not exist.", type = "NotFoundError",
          code = 404 } },
        { object = "error", message = "The model `x` does not exist.", code = 404 }, -- vLLM, old
        { type = "error", error = { type = "not_found_error", message = "model: claude-x" } },
        { error = { code = 404, status = "NOT_FOUND",
          message = "models/gemini-x is not found for API version v1beta" } },
        { error = "model 'x' not found" }, -- Ollama
        { error = { code = "DeploymentNotFound" } }, -- Azure
      }
      for _, body in ipairs(bodies) do
        assert.equal("model_not_found", class_of(404, body), cjson.encode(body))
      end
      assert.equal("model_not_found", class_of(404, { message = "Could not resolve" },
        { ["x-amzn-errortype"] = "ResourceNotFoundException" }))
    end)

    it("leaves other missing things to the client", function()
      assert.equal("client_fault", class_of(404,
        { error = { message = "No such File object: f" } }))
      assert.equal("client_fault", class_of(404, { detail = "Not Found" }))
    end)

    it("takes a bare 404 for the target's lack", function()
      assert.equal("model_not_found", class_of(404, "404 page not found"))
      assert.equal("model_not_found", class_of(404, ""))
    end)
  end)

  describe("on 400", function()
    it("recognises prompts that are too long", function()
      assert.equal("context_length", class_of(400,
        { error = { code = "context_length_exceeded" } }))
      local messages = {
        "This model's maximum context length is 4096 tokens. However, your messages are 4500.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000",
        "Input is too long for requested model.",
        "Your input exceeds the context window of this model.",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        "the request exceeds the available context size. try increasing the context size",
        "The input (9 tokens) is longer than the model's context length (8 tokens).",
        "too many tokens: total number of tokens in the prompt cannot exceed 4081",
      }
      for _, message in ipairs(messages) do
        assert.equal("context_length", class_of(400, { error = { message = message } }), message)
        assert.equal("context_length", class_of(400, { message = message }), message)
      end
    end)

    it("recognises content filters", function()
      assert.equal("content_filter", class_of(400, { error = { code = "content_filter" } }))
      assert.equal("content_filter", class_of(400,
        { error = { code = "content_policy_violation" } }))
      assert.equal("content_filter", class_of(400, { error = { code = cjson.null,
        innererror = { code = "ResponsibleAIPolicyViolation" } } }))
      assert.equal("content_filter", class_of(400, { error = { message =
        "The response was filtered: Azure OpenAI's content management policy" } }))
    end)

    it("recognises money, credentials and models that come as 400", function()
      assert.equal("billing", class_of(400, { type = "error", error = { type =
        "invalid_request_error", message = "Your credit balance is too low to access the API" } }))
      assert.equal("auth", class_of(400, { error = { code = 400, status = "INVALID_ARGUMENT",
        message = "API key not valid. Please pass a valid API key.",
        details = { { ["@type"] = "x", reason = "API_KEY_INVALID" } } } }))
      assert.equal("auth", class_of(400, { { error = { code = 400, message = "no",
        details = { { ["@type"] = "x" }, { reason = "API_KEY_INVALID" } } } } }))
      assert.equal("model_not_found", class_of(400,
        { message = "The provided model identifier is invalid." }))
      assert.equal("model_not_found", class_of(400, { error = "The model 'x' does not exist" }))
    end)

    it("reads AWS exception names, from header and body", function()
      assert.equal("auth", class_of(400,
        { __type = "com.amazon.coral.service#ExpiredTokenException" }))
      assert.equal("rate_limited", class_of(400, "",
        { ["x-amzn-errortype"] = "ServiceQuotaExceededException:http://internal.amazon.com/" }))
      assert.equal("server_error", class_of(424, {},
        { ["x-amzn-errortype"] = "ModelErrorException" }))
    end)

    it("lets the code win over the message", function()
      assert.equal("content_filter", class_of(400, { error = { code = "content_filter",
        message = "maximum context length" } }))
    end)

    it("leaves the rest to the client", function()
      assert.equal("client_fault", class_of(400, { error = { message =
        "Invalid request: missing required parameter 'model'.", code = 400 } }))
      assert.equal("client_fault", class_of(400, { error = { message =
        "max_tokens is too large: 100000. This model supports at most 4096 tokens" } }))
      assert.equal("client_fault", class_of(400, "<html>"))
    end)

    it("looks at the beginning of a message only", function()
      local message = ("x"):rep(5000) .. "maximum context length"
      assert.equal("client_fault", class_of(400, { error = { message = message } }))
    end)
  end)

  it("knows Anthropic's overload in a 500", function()
    assert.equal("overloaded", class_of(500, { type = "error",
      error = { type = "overloaded_error" } }))
    assert.equal("server_error", class_of(500, { error = { type = "insufficient_quota" } }))
  end)

  describe("of an error under status 200", function()
    local function error_of(body)
      return classify.classify_error(type(body) == "string" and cjson.decode(body) or body)
    end

    it("is what its code says, with the status that goes with it", function()
      local cases = {
        { "rate_limit_exceeded", "rate_limited", 429 }, { "overloaded_error", "overloaded", 503 },
        { "insufficient_quota", "billing", 402 }, { "server_error", "server_error", 500 },
        { "context_length_exceeded", "context_length", 400 }, { "api_error", "server_error", 500 },
        { "authentication_error", "auth", 401 }, { "content_filter", "content_filter", 400 },
        { "model_not_found", "model_not_found", 404 },
        { "invalid_request_error", "client_fault", 400 }, { "what_is_this", "server_error", 500 },
      }
      for _, case in ipairs(cases) do
        for _, field in ipairs { "code", "type", "status" } do
          local class, status = error_of { error = { [field] = case[1], message = "m" } }
          assert.same({ case[2], case[3] }, { class, status }, case[1] .. " as " .. field)
        end
      end
    end)

    it("is what its number says", function()
      assert.same({ "rate_limited", 429, "slow" },
        { error_of { error = { code = 429, message = "slow" } } })
      assert.same({ "rate_limited", 429 },
        { error_of { { error = { code = 429, status = "RESOURCE_EXHAUSTED" } } } })
      assert.same({ "overloaded", 529 }, { error_of { error = { code = "529" } } })
      assert.same({ "context_length", 400, "The prompt is too long" },
        { error_of { error = { code = 400, message = "The prompt is too long" } } })
      assert.same({ "server_error", 502 }, { error_of { error = { code = 502, metadata = {} } } })
      assert.same({ "server_error", 500 }, { error_of { error = { code = 304 } } })
    end)

    it("is read in every form", function()
      assert.same({ "overloaded", 503, "Overloaded" }, { error_of { type = "error",
        error = { type = "overloaded_error", message = "Overloaded" } } })
      assert.same({ "rate_limited", 429, "m" }, { error_of { type = "error",
        code = "rate_limit_exceeded", message = "m" } })
      assert.same({ "server_error", 500, "m" }, { error_of { type = "response.failed",
        response = { error = { code = "server_error", message = "m" } } } })
      assert.same({ "server_error", 500, "no memory" }, { error_of { error = "no memory" } })
      assert.same({ "server_error", 500 }, { error_of(nil) })
    end)

    it("comes out of classify with its status", function()
      assert.same({ "rate_limited", 429 },
        { classify.classify(nil, { class = "rate_limited", status = 429 }) })
      assert.same({ "connect" }, { classify.classify(nil, { class = "connect", status = "7" }) })
    end)
  end)

  it("survives hostile shapes", function()
    local shapes = {
      "null", "true", "7", "\"text\"", "[]", "[null]", "[[[]]]", "{\"error\":null}",
        "{\"error\":[]}",
      "{\"error\":7}", "{\"error\":{\"code\":{},\"type\":[],\"status\":true,\"message\":{}}}",
      "{\"error\":{\"innererror\":[7],\"details\":\"x\"}}",
      "{\"error\":{\"details\":[null,7,{\"reason\":{}}],\"innererror\":{\"code\":[]}}}",
      "{\"__type\":{}}", ("["):rep(2000), "{\"error\":{\"message\":\"\\u0000\"}}",
    }
    for _, shape in ipairs(shapes) do
      local decoded = cjson.decode(shape)
      for _, body in ipairs { decoded, { response = decoded }, { error = decoded } } do
        local class, status = classify.classify_error(body)
        assert.is_true(classify.CLASSES[class] and class ~= "ok", shape)
        assert.is_true(status >= 400 and status <= 599, shape)
      end
    end
    for _, status in ipairs { 400, 403, 404, 418, 429, 500 } do
      for _, shape in ipairs(shapes) do
        assert.is_true(classify.CLASSES[class_of(status, shape)], status .. " " .. shape)
      end
    end
  end)

  it("has groups of known classes only, without the deadline", function()
    for _, group in pairs(classify.GROUPS) do
      for name in pairs(group) do assert.is_true(classify.CLASSES[name]) end
      assert.is_nil(group.timeout_deadline)
    end
    assert.equal(23, #classify.CLASS_NAMES)
  end)
end)
