-- What the simulator answers when nothing is to fail.
local sim = require "spec.unit.sim_support"

local UUID = "%x+%-%x+%-4%x+%-%x+%-%x+"

describe("chat completions", function()
  it("answer in OpenAI's form", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", sim.chat("Hello, \"world\"!"))
    assert.equal(200, answer.status)
    assert.equal("application/json", answer.headers["content-type"])
    local body = answer:json()
    assert.matches("^chatcmpl%-" .. UUID .. "$", body.id)
    body.id = nil
    assert.same({
      object = "chat.completion", created = 1750000005, model = "gpt-4",
      choices = { { index = 0, finish_reason = "stop",
        message = { role = "assistant", content = "Hello, \"world\"!" } } },
      usage = { prompt_tokens = 6, completion_tokens = 6, total_tokens = 12,
        prompt_tokens_details = { cached_tokens = 0 } },
    }, body)
  end)

  it("stream: a role chunk, a chunk a token, a finish chunk, [DONE]", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", sim.chat("one two", { stream = true }))
    assert.equal("text/event-stream", answer.headers["content-type"])
    assert.equal("finished", answer.ended)
    local datas = answer:datas()
    assert.equal(5, #datas)
    local events, deltas = answer:events(), {}
    for index = 1, 4 do
      local chunk = events[index].json
      assert.equal("chat.completion.chunk", chunk.object)
      assert.equal(events[1].json.id, chunk.id)
      assert.equal("gpt-4", chunk.model)
      deltas[index] = { chunk.choices[1].delta, chunk.choices[1].finish_reason }
    end
    local null = events[1].json.usage
    assert.same({ { { role = "assistant" }, null }, { { content = "one " }, null },
      { { content = "two" }, null }, { {}, "stop" } }, deltas)
    assert.equal("[DONE]", datas[5])
  end)

  it("stream usage when asked to", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions",
      sim.chat("one two", { stream = true, stream_options = { include_usage = true } }))
    local events = answer:events()
    assert.equal("[DONE]", events[6].data)
    assert.matches('"choices":%[%]', events[5].data)
    assert.equal(4, events[5].json.usage.total_tokens)
  end)

  it("echo the last message, blocks of content too", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", { model = "m", messages = {
      { role = "system", content = "be brief" },
      { role = "user", content = { { type = "text", text = "see" },
        { type = "image_url", image_url = { url = "http://x" } },
        { type = "text", text = "this" } } },
    } })
    assert.equal("see\nthis", answer:json().choices[1].message.content)
    assert.equal(4, answer:json().usage.prompt_tokens)
  end)

  describe("that the assistant has begun", function()
    local PATHS = { "/v1/chat/completions", "/v1/messages" }

    local function ask(world, path, ...)
      local messages = {}
      for number, text in ipairs { ... } do
        messages[number] = { role = number % 2 == 1 and "user" or "assistant", content = text }
      end
      return world:post(path, { model = "m", max_tokens = 100, messages = messages })
    end

    local function text_of(answer)
      local body = answer:json()
      return body.choices and body.choices[1].message.content or body.content[1].text
    end

    it("go on from there", function()
      local world = sim.start { "--mode", "echo" }
      for _, path in ipairs(PATHS) do
        assert.equal(" three four", text_of(ask(world, path, "one two three four", "one two")))
        assert.equal("", text_of(ask(world, path, "one", "one")))
        assert.equal("other", text_of(ask(world, path, "one two", "other")))
        assert.equal("one two", text_of(ask(world, path, "x", "y", "one two")))
      end
    end)

    it("are refused where that is asked for", function()
      local world = sim.start { "--mode", "echo", "--refuse-prefix" }
      for _, path in ipairs(PATHS) do
        local answer = ask(world, path, "one two", "one")
        assert.equal(400, answer.status)
        assert.matches("^This model does not go on", answer:json().error.message)
        assert.equal(200, ask(world, path, "one two").status)
      end
    end)
  end)

  it("honour max_tokens and max_completion_tokens", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", sim.chat("a b c d", { max_tokens = 3 }))
    assert.equal("a b c ", answer:json().choices[1].message.content)
    assert.equal("length", answer:json().choices[1].finish_reason)
    answer = world:post("/v1/chat/completions",
      sim.chat("a b c d", { max_tokens = 3, max_completion_tokens = 1, stream = true }))
    assert.equal("a ", answer:streamed_text())
    assert.matches('"finish_reason":"length"', answer.body)
  end)

  it("give several choices, side by side in a stream", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions", sim.chat("a b", { n = 2 }))
    assert.equal(2, #answer:json().choices)
    assert.same({ 2, 4 }, { answer:json().usage.prompt_tokens,
      answer:json().usage.completion_tokens })
    answer = world:post("/v1/chat/completions", sim.chat("a b", { n = 2, stream = true }))
    local order = {}
    for _, event in ipairs(answer:events()) do
      local choice = event.json and event.json.choices[1]
      if choice then order[#order + 1] = choice.index end
    end
    assert.same({ 0, 1, 0, 1, 0, 1, 0, 1 }, order)
  end)

  it("are the same for the same seed, whatever runs beside", function()
    local function texts(noise)
      local world = sim.start { "--inter-token-latency", "10ms",
        "--inter-token-latency-std-dev", "3ms" }
      local first = world:begin("POST", "/v1/chat/completions", sim.chat("x", { stream = true }))
      if noise then world:advance(35) end
      local second = world:begin("POST", "/v1/chat/completions", sim.chat("y", { stream = true }))
      world:advance(100000)
      return first:streamed_text() .. "|" .. second:streamed_text()
    end
    assert.equal(texts(false), texts(true))
  end)

  it("carry non-ASCII text unharmed", function()
    local world = sim.start { "--mode", "echo" }
    local words = "caf\195\169 \226\130\172 \240\159\152\128 \\ / \" \8 end"
    local answer = world:post("/v1/chat/completions", sim.chat(words, { stream = true }))
    assert.equal(words, answer:streamed_text())
  end)
end)

describe("models", function()
  it("are any by default, but a name there must be", function()
    local world = sim.start()
    assert.equal("x/y:z", world:post("/v1/chat/completions",
      sim.chat("a", { model = "x/y:z" })):json().model)
    for _, body in ipairs { '{"messages":[{"content":"a"}]}',
      '{"model":"","messages":[{"content":"a"}]}' } do
      local answer = world:post("/v1/chat/completions", body)
      assert.equal(404, answer.status)
      assert.equal("The model `` does not exist.", answer:json().error.message)
    end
    assert.equal('{"object":"list","data":[]}', world:get("/v1/models").body)
  end)

  it("are those served when any are named", function()
    local world = sim.start { "--model", "base", "--served-model-name", "small", "tiny" }
    local answer = world:post("/v1/chat/completions", sim.chat("a", { model = "tiny" }))
    assert.equal("small", answer:json().model)
    answer = world:post("/v1/chat/completions", sim.chat("a", { model = "base" }))
    assert.equal(404, answer.status)
    assert.equal('{"error":{"message":"The model `base` does not exist.","type":"NotFoundError",'
      .. '"param":null,"code":404}}', answer.body)
    local list = world:get("/v1/models"):json()
    assert.equal("list", list.object)
    assert.equal("small", list.data[1].id)
    assert.equal("tiny", list.data[2].id)
    assert.equal("base", list.data[1].root)
    assert.equal("vllm", list.data[1].owned_by)
    assert.equal(1024, list.data[1].max_model_len)
  end)
end)

describe("completions", function()
  it("answer all four forms of prompts", function()
    local world = sim.start { "--mode", "echo" }
    local function texts(prompt)
      local list = {}
      local answer = world:post("/v1/completions", { model = "m", prompt = prompt })
      assert.equal(200, answer.status, answer.body)
      for index, choice in ipairs(answer:json().choices) do
        assert.equal(index - 1, choice.index)
        list[index] = choice.text
      end
      return list, answer:json()
    end
    local one, body = texts("say this")
    assert.same({ "say this" }, one)
    assert.matches("^cmpl%-" .. UUID .. "$", body.id)
    assert.equal("text_completion", body.object)
    assert.same({ "a", "b" }, (texts { "a", "b" }))
    local ids, ids_body = texts { 1, 2, 3 }
    assert.same({ "1,2,3" }, ids)
    assert.equal(3, ids_body.usage.prompt_tokens)
    assert.same({ "1,2", "3" }, (texts { { 1, 2 }, { 3 } }))
  end)

  it("refuse what is no prompt", function()
    local world = sim.start()
    for _, prompt in ipairs { '""', "[]", '["a",""]', "[[]]", "null", "{}" } do
      local answer = world:post("/v1/completions", '{"model":"m","prompt":' .. prompt .. "}")
      assert.equal(400, answer.status)
      assert.equal("prompt must not be empty", answer:json().error.message, prompt)
    end
    for _, prompt in ipairs { "1", "true", '{"a":1}', '[1,"a"]', '["a",1]', "[[[1]]]",
      '[["a"]]', "[true]" } do
      local answer = world:post("/v1/completions", '{"model":"m","prompt":' .. prompt .. "}")
      assert.equal(400, answer.status, prompt)
      assert.matches("^Failed to read and parse request body, field 'prompt' must be",
        answer:json().error.message)
    end
  end)

  it("stream", function()
    local world = sim.start { "--mode", "echo" }
    local events = world:post("/v1/completions", { model = "m", prompt = "a b", stream = true,
      stream_options = { include_usage = true } }):events()
    assert.equal(5, #events)
    assert.equal("a ", events[1].json.choices[1].text)
    assert.equal("b", events[2].json.choices[1].text)
    assert.equal("", events[3].json.choices[1].text)
    assert.equal("stop", events[3].json.choices[1].finish_reason)
    assert.equal(4, events[4].json.usage.total_tokens)
    assert.equal("[DONE]", events[5].data)
  end)
end)

describe("messages", function()
  local function request(more)
    local body = { model = "claude", max_tokens = 100,
      messages = { { role = "user", content = "one two" } } }
    for key, value in pairs(more or {}) do body[key] = value end
    return body
  end

  it("answer in Anthropic's form", function()
    local world = sim.start { "--mode", "echo" }
    local body = world:post("/v1/messages", request { system = "be kind" }):json()
    assert.matches("^msg_" .. UUID .. "$", body.id)
    body.id = nil
    local null = body.stop_sequence
    assert.same({ type = "message", role = "assistant", model = "claude", stop_reason = "end_turn",
      stop_sequence = null, content = { { type = "text", text = "one two" } },
      usage = { input_tokens = 4, output_tokens = 2, cache_creation_input_tokens = 0,
        cache_read_input_tokens = 0 } }, body)
    assert.equal("max_tokens",
      world:post("/v1/messages", request { max_tokens = 1 }):json().stop_reason)
  end)

  it("stream with named events", function()
    local world = sim.start { "--mode", "echo" }
    local names = {}
    local events = world:post("/v1/messages", request { stream = true }):events()
    for index, event in ipairs(events) do
      names[index] = event.event
      assert.equal(event.event, event.json.type)
    end
    assert.same({ "message_start", "content_block_start", "ping", "content_block_delta",
      "content_block_delta", "content_block_stop", "message_delta", "message_stop" }, names)
    assert.same({}, events[1].json.message.content)
    assert.equal(2, events[1].json.message.usage.input_tokens)
    assert.same({ type = "text_delta", text = "one " }, events[4].json.delta)
    assert.equal("end_turn", events[7].json.delta.stop_reason)
    assert.equal(2, events[7].json.usage.output_tokens)
  end)

  it("refuse in Anthropic's form", function()
    local world = sim.start { "--model", "claude" }
    local function error_of(body) return world:post("/v1/messages", body):json() end
    assert.same({ type = "error", error = { type = "not_found_error",
      message = "The model `other` does not exist." } }, error_of(request { model = "other" }))
    assert.equal("messages must not be empty", error_of(request { messages = {} }).error.message)
    assert.equal("max_tokens is required",
      error_of('{"model":"claude","messages":[{"content":"x"}]}').error.message)
    assert.equal("invalid_request_error", error_of("{").error.type)
  end)
end)

describe("responses", function()
  it("answer in OpenAI's form", function()
    local world = sim.start { "--mode", "echo" }
    local body = world:post("/v1/responses",
      { model = "m", input = "one two", instructions = "be kind" }):json()
    assert.matches("^resp_" .. UUID .. "$", body.id)
    assert.equal("response", body.object)
    assert.equal("completed", body.status)
    assert.equal("be kind", body.instructions)
    assert.equal("one two", body.output[1].content[1].text)
    assert.equal("output_text", body.output[1].content[1].type)
    assert.equal(4, body.usage.input_tokens)
    assert.equal(6, body.usage.total_tokens)
  end)

  it("echo the last input item", function()
    local world = sim.start { "--mode", "echo" }
    local function echo(...)
      local answer = world:post("/v1/responses", { model = "m", input = { ... } })
      assert.equal(200, answer.status, answer.body)
      return answer:json().output[1].content[1].text
    end
    assert.equal("b", echo({ role = "user", content = "a" },
      { type = "message", role = "user", content = { { type = "input_text", text = "b" } } }))
    assert.equal("done", echo { type = "function_call_output", call_id = "1", output = "done" })
    assert.equal("{}", echo { type = "function_call", name = "f", arguments = "{}" })
  end)

  it("stream with OpenAI's events, numbered", function()
    local world = sim.start { "--mode", "echo" }
    local events = world:post("/v1/responses",
      { model = "m", input = "one two", stream = true }):events()
    local names = {}
    for index, event in ipairs(events) do
      names[index] = event.event
      assert.equal(event.event, event.json.type)
      assert.equal(index - 1, event.json.sequence_number)
    end
    assert.same({ "response.created", "response.in_progress", "response.output_item.added",
      "response.content_part.added", "response.output_text.delta", "response.output_text.delta",
      "response.output_text.done", "response.content_part.done", "response.output_item.done",
      "response.completed" }, names)
    assert.equal("in_progress", events[1].json.response.status)
    assert.equal("one ", events[5].json.delta)
    assert.equal(events[3].json.item.id, events[5].json.item_id)
    assert.equal("one two", events[7].json.text)
    assert.equal("one two", events[10].json.response.output[1].content[1].text)
    assert.equal(2, events[10].json.response.usage.output_tokens)
  end)

  it("are incomplete when max_output_tokens cuts them short", function()
    local world = sim.start { "--mode", "echo" }
    local body = { model = "m", input = "one two", max_output_tokens = 1, stream = true }
    local events = world:post("/v1/responses", body):events()
    local last = events[#events]
    assert.equal("response.incomplete", last.event)
    assert.equal("max_output_tokens", last.json.response.incomplete_details.reason)
  end)

  it("refuse an empty input", function()
    local world = sim.start()
    for _, input in ipairs { "null", '""', "[]" } do
      local answer = world:post("/v1/responses", '{"model":"m","input":' .. input .. "}")
      assert.equal(400, answer.status)
      assert.equal("input must not be empty", answer:json().error.message)
    end
  end)
end)

describe("embeddings", function()
  local function embed(world, body)
    body.model = "embedder"
    local answer = world:post("/v1/embeddings", body)
    assert.equal(200, answer.status, answer.body)
    return answer:json()
  end

  it("are unit vectors that depend on the input alone", function()
    local body = embed(sim.start(), { input = { "one two", "three" } })
    assert.equal("list", body.object)
    assert.equal("embedder", body.model)
    assert.same({ prompt_tokens = 3, total_tokens = 3 }, body.usage)
    local first, second = body.data[1].embedding, body.data[2].embedding
    assert.equal(384, #first)
    local squares = 0
    for _, value in ipairs(first) do squares = squares + value * value end
    assert.near(1, squares, 1e-6)
    assert.not_same(first, second)
    assert.same(second, embed(sim.start { "--seed", "9" }, { input = "three" }).data[1].embedding)
    assert.equal(1, body.data[2].index)
  end)

  it("have the dimensions asked for", function()
    assert.equal(5, #embed(sim.start(), { input = "x", dimensions = 5 }).data[1].embedding)
    local world = sim.start { "--default-embedding-dimensions", "8" }
    assert.equal(8, #embed(world, { input = { 1, 2 } }).data[1].embedding)
  end)

  it("come in base64 as the same floats", function()
    local world = sim.start()
    local numbers = embed(world, { input = "x", dimensions = 4 }).data[1].embedding
    local encoded = embed(world,
      { input = "x", dimensions = 4, encoding_format = "base64" }).data[1].embedding
    local mime = require "mime"
    local bytes = mime.unb64(encoded)
    assert.equal(16, #bytes)
    for index = 1, 4 do
      local a, b, c, d = bytes:byte(index * 4 - 3, index * 4)
      local exponent = d % 128 * 2 + math.floor(c / 128)
      local value = (1 + (c % 128 * 65536 + b * 256 + a) / 2 ^ 23) * 2 ^ (exponent - 127)
      assert.near(numbers[index], d >= 128 and -value or value, 1e-6)
    end
  end)

  it("refuse what makes no sense", function()
    local world = sim.start()
    for body, message in pairs {
      ['{"model":"m"}'] = "input must hold 1 to 2048 inputs",
      ['{"model":"m","input":""}'] = "input must not be empty",
      ['{"model":"m","input":"x","dimensions":0}'] = "dimensions must be from 1 to 8192",
      ['{"model":"m","input":"x","encoding_format":"hex"}']
        = "encoding_format must be float or base64",
      ['{"model":"m","input":[' .. ('"x",'):rep(199) .. '"x"],"dimensions":8192}']
        = "the embeddings would be too large",
      ['{"model":"m","input":7}'] = "Failed to read and parse request body, field 'input' must be "
        .. "a string, an array of strings, an array of token ids or an array of those",
    } do
      local answer = world:post("/v1/embeddings", body)
      assert.equal(400, answer.status)
      assert.equal(message, answer:json().error.message)
    end
  end)
end)

describe("images and transcriptions", function()
  it("are small and name the model", function()
    local world = sim.start()
    local body = world:post("/v1/images/generations",
      { model = "painter", prompt = "a moon", n = 2 }):json()
    assert.equal("painter", body.model)
    assert.equal(2, #body.data)
    assert.equal("\137PNG", require("mime").unb64(body.data[1].b64_json):sub(1, 4))
    assert.equal(400, world:post("/v1/images/generations", { model = "m", prompt = "" }).status)
    assert.equal(400,
      world:post("/v1/images/generations", { model = "m", prompt = "x", n = 11 }).status)
  end)

  it("read a form", function()
    local world = sim.start()
    local function post(format)
      local form = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        .. '--b\r\nContent-Disposition: form-data; name="response_format"\r\n\r\n' .. format
        .. '\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"'
        .. "\r\n\r\n\0\1\r\n--b--"
      return world:post("/v1/audio/transcriptions", form,
        { ["Content-Type"] = "multipart/form-data; boundary=b" })
    end
    assert.equal("whisper-1", post("json"):json().model)
    local text = post("text")
    assert.equal("text/plain", text.headers["content-type"])
    assert.matches("recording", text.body)
    local answer = world:post("/v1/audio/transcriptions", "{}",
      { ["Content-Type"] = "application/json" })
    assert.equal(400, answer.status)
    assert.equal("Failed to read and parse request body, expected multipart/form-data with a "
      .. "boundary", answer:json().error.message)
  end)
end)

describe("the other endpoints", function()
  it("tokenize", function()
    local world = sim.start()
    local body = world:post("/tokenize", { prompt = "one two one" }):json()
    assert.equal(3, body.count)
    assert.equal(1024, body.max_model_len)
    assert.equal(body.tokens[1], body.tokens[3])
    body = world:post("/tokenize", { messages = { { role = "user", content = "a b" } } }):json()
    assert.equal(2, body.count)
    assert.equal('{"count":0,"max_model_len":1024,"tokens":[]}', world:post("/tokenize", "{}").body)
    local answer = world:post("/tokenize", { prompt = "a", messages = { { content = "b" } } })
    assert.equal(400, answer.status)
    assert.equal("both prompt and messages fields in tokenize request",
      answer:json().error.message)
    assert.matches("^Failed to read and parse tokenize request body, ",
      world:post("/tokenize", "[]"):json().error.message)
  end)

  it("tell health, and readiness after the start", function()
    local world = sim.start { "--startup-duration", "30s" }
    assert.equal(200, world:get("/health").status)
    assert.equal(503, world:get("/health/ready").status)
    world:advance(29999)
    assert.equal(503, world:get("/health/ready").status)
    world:advance(1)
    assert.equal(200, world:get("/health/ready").status)
    assert.equal(200, sim.start():get("/health/ready").status)
  end)

  it("are 404 or 405 when they do not exist", function()
    local world = sim.start()
    local answer = world:get("/v1/other")
    assert.equal(404, answer.status)
    assert.equal("GET /v1/other is not served here", answer:json().error.message)
    answer = world:get("/v1/chat/completions")
    assert.equal(405, answer.status)
    assert.equal("POST", answer.headers.allow)
    assert.equal("GET, POST", world:request("PUT", "/admin/config", "").headers.allow)
  end)

  it("log when told to", function()
    local world = sim.start { "--log-http" }
    world:post("/v1/chat/completions", sim.chat("secret plan"))
    assert.matches("^info POST /v1/chat/completions from 127.0.0.1, %d+ bytes: {.*secret plan",
      world.logged[1])
    world = sim.start()
    world:get("/health")
    assert.same({}, world.logged)
  end)

  it("carry ids and the pod when told to", function()
    local world = sim.start({ "--enable-request-id-headers", "--port", "81", "--mode", "echo" },
      { POD_NAME = "pod-7", POD_NAMESPACE = "" })
    local answer = world:post("/v1/chat/completions", sim.chat("a"),
      { ["X-Request-Id"] = 'my"id' })
    assert.equal('my"id', answer.headers["x-request-id"])
    assert.equal('chatcmpl-my"id', answer:json().id)
    assert.equal("pod-7", answer.headers["x-inference-pod"])
    assert.equal("81", answer.headers["x-inference-port"])
    assert.is_nil(answer.headers["x-inference-namespace"])
    answer = world:post("/v1/chat/completions", sim.chat("a", { stream = true }))
    assert.matches("^" .. UUID .. "$", answer.headers["x-request-id"])
    answer = sim.start():post("/v1/chat/completions", sim.chat("a"), { ["X-Request-Id"] = "mine" })
    assert.is_nil(answer.headers["x-request-id"])
  end)
end)

describe("time", function()
  it("passes before the first token and between tokens", function()
    local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms",
      "--inter-token-latency", "20ms" }
    local answer = world:post("/v1/chat/completions", sim.chat("a b c", { stream = true }))
    local times = {}
    for index, write in ipairs(answer.writes) do times[index] = write.ms end
    assert.equal(0, answer.start_ms)
    assert.same({ 100, 100, 120, 140, 140 }, times)
    answer = world:post("/v1/chat/completions", sim.chat("a b c"))
    assert.equal(140, answer.end_ms)
  end)

  it("can be set by a single request", function()
    local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms" }
    local answer = world:post("/v1/chat/completions", sim.chat("a b"),
      { ["x-sim-time-to-first-token"] = "5ms", ["x-sim-inter-token-latency"] = "2ms" })
    assert.equal(7, answer.end_ms)
  end)

  it("grows with what runs at the same time", function()
    local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms",
      "--time-factor-under-load", "3", "--max-num-seqs", "3" }
    local answers = {}
    for index = 1, 3 do
      answers[index] = world:begin("POST", "/v1/chat/completions", sim.chat("a"))
    end
    world:advance(1000)
    assert.same({ 100, 200, 300 }, { answers[1].end_ms, answers[2].end_ms, answers[3].end_ms })
  end)

  it("begins a stream of messages or responses before the first token", function()
    local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms" }
    local answer = world:begin("POST", "/v1/messages", { model = "m", max_tokens = 9, stream = true,
      messages = { { role = "user", content = "a" } } })
    assert.matches("^event: message_start\n", answer.body)
    assert.is_nil(answer.body:find("content_block_start", 1, true))
    answer = world:begin("POST", "/v1/responses", { model = "m", input = "a", stream = true })
    assert.matches("response.in_progress", answer.body)
    assert.is_nil(answer.body:find("output_item.added", 1, true))
  end)

  it("lets others run during a long answer without pauses", function()
    local world = sim.start { "--max-model-len", "5000" }
    world:post("/v1/chat/completions",
      sim.chat("a", { max_tokens = 2000, ignore_eos = true, stream = true }))
    assert.equal(7, world.sleep_count)
  end)
end)

describe("load", function()
  it("makes requests wait, and turns away those beyond the queue", function()
    local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms",
      "--max-num-seqs", "1", "--max-waiting-queue-length", "2", "--retry-after", "7" }
    local answers = {}
    for index = 1, 4 do
      answers[index] = world:begin("POST", "/v1/chat/completions", sim.chat("a"))
    end
    assert.equal(429, answers[4].status)
    assert.equal("7", answers[4].headers["retry-after"])
    assert.equal("Failed to enqueue request, waiting requests queue is full",
      answers[4]:json().error.message)
    assert.same({ requests = 4, running = 1, waiting = 2, failures = {} },
      world:get("/admin/stats"):json())
    world:advance(350)
    assert.equal(200, answers[1].status)
    assert.near(200, answers[2].end_ms, 5)
    assert.near(300, answers[3].end_ms, 10)
    assert.equal(0, world:get("/admin/stats"):json().running)
  end)

  it("frees the place of a client that has left", function()
    local world = sim.start { "--max-num-seqs", "1" }
    local stuck = world:begin("POST", "/v1/chat/completions", sim.chat("a"),
      { ["x-sim-failure"] = "stall", ["x-sim-stall-after"] = "0" })
    local next_one = world:begin("POST", "/v1/chat/completions", sim.chat("a"))
    world:advance(1000)
    assert.is_nil(next_one.status)
    world:leave(stuck)
    world:advance(1000)
    assert.equal(200, next_one.status)
  end)
end)
