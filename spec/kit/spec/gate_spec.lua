--- What a stream may do before its first content, and what comes of it: the next target answers,
-- and the client sees nothing of the one that was left.

local cjson = require "cjson"
local testing = require "perilune.testing"

local ENV = { PRIMARY_KEY = "sk-test" }
local ROLE = { choices = { { index = 0, delta = { role = "assistant", content = "" } } } }
local FINISH = { choices = { { index = 0, delta = {}, finish_reason = "stop" } } }

local function delta(fields)
  return { choices = { { index = 0, delta = fields } } }
end

local function events(list, more)
  local answer = { done = false, events = {} }
  for position, event in ipairs(list) do
    answer.events[position] = type(event) == "table" and event.choices and { data = event } or event
  end
  for key, value in pairs(more or {}) do answer[key] = value end
  return answer
end

local function raw(text)
  return { raw = text }
end

describe("a stream that has not begun to say anything", function()
  local world

  before_each(function()
    world = testing.world { env = ENV }
    world:upstream("spare"):always { words = "from spare" }
  end)

  --- The first target's stream is left: the answer is the second one's and nothing else.
  local function assert_left(answer, outcome, more)
    world:upstream("primary"):always(answer)
    local request = { model = "any", stream = true }
    for key, value in pairs(more or {}) do request[key] = value end
    local got = world:request(request)
    assert.equal("from spare", got:text())
    assert.same({ 200, "complete" }, { got.status, got.ended })
    assert.same({ "primary/gpt-4", "spare/gpt-4" }, world:called())
    local trail = got.headers["x-perilune-trail"]
    assert.is_truthy(trail:find("primary/gpt-4;" .. outcome .. ";", 1, true), trail)
    return got
  end

  it("is left when it names a role and falls silent", function()
    local answer = assert_left(events({ ROLE }, { stall_after = 1 }), "timeout_first_token")
    assert.equal(5000, answer.duration_ms)
  end)

  it("is left when nothing but comments come", function()
    local list = {}
    for position = 1, 20 do list[position] = { raw = ": keep-alive\n\n", after = "1s" } end
    assert_left(events(list, { stall_after = 20 }), "timeout_first_token")
  end)

  it("is left when nothing but pings come", function()
    local ping = { event = "ping", data = { type = "ping" }, after = "1s" }
    local start = { event = "message_start", data = { type = "message_start",
      message = { role = "assistant", content = {} } } }
    assert_left(events({ start, ping, ping, ping, ping, ping, ping }), "timeout_first_token",
      { path = "/v1/messages" })
  end)

  it("is left for one whose first word comes in time", function()
    world:upstream("spare"):always { words = "from spare", every = "3s" }
    local answer = assert_left({ words = "too late", first = "20s" }, "timeout_first_token")
    assert.is_true(answer.duration_ms <= 15000, answer.duration_ms)
  end)

  it("is left when it begins with an error", function()
    for _, case in ipairs {
      { "rate_limited", { error = { code = "rate_limit_exceeded", message = "slow down" } } },
      { "overloaded", { type = "error", error = { type = "overloaded_error" } } },
      { "billing", { error = { type = "insufficient_quota" } } },
      { "context_length", { error = { code = "context_length_exceeded" } } },
      { "server_error", { error = { message = "no idea" } } },
      { "rate_limited", { { error = { code = 429, status = "RESOURCE_EXHAUSTED" } } } },
    } do
      world = testing.world { env = ENV }
      world:upstream("spare"):always { words = "from spare" }
      assert_left(events { ROLE, { data = case[2] } }, case[1])
    end
  end)

  it("is left when its first event is named error", function()
    assert_left(events { { event = "error", data = "out of order" } }, "server_error")
  end)

  it("is left when it finishes without content", function()
    assert_left(events { ROLE, FINISH, "[DONE]" }, "empty")
  end)

  it("is left when it is [DONE] at once", function()
    assert_left(events { "[DONE]" }, "empty")
  end)

  it("is left when it ends after its role", function()
    assert_left(events { ROLE }, "empty")
  end)

  it("is left when it holds garbage", function()
    assert_left(events { "{garbage" }, "malformed")
  end)

  it("is left when it is a page", function()
    assert_left(events { raw("<html><body>Bad gateway</body></html>\n") }, "malformed")
  end)

  it("counts for its target as the status of its class", function()
    world:upstream("primary"):always(events { { data = { error = { code = "server_error" } } } })
    for _ = 1, 3 do world:request { model = "any", stream = true } end
    assert.equal("consecutive_5xx", world:health("primary/gpt-4").reason)
    world = testing.world { env = ENV }
    world:upstream("primary"):always(events { { data = { error = { code = 429 } } } })
    for _ = 1, 5 do world:request { model = "any", stream = true } end
    local health = world:health("primary/gpt-4")
    assert.same({ true, 0 }, { health.fit, health.in_flight })
  end)

  it("gives the client its error when nobody else is there", function()
    for _, case in ipairs { { 429, "rate_limited", "rate_limit_exceeded" },
      { 400, "context_length", "context_length_exceeded" }, { 502, "server_error", "x" } }
    do
      world:restore("primary/solo")
      world:upstream("primary"):always(events {
        { data = { error = { code = case[3], message = "it says" } } } })
      local answer = world:request { model = "alone", stream = true }
      assert.same({ case[1], case[2] }, { answer.status, answer:json().error.code })
      assert.is_truthy(answer:json().error.message:find("it says", 1, true))
    end
  end)
end)

describe("a stream that says something", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  --- It is the client's from that event on, at `ms`; what comes later cannot take it back.
  local function assert_taken(event, ms, options)
    local list = { ROLE, type(event) == "table" and event.choices and
      { data = event, after = "100ms" } or event }
    world:upstream("primary"):always(events(list, { stall_after = 2 }))
    local request = { model = "any", stream = true }
    for key, value in pairs(options or {}) do request[key] = value end
    local pending = world:start(request)
    world:advance("1s")
    assert.same({ 200, "open", ms }, { pending.status, pending.ended, pending.first_byte_ms })
    assert.equal(1, #world:called())
    pending:leave()
  end

  it("is taken by any kind of content", function()
    for _, fields in ipairs {
      { content = "a" }, { content = " " }, { reasoning_content = "hm" }, { reasoning = "hm" },
      { refusal = "no" }, { function_call = { name = "f", arguments = "" } },
      { tool_calls = { { index = 0, id = "c", type = "function" } } }, { audio = { id = "a" } },
    } do
      world = testing.world { env = ENV }
      assert_taken(delta(fields), 100)
    end
  end)

  it("is taken when a filter has ended it", function()
    assert_taken({ choices = { { index = 0, delta = {}, finish_reason = "content_filter" } } }, 100)
  end)

  it("is taken when its form is not known", function()
    assert_taken({ data = { token = "a" }, after = "100ms" }, 100)
  end)

  it("is taken with the events before, in their order", function()
    world:upstream("primary"):always(events { raw(": hello\n\n"), ROLE,
      delta { content = "a" }, "[DONE]" })
    local answer = world:request { model = "any", stream = true }
    local expected = ": hello\n\ndata: " .. cjson.encode(ROLE) .. "\n\n"
    assert.equal(expected, answer.body:sub(1, #expected))
    assert.equal("a", answer:text())
  end)

  it("ends in an error event when it fails later", function()
    world:upstream("primary"):always(events({ ROLE, delta { content = "a" } }, { cut_after = 2 }))
    local answer = world:request { model = "any", stream = true }
    assert.equal("cut", answer.ended)
    assert.is_truthy(answer.body:find('"code":"truncated"', 1, true))
    assert.equal(1, #world:called())
  end)

  it("is taken when it is long, whatever it says", function()
    world:upstream("primary"):always(events({ { raw = ":" .. ("x"):rep(70000) .. "\n\n" } },
      { stall_after = 1 }))
    local pending = world:start { model = "any", stream = true }
    world:advance("1s")
    assert.equal("open", pending.ended)
    assert.is_true(#pending.body > 70000)
  end)
end)

local CONFIG = [[return {
  providers = {
    primary = { url = "http://primary.test/v1", timeouts = { first_token = "5s" } },
    spare = { url = "http://spare.test/v1" },
  },
  routes = { {
    targets = { { provider = "primary" }, { provider = "spare", priority = 1 } }, %s
  } },
}]]
local POLICY = [[
  local gw = require "perilune"
  return function(req, route)
    local res, err
    for target in gw.candidates(route) do
      res, err = req:send(target)
      if not route.retry:wants(gw.classify(res, err)) then break end
    end
    return req:relay(res, err)
  end]]

local function world_of(options)
  local world = testing.world {
    config = CONFIG:format(options), files = { ["fallback.lua"] = POLICY },
  }
  world:upstream("spare"):always { words = "from spare" }
  return world
end

describe("a route's gate", function()
  local function first_byte_ms(options, list, more)
    local world = world_of(options)
    world:upstream("primary"):always(events(list, more))
    local pending = world:start { model = "any", stream = true }
    world:advance("2s")
    return pending.first_byte_ms
  end

  it("may open at the first event, or at the head", function()
    local list = { { raw = ": hi\n\n", after = "100ms" }, { data = ROLE, after = "100ms" },
      { data = delta { content = "a" }, after = "100ms" } }
    local stalls = { stall_after = 3 }
    assert.equal(300, first_byte_ms("", list, stalls))
    assert.equal(300, first_byte_ms('gate = { on = "content" }', list, stalls))
    assert.equal(200, first_byte_ms('gate = { on = "event" }', list, stalls))
    assert.equal(0, first_byte_ms('gate = { on = "head" }', list, stalls))
  end)

  it("may open after fewer bytes", function()
    local list = { { raw = ":" .. ("x"):rep(1100) .. "\n\n", after = "100ms" } }
    assert.is_nil(first_byte_ms("", list, { stall_after = 1 }))
    assert.equal(100, first_byte_ms('gate = { bytes = "1KiB" }', list, { stall_after = 1 }))
  end)

  it("takes garbage and errors as they come, when it opens at the first event", function()
    local world = world_of('gate = { on = "event" }')
    world:upstream("primary"):always(events { "{garbage" })
    assert.equal("data: {garbage\n\n", world:request({ model = "any", stream = true }).body)
    world:upstream("primary"):always(events { raw(": nothing\n\n") })
    assert.equal("from spare", world:request({ model = "any", stream = true }):text())
  end)
end)

describe("check_body", function()
  local function ask(options, body, more)
    local world = world_of(options)
    local answer = type(body) == "table" and body.body and body or { body = body }
    world:upstream("primary"):always(answer)
    local request = { model = "any" }
    for key, value in pairs(more or {}) do request[key] = value end
    return world:request(request), world
  end

  local BODIES = {
    { "empty", '{"choices":[]}' }, { "empty", "{}" }, { "malformed", "<html>" },
    { "empty", '{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}' },
    { "malformed", '{"choices":[{"message":{"content":"hal' }, { "malformed", "17" },
    { "rate_limited", '{"error":{"code":429,"message":"slow"}}' },
    { "overloaded", '{"type":"error","error":{"type":"overloaded_error"}}' },
  }

  it("leaves answers that are none for the next target", function()
    for _, case in ipairs(BODIES) do
      local answer, world = ask("check_body = true", case[2])
      assert.equal("from spare", answer:text(), case[2])
      local trail = answer.headers["x-perilune-trail"]
      assert.is_truthy(trail:find("primary;" .. case[1] .. ";", 1, true), trail)
      assert.equal(0, world:health("primary").in_flight)
    end
  end)

  it("is off unless asked for", function()
    for _, case in ipairs(BODIES) do
      local answer, world = ask("", case[2])
      assert.equal(case[2], answer.body)
      assert.equal(1, #world:called())
    end
  end)

  it("passes what is an answer", function()
    for path, body in pairs {
      ["/v1/chat/completions"] = '{"choices":[{"message":{"content":"a"}}]}',
      ["/v1/completions"] = '{"choices":[{"text":"a"}]}',
      ["/v1/responses"] = '{"output":[{"type":"function_call","name":"f"}]}',
      ["/v1/messages"] = '{"content":[{"type":"text","text":"a"}]}',
      ["/v1/embeddings"] = '{"data":[{"embedding":[1]}]}',
      ["/v1/audio/speech"] = "not JSON at all",
    } do
      local answer, world = ask("check_body = true", body, { path = path })
      assert.same({ 200, body, "complete" }, { answer.status, answer.body, answer.ended })
      assert.equal(1, #world:called())
    end
  end)

  it("passes what is larger than 1 MiB, and leaves what is cut", function()
    local large = '{"choices":[],"x":"' .. ("x"):rep(1100000)
    local answer, world = ask("check_body = true", large)
    assert.equal(#large, #answer.body)
    assert.equal(1, #world:called())
    answer = ask("check_body = true", { body = '{"choices":[]}', cut_after = 1 })
    assert.equal("from spare", answer:text())
    assert.is_truthy(answer.headers["x-perilune-trail"]:find("primary;truncated;", 1, true))
  end)

  it("looks into what is no stream although one was asked for", function()
    local answer = ask("check_body = true", '{"error":{"code":"rate_limit_exceeded"}}',
      { stream = true })
    assert.equal("from spare", answer:text())
  end)

  it("leaves an answer without any body", function()
    local answer = ask("check_body = true", "")
    assert.equal("from spare", answer:text())
  end)
end)
