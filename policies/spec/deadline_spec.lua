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

    it("is told to targets with what is left of it", function()
      open('deadline_header = { "x-a-ms", "x-stainless-timeout", "grpc-timeout" },')
      world:upstream("a"):always { status = 503, after = "1300ms" }
      ask { ["X-A-Ms"] = "5000", ["x-stainless-timeout"] = "60", ["grpc-timeout"] = "0S",
        ["x-b-ms"] = "1" }
      for number, expected in ipairs { { "5000", "5", "5000m" }, { "3700", "4", "3700m" } } do
        local headers = world:calls()[number].headers
        assert.same(expected,
          { headers["x-a-ms"], headers["x-stainless-timeout"], headers["grpc-timeout"] })
        assert.equal("1", headers["x-b-ms"])
      end
      ask()
      assert.is_nil(world:calls()[3].headers["x-a-ms"])
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

  describe("with a reserve", function()
    local ROUTE = 'reserve = "5s", deadline_header = "x-a-ms",'

    it("leaves the others a chance when a target says nothing", function()
      open(ROUTE)
      world:upstream("a"):always "hang"
      local answer = ask()
      assert.same({ 200, 15000 }, { answer.status, answer.duration_ms })
      assert.equal("a;timeout_try;15000ms, b;200;0ms", answer.headers["x-perilune-trail"])
    end)

    it("counts the wait for the first token", function()
      open(ROUTE)
      world:upstream("a"):always { words = 3, first = "15001ms" }
      world:upstream("b"):always { words = "from b" }
      local answer = ask(nil, { stream = true })
      assert.same({ "from b", 15000 }, { answer:text(), answer.first_byte_ms })
      world:upstream("a"):always { words = "from a", first = "14999ms" }
      assert.equal("from a", ask(nil, { stream = true }):text())
    end)

    it("does not cut an answer that has begun", function()
      open(ROUTE)
      world:upstream("a"):always { words = 190, every = "100ms" }
      local answer = ask(nil, { stream = true })
      assert.same({ "complete", 1 }, { answer.ended, #world:calls() })
      assert.is_true(answer.duration_ms > 18000)
    end)

    it("cuts an error that does not come to its end", function()
      open(ROUTE)
      world:upstream("a"):always { status = 500, body = ("x"):rep(100), stall_after = 0 }
      assert.equal(200, ask().status)
      assert.equal(15000, world:calls()[2].at_ms)
    end)

    it("goes by the target's own limits where these are shorter", function()
      world = testing.world { directory = "policies", config = GATEWAY:gsub("%$(%w+)",
        { top = "", route = ROUTE }):gsub("1/v1\" }", '1/v1", timeouts = { head = "3s" } }') }
      world:upstream("a"):always "hang"
      local answer = ask()
      assert.equal("a;timeout_head;3000ms, b;200;0ms", answer.headers["x-perilune-trail"])
    end)

    it("shares a client's short deadline", function()
      open(ROUTE)
      world:upstream("a"):always "hang"
      local answer = ask { ["x-a-ms"] = "3000" }
      assert.same({ 200, 1500 }, { answer.status, answer.duration_ms })
    end)

    it("holds for the floor policy, too", function()
      world = testing.world { directory = false,
        files = { ["broken.lua"] = "return function() error('no') end" },
        config = GATEWAY:gsub("%$(%w+)", { top = "", route = ROUTE .. 'policy = "broken",' }) }
      world:upstream("a"):always "hang"
      assert.equal(15000, ask().duration_ms)
    end)
  end)

  describe("that has run out", function()
    --- Sends so many requests to a target that hangs; whether it is in service afterwards.
    local function is_fit_after(count, headers)
      world:upstream("a"):always "hang"
      for _ = 1, count do ask(headers) end
      return world:health("a").fit
    end

    it("counts for a target that has had the reserve", function()
      open 'reserve = "5s", deadline_header = "x-a-ms",'
      assert.is_true(is_fit_after(4))
      assert.is_false(is_fit_after(1))
      assert.equal("consecutive_5xx", world:health("a").reason)
    end)

    it("says nothing about one that has not", function()
      open 'reserve = "5s", deadline_header = "x-a-ms",'
      assert.is_true(is_fit_after(10, { ["x-a-ms"] = "9999" }))
      assert.is_false(is_fit_after(5, { ["x-a-ms"] = "10000" }))
    end)

    it("counts, without a reserve, for one that has had half of the route's deadline", function()
      open 'deadline_header = "x-a-ms",'
      assert.is_true(is_fit_after(10, { ["x-a-ms"] = "9999" }))
      assert.is_true(is_fit_after(4))
      assert.is_false(is_fit_after(1))
    end)
  end)

  describe("as a policy gives it to a try", function()
    local function open_with(source)
      world = testing.world { directory = false, files = { ["own.lua"] = source },
        config = GATEWAY:gsub("%$(%w+)", { top = "", route = 'policy = "own",' }) }
    end

    it("ends the try when no answer has begun", function()
      open_with [[return function(req, route)
        local res, err = req:send(route.targets[1], { within_ms = 1500 })
        if err then req:log(err.class .. ": " .. err.detail) end
        return req:relay(req:send(route.targets[2]))
      end]]
      world:upstream("a"):always "hang"
      world:upstream("b"):always { words = 3, after = "5s" }
      local answer = ask()
      assert.same({ 200, 6500 }, { answer.status, answer.duration_ms })
      local log = table.concat(world:log(), "\n")
      assert.is_truthy(log:find("timeout_try: no answer within the 1500 ms", 1, true), log)
    end)

    it("goes before what is kept for others, and never beyond the deadline", function()
      open_with [[local gw = require "perilune"
      return function(req, route)
        local res, err
        for target in gw.candidates(route) do
          res, err = req:send(target, { within_ms = 18000 })
          if res then break end
        end
        return req:relay(res, err)
      end]]
      world:upstream("a"):always "hang"
      world:upstream("b"):always "hang"
      local answer = ask()
      assert.same({ 504, 20000 }, { answer.status, answer.duration_ms })
      assert.equal("a;timeout_try;18000ms, b;timeout_deadline;2000ms",
        answer.headers["x-perilune-trail"])
    end)

    it("is refused when it is none", function()
      for _, options in ipairs { "5", '"1s"', "{ within = 5 }", '{ within_ms = "5" }',
        "{ within_ms = 0 }", "{ within_ms = 0/0 }" } do
        open_with("return function(req, route) req:send(route.targets[1], " .. options .. ") end")
        assert.equal("floor; reason=error", ask().headers["x-perilune-policy"])
        assert.is_truthy(table.concat(world:log()):find("own.lua:1: send: ", 1, true), options)
      end
    end)
  end)
end)
