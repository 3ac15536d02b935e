--- Answers that break off in the client's hands, and go on from another target: `rescue`.

local cjson = require "cjson"
local testing = require "perilune.testing"

local CHAT, MESSAGES, COMPLETIONS = "/v1/chat/completions", "/v1/messages", "/v1/completions"
local WORD_COUNT = 60

local function words(first, last)
  local list = {}
  for number = first, last do list[#list + 1] = "word" .. number end
  return table.concat(list, " ")
end

local WHOLE = words(1, WORD_COUNT)
local CUT = { words = WORD_COUNT, every = "100ms", cut_after = 40 }

--- What a target that goes on from the assistant's words answers.
local function going_on(call)
  local messages = call.json.messages
  local prefix = messages and messages[#messages].role == "assistant"
    and messages[#messages].content or call.json.prompt or ""
  local start = prefix:match("word1 .*$")
  if not start then return { words = WHOLE } end
  assert(WHOLE:sub(1, #start) == start, "the prefix is no beginning of the answer: " .. start)
  return { words = WHOLE:sub(#start + 1) }
end

local function new_world(route_options, provider_options)
  local route = { deadline = "2m", rescue = "continue", targets = {
    { provider = "primary", model = "big" },
    { provider = "spare", model = "small", priority = 1 },
    { provider = "last", model = "tiny", priority = 2 },
  } }
  for key, value in pairs(route_options or {}) do route[key] = value end
  local providers = {}
  for number, name in ipairs { "primary", "spare", "last" } do
    providers[name] = { url = ("http://127.0.0.1:%d/v1"):format(number),
      timeouts = { idle = "10s", first_token = "5s" } }
    local own = provider_options and provider_options[name] or {}
    for key, value in pairs(own) do providers[name][key] = value end
  end
  local world = testing.world { directory = testing.directory,
    config = { providers = providers, routes = { route } } }
  world:upstream("primary"):always(CUT)
  world:upstream("spare"):always(going_on)
  return world
end

local function ask(world, options)
  options = options or {}
  local body = { max_tokens = 1000, prompt = "Say: " }
  for key, value in pairs(options.body or {}) do body[key] = value end
  return world:request { path = options.path or CHAT, stream = true, model = "any", body = body,
    messages = options.messages }
end

--- One answer, as the client's library would see it: each word once, in order, and a proper end.
local function assert_whole(answer)
  assert.equal(200, answer.status)
  assert.equal("complete", answer.ended)
  assert.equal(WHOLE, answer:text())
end

--- The client is told, and cannot take it for whole.
local function assert_error(answer, code)
  local events = answer:events()
  local last = cjson.decode(events[#events].data)
  assert.equal("cut", answer.ended)
  assert.is_table(last.error)
  if code then assert.equal(code, last.error.code or last.error.type) end
end

local function log_has(world, text)
  return table.concat(world:log(), "\n"):find(text, 1, true) ~= nil
end

for _, path in ipairs { CHAT, MESSAGES, COMPLETIONS } do
  describe("rescue of " .. path, function()
    it("continues where the stream was cut", function()
      local world = new_world()
      local answer = ask(world, { path = path })
      assert_whole(answer)
      assert.same({ "primary/big", "spare/small" }, world:called())
      local sent = world:calls()[2].json
      local prefix = path == COMPLETIONS and sent.prompt:match("^Say: (.*)$")
        or sent.messages[#sent.messages].content
      assert.equal(WHOLE:sub(1, #prefix), prefix)
      assert.is_falsy(prefix:find("%s$"))
      assert.is_true(sent.max_tokens < 1000 and sent.max_tokens > 900, sent.max_tokens)
      assert.is_true(log_has(world, "spare/small goes on where primary/big broke off (continue)"))
    end)

    it("restarts, and drops what the client has", function()
      local world = new_world { rescue = "restart" }
      world:upstream("spare"):always { words = WORD_COUNT }
      assert_whole(ask(world, { path = path }))
      assert.equal(1000, world:calls()[2].json.max_tokens)
      assert.is_nil(world:calls()[2].body:find("word1", 1, true))
    end)

    it("notices a target that begins again though it was to continue", function()
      local world = new_world()
      world:upstream("spare"):always { words = WORD_COUNT }
      assert_whole(ask(world, { path = path }))
    end)

    it("goes on when the upstream falls silent", function()
      local world = new_world()
      world:upstream("primary"):always { words = WORD_COUNT, every = "100ms", stall_after = 20 }
      local answer = ask(world, { path = path })
      assert_whole(answer)
      assert.is_true(answer.duration_ms < 14000, answer.duration_ms)
    end)

    it("goes on from a third target when the second breaks off, too", function()
      local world = new_world()
      world:upstream("spare"):always(function(call)
        local answer = going_on(call)
        answer.cut_after = 15
        return answer
      end)
      world:upstream("last"):always(going_on)
      assert_whole(ask(world, { path = path }))
      assert.same({ "primary/big", "spare/small", "last/tiny" }, world:called())
    end)

    it("asks afresh where the prefix is refused", function()
      local world = new_world()
      world:upstream("spare"):answers({ status = 400, body = { error = {
        message = "the last message must be the user's", type = "invalid_request_error" } } },
        { words = WORD_COUNT })
      assert_whole(ask(world, { path = path }))
      assert.same({ "primary/big", "spare/small", "spare/small" }, world:called())
    end)

    it("ends in an error where the texts part ways", function()
      local world = new_world { rescue = "restart" }
      world:upstream("spare"):always { words = "something else" }
      world:upstream("last"):always { words = "word1 word2 or not" }
      local answer = ask(world, { path = path })
      assert_error(answer)
      assert.equal(0, select(2, answer.body:gsub("something", "")))
      assert.same({ "primary/big", "spare/small", "last/tiny" }, world:called())
    end)

    it("ends in an error when nobody goes on", function()
      local world = new_world()
      world:upstream("spare"):always(503)
      world:upstream("last"):always "connect"
      local answer = ask(world, { path = path })
      assert_error(answer, path ~= MESSAGES and "truncated" or nil)
      assert.matches("primary/big ended early", answer.body, 1, true)
      assert.is_true(log_has(world, "nobody goes on where primary/big broke off"))
    end)

    it("does not begin when the answer is finished, but for its end", function()
      local world = new_world()
      world:upstream("primary"):always { words = WORD_COUNT, done = false }
      assert_whole(ask(world, { path = path }))
      assert.same({ "primary/big" }, world:called())
    end)
  end)
end

describe("rescue", function()
  it("gives one answer one id, and each part its model", function()
    local world = new_world()
    local ids, models = {}, {}
    for _, event in ipairs(ask(world):events()) do
      local data = event.data ~= "[DONE]" and cjson.decode(event.data)
      if data then
        ids[data.id], models[#models + 1] = true, data.model
        assert.equal(1767614400, data.created)
      end
    end
    assert.same({ ["chatcmpl-stage-1"] = true }, ids)
    assert.equal("big", models[1])
    assert.equal("small", models[#models])
  end)

  it("says once that the assistant speaks", function()
    local _, count = ask(new_world()).body:gsub('"role":"assistant"', "")
    assert.equal(1, count)
  end)

  it("marks the seam with a comment, which clients skip", function()
    local answer = ask(new_world())
    assert.matches(": perilune resumed by spare/small after cut of primary/big "
      .. "(truncated; continue)\n\n", answer.body, 1, true)
    local world = new_world({ rescue = "restart" })
    world:upstream("primary"):always { words = WORD_COUNT, stall_after = 20 }
    assert.matches("(timeout_idle; restart)", ask(world).body, 1, true)
  end)

  it("adds up the tokens of all parts", function()
    local world = new_world()
    local answer = ask(world, { body = { stream_options = { include_usage = true } } })
    local usage
    for _, event in ipairs(answer:events()) do
      local data = event.data ~= "[DONE]" and cjson.decode(event.data)
      if data and type(data.usage) == "table" then usage = data.usage end
    end
    assert.equal(WORD_COUNT, usage.completion_tokens)
    assert.equal(usage.prompt_tokens + WORD_COUNT, usage.total_tokens)
  end)

  it("hides the token counts that only the gateway has asked for, of every part", function()
    local counts = { stream_usage = true }
    local world = new_world({}, { primary = counts, spare = counts })
    local answer = ask(world)
    assert_whole(answer)
    assert.is_true(world:calls()[2].json.stream_options.include_usage)
    assert.is_nil(answer.body:find("completion_tokens", 1, true))
  end)

  it("does not speak of targets where the gateway is to keep silent", function()
    local world = testing.world { directory = testing.directory, config = {
      response_headers = false,
      providers = { primary = { url = "http://127.0.0.1:1/v1" } },
      routes = { { rescue = "continue", targets = { { provider = "primary" } } } },
    } }
    world:upstream("primary"):answers(CUT, going_on)
    local answer = ask(world)
    assert_whole(answer)
    assert.is_nil(answer.body:find("perilune", 1, true))
  end)

  it("begins well before any text, too", function()
    local world = new_world { gate = { on = "event" } }
    world:upstream("primary"):always { words = WORD_COUNT, cut_after = 1 }
    local answer = ask(world)
    assert_whole(answer)
    assert.equal(1, #world:calls()[2].json.messages)
  end)

  it("keeps the client's body as it was", function()
    local world = new_world()
    local text = '{"model":"any","stream":true,"messages":[{"role":"user","content":"Hi","x":[]}],'
      .. '"seed":12345678901234567890,"stop":[]}'
    assert_whole(world:request { path = CHAT, body = text })
    assert.matches('"messages":[{"role":"user","content":"Hi","x":[]},{"role":"assistant",'
      .. '"content":"word1 ', world:calls()[2].body, 1, true)
    assert.matches('"seed":12345678901234567890,"stop":[]', world:calls()[2].body, 1, true)
  end)

  it("goes on in the words that the client has put into the assistant's mouth", function()
    local world = new_world()
    local answer = ask(world, { messages = {
      { role = "user", content = "Count" }, { role = "assistant", content = "Well: " },
    } })
    assert_whole(answer)
    local messages = world:calls()[2].json.messages
    assert.equal(2, #messages)
    assert.matches("^Well: word1 word2 ", messages[2].content)
  end)

  it("asks as the provider wants it, or the target", function()
    local world = new_world({ targets = {
      { provider = "primary", model = "big" },
      { provider = "spare", model = "small", priority = 1,
        prefix = { message = { prefix = true }, body = { top_k = 1 } } },
      { provider = "last", model = "tiny", priority = 2 },
    } }, { last = { prefix = { body = { continue_final_message = true } } } })
    world:upstream("spare"):always(function(call)
      local answer = going_on(call)
      answer.cut_after = 15
      return answer
    end)
    world:upstream("last"):always(going_on)
    assert_whole(ask(world))
    local calls = world:calls()
    assert.is_nil(calls[1].json.top_k)
    assert.is_true(calls[2].json.messages[2].prefix)
    assert.equal(1, calls[2].json.top_k)
    assert.is_nil(calls[3].json.messages[2].prefix)
    assert.is_true(calls[3].json.continue_final_message)
  end)

  it("asks targets afresh that cannot continue", function()
    local world = new_world({}, { spare = { prefix = false } })
    world:upstream("spare"):always { words = WORD_COUNT }
    assert_whole(ask(world))
    assert.equal(1, #world:calls()[2].json.messages)
    assert.equal(1000, world:calls()[2].json.max_tokens)
  end)

  it("asks afresh where the prompt is no text", function()
    local world = new_world()
    world:upstream("spare"):always { words = WORD_COUNT }
    assert_whole(ask(world, { path = COMPLETIONS, body = { prompt = { 1, 2 } } }))
    assert.same({ 1, 2 }, world:calls()[2].json.prompt)
  end)

  it("takes an error in mid-stream for what it is", function()
    local world = new_world()
    local events = {}
    for number = 1, 20 do
      events[number] = { data = { id = "a", choices = { { index = 0,
        delta = { content = "word" .. number .. " " } } } } }
    end
    events[21] = { data = { error = { message = "overloaded", type = "overloaded_error" } } }
    world:upstream("primary"):always { events = events, every = "100ms" }
    local answer = ask(world)
    assert_whole(answer)
    assert.is_nil(answer.body:find("overloaded_error", 1, true))
    assert.is_true(log_has(world, "moved from primary/big to spare/small: overloaded"))

    world = new_world()
    world:upstream("primary"):always { events = events }
    world:upstream("spare"):always(503)
    world:upstream("last"):always(503)
    answer = ask(world)
    assert.matches('"overloaded_error"', answer.body, 1, true)
    assert_error(answer)
  end)

  it("leaves alone what an error says of the request", function()
    local world = new_world()
    world:upstream("primary"):always { events = {
      { data = { choices = { { index = 0, delta = { content = "word1 " } } } } },
      { data = { error = { message = "m", code = "content_filter" } } },
    } }
    local answer = ask(world)
    assert_error(answer, "content_filter")
    assert.same({ "primary/big" }, world:called())
  end)

  it("counts the break for the target's health, and a good end for that of the rescuer", function()
    local world = new_world({}, { primary = { health = { consecutive_5xx = 2 } } })
    assert_whole(ask(world))
    assert_whole(ask(world))
    assert.is_false(world:health("primary/big").fit)
    assert.is_true(world:health("spare/small").fit)
    assert_whole(ask(world))
    assert.equal("spare/small", world:called()[5])
  end)

  it("stops at its own limit, and at the route's", function()
    local function broken(call)
      local answer = going_on(call)
      answer.cut_after = 10
      return answer
    end
    for _, options in ipairs { { rescue = { attempts = 1 } }, { retry = { attempts = 2 } } } do
      local world = new_world(options)
      world:upstream("spare"):always(broken)
      world:upstream("last"):always(going_on)
      assert_error(ask(world), "truncated")
      assert.same({ "primary/big", "spare/small" }, world:called())
    end
  end)

  it("goes no further than the deadline", function()
    local world = new_world { deadline = "20s" }
    world:upstream("primary"):always { words = WORD_COUNT, every = "100ms", stall_after = 20 }
    world:upstream("spare"):always "hang"
    local answer = ask(world)
    assert_error(answer, "timeout_deadline")
    assert.equal(20000, answer.duration_ms)

    world = new_world { deadline = "5s" }
    world:upstream("primary"):always { words = WORD_COUNT, every = "100ms", stall_after = 20 }
    assert_error(ask(world), "timeout_deadline")
    assert.same({ "primary/big" }, world:called())
  end)

  it("ends when the client leaves", function()
    local world = new_world()
    world:upstream("spare"):always { words = WORD_COUNT, after = "3s" }
    local pending = world:start { path = CHAT, stream = true, model = "any" }
    world:advance "5s"
    assert.equal(2, #world:calls())
    pending:leave()
    world:run()
    assert.equal("cancelled", world:calls()[2].outcome)
    assert.equal(2, #world:called())
  end)

  it("is off where the route forbids to repeat what was partly generated", function()
    local world = new_world { retry = { partly_generated = false } }
    assert_error(ask(world), "truncated")
    assert.same({ "primary/big" }, world:called())
  end)

  it("is off unless the route says so", function()
    local world = new_world { rescue = false }
    assert_error(ask(world), "truncated")
    assert.same({ "primary/big" }, world:called())
  end)

  it("leaves answers that do not stream alone", function()
    local world = new_world()
    world:upstream("primary"):always { words = WORD_COUNT, cut_after = 0 }
    local answer = world:request { path = CHAT, model = "any" }
    assert.equal("cut", answer.ended)
    assert.same({ "primary/big" }, world:called())
  end)

  -- ---- what is never taken up by another target ----

  local function chunk(delta, rest)
    local choice = { index = 0, delta = delta }
    for key, value in pairs(rest or {}) do choice[key] = value end
    return { data = { id = "a", choices = { choice } } }
  end

  local function typed(type_of, fields)
    fields.type = type_of
    return { event = type_of, data = fields }
  end

  local WORD = chunk { content = "word1 " }
  for name, events in pairs {
    ["a tool call"] = { WORD, chunk { tool_calls = { { index = 0, id = "c",
      ["function"] = { name = "f", arguments = "{" } } } } },
    ["reasoning"] = { chunk { reasoning_content = "hm" } },
    ["a refusal"] = { chunk { refusal = "I'm" } },
    ["several choices"] = { WORD, chunk({ content = "b" }, { index = 1 }) },
    ["an unknown event"] = { WORD, { data = { type = "x", y = 1 } } },
    ["Responses"] = { typed("response.created", {}),
      typed("response.output_text.delta", { delta = "word1 " }) },
    ["an Anthropic tool call"] = { typed("message_start", { message = { id = "m" } }),
      typed("content_block_start", { index = 0, content_block = { type = "tool_use" } }),
      typed("content_block_delta", { index = 0,
        delta = { type = "input_json_delta", partial_json = "{" } }) },
    ["Anthropic's thinking"] = { typed("message_start", { message = { id = "m" } }),
      typed("content_block_start", { index = 0, content_block = { type = "thinking" } }),
      typed("content_block_delta", { index = 0,
        delta = { type = "thinking_delta", thinking = "hm" } }) },
  } do
    it("does not cut " .. name .. " in two", function()
      local world = new_world()
      world:upstream("primary"):always { events = events, cut_after = #events }
      assert_error(ask(world), "truncated")
      assert.same({ "primary/big" }, world:called())
    end)
  end

  for name, body in pairs {
    ["a JSON schema"] = { response_format = { type = "json_schema", json_schema = {} } },
    ["JSON"] = { response_format = { type = "json_object" } },
    ["a grammar"] = { guided_regex = "a+" },
    ["probabilities"] = { logprobs = true },
  } do
    it("does not begin where the client wants " .. name, function()
      local world = new_world()
      assert_error(ask(world, { body = body }), "truncated")
      assert.same({ "primary/big" }, world:called())
    end)
  end

  it("does not begin where a target's own fields want it", function()
    local world = new_world { targets = {
      { provider = "primary", body = { set = { response_format = { type = "json_object" } } } },
      { provider = "spare", priority = 1 },
    } }
    assert_error(ask(world), "truncated")
    assert.same({ "primary" }, world:called())
  end)

  it("keeps only so much text", function()
    local world = new_world { rescue = { bytes = "1KiB" } }
    world:upstream("primary"):always { words = 400, cut_after = 300 }
    assert_error(ask(world), "truncated")
    assert.same({ "primary/big" }, world:called())
  end)
end)
