--- What a client hears while it waits for a stream, and what becomes of its request then.

local cjson = require "cjson"
local testing = require "perilune.testing"

local GATEWAY = [[
return {
  providers = { a = { url = "http://127.0.0.1:1/v1" }, b = { url = "http://127.0.0.1:2/v1" } },
  routes = { { targets = { { provider = "a" }, { provider = "b", priority = 1 } },
    deadline = "30s", reserve = "5s", retry = { attempts = 2 },
    gate = { heartbeat = "2s", $gate }, $route } },
}
]]
local BEAT = ": perilune waiting\n\n"
local POLICY = [[return function(req, route)
  local gw = require "perilune"
  gw.sleep("5s")
  $body
end]]

describe("heartbeats", function()
  local world

  local function open(route, gate)
    world = testing.world { directory = "policies", config = GATEWAY:gsub("%$(%w+)",
      { route = route or "", gate = gate or "" }) }
    world:upstream("b"):always { words = "from b" }
  end

  --- A world with a policy that sleeps for 5 s, then does this.
  local function open_policy(body)
    world = testing.world { directory = false,
      files = { ["own.lua"] = (POLICY:gsub("%$body", (body:gsub("%%", "%%%%")))) },
      config = GATEWAY:gsub("%$(%w+)", { route = 'policy = "own",', gate = "" }) }
  end

  local function ask(more)
    local request = { stream = true }
    for key, value in pairs(more or {}) do request[key] = value end
    return world:request(request)
  end

  --- So many heartbeats, then what follows; gives the rest.
  local function rest_of(answer, count)
    assert.same({ 200, "complete", 2000 }, { answer.status, answer.ended, answer.first_byte_ms })
    assert.equal("text/event-stream; charset=utf-8", answer.headers["content-type"])
    local body = answer.body
    local beats = BEAT:rep(count)
    assert.equal(beats, body:sub(1, #beats))
    assert.is_nil(body:find("perilune waiting", #beats + 1, true))
    return body:sub(#beats + 1)
  end

  local function only_event(answer, count)
    rest_of(answer, count)
    local events = answer:events()
    assert.equal(1, #events)
    return cjson.decode(events[1].data), events[1].event
  end

  it("come while the gate is closed, and end with the answer", function()
    open()
    world:upstream("a"):always { words = "from a", first = "5s", every = "1ms" }
    local answer = ask()
    assert.equal("from a", answer:text())
    rest_of(answer, 2)
  end)

  it("come through tries, and the answer says which there were", function()
    open()
    world:upstream("a"):always "hang"
    local answer = ask()
    assert.equal("from b", answer:text())
    local rest = rest_of(answer, 12)
    assert.equal(": x-perilune-trail: a;timeout_try;25000ms, b;200;0ms\n\n", rest:match("^.-\n\n"))
    assert.is_nil(answer.headers["x-perilune-target"])
    assert.is_truthy(answer.headers["x-request-id"])
  end)

  it("come through back-offs and queues", function()
    world = testing.world { directory = "policies", config = [[return {
      providers = { a = { url = "http://127.0.0.1:1/v1" } },
      routes = { { targets = { { provider = "a" } }, gate = { heartbeat = "2s" },
        retry = { attempts = 2, backoff = { base = "5s", floor = "5s" } } } } }]] }
    world:upstream("a"):answers(503, 200)
    local answer = ask()
    rest_of(answer, 2)
    assert.is_truthy(#answer:text() > 0)
    world = testing.world { directory = "policies", config = [[return {
      providers = { a = { url = "http://127.0.0.1:1/v1" } },
      routes = { { targets = { { provider = "a", limits = { concurrent = 1, queue = 9,
        queue_timeout = "9s" } } }, gate = { heartbeat = "2s" } } } }]] }
    world:upstream("a"):always { words = 2, after = "5s" }
    local first, second = world:start { stream = true }, world:start { stream = true }
    world:run()
    assert.same({ 200, 200 }, { first.status, second.status })
    assert.equal(5, select(2, second.body:gsub(BEAT, "")))
  end)

  it("do not come to those who are answered sooner, or want no stream", function()
    open()
    world:upstream("a"):always { words = "from a", first = "1999ms" }
    local answer = ask()
    assert.equal("a", answer.headers["x-perilune-target"])
    assert.is_nil(answer.body:find("perilune waiting", 1, true))
    world:upstream("a"):always { words = "from a", after = "10s" }
    answer = ask { stream = false }
    assert.same({ 200, 10000 }, { answer.status, answer.first_byte_ms })
    assert.equal("application/json", answer.headers["content-type"])
  end)

  it("drop a byte order mark that would be in the middle", function()
    open()
    world:upstream("a"):always { events = { { raw = "\239\187\191data: " .. cjson.encode {
      choices = { { delta = { content = "x" } } } } .. "\n\n", after = "3s" } } }
    local answer = ask()
    assert.equal("x", answer:text())
    assert.is_nil(answer.body:find("\239\187\191", 1, true))
  end)

  describe("and then a failure", function()
    it("is an event that the client's library raises on, and the stream ends", function()
      open()
      world:upstream("a"):always "hang"
      world:upstream("b"):always "refuse"
      local data, name = only_event(ask(), 12)
      assert.same({ nil, "connect", "upstream_error" }, { name, data.error.code, data.error.type })
    end)

    it("is one in the dialect of Anthropic's clients", function()
      open()
      world:upstream("a"):always "hang"
      world:upstream("b"):always "refuse"
      local data, name = only_event(ask { path = "/v1/messages" }, 12)
      assert.same({ "error", "error", "api_error" }, { name, data.type, data.error.type })
    end)

    it("is the deadline, also for a policy that sleeps through it", function()
      open()
      world:upstream("a"):always "hang"
      world:upstream("b"):always "hang"
      assert.equal("timeout_deadline", only_event(ask(), 14).error.code)
      open_policy 'gw.sleep("1m") return req:relay(nil, nil)'
      assert.equal("no_target", only_event(ask(), 14).error.code)
    end)

    it("is an upstream's error in its own words", function()
      local said = { error = { message = "too\nmuch", type = "rate_limit_error", code = "slow" } }
      world = testing.world { directory = "policies", config = GATEWAY:gsub("retry = .-},", "")
        :gsub("%$(%w+)", { gate = "", route = "retry = { attempts = 1 }," }) }
      world:upstream("a"):always { status = 429, body = cjson.encode(said):gsub(",", ",\r\n"),
        after = "5s" }
      local answer = ask()
      assert.same(said, (only_event(answer, 2)))
      assert.is_truthy(answer.body:find("a;429;5000ms", 1, true))
    end)

    it("is an upstream's error of another form, in ours", function()
      open()
      world:upstream("a"):always { status = 404, body = "<h1>Not here</h1>", after = "5s",
        headers = { ["content-type"] = "text/html" } }
      world:upstream("b"):always { status = 404, body = "" }
      local data = only_event(ask(), 2)
      assert.same({ "model_not_found", "Target `b` answered 404" },
        { data.error.code, data.error.message })
    end)

    it("is an answer that is no stream", function()
      open()
      world:upstream("a"):always { status = 200, body = { choices = {} }, after = "5s" }
      local data = only_event(ask(), 2)
      assert.equal("not_a_stream", data.error.code)
    end)

    it("is the policy's, before the floor policy takes over", function()
      open_policy 'error("oops")'
      world:upstream("a"):always { words = "from a" }
      local answer = ask()
      assert.equal("from a", answer:text())
      rest_of(answer, 2)
      world = testing.world { directory = false,
        files = { ["own.lua"] = (POLICY:gsub("%$body", 'error("oops")')) },
        config = GATEWAY:gsub("%$(%w+)", { gate = "",
          route = 'policy = "own", on_policy_error = "fail",' }) }
      assert.equal("policy_error", only_event(ask(), 2).error.code)
    end)

    it("breaks the stream when the answer has begun", function()
      open()
      world:upstream("a"):always { words = "from a", first = "5s", cut_after = 2 }
      local answer = ask()
      assert.equal("cut", answer.ended)
      assert.is_truthy(answer.body:find('"code":"truncated"', 1, true))
    end)
  end)

  describe("and then an answer of the policy's", function()
    it("is an error as an event", function()
      open_policy 'return req:fail(403, "no", "Not you")'
      assert.equal("no", only_event(ask(), 2).error.code)
      open_policy 'return req:respond(418, { error = { message = "I am a teapot" } })'
      assert.equal("I am a teapot", only_event(ask(), 2).error.message)
      open_policy 'return req:respond(418, "a teapot")'
      assert.equal("The policy answered 418: a teapot", only_event(ask(), 2).error.message)
      open_policy 'return req:respond(200, { a = 1 })'
      assert.equal("not_a_stream", only_event(ask(), 2).error.code)
    end)

    it("is events as they are", function()
      open_policy [[return req:respond(200, "data: x\n\n",
        { ["Content-Type"] = "text/event-stream" })]]
      assert.equal("data: x\n\n", rest_of(ask(), 2))
      open_policy [[
        req:start(200, { ["content-type"] = "text/event-stream" })
        req:write("data: y\n\n")
        gw.sleep("5s")
        req:finish()]]
      assert.equal("data: y\n\n", rest_of(ask(), 2))
    end)

    it("is a mistake when it begins another kind of answer", function()
      open_policy 'req:start(200, { ["content-type"] = "text/plain" })'
      world:upstream("a"):always { words = "from a" }
      assert.equal("from a", ask():text())
      assert.is_truthy(table.concat(world:log()):find("own.lua:4: heartbeats have begun", 1, true))
    end)
  end)

  it("end when the client leaves", function()
    open()
    world:upstream("a"):always "hang"
    local pending = world:start { stream = true }
    world:advance("5s")
    pending:leave()
    world:run()
    assert.same({ "left", 5000 }, { pending.ended, pending.duration_ms })
    assert.equal("cancelled", world:calls()[1].outcome)
  end)

  it("come while two targets race, and the winner's stream follows", function()
    open 'hedge = { after = "3s" },'
    world:upstream("a"):always "hang"
    world:upstream("b"):always { words = "from b", first = "2s", every = "1ms" }
    local answer = ask()
    assert.same({ "from b", { "a", "b" } }, { answer:text(), world:called() })
    rest_of(answer, 2)
  end)

  it("go with a reserve that ends the first of two, while the second goes on", function()
    open 'hedge = { after = "3s" },'
    world:upstream("a"):always "hang"
    world:upstream("b"):always { words = "from b", after = "26s", every = "1ms" }
    local answer = ask()
    assert.equal("from b", answer:text())
    assert.is_truthy(rest_of(answer, 14):find("a;timeout_try;25000ms, b;200;26", 1, true))
  end)
end)
