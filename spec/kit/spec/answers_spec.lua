--- What upstreams can be told to answer, and what comes of it.

local testing = require "perilune.testing"

local ENV = { PRIMARY_KEY = "sk-test" }

describe("an answer", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  local function ask(answer, options)
    world:upstream("primary"):always(answer)
    local request = { model = "alone" }
    for key, value in pairs(options or {}) do request[key] = value end
    return world:request(request)
  end

  it("is a chat completion unless told otherwise", function()
    local answer = world:request { model = "alone" }
    assert.equal(200, answer.status)
    assert.equal("application/json", answer.headers["Content-Type"])
    local body = answer:json()
    assert.equal("chat.completion", body.object)
    assert.equal("solo", body.model)
    assert.equal("Hello from primary/solo.", answer:text())
    assert.equal(tostring(#answer.body), answer.headers["content-length"])
  end)

  it("does not depend on the query", function()
    local answer = world:request { model = "alone", path = "/v1/chat/completions?trace=1" }
    assert.equal("Hello from primary/solo.", answer:text())
  end)

  it("is streamed when asked for", function()
    local answer = world:request { model = "alone", stream = true }
    assert.equal("text/event-stream", answer.headers["content-type"])
    assert.equal("Hello from primary/solo.", answer:text())
    local events = answer:events()
    assert.equal("[DONE]", events[#events].data)
    assert.equal("complete", answer.ended)
  end)

  it("is what the endpoint gives", function()
    for _, stream in ipairs { false, true } do
      for _, path in ipairs { "/v1/completions", "/v1/responses", "/v1/messages" } do
        local answer = world:request { model = "alone", path = path, stream = stream }
        assert.equal("Hello from primary/solo.", answer:text(), path)
      end
    end
    local embedding = world:request({ model = "alone", path = "/v1/embeddings" }):json().data[1]
    assert.equal(8, #embedding.embedding)
    assert.same({}, world:request({ path = "/v1/files", method = "GET" }):json().data)
  end)

  it("may be a status alone, with the usual body of an error", function()
    for _, status in ipairs { 400, 401, 404, 418, 429, 500, 503 } do
      world:restore("primary/solo")
      local answer = ask(status)
      assert.equal(status, answer.status)
      assert.equal(status, answer:json().error.code)
    end
    assert.equal("", ask(204).body)
  end)

  it("may say everything", function()
    local answer = ask { status = 201, headers = { ["X-Own"] = "1", ["x-number"] = 7 },
      body = { mine = true }, after = "120ms" }
    assert.equal(201, answer.status)
    assert.equal("1", answer.headers["x-own"])
    assert.equal("7", answer.headers["X-Number"])
    assert.is_true(answer:json().mine)
    assert.same({ 120, 120 }, { answer.first_byte_ms, answer.duration_ms })
    assert.equal("as it is", ask({ body = "as it is" }).body)
  end)

  it("takes the time that is said", function()
    local answer = ask({ after = "100ms", first = "1s", every = "20ms", words = 5 },
      { stream = true })
    assert.equal("word1 word2 word3 word4 word5", answer:text())
    assert.equal(1120, answer.first_byte_ms) -- the gateway waits for the first word
    assert.equal(1100 + 6 * 20, answer.duration_ms)
    assert.equal(1220, world:now_ms())
  end)

  it("may have its events listed", function()
    local answer = ask({ events = { "1", { data = { n = 2 }, event = "named", after = "1s" },
      { raw = ": a comment\n\n" } } }, { stream = true })
    assert.equal('data: 1\n\nevent: named\ndata: {"n":2}\n\n: a comment\n\ndata: [DONE]\n\n',
      answer.body)
    assert.same({ { data = "1" }, { event = "named", data = '{"n":2}' }, { data = "[DONE]" } },
      answer:events())
    assert.equal(1000, answer.duration_ms)
    assert.equal("data: 1\n\ndata: [DONE]\n\n",
      ask({ events = { "1", "[DONE]" } }, { stream = true }).body)
    assert.equal("data: 1\n\n", ask({ events = { "1" }, done = false }, { stream = true }).body)
  end)

  it("ends its listed events with the mark of the endpoint", function()
    local STOP = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    local function body(path, events)
      return ask({ events = events }, { stream = true, path = path }).body
    end
    assert.equal("data: 1\n\n" .. STOP, body("/v1/messages", { "1" }))
    assert.equal("data: 1\n\n" .. STOP, body("/v1/messages", { "1", { raw = STOP } }))
    assert.equal("data: 1\n\n", body("/v1/responses", { "1" }))
    assert.equal("data: 1\n\ndata: [DONE]\n\n", body("/v1/completions", { "1" }))
  end)

  it("may break off, or stop in the middle", function()
    local answer = ask({ words = 9, every = "10ms", cut_after = 3 }, { stream = true })
    assert.equal("cut", answer.ended)
    assert.equal("word1 word2 ", answer:text())
    assert.equal("truncated", world:calls()[1].outcome)
    answer = ask({ words = 9, stall_after = 2 }, { stream = true })
    assert.same({ "cut", 20000 }, { answer.ended, answer.duration_ms })
    assert.equal("timeout_idle", world:calls()[2].outcome)
    answer = ask { body = "0123456789", cut_after = 1 }
    assert.same({ "cut", "01234" }, { answer.ended, answer.body })
    assert.equal("10", answer.headers["content-length"])
  end)

  it("may be a failure", function()
    local classes = { connect = "connect", refuse = "connect", dns = "dns", tls = "tls",
      reset = "reset", malformed = "malformed", hang = "timeout_head" }
    for name, class in pairs(classes) do
      world:restore("primary/solo")
      world:restore("primary")
      local answer = ask(name)
      assert.equal(class, answer:json().error.code)
      local calls = world:calls()
      assert.equal(class, calls[#calls].outcome)
      assert.equal(name == "hang" and 10000 or 0, answer.duration_ms)
    end
    assert.equal("truncated", ask("truncated", { stream = true }):json().error.code)
    assert.equal("cut", ask("truncated").ended)
  end)

  it("may be a failure that takes its time", function()
    assert.equal(300, ask({ failure = "reset", after = "300ms" }).duration_ms)
    local answer = ask { failure = "connect", after = "2s" }
    assert.equal("timeout_connect", answer:json().error.code)
    assert.equal(1000, answer.duration_ms)
  end)

  it("may be worked out from the call", function()
    local seen = {}
    world:upstream("primary"):always(function(call)
      table.insert(seen, call)
      if call.number == 2 then return 503 end
      return { words = call.json.messages[1].content:upper(), after = "50ms" }
    end)
    local answer = world:request { model = "alone", headers = { ["X-Team"] = "blue" } }
    assert.equal("HELLO", answer:text())
    assert.equal(503, world:request({ model = "alone" }).status)
    local call = seen[1]
    assert.same({ 1, 0, "primary/solo", "primary", "POST", "/v1/chat/completions", "blue" },
      { call.number, call.at_ms, call.target, call.provider, call.method, call.path,
        call.headers["x-team"] })
    assert.equal("Bearer sk-test", call.headers.Authorization)
    assert.equal("solo", call.json.model)
    assert.equal(50, seen[2].at_ms)
  end)
end)

describe("a script", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  local function statuses(count, wait)
    local list = {}
    for number = 1, count do
      list[number] = world:request({ model = "alone" }).status
      if wait then world:advance(wait) end
    end
    return list
  end

  it("gives one answer per call, the last one for ever", function()
    world:upstream("primary"):answers(400, 429, 200)
    assert.same({ 400, 429, 200, 200 }, statuses(4))
    world:upstream("primary"):answers(404)
    assert.same({ 404, 404 }, statuses(2))
  end)

  it("may depend on the time", function()
    world:upstream("primary"):between("10s", "20s", 404):between("15s", "40s", 400):always(418)
    assert.same({ 418, 418, 404, 404, 400, 400, 400, 400, 418 }, statuses(9, "5s"))
  end)

  it("is that of the target, else of its provider", function()
    world:upstream("primary"):always(400)
    world:upstream("primary/solo"):always(404)
    assert.equal(404, world:request({ model = "alone" }).status)
    assert.equal(400, world:request({ model = "gpt-4" }).status)
  end)
end)
