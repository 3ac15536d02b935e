-- How the simulator fails.
local failures = require "perilune.sim.failures"
local options = require "perilune.sim.options"
local random = require "perilune.sim.random"
local sim = require "spec.unit.sim_support"

local ERRORS = {
  rate_limit = { 429, "RateLimitError", "null", "Rate limit reached for gpt-4 in organization "
    .. "org-xxx on requests per min (RPM): Limit 3, Used 3, Requested 1." },
  invalid_api_key = { 401, "AuthenticationError", "null", "Incorrect API key provided." },
  context_length = { 400, "BadRequestError", '"messages"', "This model's maximum context length "
    .. "is 4096 tokens. However, your messages resulted in 4500 tokens." },
  server_error = { 503, "InternalServerError", "null",
    "The server is overloaded or not ready yet." },
  invalid_request = { 400, "BadRequestError", '"model"',
    "Invalid request: missing required parameter 'model'." },
  model_not_found = { 404, "NotFoundError", '"model"',
    "The model 'gpt-4-nonexistent' does not exist" },
}

local function stream(more)
  return sim.chat("one two three four five", more or { stream = true })
end

local function failing(kind, ...)
  return sim.start { "--mode", "echo", "--failure-injection-rate", "100", "--failure-types", kind,
    ... }
end

describe("which requests fail", function()
  local function choices(values, count)
    local config = options.defaults()
    for key, value in pairs(values) do config[key] = value end
    local state, generator, list = failures.new(config), random.new(1), {}
    for index = 1, count do list[index] = state:choose(config, generator) or "ok" end
    return list, state, config
  end

  it("none by default", function()
    for _, choice in ipairs(choices({}, 50)) do assert.equal("ok", choice) end
  end)

  it("by rate, with types drawn at random", function()
    local counts = {}
    for _, choice in ipairs(choices({ failure_injection_rate = 30 }, 3000)) do
      counts[choice] = (counts[choice] or 0) + 1
    end
    assert.near(2100, counts.ok, 100)
    local kinds = 0
    for kind, count in pairs(counts) do
      if kind ~= "ok" then
        kinds = kinds + 1
        assert.is_table(ERRORS[kind], kind)
        assert.near(150, count, 50)
      end
    end
    assert.equal(6, kinds)
  end)

  it("the first ones, with types in turn", function()
    assert.same({ "cut", "stall", "cut", "ok", "ok" },
      (choices({ fail_first = 3, failure_types = { "cut", "stall" } }, 5)))
    assert.same({ "rate_limit", "invalid_api_key", "ok" }, (choices({ fail_first = 2 }, 3)))
  end)

  it("by a pattern, over and over", function()
    assert.same({ "cut", "cut", "ok", "cut", "cut", "ok", "cut" },
      (choices({ fail_pattern = "xx.", failure_types = { "cut" } }, 7)))
  end)

  it("first, then by pattern instead of by rate", function()
    assert.same({ "cut", "ok", "cut", "ok" }, (choices({ fail_first = 1, fail_pattern = ".x",
      failure_injection_rate = 100, failure_types = { "cut" } }, 4)))
  end)
end)

describe("error answers", function()
  it("are those of llm-d-inference-sim", function()
    for kind, expected in pairs(ERRORS) do
      local answer = failing(kind):post("/v1/chat/completions", stream())
      assert.equal(expected[1], answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      assert.is_nil(answer.headers["retry-after"])
      assert.equal('{"error":{"message":"' .. expected[4]:gsub("/", "\\/") .. '","type":"'
        .. expected[2] .. '","param":' .. expected[3] .. ',"code":' .. expected[1] .. "}}",
        answer.body)
    end
  end)

  it("of a content filter have a code of their own", function()
    local world = failing("content_filter")
    local answer = world:post("/v1/chat/completions", stream())
    assert.equal(400, answer.status)
    assert.same({ "BadRequestError", "content_policy_violation" },
      { answer:json().error.type, answer:json().error.code })
    answer = world:post("/v1/messages", '{"model":"m"}')
    assert.equal(400, answer.status)
    assert.equal("invalid_request_error", answer:json().error.type)
  end)

  it("come before the model is looked at, and on every endpoint", function()
    local world = sim.start { "--model", "served", "--failure-injection-rate", "100",
      "--failure-types", "server_error" }
    assert.equal(503, world:post("/v1/chat/completions", stream()).status)
    for path, body in pairs { ["/v1/completions"] = '{"prompt":"x"}', ["/v1/responses"] = "{}",
      ["/v1/embeddings"] = "{}", ["/v1/images/generations"] = "{}", ["/v1/messages"] = "{}" } do
      assert.equal(503, world:post(path, body).status, path)
    end
    assert.equal(200, world:get("/v1/models").status)
    assert.equal(200, world:get("/health").status)
  end)

  it("come after a body that cannot be read", function()
    local answer = failing("server_error"):post("/v1/chat/completions", "{")
    assert.equal(400, answer.status)
    assert.matches("^Failed to read and parse request body, ", answer:json().error.message)
  end)

  it("have Anthropic's form on its endpoint", function()
    local types = {}
    for kind in pairs(ERRORS) do
      local body = failing(kind):post("/v1/messages", { model = "m", max_tokens = 1,
        messages = { { role = "user", content = "x" } } }):json()
      assert.equal("error", body.type)
      types[kind] = body.error.type
    end
    assert.same({ rate_limit = "rate_limit_error", invalid_api_key = "authentication_error",
      context_length = "invalid_request_error", server_error = "api_error",
      invalid_request = "invalid_request_error", model_not_found = "not_found_error" }, types)
  end)

  it("carry Retry-After with 429 and 503 when set", function()
    local function retry_after(kind, headers)
      local world = failing(kind, "--retry-after", "60")
      return world:post("/v1/chat/completions", stream(), headers).headers["retry-after"]
    end
    assert.equal("60", retry_after("rate_limit"))
    assert.equal("60", retry_after("server_error"))
    assert.is_nil(retry_after("invalid_api_key"))
    assert.equal("Wed, 21 Oct 2026 07:28:00 GMT", retry_after("rate_limit",
      { ["x-sim-retry-after"] = "Wed, 21 Oct 2026 07:28:00 GMT" }))
    assert.is_nil(retry_after("rate_limit", { ["x-sim-retry-after"] = "" }))
  end)

  it("can be asked for by status", function()
    local world = sim.start()
    local function ask(value, more)
      local headers = { ["X-Return-Error"] = value }
      for name, extra in pairs(more or {}) do headers[name] = extra end
      return world:post("/v1/chat/completions", stream(), headers)
    end
    local answer = ask("418")
    assert.equal(418, answer.status)
    assert.same({ message = "Simulated error triggered by X-Return-Error header (code 418)",
      type = "APIConnectionError", code = 418, param = answer:json().error.param },
      answer:json().error)
    assert.equal("UnprocessableEntityError", ask("422"):json().error.type)
    assert.equal("InternalServerError", ask("529"):json().error.type)
    assert.equal("PermissionDeniedError", ask("403"):json().error.type)
    assert.equal("5", ask("429", { ["x-sim-retry-after"] = "5" }).headers["retry-after"])
    assert.equal("", ask("204").body)
    for value, complaint in pairs { abc = "must be an integer", ["1.5"] = "must be an integer",
      ["100"] = "must be from 200 to 599", ["-1"] = "must be from 200 to 599",
      ["99999999999999999999"] = "must be an integer" } do
      answer = ask(value)
      assert.equal(400, answer.status)
      assert.equal('Invalid X-Return-Error header value "' .. value .. '": ' .. complaint,
        answer:json().error.message)
    end
    assert.equal(200, ask("").status)
  end)

  it("do not count when a header asks for another thing", function()
    local world = sim.start { "--fail-first", "1", "--failure-types", "server_error" }
    local function status(headers)
      return world:post("/v1/chat/completions", stream {}, headers).status
    end
    assert.equal(200, status { ["x-sim-failure"] = "none" })
    assert.equal(429, status { ["x-sim-failure"] = "rate_limit" })
    assert.equal(418, status { ["x-return-error"] = "418" })
    assert.equal(503, status())
    assert.equal(200, status())
  end)
end)

describe("failures on the way", function()
  it("reset before the headers", function()
    local answer = failing("reset_before_headers"):post("/v1/chat/completions", stream())
    assert.is_nil(answer.status)
    assert.equal("reset", answer.ended)
  end)

  it("reset after the headers", function()
    for _, is_stream in ipairs { true, false } do
      local answer = failing("reset_after_headers"):post("/v1/chat/completions",
        stream { stream = is_stream })
      assert.equal(200, answer.status)
      assert.equal(is_stream and "text/event-stream" or "application/json",
        answer.headers["content-type"])
      assert.equal("", answer.body)
      assert.equal("cut", answer.ended)
    end
  end)

  it("hang before the headers, until the client leaves or for a time", function()
    local answer = failing("hang"):post("/v1/chat/completions", stream())
    assert.is_nil(answer.status)
    assert.is_nil(answer.ended)
    answer = failing("hang", "--stall-duration", "2s"):post("/v1/chat/completions", stream())
    assert.equal(2000, answer.start_ms)
    assert.equal("finished", answer.ended)
  end)

  it("are slow with the first token, after saying who speaks", function()
    local world = failing("slow_first_token", "--slow-first-token", "3s")
    local answer = world:post("/v1/chat/completions", stream())
    assert.equal(0, answer.start_ms)
    assert.equal(0, answer.writes[1].ms)
    assert.matches('"role":"assistant"', answer.writes[1].bytes)
    assert.equal(3000, answer.writes[2].ms)
    assert.equal("one two three four five", answer:streamed_text())
    assert.equal(3000, world:post("/v1/chat/completions", stream {}).end_ms)
    answer = world:post("/v1/completions", { model = "m", prompt = "a", stream = true },
      { ["x-sim-slow-first-token"] = "50ms" })
    assert.equal(50, answer.writes[1].ms)
  end)

  it("cut after so many tokens", function()
    local function said(count)
      local answer = failing("cut", "--cut-after", count):post("/v1/chat/completions", stream())
      assert.equal("cut", answer.ended)
      assert.is_nil(answer.body:find("[DONE]", 1, true))
      assert.is_nil(answer.body:find('"finish_reason":"', 1, true))
      return answer:streamed_text()
    end
    assert.equal("", said("0"))
    assert.equal("one two ", said("2"))
    assert.equal("one two three four five", said("5"))
    assert.equal("one two three four five", said("500"))
  end)

  it("cut an answer that is not streamed in the middle", function()
    local answer = failing("cut"):post("/v1/chat/completions", stream {})
    assert.equal(200, answer.status)
    assert.equal("cut", answer.ended)
    assert.is_true(#answer.body > 50)
    assert.is_nil((require("cjson.safe").decode(answer.body)))
  end)

  it("stall after so many tokens", function()
    local answer = failing("stall", "--stall-after", "1"):post("/v1/chat/completions", stream())
    assert.is_nil(answer.ended)
    assert.equal("one ", answer:streamed_text())
    local world = failing("stall", "--stall-after", "4", "--stall-duration", "700ms")
    answer = world:post("/v1/chat/completions", stream())
    assert.equal(700, answer.end_ms)
    assert.equal("finished", answer.ended)
    assert.equal("one two three four five", answer:streamed_text())
    answer = world:post("/v1/chat/completions", stream {})
    assert.equal(700, answer.end_ms)
    assert.equal("finished", answer.ended)
    assert.equal("one two three four five", answer:json().choices[1].message.content)
    assert.is_nil(failing("stall"):post("/v1/chat/completions", stream {}).ended)
  end)

  it("send garbage and go on", function()
    local answer = failing("garbage", "--garbage-after", "1"):post("/v1/chat/completions", stream())
    assert.equal("finished", answer.ended)
    assert.equal("one two three four five", answer:streamed_text())
    local events = answer:events()
    assert.equal("{garbage", events[3].data)
    assert.is_nil(events[3].json)
    assert.equal("[DONE]", events[#events].data)
    answer = failing("garbage"):post("/v1/chat/completions", stream {})
    assert.equal(200, answer.status)
    assert.is_nil((require("cjson.safe").decode(answer.body)))
  end)

  it("end without the last word", function()
    local answer = failing("no_done"):post("/v1/chat/completions", stream())
    assert.equal("finished", answer.ended)
    assert.matches('"finish_reason":"stop"', answer.body)
    assert.is_nil(answer.body:find("[DONE]", 1, true))
    answer = failing("no_done"):post("/v1/messages", { model = "m", max_tokens = 9, stream = true,
      messages = { { role = "user", content = "x" } } })
    assert.matches("message_delta", answer.body)
    assert.is_nil(answer.body:find("message_stop", 1, true))
    answer = failing("no_done"):post("/v1/responses", { model = "m", input = "x", stream = true })
    assert.matches("response.output_item.done", answer.body)
    assert.is_nil(answer.body:find("response.completed", 1, true))
    assert.is_table(failing("no_done"):post("/v1/chat/completions", stream {}):json().usage)
  end)

  it("are empty", function()
    local answer = failing("empty"):post("/v1/chat/completions", stream())
    assert.same({ 200, "", "finished" }, { answer.status, answer.body, answer.ended })
    assert.equal("text/event-stream", answer.headers["content-type"])
    answer = failing("empty"):post("/v1/chat/completions", stream {})
    assert.same({ 200, "", "whole" }, { answer.status, answer.body, answer.ended })
  end)

  it("can be asked for by a header, and are counted", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", stream(),
      { ["x-sim-failure"] = "cut", ["x-sim-cut-after"] = "1" })
    assert.equal("one ", answer:streamed_text())
    world:post("/v1/chat/completions", stream(), { ["x-sim-failure"] = "hang" })
    assert.equal(400, world:post("/v1/chat/completions", stream(),
      { ["x-sim-failure"] = "explode" }).status)
    assert.same({ requests = 3, running = 0, waiting = 0, failures = { cut = 1, hang = 1 } },
      world:get("/admin/stats"):json())
  end)

  it("touch embeddings, too", function()
    local answer = failing("cut"):post("/v1/embeddings", { model = "m", input = "x" })
    assert.equal("cut", answer.ended)
    answer = failing("slow_first_token"):post("/v1/embeddings", { model = "m", input = "x" })
    assert.equal(10000, answer.end_ms)
  end)

  it("give their place back", function()
    for _, kind in ipairs { "cut", "garbage", "no_done", "empty", "reset_after_headers",
      "reset_before_headers", "slow_first_token", "rate_limit" } do
      for _, is_stream in ipairs { true, false } do
        local world = failing(kind, "--max-num-seqs", "1")
        world:post("/v1/chat/completions", stream { stream = is_stream })
        assert.equal(0, world:get("/admin/stats"):json().running, kind)
      end
    end
  end)
end)
