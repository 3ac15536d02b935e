--- What a route does with a request's time: the client's deadline, retry_within.

local testing = require "perilune.testing"

local GATEWAY = [[
return {
  $top
  providers = { a = { url = "http://127.0.0.1:1/v1" }, b = { url = "http://127.0.0.1:2/v1" } },
  routes = { { targets = { { provider = "a" }, { provider = "b", priority = 1 } },
    deadline = "20s", retry = { attempts = 2 }, $route } },
}
]]

describe("a request's time", function()
  local world

  local function open(route, top)
    world = testing.world { directory = "policies",
      config = GATEWAY:gsub("%$(%w+)", { route = route or "", top = top or "" }) }
  end

  local function ask(headers, more)
    local request = { headers = headers }
    for key, value in pairs(more or {}) do request[key] = value end
    return world:request(request)
  end

  describe("by the client's header", function()
    it("ends the request when it is over", function()
      open 'deadline_header = "x-request-timeout-ms",'
      world:upstream("a"):always "hang"
      local answer = ask { ["x-request-timeout-ms"] = "1500" }
      assert.same({ 504, 1500 }, { answer.status, answer.duration_ms })
      assert.equal("timeout_deadline", answer:json().error.code)
    end)

    it("ends a stream that has begun", function()
      open 'deadline_header = "x-stainless-timeout",'
      world:upstream("a"):always { words = 100, every = "100ms" }
      local answer = ask({ ["X-Stainless-Timeout"] = "2" }, { stream = true })
      assert.same({ "cut", 2000 }, { answer.ended, answer.duration_ms })
      assert.is_truthy(answer.body:find("timeout_deadline", 1, true))
    end)

    it("cannot be longer than the route's", function()
      open 'deadline_header = { { name = "x-budget", unit = "s" } },'
      world:upstream("a"):always "hang"
      assert.equal(20000, ask({ ["x-budget"] = "3600" }).duration_ms)
    end)

    it("does not matter where nobody has named it", function()
      open()
      world:upstream("a"):always "hang"
      assert.equal(20000, ask({ ["x-request-timeout-ms"] = "1500" }).duration_ms)
    end)

    it("is refused when it is no time, in the log under its route", function()
      open 'name = "timed", deadline_header = "grpc-timeout",'
      local answer = ask { ["grpc-timeout"] = "soon" }
      assert.same({ 400, "invalid_deadline" }, { answer.status, answer:json().error.code })
      assert.same({}, world:called())
    end)

    it("holds for the floor policy, too", function()
      world = testing.world { directory = false, files = {
        ["broken.lua"] = "return function(req) req:set_deadline_ms(100) error('no') end" },
        config = GATEWAY:gsub("%$(%w+)", { top = "",
          route = 'deadline_header = "x-a-ms", policy = "broken",' }) }
      world:upstream("a"):always "hang"
      local answer = ask { ["x-a-ms"] = "1500" }
      assert.same({ 504, 1500 }, { answer.status, answer.duration_ms })
    end)

    it("is the one of all routes, unless a route names its own", function()
      open('deadline_header = {},', 'deadline_header = "x-a-ms",')
      assert.equal(200, ask({ ["x-a-ms"] = "soon" }).status)
      open("", 'deadline_header = "x-a-ms",')
      assert.equal(400, ask({ ["x-a-ms"] = "soon" }).status)
    end)
  end)

  describe("with retry_within", function()
    it("begins no other try after a slow failure", function()
      open 'retry_within = "5s",'
      world:upstream("a"):always { status = 503, after = "5001ms" }
      assert.equal(503, ask().status)
      assert.same({ "a" }, world:called())
    end)

    it("begins one after a failure in time", function()
      open 'retry_within = "5s",'
      world:upstream("a"):always { status = 503, after = "5s" }
      assert.equal(200, ask().status)
      assert.same({ "a", "b" }, world:called())
    end)
  end)
end)
