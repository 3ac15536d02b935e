local gateways = require "gateways"

local POLICY = "fallback"

local function single(options)
  return gateways.world(POLICY, { { provider = "a" } }, options)
end

local function times_ms(world)
  local times = {}
  for number, call in ipairs(world:calls()) do times[number] = call.at_ms end
  return times
end

describe("fallback", function()
  it("streams the first good answer and asks no one else", function()
    local world = gateways.pair(POLICY)
    local answer = world:request { model = "gpt-4", stream = true }
    assert.same({ "first" }, world:called())
    assert.equal("Hello from first.", answer:text())
    assert.equal("complete", answer.ended)
  end)

  it("goes on for what it says, and for nothing else", function()
    gateways.check_moves(POLICY)
  end)

  it("does so without waiting", function()
    local world = gateways.pair(POLICY)
    world:upstream("first"):always(503)
    assert.equal(0, world:request({ model = "gpt-4" }).duration_ms)
  end)

  it("gives filtered content back", function()
    local world = gateways.pair(POLICY)
    world:upstream("first"):always(gateways.error(400, "content_filter"))
    assert.equal(400, world:request({ model = "gpt-4" }).status)
    assert.same({ "first" }, world:called())
  end)

  it("heeds the route's own list", function()
    local world = gateways.pair(POLICY, { route = { retry = { on = { 429 } } } })
    world:upstream("first"):answers(503, 429)
    assert.equal(503, world:request({ model = "gpt-4" }).status)
    assert.equal(200, world:request({ model = "gpt-4" }).status)
    assert.same({ "first", "first", "second" }, world:called())
  end)

  it("relays the last bad answer when all have failed", function()
    local world = gateways.pair(POLICY, { route = { retry = { attempts = 2 } } })
    world:upstream("first"):always(503)
    world:upstream("second"):always(404)
    local answer = world:request { model = "gpt-4" }
    assert.equal(404, answer.status)
    assert.equal("second", answer.headers["x-perilune-target"])
  end)

  it("says what was wrong when none has answered", function()
    local world = gateways.pair(POLICY, { route = { retry = { attempts = 2 } } })
    world:upstream("first"):always("connect")
    world:upstream("second"):always("dns")
    local answer = world:request { model = "gpt-4" }
    assert.equal(502, answer.status)
    assert.equal("dns", answer:json().error.code)
  end)

  it("comes back to a single target after a back-off", function()
    local world = single { route = { retry = { attempts = 5,
      backoff = { base = "100ms", max = "10s", floor = "40ms" } } } }
    world:upstream("a"):answers(503, "reset", 200)
    assert.equal(200, world:request({ model = "gpt-4" }).status)
    local times = times_ms(world)
    assert.equal(0, times[1])
    assert.is_true(times[2] >= 40 and times[2] <= 101)
    assert.is_true(times[3] - times[2] >= 40 and times[3] - times[2] <= 201)
  end)

  it("does not wait past the deadline for a target that asks for time", function()
    local world = single { route = { deadline = "5s" } }
    world:upstream("a"):always { status = 429, headers = { ["Retry-After"] = "60" } }
    local answer = world:request { model = "gpt-4" }
    assert.equal(429, answer.status)
    assert.equal(0, answer.duration_ms)
  end)

  it("stays away from a rate-limited target as long as there is another", function()
    local world = gateways.pair(POLICY, { route = { retry = { attempts = 4 } } })
    world:upstream("first"):always { status = 429, headers = { ["Retry-After"] = "60" } }
    world:upstream("second"):answers(503, 503, 200)
    assert.equal(200, world:request({ model = "gpt-4" }).status)
    assert.same({ "first", "second", "second", "second" }, world:called())
  end)

  it("ends with the deadline when targets are slow", function()
    local world = single { route = { deadline = "3s" } }
    world:upstream("a"):answers({ status = 503, after = "2s" }, { after = "2s" })
    local answer = world:request { model = "gpt-4" }
    assert.equal(504, answer.status)
    assert.equal(3000, answer.duration_ms)
    assert.equal("cancelled", world:calls()[2].outcome)
  end)

  it("tells a client whose stream breaks, and tries no other target then", function()
    local world = gateways.pair(POLICY)
    world:upstream("first"):always { words = 10, every = "20ms", cut_after = 3 }
    local answer = world:request { model = "gpt-4", stream = true }
    assert.equal("cut", answer.ended)
    local events = answer:events()
    assert.equal(4, #events)
    assert.matches("truncated", events[4].data)
    assert.same({ "first" }, world:called())
  end)

  it("leaves a target alone that keeps failing, and lets one request try it later", function()
    local world = gateways.pair(POLICY, { providers = {
      first = { health = { consecutive_5xx = 2, base_ejection = "30s", jitter = 0 } } } })
    world:upstream("first"):between("0s", "20s", 503)
    for _ = 1, 3 do assert.equal(200, world:request({ model = "gpt-4" }).status) end
    assert.same({ "first", "second", "first", "second", "second" }, world:called())
    assert.equal("consecutive_5xx", world:health("first").reason)
    world:advance("31s")
    assert.equal("half_open", world:health("first").state)
    world:request { model = "gpt-4" }
    assert.equal("first", world:called()[6])
    assert.equal("closed", world:health("first").state)
  end)
end)
