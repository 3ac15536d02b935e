--- What else happens while an answer that broke off waits to go on: heartbeats, two targets at
-- once, a policy that fails, a client that leaves, a deadline.

local cjson = require "cjson"
local testing = require "perilune.testing"

local WORD_COUNT = 60

local function words(first, last)
  local list = {}
  for number = first, last do list[#list + 1] = "word" .. number end
  return table.concat(list, " ")
end

local WHOLE = words(1, WORD_COUNT)
local CUT = { words = WORD_COUNT, every = "100ms", cut_after = 40 }

--- Goes on from the assistant's words, the first of them after so long.
local function going_on(first)
  return function(call)
    local messages = call.json.messages
    local prefix = messages[#messages].role == "assistant" and messages[#messages].content or ""
    return { words = WHOLE:sub(#prefix + 1), first = first or "10ms" }
  end
end

--- Relays the first target's answer; at the seam `AT_SEAM` runs with req, route and targets.
local POLICY = [[
local gw = require "perilune"
return function(req, route)
  local targets = gw.candidates(route)
  local whole, class, is_open = req:relay(req:send(targets()), nil, route.rescue)
  if not is_open then return whole, class end
  AT_SEAM
end]]

local HEDGES = [[
  local res, err = gw.hedge(req, route, targets(), targets)
  if not res then return req:relay(nil, err) end
  return req:relay(res)]]

local RESCUES = [[
local gw = require "perilune"
return function(req, route)
  local targets = gw.candidates(route)
  local res, err = req:send(targets())
  return gw.rescue(req, route, targets, res, err)
end]]

local function make_world(at_seam, route_options, provider_options)
  local route = { name = "r", deadline = "2m", rescue = "continue", hedge = { after = "2s" },
    targets = { { provider = "first" }, { provider = "second", priority = 1 },
      { provider = "third", priority = 2 } } }
  for key, value in pairs(route_options or {}) do route[key] = value end
  local providers = {}
  for _, name in ipairs { "first", "second", "third" } do
    providers[name] = { url = "http://127.0.0.1:1/v1",
      timeouts = { idle = "30s", first_token = "20s" } }
    local own = provider_options and provider_options[name] or {}
    for key, value in pairs(own) do providers[name][key] = value end
  end
  local policy = at_seam and POLICY:gsub("AT_SEAM", function() return at_seam end) or RESCUES
  local world = testing.world { directory = false, files = { ["fallback.lua"] = policy },
    config = { providers = providers, routes = { route } } }
  world:upstream("first"):always(CUT)
  world:upstream("second"):always(going_on())
  world:upstream("third"):always(going_on())
  return world
end

local function ask(world)
  return world:request { model = "m", stream = true }
end

local function start(world)
  return world:start { model = "m", stream = true }
end

local function count(text, what)
  return select(2, text:gsub(what, ""))
end

local function assert_whole(answer)
  assert.equal("complete", answer.ended)
  assert.equal(WHOLE, answer:text())
  assert.equal(1, count(answer.body, "%[DONE%]"))
end

--- One error, the last event, and no end that could be taken for a whole answer's.
local function assert_error(answer, code)
  local events = answer:events()
  assert.equal("cut", answer.ended)
  assert.equal(1, count(answer.body, '"error"'))
  assert.equal(0, count(answer.body, "%[DONE%]"))
  assert.equal(code, cjson.decode(events[#events].data).error.code)
end

local function assert_idle(world)
  world:run()
  for _, name in ipairs { "first", "second", "third" } do
    local ok, health = pcall(world.health, world, name)
    if ok then assert.equal(0, health.in_flight, name) end
  end
  for _, call in ipairs(world:calls()) do assert.is_truthy(call.ended_ms) end
end

local function log_text(world)
  return table.concat(world:log(), "\n")
end

describe("at a seam, two targets at once", function()
  it("are asked for what follows, and the first content goes on", function()
    local world = make_world(HEDGES)
    world:upstream("second"):always(going_on "10s")
    local answer = ask(world)
    assert_whole(answer)
    assert.same({ "first", "second", "third" }, world:called())
    local calls = world:calls()
    assert.same(calls[2].json.messages, calls[3].json.messages)
    assert.equal("assistant", calls[3].json.messages[2].role)
    assert.equal("cancelled", calls[2].outcome)
    assert.matches("by third after cut of first (truncated; continue)", answer.body, 1, true)
    assert_idle(world)
  end)

  it("may be won by the first of them", function()
    local world = make_world(HEDGES)
    world:upstream("second"):always(going_on "4s")
    world:upstream("third"):always(going_on "10s")
    local answer = ask(world)
    assert_whole(answer)
    assert.equal("cancelled", world:calls()[3].outcome)
    assert_idle(world)
  end)

  it("may both fail: the client is told of the break", function()
    local world = make_world(HEDGES)
    world:upstream("second"):always { status = 503, after = "5s" }
    world:upstream("third"):always { status = 503, after = "5s" }
    assert_error(ask(world), "truncated")
    assert_idle(world)
  end)

  it("hide the counts that only the gateway has asked for", function()
    local counts = { stream_usage = true }
    for _, own in ipairs { { first = counts, third = counts }, { second = counts },
      { third = counts }, { first = counts, second = counts, third = counts } } do
      local world = make_world(HEDGES, nil, own)
      world:upstream("second"):always(going_on "10s")
      local answer = ask(world)
      assert_whole(answer)
      assert.equal(0, count(answer.body, "completion_tokens"))
    end
  end)

  it("are cancelled when the client leaves", function()
    local world = make_world(HEDGES)
    world:upstream("second"):always "hang"
    world:upstream("third"):always "hang"
    local pending = start(world)
    world:advance "10s"
    assert.equal(3, #world:calls())
    pending:leave()
    assert_idle(world)
  end)

  it("end at the deadline", function()
    local world = make_world(HEDGES, { deadline = "12s" })
    world:upstream("second"):always "hang"
    world:upstream("third"):always "hang"
    local answer = ask(world)
    assert_error(answer, "timeout_deadline")
    assert.equal(12000, answer.duration_ms)
    assert_idle(world)
  end)

  it("may be followed by another break, and another two", function()
    local world = make_world [[
      local class
      for _ = 1, 3 do
        local res, err = gw.hedge(req, route, targets() or route.targets[1], targets)
        if not res then break end
        whole, class, is_open = req:relay(res)
        if not is_open then return whole, class end
      end
      return req:relay(nil, { class = class })]]
    world:upstream("first"):answers(CUT, going_on "5s")
    world:upstream("second"):always(going_on "10s")
    world:upstream("third"):always(function(call)
      local answer = going_on()(call)
      answer.cut_after = 10
      return answer
    end)
    local answer = ask(world)
    assert_whole(answer)
    assert_idle(world)
  end)

  it("are cancelled when the policy fails meanwhile", function()
    local world = make_world [[
      local function next_one()
        if req:elapsed_ms() > 5000 then error "oops" end
        return targets()
      end
      return req:relay(gw.hedge(req, route, targets(), next_one))]]
    world:upstream("second"):always "hang"
    assert_error(ask(world), "truncated")
    assert_idle(world)
  end)
end)

describe("at a seam, a policy", function()
  it("that fails or ends gives up, with one error", function()
    for _, code in ipairs { "error 'oops'", "return nil", "req:send(targets()); error 'oops'",
      "req:send(targets()); return nil", "req:respond(500, 'no')", "req:fail(500, 'x', 'no')",
      "req:start(200, {})", "req:finish()", "req:write('data: [DONE]\\n\\n'); req:finish()" } do
      local world = make_world(code)
      assert_error(ask(world), "truncated")
      assert_idle(world)
    end
  end)

  it("may break the connection", function()
    local world = make_world "req:send(targets()); req:abort()"
    assert.not_equal("complete", ask(world).ended)
    assert_idle(world)
  end)

  it("cannot relay the same answer again", function()
    local world = make_world "req:relay(req.last)"
    assert_error(ask(world), "truncated")
    assert.matches("this answer has been relayed, and broke off", log_text(world), 1, true)
  end)

  it("gives up at the deadline when it sleeps through it", function()
    local world = make_world("gw.sleep '1m'", { deadline = "12s" })
    assert_error(ask(world), "timeout_deadline")
    assert_idle(world)
  end)
end)

describe("at a seam", function()
  it("the break is told as what it was, whatever comes of those who are asked", function()
    local world = make_world()
    local busy = { events = { { data = { error = { type = "rate_limit_error", code = "x",
      message = "slow down" } } } } }
    world:upstream("second"):always(busy)
    local answer = ask(world)
    assert_whole(answer)
    assert.matches("after cut of first (truncated; continue)", answer.body, 1, true)
    world:upstream("third"):always(busy)
    assert_error(ask(world), "truncated")
  end)

  it("heartbeats go on", function()
    local world = make_world(nil, { gate = { heartbeat = "3s" } })
    world:upstream("second"):always(going_on "10s")
    local answer = ask(world)
    assert_whole(answer)
    assert.equal(3, count(answer.body, ": perilune waiting\n\n"))
    world:upstream("second"):always(503)
    world:upstream("third"):always { status = 503, after = "10s" }
    answer = ask(world)
    assert_error(answer, "truncated")
    assert.equal(3, count(answer.body, ": perilune waiting\n\n"))
  end)

  it("heartbeats go on while a target says again what the client has", function()
    local world = make_world(nil, { rescue = "restart", gate = { heartbeat = "3s" } })
    world:upstream("second"):always { words = WORD_COUNT, every = "500ms" }
    local answer = ask(world)
    assert_whole(answer)
    assert.equal(6, count(answer.body, ": perilune waiting\n\n"))
    assert.is_nil(answer.body:match "word40.*: perilune waiting")
  end)

  it("an open stream of heartbeats makes no difference", function()
    local world = make_world(nil, { gate = { heartbeat = "1s" } })
    world:upstream("first"):always { words = WORD_COUNT, first = "5s", cut_after = 40 }
    world:upstream("second"):always { body = '{"choices":[]}', headers = {
      ["content-type"] = "application/json" } }
    assert_whole(ask(world))
    world:upstream("third"):always(401)
    assert_error(ask(world), "truncated")
    assert_idle(world)
  end)

  it("an answer with an event too large to be read is no whole one without its end", function()
    local world = make_world()
    local large = ([[{"object":"chat.completion.chunk","choices":[{"index":0,]]
      .. [["delta":{"content":"%s"},"finish_reason":null}]}]]):format(("x"):rep(70000))
    world:upstream("first"):always { events = { { data = { object = "chat.completion.chunk",
      choices = { { index = 0, delta = { content = "word1 " } } } } }, large }, done = false }
    assert_error(ask(world), "truncated")
    assert.same({ "first" }, world:called())
    assert_idle(world)
  end)

  it("an answer that is finished is whole, whatever follows", function()
    local function chunk(delta, finish)
      return { data = { id = "x", object = "chat.completion.chunk",
        choices = { { index = 0, delta = delta, finish_reason = finish } } } }
    end
    local world = make_world()
    world:upstream("second"):always(function(call)
      local prefix = call.json.messages[2].content
      return { events = { chunk { content = WHOLE:sub(#prefix + 1) }, chunk({}, "stop"),
        chunk { content = ("x"):rep(70000) } } }
    end)
    assert_whole(ask(world))
    assert.same({ "first", "second" }, world:called())
    assert_idle(world)
  end)

  it("nobody is asked who could not go on: the part before called a tool", function()
    local world = make_world()
    local call = { index = 0, id = "call_1", type = "function",
      ["function"] = { name = "f", arguments = "{" } }
    world:upstream("second"):always { events = {
      { data = { id = "x", object = "chat.completion.chunk", choices = { { index = 0,
        delta = { content = " and" } } } } },
      { data = { id = "x", object = "chat.completion.chunk", choices = { { index = 0,
        delta = { tool_calls = { call } } } } } },
      { data = { id = "x", object = "chat.completion.chunk", choices = { { index = 0,
        delta = { content = ("x"):rep(70000) } } } } },
    } }
    local answer = ask(world)
    assert.same({ "first", "second" }, world:called())
    assert_error(answer, "truncated")
    assert.equal(1, count(answer.body, "call_1"))
    assert_idle(world)
  end)
end)
