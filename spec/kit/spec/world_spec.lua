--- Worlds: how they are made, and how time passes in them.

local testing = require "perilune.testing"

local ENV = { PRIMARY_KEY = "sk-test" }
local CONFIG = { providers = { a = { url = "http://127.0.0.1:1" } },
  routes = { { policy = "own", targets = { { provider = "a" } } } } }

local function own(source, options)
  options = options or {}
  options.config, options.files = CONFIG, { ["own.lua"] = source }
  return testing.world(options)
end

describe("a world", function()
  it("loads the directory that is tested, or another one", function()
    assert.equal("spec/kit", testing.directory)
    local world = testing.world { env = ENV }
    assert.equal(200, world:request({ model = "gpt-4" }).status)
    world = testing.world { directory = "examples/priority-groups" }
    world:request { model = "gpt-4o" }
    assert.same({ "limited/gpt-4o" }, world:called())
  end)

  it("may have a configuration and files of its own", function()
    local world = own("return function(req) return req:respond(200, 'mine') end")
    assert.equal("mine", world:request({}).body)
    world = testing.world { directory = false, files = { ["p.lua"] =
      "return function(req) return req:fail(403, 'no', 'no') end" },
      config = [[return { providers = { a = { url = env "A_URL" } },
        routes = { { policy = "p", targets = { { provider = "a" } } } } }]],
      env = { A_URL = "http://127.0.0.1:9/x" } }
    assert.equal(403, world:request({}).status)
  end)

  it("sees no environment but its own", function()
    assert.has_error(function() testing.world() end)
    local world = own([[return function(req, route)
      return req:relay(req:send(route.targets[1])) end]])
    world:request {}
    assert.is_nil(world:calls()[1].headers.authorization)
  end)

  it("reports what is wrong with its configuration at the spec's line", function()
    local made, problem = pcall(testing.world, { config = { routes = {}, provider = {} } })
    assert.is_false(made)
    assert.matches("^spec/kit/spec/world_spec%.lua:%d+: world: ", problem)
    assert.matches('provider: .*did you mean "providers"', problem)
    assert.has_error(function() own("return 1") end)
    assert.has_error(function() own("return function(") end)
  end)

  it("is the same for the same seed, and another one for another", function()
    local function draw(seed)
      local world = own([[local gw = require "perilune"
        return function(req) return req:respond(200, req.id .. gw.random()) end]], { seed = seed })
      return world:request({}).body .. world:request({}).body
    end
    assert.equal(draw(7), draw(7))
    assert.not_equal(draw(7), draw(8))
    assert.equal(draw(nil), draw(1))
  end)

  it("keeps its own random numbers beside others", function()
    local source = [[local gw = require "perilune"
      return function(req) return req:respond(200, tostring(gw.random())) end]]
    local alone, first, second = own(source), own(source), own(source)
    local wanted = { alone:request({}).body, alone:request({}).body }
    local got = { first:request({}).body }
    second:request {}
    got[2] = first:request({}).body
    assert.same(wanted, got)
  end)

  it("begins at a time of its own", function()
    local source = "return function(req, route) return req:relay(req:send(route.targets[1])) end"
    local function created(start)
      return own(source, { start = start }):request({ model = "m" }):json().created
    end
    assert.equal(1767614400, created())
    assert.equal(1000000000, created("2001-09-09T01:46:40Z"))
    local world = own(source, { start = "2001-09-09T01:46:40Z" })
    world:upstream("a"):always { status = 429,
      headers = { ["retry-after"] = "Sun, 09 Sep 2001 01:47:40 GMT" } }
    world:request { model = "m" }
    assert.equal(60000, world:health("a").out_for_ms)
  end)

  it("keeps the log", function()
    local world = own([[local gw = require "perilune"
      gw.log("loaded")
      return function(req) req:log("seen") return req:respond(200, "") end]])
    local answer = world:request { headers = { ["x-request-id"] = "my-id" } }
    assert.equal(200, answer.status)
    local log = world:log()
    assert.matches("^2026%-01%-05T12:00:00%.000Z info  request my%-id: seen$", log[#log])
  end)

  it("tells of a policy that fails as the gateway does", function()
    local world = own("return function() error('broken') end")
    local answer = world:request {}
    assert.equal(200, answer.status)
    assert.equal("floor; reason=error", answer.headers["x-perilune-policy"])
    assert.matches("policy own failed %(error%), the floor policy takes over: own.lua:1: broken",
      world:log()[1])
    world = testing.world { files = { ["own.lua"] = "return function() error('broken') end" },
      config = { providers = CONFIG.providers, routes = CONFIG.routes, on_policy_error = "fail" } }
    assert.equal("policy_error", world:request({}):json().error.code)
    assert.same({}, world:called())
  end)
end)

describe("time", function()
  local SLEEPS = [[local gw = require "perilune"
    return function(req) gw.sleep(req.headers["x-time"]) return req:respond(200, "") end]]

  it("passes only when it is let pass", function()
    local world = own(SLEEPS)
    local pending = world:start { headers = { ["x-time"] = "10s" } }
    assert.same({ "open", 0 }, { pending.ended, pending.started_ms })
    assert.is_nil(pending.status)
    assert.is_nil(pending.duration_ms)
    world:advance("9.999s")
    assert.equal("open", pending.ended)
    world:advance("1ms")
    assert.same({ "complete", 200, 10000 }, { pending.ended, pending.status, pending.duration_ms })
    world:advance("1h")
    assert.equal(3610000, world:now_ms())
  end)

  it("goes on for all requests, in order", function()
    local world, ended = own(SLEEPS), {}
    for _, time in ipairs { "3s", "1s", "2s" } do
      ended[#ended + 1] = world:start { headers = { ["x-time"] = time } }
    end
    assert.equal(1000, world:request({ headers = { ["x-time"] = "1s" } }).duration_ms)
    assert.same({ "open", "complete", "open" },
      { ended[1].ended, ended[2].ended, ended[3].ended })
    world:run()
    assert.equal(3000, world:now_ms())
    assert.equal("complete", ended[1].ended)
  end)

  it("is microseconds fine", function()
    local world = own(SLEEPS)
    world:advance("0.25ms")
    assert.equal(0.25, world:now_ms())
  end)
end)

describe("a client", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  it("gets a stream piece by piece", function()
    world:upstream("primary"):always { words = 3, first = "100ms", every = "100ms" }
    local pending = world:start { model = "alone", stream = true }
    world:advance("250ms")
    assert.equal("word1 ", pending:text())
    assert.same({ 200, "open" }, { pending.first_byte_ms, pending.ended })
    world:run()
    assert.equal("word1 word2 word3", pending:text())
  end)

  it("may leave, which ends the call", function()
    world:upstream("primary"):always { words = 3, every = "1s" }
    local pending = world:start { model = "alone", stream = true }
    world:advance("1500ms")
    pending:leave()
    assert.equal("left", pending.ended)
    local call = world:calls()[1]
    assert.same({ "cancelled", 1500 }, { call.outcome, call.ended_ms })
    assert.equal(0, world:health("primary/solo").in_flight)
    pending:leave()
    world:run()
    assert.equal(1500, world:now_ms())
  end)

  it("may send anything", function()
    local answer = world:request { method = "PUT", path = "/v1/x?y=1", body = '{"model":"alone"}',
      headers = { ["X-A"] = "b" } }
    assert.equal(200, answer.status)
    local call = world:calls()[1]
    assert.same({ "PUT", "/v1/x?y=1", "b", '{"model":"solo"}' },
      { call.method, call.path, call.headers["x-a"], call.body })
    assert.equal(400, world:request({ body = "{" }).status)
    assert.equal(404, world:request({ path = "/other" }).status)
    assert.equal("", world:request({ method = "HEAD", path = "/v1/models" }).body)
  end)
end)

describe("targets", function()
  it("are ejected and restored as an operator does", function()
    local world = testing.world { env = ENV }
    world:eject("primary", "30s")
    world:request { model = "gpt-4" }
    assert.same({ "spare/gpt-4" }, world:called())
    assert.is_false(world:health("primary/gpt-4").fit)
    world:restore("primary")
    world:eject("spare/gpt-4")
    local health = world:health("spare/gpt-4")
    assert.same({ "open", "operator", false }, { health.state, health.reason, health.fit })
    world:request { model = "gpt-4" }
    assert.equal("primary/gpt-4", world:called()[2])
  end)
end)
