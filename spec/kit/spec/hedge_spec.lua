--- A second target beside a slow one, on the virtual clock: who is asked when, who wins, what is
-- told of the other, and that nothing is left behind.

local testing = require "perilune.testing"

local SLOW = { words = "from first", first = "20s" }

local FALLBACK = [[
local gw = require "perilune"
return function(req, route)
  local res, err
  local targets = gw.candidates(route)
  for target in targets do
    res, err = gw.hedge(req, route, target, targets)
    if not route.retry:wants(gw.classify(res, err)) then break end
  end
  return req:relay(res, err)
end]]

local function provider(fields)
  local all = { url = "http://127.0.0.1:1/v1",
    timeouts = { connect = "1s", head = "60s", first_token = "30s", idle = "60s", try = "300s" } }
  for key, value in pairs(fields or {}) do all[key] = value end
  return all
end

local function merge(into, fields)
  for key, value in pairs(fields or {}) do into[key] = value end
  return into
end

--- A route over `first` and `second`, hedged after 2 s.
local function make_world(options)
  options = options or {}
  local targets = options.targets
    or { { provider = "first" }, { provider = "second", priority = 1 } }
  local route = merge({ name = "r", targets = targets, hedge = { after = "2s" },
    retry = { attempts = 4 } }, options.route)
  if options.unhedged then route.hedge = nil end
  local given = options.providers or {}
  local config = { providers = { first = provider(given.first), second = provider(given.second),
    third = provider(given.third) }, routes = { route } }
  local world = testing.world { config = config, seed = options.seed, directory = false,
    files = merge({ ["fallback.lua"] = FALLBACK }, options.files) }
  world:upstream("second"):always { words = "from second" }
  world:upstream("third"):always { words = "from third" }
  return world
end

local function ask(world, fields)
  return world:request(merge({ model = "m", stream = true }, fields))
end

local function trail_of(answer)
  return answer.headers["x-perilune-trail"]
end

local function in_flight(world)
  local sum = 0
  for _, name in ipairs { "first", "second", "third" } do
    local ok, health = pcall(world.health, world, name)
    if ok then sum = sum + health.in_flight end
  end
  return sum
end

describe("a hedged request", function()
  it("asks one target when that one answers in time", function()
    local world = make_world()
    world:upstream("first"):always { words = "from first", first = "1999ms" }
    assert.equal("from first", ask(world):text())
    assert.same({ "first" }, world:called())
  end)

  it("asks a second one after the delay and takes its answer", function()
    local world = make_world()
    world:upstream("first"):always(SLOW)
    local answer = ask(world)
    assert.same({ 200, "complete", "from second" },
      { answer.status, answer.ended, answer:text() })
    assert.equal(2000, answer.first_byte_ms)
    assert.equal("second", answer.headers["x-perilune-target"])
    assert.equal("2", answer.headers["x-perilune-attempts"])
    assert.equal("first;hedge_lost;2000ms, second;200;0ms", trail_of(answer))
    local calls = world:calls()
    assert.same({ 0, 2000 }, { calls[1].at_ms, calls[2].at_ms })
    assert.same({ "cancelled", 2000 }, { calls[1].outcome, calls[1].ended_ms })
    assert.equal(0, in_flight(world))
  end)

  it("sends both the same request, but for what is the target's", function()
    local world = make_world { targets = { { provider = "first", model = "big" },
      { provider = "second", model = "small", priority = 1 } } }
    world:upstream("first"):always(SLOW)
    ask(world, { body = { temperature = 0.5 } })
    local calls = world:calls()
    assert.same({ "big", "small" }, { calls[1].json.model, calls[2].json.model })
    assert.same({ 0.5, 0.5 }, { calls[1].json.temperature, calls[2].json.temperature })
  end)

  it("takes the first one when that is faster after all", function()
    local world = make_world()
    world:upstream("first"):always { words = "from first", first = "3s" }
    world:upstream("second"):always { words = "from second", first = "5s" }
    local answer = ask(world)
    assert.equal("from first", answer:text())
    assert.equal(3000, answer.first_byte_ms)
    -- the one that serves is the last of the trail
    assert.equal("second;hedge_lost;1000ms, first;200;3000ms", trail_of(answer))
    assert.equal("first", answer.headers["x-perilune-target"])
    assert.equal("cancelled", world:calls()[2].outcome)
    assert.equal(0, in_flight(world))
  end)

  it("goes on at once when the first one fails before the delay", function()
    local world = make_world()
    world:upstream("first"):always { status = 503, after = "500ms" }
    local answer = ask(world)
    assert.equal("from second", answer:text())
    assert.equal(500, world:calls()[2].at_ms)
    assert.equal("first;503;500ms, second;200;0ms", trail_of(answer))
  end)

  it("waits for the second when the first one fails while both run", function()
    local world = make_world()
    world:upstream("first"):always { status = 500, after = "3s" }
    world:upstream("second"):always { words = "from second", first = "4s" }
    local answer = ask(world)
    assert.equal("from second", answer:text())
    assert.equal(6000, answer.first_byte_ms)
    assert.equal("first;500;3000ms, second;200;4000ms", trail_of(answer))
  end)

  it("waits for the first when the second one fails while both run", function()
    local world = make_world()
    world:upstream("first"):always { words = "from first", first = "9s" }
    world:upstream("second"):always("reset")
    local answer = ask(world)
    assert.equal("from first", answer:text())
    assert.equal(9000, answer.first_byte_ms)
    assert.equal("second;reset;0ms, first;200;9000ms", trail_of(answer))
  end)

  it("gives the policy the later failure when both fail, which then goes on", function()
    local world = make_world { targets = { { provider = "first" },
      { provider = "second", priority = 1 }, { provider = "third", priority = 2 } } }
    world:upstream("first"):always { status = 500, after = "4s" }
    world:upstream("second"):always { status = 503, after = "1s" }
    local answer = ask(world)
    assert.equal("from third", answer:text())
    assert.equal(4000, answer.first_byte_ms)
    assert.equal("second;503;1000ms, first;500;4000ms, third;200;0ms", trail_of(answer))
    assert.same({ "first", "second", "third" }, world:called())
  end)

  it("gives the client the later failure when there is nothing to go on to", function()
    local world = make_world { route = { retry = { attempts = 2 } } }
    world:upstream("first"):always { status = 500, after = "4s" }
    world:upstream("second"):always { status = 429, after = "1s" }
    local answer = ask(world)
    assert.same({ 500, 4000 }, { answer.status, answer.duration_ms })
    assert.equal(0, in_flight(world))
  end)

  it("judges streams by their first content, not by their head", function()
    local role = { choices = { { index = 0, delta = { role = "assistant" } } } }
    local world = make_world()
    world:upstream("first"):always { events = { { data = role } }, stall_after = 1, done = false }
    world:upstream("second"):always { events = { { data = role },
      { after = "1s", data = { choices = { { index = 0, delta = { content = "hi" } } } } } } }
    local answer = ask(world)
    assert.equal("hi", answer:text())
    assert.equal(3000, answer.first_byte_ms)
    assert.equal("second", answer.headers["x-perilune-target"])
  end)

  it("judges an error in place of an answer as that error", function()
    local world = make_world()
    world:upstream("first"):always { after = "3s", done = false, events = {
      { data = { error = { code = "rate_limit_exceeded", message = "slow down" } } } } }
    world:upstream("second"):always { words = "from second", first = "2s" }
    local answer = ask(world)
    assert.equal("from second", answer:text())
    assert.equal("first;rate_limited;3000ms, second;200;2000ms", trail_of(answer))
  end)

  it("takes the head of a good answer that does not stream", function()
    local world = make_world()
    world:upstream("first"):always { after = "10s" }
    world:upstream("second"):always { after = "1s" }
    local answer = ask(world, { stream = false })
    assert.equal("second", answer.headers["x-perilune-target"])
    assert.equal(3000, answer.first_byte_ms)
  end)

  it("takes the body of one that is checked", function()
    local world = make_world { route = { check_body = true } }
    world:upstream("first"):always { after = "10s" }
    world:upstream("second"):always { after = "1s", body = { choices = {} } }
    local answer = ask(world, { stream = false })
    assert.equal(200, answer.status)
    assert.equal("first", answer.headers["x-perilune-target"])
    assert.equal("second;empty;1000ms, first;200;10000ms", trail_of(answer))
  end)

  it("has one winner when both come at the same instant", function()
    local world = make_world()
    world:upstream("first"):always { words = "from first", first = "5s" }
    world:upstream("second"):always { words = "from second", first = "3s" }
    local answer = ask(world)
    assert.same({ 200, "complete", 5000 }, { answer.status, answer.ended, answer.first_byte_ms })
    local winner = answer.headers["x-perilune-target"]
    assert.equal("from " .. winner, answer:text())
    local outcomes = {}
    for number, call in ipairs(world:calls()) do outcomes[number] = call.outcome end
    table.sort(outcomes)
    assert.same({ "cancelled", "ok" }, outcomes)
    assert.equal(0, in_flight(world))
  end)

  it("lets both failures of one instant count, once each", function()
    local world = make_world { route = { retry = { attempts = 2 } } }
    world:upstream("first"):always { status = 500, after = "5s" }
    world:upstream("second"):always { status = 503, after = "3s" }
    local answer = ask(world)
    assert.equal(5000, answer.duration_ms)
    assert.equal("2", answer.headers["x-perilune-attempts"])
    assert.equal(0, in_flight(world))
  end)

  it("keeps to the first good answer while that is read, whatever comes of the other", function()
    local world = testing.world { directory = false, files = { ["fallback.lua"] = FALLBACK },
      config = [[return {
        providers = {
          first = { url = "http://127.0.0.1:1/v1", health = {
            unhealthy = function(res) return res:text() == "" end } },
          second = { url = "http://127.0.0.1:1/v1" },
        },
        routes = { { hedge = { after = "2s" }, targets = { { provider = "first" },
          { provider = "second", priority = 1 } } } },
      }]] }
    world:upstream("first"):always { words = "a b c d", first = "3s", every = "1s" }
    for _, second in ipairs { { words = "x", first = "3s" }, { words = "x y", first = "3s",
      every = "1s" }, { after = "3s", status = 500 }, "reset" } do
      world:upstream("second"):always(second)
      local answer = ask(world)
      assert.same({ 200, "complete", "a b c d" }, { answer.status, answer.ended, answer:text() })
      assert.is_truthy(trail_of(answer):find("^second;.*, first;200;4000ms$"), trail_of(answer))
      assert.equal(0, in_flight(world))
    end
  end)

  it("passes nothing on of what the loser would have sent later", function()
    local world = make_world()
    world:upstream("first"):always { words = "one two three four", first = "2100ms",
      every = "100ms" }
    world:upstream("second"):always { words = "from second", first = "50ms", every = "20ms" }
    local answer = ask(world)
    assert.equal("from second", answer:text())
    world:advance("30s")
    assert.equal("from second", answer:text())
  end)

  it("leaves no trace on the loser's health", function()
    local world = make_world { providers = { first = { health = { consecutive_5xx = 1 } } } }
    world:upstream("first"):always(SLOW)
    for _ = 1, 3 do ask(world) end
    local health = world:health("first")
    assert.same({ "closed", 0, 1 }, { health.state, health.in_flight, health.success_ratio })
    assert.same({ "first", "second", "first", "second", "first", "second" }, world:called())
  end)

  it("lets the loser's probe be made again", function()
    local world = make_world { providers = { first = { health = { consecutive_5xx = 1,
      base_ejection = "5s", jitter = 0 } } } }
    world:upstream("first"):answers({ status = 500 }, SLOW, { words = "back" })
    ask(world)
    world:advance("6s")
    assert.equal("from second", ask(world):text()) -- the probe was slow, and says nothing
    assert.equal("back", ask(world):text())
    assert.equal("closed", world:health("first").state)
  end)
end)

describe("a hedged request that ends early", function()
  it("cancels both when the client leaves", function()
    local world = make_world()
    world:upstream("first"):always(SLOW)
    world:upstream("second"):always(SLOW)
    local pending = world:start { model = "m", stream = true }
    world:advance("3s")
    assert.same({ "first", "second" }, world:called())
    pending:leave()
    world:run()
    local calls = world:calls()
    assert.same({ "cancelled", "cancelled" }, { calls[1].outcome, calls[2].outcome })
    assert.same({ 3000, 3000 }, { calls[1].ended_ms, calls[2].ended_ms })
    assert.equal(0, in_flight(world))
  end)

  it("cancels the one that is left when the client leaves", function()
    local world = make_world()
    world:upstream("first"):always { status = 500, after = "3s" }
    world:upstream("second"):always(SLOW)
    local pending = world:start { model = "m", stream = true }
    world:advance("4s")
    pending:leave()
    world:run()
    assert.equal("cancelled", world:calls()[2].outcome)
    assert.equal(0, in_flight(world))
  end)

  it("ends at the deadline while both run", function()
    local world = make_world { route = { deadline = "5s" } }
    world:upstream("first"):always(SLOW)
    world:upstream("second"):always(SLOW)
    local answer = ask(world)
    assert.same({ 504, 5000 }, { answer.status, answer.duration_ms })
    assert.equal("timeout_deadline", answer:json().error.code)
    local trail = trail_of(answer)
    assert.is_truthy(trail:find("first;timeout_deadline;5000ms", 1, true), trail)
    assert.is_truthy(trail:find("second;timeout_deadline;3000ms", 1, true), trail)
    assert.equal(0, in_flight(world))
    assert.equal("closed", world:health("first").state)
  end)

  it("ends at the deadline before the delay", function()
    local world = make_world { route = { deadline = "1s" } }
    world:upstream("first"):always(SLOW)
    local answer = ask(world)
    assert.same({ 504, 1000 }, { answer.status, answer.duration_ms })
    assert.same({ "first" }, world:called())
  end)

  it("ends at the deadline when one has failed and the other runs", function()
    local world = make_world { route = { deadline = "5s" } }
    world:upstream("first"):always { status = 500, after = "3s" }
    world:upstream("second"):always(SLOW)
    local answer = ask(world)
    assert.same({ 504, 5000 }, { answer.status, answer.duration_ms })
    assert.equal("first;500;3000ms, second;timeout_deadline;3000ms", trail_of(answer))
  end)

  it("breaks off at the deadline once the winner streams", function()
    local world = make_world { route = { deadline = "10s" } }
    world:upstream("first"):always(SLOW)
    world:upstream("second"):always { words = 100, every = "1s" }
    local answer = ask(world)
    assert.same({ 200, 10000 }, { answer.status, answer.duration_ms })
    assert.are_not.equal("complete", answer.ended)
    assert.equal(0, in_flight(world))
  end)
end)

describe("a policy that hedges", function()
  local function with_policy(source, options)
    options = options or {}
    options.files = { ["own.lua"] = "local gw = require 'perilune'\n" .. source }
    options.route = merge({ policy = "own" }, options.route)
    return make_world(options)
  end

  it("may fail while both run: the floor policy serves, both are cancelled", function()
    -- asked about the failure of the first one, the operator's function uses up the policy's time
    local world = testing.world { directory = false, files = { ["fallback.lua"] = FALLBACK },
      config = [[return {
        providers = {
          first = { url = "http://127.0.0.1:1/v1", health = {
            unhealthy = function(res) while res.status == 500 do end end } },
          second = { url = "http://127.0.0.1:1/v1" },
        },
        routes = { { hedge = { after = "2s" }, targets = { { provider = "first" },
          { provider = "second", priority = 1 } } } },
      }]] }
    world:upstream("first"):answers({ status = 500, after = "3s" }, { words = "floor" })
    world:upstream("second"):always(SLOW)
    local answer = ask(world)
    assert.equal("floor", answer:text())
    assert.equal("floor; reason=cpu_burst", answer.headers["x-perilune-policy"])
    assert.equal("first;500;3000ms, second;abandoned;1000ms, policy;cpu_burst;3000ms, "
      .. "first;200;0ms", trail_of(answer))
    assert.same({ "first", "second", "first" }, world:called())
    assert.equal("cancelled", world:calls()[2].outcome)
    assert.equal(0, in_flight(world))
  end)

  it("may fail when it is asked for the second target", function()
    local world = with_policy [[
      return function(req, route)
        return req:relay(gw.hedge(req, route, route.targets[1], function() error("none") end))
      end]]
    world:upstream("first"):answers(SLOW, { words = "floor" })
    local answer = ask(world)
    assert.equal("floor", answer:text())
    assert.equal("first;abandoned;2000ms, policy;error;2000ms, first;200;0ms", trail_of(answer))
    assert.equal(0, in_flight(world))
  end)

  it("may wait in its own iterator, and gets what has come meanwhile", function()
    local world = with_policy [[
      return function(req, route)
        return req:relay(gw.hedge(req, route, route.targets[1], function()
          gw.sleep("3s")
          return route.targets[2]
        end))
      end]]
    world:upstream("first"):always { words = "from first", first = "4s" }
    local answer = ask(world)
    assert.equal("from first", answer:text())
    assert.equal(5000, answer.first_byte_ms)
    assert.same({ "first" }, world:called())
    assert.equal(0, in_flight(world))
  end)

  it("may say the delay itself, where the route says nothing", function()
    local world = with_policy([[
      return function(req, route)
        local targets = gw.candidates(route)
        return req:relay(gw.hedge(req, route, targets(), targets, "500ms"))
      end]], { unhedged = true })
    world:upstream("first"):always(SLOW)
    assert.equal(500, ask(world).first_byte_ms)
  end)

  it("has its answer to itself: the loser's is never seen", function()
    local world = with_policy [[
      return function(req, route)
        local targets = gw.candidates(route)
        local res = gw.hedge(req, route, targets(), targets)
        local last = req.last
        return req:respond(200, { same = last == res, target = res.target.name,
          status = res.status, text = res:text() })
      end]]
    world:upstream("first"):always { after = "10s" }
    world:upstream("second"):always { after = "1s", words = "hello" }
    assert.same({ same = true, target = "second", status = 200, text = "hello" },
      ask(world, { stream = false }):json())
    assert.equal(0, in_flight(world))
  end)

  it("is told what is wrong with its call", function()
    for source, message in pairs {
      ["gw.hedge(req, nil, route.targets[1], gw.candidates(route))"] = "a route is expected",
      ["gw.hedge(req, route, route.targets[1])"] = "targets must be what gw.candidates",
      ["gw.hedge(req, route, route.targets[1], gw.candidates(route), '5')"] = "ambiguous",
      ["gw.hedge(req, route, route.targets[1], gw.candidates(route), 'p45')"] = "within",
      ["gw.hedge(req, route, {}, gw.candidates(route))"] = "target",
    } do
      local world = with_policy("return function(req, route) return req:relay("
        .. source .. ") end", { route = { on_policy_error = "fail" } })
      assert.equal(500, ask(world).status)
      local log = table.concat(world:log(), "\n")
      assert.is_truthy(log:find(message, 1, true), log)
    end
  end)
end)

describe("the second target", function()
  it("is not one that is out", function()
    local world = make_world()
    world:upstream("first"):always(SLOW)
    world:eject("second", "60s")
    assert.equal("from first", ask(world):text())
    assert.same({ "first" }, world:called())
  end)

  it("is the next one that is fit", function()
    local world = make_world { targets = { { provider = "first" },
      { provider = "second", priority = 1 }, { provider = "third", priority = 2 } } }
    world:upstream("first"):always(SLOW)
    world:eject("second", "60s")
    assert.equal("from third", ask(world):text())
  end)

  it("is not one that is full, and its queue is left alone", function()
    local world = make_world { targets = { { provider = "first" }, { provider = "second",
      priority = 1, limits = { concurrent = 1, queue = 5, queue_timeout = "60s" } } } }
    world:upstream("first"):always(SLOW)
    world:upstream("second"):answers({ words = "long", first = "15s" }, { words = "from second" })
    local one = world:start { model = "m", stream = true }
    world:advance("3s")
    local two = world:start { model = "m", stream = true }
    world:run()
    assert.same({ "long", "from first" }, { one:text(), two:text() })
    assert.same({ "first", "second", "first" }, world:called())
    assert.is_nil(two.headers["x-perilune-reason"])
  end)

  it("counts among the route's attempts", function()
    local world = make_world { targets = { { provider = "first" },
      { provider = "second", priority = 1 }, { provider = "third", priority = 2 } },
      route = { retry = { attempts = 2 } } }
    world:upstream("first"):always { status = 500, after = "5s" }
    world:upstream("second"):always { status = 500, after = "1s" }
    assert.equal(500, ask(world).status)
    assert.same({ "first", "second" }, world:called())
  end)

  it("counts against the retry budget", function()
    local world = make_world { route = { retry = { attempts = 3,
      budget = { percent = 0, min = 1 } } } }
    world:upstream("first"):always(SLOW)
    world:upstream("second"):always { words = "from second", first = "15s" }
    local one = world:start { model = "m", stream = true }
    local two = world:start { model = "m", stream = true }
    world:run()
    assert.same({ "from second", "from first" }, { one:text(), two:text() })
    assert.same({ "first", "first", "second" }, world:called())
  end)

  it("leaves the time that is kept for those behind it, as the first one does", function()
    local world = make_world { targets = { { provider = "first" },
      { provider = "second", priority = 1 }, { provider = "third", priority = 2 } },
      route = { deadline = "10s", reserve = "3s" } }
    world:upstream("first"):always "hang"
    world:upstream("second"):always "hang"
    local answer = ask(world)
    assert.equal("from third", answer:text())
    assert.same({ 0, 2000, 7000 }, { world:calls()[1].at_ms, world:calls()[2].at_ms,
      world:calls()[3].at_ms })
    assert.equal("first;timeout_try;4000ms, second;timeout_try;5000ms, third;200;0ms",
      trail_of(answer))
  end)

  it("answers into the stream that heartbeats have opened", function()
    local world = make_world { route = { gate = { heartbeat = "500ms" } } }
    world:upstream("first"):always(SLOW)
    world:upstream("second"):always { words = "from second", first = "1s" }
    local answer = ask(world)
    assert.same({ 200, "complete", "from second", 500 },
      { answer.status, answer.ended, answer:text(), answer.first_byte_ms })
    assert.equal("cancelled", world:calls()[1].outcome)
    assert.equal(0, in_flight(world))
  end)

  it("is not waited for when there is no time left for it", function()
    local world = make_world { route = { deadline = "2050ms" } }
    world:upstream("first"):always(SLOW)
    assert.equal(504, ask(world).status)
    assert.same({ "first" }, world:called())
  end)
end)

describe("hedging", function()
  local function count_hedges(world, requests)
    local before = #world:called()
    for _ = 1, requests do ask(world) end
    return #world:called() - before - requests
  end

  it("stays within its budget: the burst, then a share of the requests", function()
    local world = make_world { route = { hedge = { after = "2s", budget_percent = 20,
      burst = 3 } } }
    world:upstream("first"):always(SLOW)
    assert.equal(3, count_hedges(world, 3))
    assert.equal(20, count_hedges(world, 100))
  end)

  it("saves no more than its burst", function()
    local world = make_world { route = { hedge = { after = "2s", budget_percent = 20,
      burst = 3 } } }
    world:upstream("first"):between("0s", "1h", { words = "quick" })
    world:upstream("first"):always(SLOW)
    assert.equal(0, count_hedges(world, 100))
    world:advance("1h")
    assert.equal(3 + 1, count_hedges(world, 6))
  end)

  it("is for paths whose answers leave nothing behind", function()
    local world = make_world()
    world:upstream("first"):always { after = "5s", body = "{}" }
    for _, case in ipairs { { "/v1/responses", false }, { "/v1/images/generations", false },
      { "/v1/embeddings", true }, { "/v1/messages", true }, { "/v1/files", false } } do
      local before = #world:called()
      ask(world, { path = case[1], stream = false })
      assert.equal(case[2] and 2 or 1, #world:called() - before, case[1])
    end
  end)

  it("is for uploads only where their path is listed", function()
    local upload = { path = "/v1/audio/transcriptions", stream = false,
      headers = { ["content-type"] = "multipart/form-data; boundary=x" },
      body = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--\r\n" }
    for _, case in ipairs { { nil, 1 }, { { "/v1/audio/transcriptions" }, 2 } } do
      local world = make_world { route = { hedge = { after = "2s", paths = case[1] } } }
      world:upstream("first"):always { after = "5s", body = "{}" }
      assert.equal(200, world:request(upload).status)
      assert.equal(case[2], #world:called())
    end
  end)

  it("goes by the target's own tail, once that is known", function()
    local world = make_world { route = { hedge = { after = "p90", at_least = "10ms",
      budget_percent = 100, burst = 100 } } }
    for number = 1, 19 do
      world:upstream("first"):always { words = "from first",
        first = (number % 10 == 0 and 3000 or 200) .. "ms" }
      ask(world)
    end
    world:upstream("first"):always(SLOW)
    assert.equal("from first", ask(world):text()) -- the 20th: until then nothing is known
    assert.equal(20, #world:called())
    local answer = ask(world)
    assert.equal("from second", answer:text())
    assert.is_true(answer.first_byte_ms >= 190 and answer.first_byte_ms <= 3300,
      answer.first_byte_ms)
  end)

  it("keeps streams and other answers apart", function()
    local world = make_world { route = { hedge = { after = "p90", at_least = "10ms" } } }
    world:upstream("first"):always { words = "from first", first = "100ms" }
    for _ = 1, 30 do ask(world) end
    world:upstream("first"):always { after = "10s" }
    assert.equal("first", ask(world, { stream = false }).headers["x-perilune-target"])
    world:upstream("first"):always(SLOW)
    assert.is_true(ask(world).first_byte_ms < 150)
  end)

  it("uses a time of its own until the tail is known", function()
    local world = make_world { route = { hedge = { after = "p95", until_known = "700ms" } } }
    world:upstream("first"):always(SLOW)
    assert.equal(700, ask(world).first_byte_ms)
  end)

  it("never comes sooner than it may", function()
    local world = make_world { route = { hedge = { after = "p50", at_least = "400ms" } } }
    world:upstream("first"):always { words = "from first", first = "10ms" }
    for _ = 1, 20 do ask(world) end
    world:upstream("first"):always(SLOW)
    assert.equal(400, ask(world).first_byte_ms)
  end)

  it("does not come sooner and sooner for what it cuts short", function()
    local world = make_world { route = { hedge = { after = "p90", budget_percent = 100,
      burst = 1000 } } }
    local function round(count)
      for number = 1, count do
        world:upstream("first"):always { words = "from first",
          first = (number % 10 == 0 and 20000 or 900 + number % 7) .. "ms" }
        ask(world)
      end
    end
    round(100)
    local before = #world:called()
    round(500)
    local hedged = #world:called() - before - 500
    assert.is_true(hedged <= 75, hedged .. " of 500")
    assert.is_true(hedged >= 40, hedged .. " of 500")
  end)
end)
