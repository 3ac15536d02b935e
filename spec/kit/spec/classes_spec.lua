--- A route's own classes: what the operator says of statuses, codes, classes, or by a function, is
-- what retries, health, log and policies go by.

local testing = require "perilune.testing"

local NOTING = [[
local gw = require "perilune"
return function(req, route)
  local res, err
  for target in gw.candidates(route) do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    req:log(("%s is %s %s"):format(target.name, class, tostring(status)))
    if err and err.class ~= class then error("two classes") end
    if not route.retry:wants(class, status) then break end
  end
  return req:relay(res, err)
end
]]

--- A gateway with two targets, `a` and `b`.
-- @tparam string classes as it stands in the file
-- @tparam[opt] string health of `a`
-- @tparam[opt] string more of the route
local function world_of(classes, health, more)
  return testing.world { files = { ["noting.lua"] = NOTING }, config = ([[
    return {
      providers = {
        a = { url = "http://a.test/v1", health = { %s },
          timeouts = { head = "5s" } },
        b = { url = "http://b.test/v1" },
      },
      routes = { { targets = { { provider = "a" }, { provider = "b", priority = 1 } },
        policy = "noting", retry = { attempts = 2 }, classes = %s, %s } },
    }]]):format(health or "consecutive_5xx = 0", classes or "nil", more or "") }
end

local function noted(world)
  for _, line in ipairs(world:log()) do
    local class = line:match(": a is (.+)$")
    if class then return class end
  end
end

local function class_of(classes, answer, more)
  local world = world_of(classes)
  world:upstream("a"):always(answer)
  local request = { model = "m" }
  for key, value in pairs(more or {}) do request[key] = value end
  world:request(request)
  return noted(world), world
end

local function coded(status, code)
  return { status = status, body = { error = { code = code, message = "no" } } }
end

describe("classes of a route", function()
  it("are given by status", function()
    assert.equal("overloaded 418", (class_of("{ status = { [418] = 'overloaded' } }", 418)))
    assert.equal("client_fault 422", (class_of("{ status = { [418] = 'overloaded' } }", 422)))
    assert.equal("ok 404", (class_of("{ status = { [404] = 'ok' } }", 404)))
    assert.equal("server_error 200", (class_of("{ status = { [200] = 'server_error' } }", 200)))
  end)

  it("are given by code, in any form of error and without case", function()
    local rule = "{ code = { INSUFFICIENT_quota = 'rate_limited', busy = 'overloaded' } }"
    assert.equal("rate_limited 429", (class_of(rule, coded(429, "insufficient_quota"))))
    assert.equal("rate_limited 400", (class_of(rule,
      { status = 400, body = { type = "error", error = { type = "insufficient_quota" } } })))
    assert.equal("overloaded 400", (class_of(rule,
      { status = 400, body = { error = { details = { { reason = "BUSY" } } } } })))
    assert.equal("overloaded 400", (class_of(rule, { status = 400, body = "{}",
      headers = { ["x-amzn-errortype"] = "Busy:http://x/" } })))
    assert.equal("rate_limited 400", (class_of(rule, { status = 400,
      body = { __type = "com.amazon#Insufficient_Quota" } })))
    assert.equal("billing 402", (class_of(rule, coded(402, "another"))))
    assert.equal("ok 200", (class_of(rule, { body = { error = { code = "busy" } } })))
  end)

  it("are given by code to errors in place of an answer", function()
    local event = { events = { { data = { error = { code = "insufficient_quota" } } } } }
    assert.equal("rate_limited 402", (class_of("{ code = { insufficient_quota = 'rate_limited' } }",
      event, { stream = true })))
    assert.equal("overloaded 402", (class_of("{ status = { [402] = 'overloaded' } }", event,
      { stream = true })))
  end)

  it("are other names for classes, of failures, too", function()
    local rule = "{ class = { billing = 'rate_limited', timeout_head = 'overloaded' } }"
    assert.equal("rate_limited 402", (class_of(rule, 402)))
    assert.equal("overloaded nil", (class_of(rule, "hang")))
    assert.equal("reset nil", (class_of(rule, "reset")))
  end)

  it("are given by a function, which comes first", function()
    local rule = [[{ status = { [503] = "client_fault" }, decide = function(res, err, class)
      if res and res.headers["x-shed"] then return "rate_limited" end
      if res and res.status == 400 and res:text():find("busy") then return "overloaded" end
      if err and class == "connect" then return "server_error" end
    end }]]
    assert.equal("rate_limited 503", (class_of(rule,
      { status = 503, headers = { ["x-shed"] = "1" } })))
    assert.equal("client_fault 503", (class_of(rule, 503)))
    assert.equal("overloaded 400", (class_of(rule,
      { status = 400, body = { error = { message = "too busy" } } })))
    assert.equal("server_error nil", (class_of(rule, "refuse")))
    assert.equal("rate_limited 200", (class_of(rule, { headers = { ["x-shed"] = "1" } },
      { stream = true })))
  end)

  it("can be told from the body of a good answer", function()
    local rule = [[{ decide = function(res)
      if res and res:text():find("I cannot") then return "content_filter" end
    end }]]
    assert.equal("content_filter 200", (class_of(rule, { words = "I cannot do that" })))
    local class, world = class_of(rule, { words = "Of course" }, { stream = true })
    assert.equal("ok 200", class)
    assert.same({ "a" }, world:called())
  end)

  it("survive a function that fails, or gives nonsense", function()
    for _, body in ipairs { "error('no')", "return res.nothing.at_all", "return 'overlaoded'",
      "return 7", "return {}" } do
      local class, world = class_of(("{ decide = function(res) %s end }"):format(body), 503)
      assert.equal("overloaded 503", class)
      local log = table.concat(world:log(), "\n")
      assert.is_truthy(log:find("classes.decide: ", 1, true), log)
    end
  end)

  it("cannot make an answer of what is none, nor time of a deadline", function()
    assert.equal("reset nil", (class_of("{ class = { reset = 'ok' } }", "reset")))
    local world = world_of("{ decide = function() return 'overloaded' end }", nil,
      'deadline = "1s"')
    world:upstream("a"):always "hang"
    assert.equal(504, world:request({ model = "m" }).status)
    assert.equal("timeout_deadline nil", noted(world))
  end)

  it("decide what is tried again", function()
    local _, world = class_of("{ status = { [400] = 'overloaded' } }", 400)
    assert.same({ "a", "b" }, world:called())
    _, world = class_of("{ status = { [503] = 'client_fault' } }", 503)
    assert.same({ "a" }, world:called())
    _, world = class_of("{ status = { [422] = 'context_length' } }", 422)
    assert.same({ "a", "b" }, world:called())
  end)

  it("are what health counts", function()
    local world = world_of("{ status = { [418] = 'overloaded', [503] = 'client_fault' } }",
      "consecutive_gateway = 2, consecutive_5xx = 5")
    world:upstream("a"):always(503)
    for _ = 1, 6 do world:request { model = "m" } end
    assert.is_true(world:health("a").fit)
    world:upstream("a"):always(418)
    world:request { model = "m" }
    assert.is_true(world:health("a").fit)
    world:request { model = "m" }
    assert.is_false(world:health("a").fit)
    assert.equal("consecutive_gateway", world:health("a").reason)
  end)

  it("are what health counts of failures and of good answers, too", function()
    local world = world_of([[{ class = { reset = "client_fault" }, decide = function(res)
      if res and res.headers["x-degraded"] then return "server_error" end
    end }]], "consecutive_5xx = 2, consecutive_connection = 1")
    world:upstream("a"):always "reset"
    for _ = 1, 3 do world:request { model = "m" } end
    assert.is_true(world:health("a").fit)
    world:upstream("a"):always { headers = { ["x-degraded"] = "1" } }
    for _ = 1, 2 do world:request { model = "m" } end
    assert.is_false(world:health("a").fit)
  end)

  it("leave a probe's verdict to what they say", function()
    local world = world_of("{ status = { [404] = 'ok' } }", 'base_ejection = "10s", jitter = 0')
    world:eject("a", "10s")
    world:upstream("a"):always(404)
    world:advance("11s")
    world:request { model = "m" }
    assert.equal("closed", world:health("a").state)
  end)

  it("hold for the floor policy", function()
    local world = testing.world { files = { ["broken.lua"] = "return function() error('x') end" },
      config = { providers = { a = { url = "http://a.test/v1" }, b = { url = "http://b.test/v1" } },
        routes = { { policy = "broken", classes = { status = { [400] = "overloaded" } },
          targets = { { provider = "a" }, { provider = "b", priority = 1 } } } } } }
    world:upstream("a"):always(400)
    assert.equal(200, world:request({ model = "m" }).status)
  end)

  it("are refused when they mean nothing", function()
    local function problem_of(classes)
      local ok, problem = pcall(world_of, classes)
      assert.is_false(ok, classes)
      return tostring(problem)
    end
    for rule, detail in pairs {
      ["{ status = { [99] = 'ok' } }"] = "is not a status from 200 to 599",
      ["{ status = { [400] = 'overlaoded' } }"] = 'did you mean "overloaded"?',
      ["{ class = { timeout_deadline = 'ok' } }"] = "is no outcome class that can be changed",
      ["{ class = { overlaoded = 'ok' } }"] = 'did you mean "overloaded"?',
      ["{ decide = 'overloaded' }"] = "must be a function(res, err, class)",
      ["{ by_status = {} }"] = "unknown key",
    } do
      local problem = problem_of(rule)
      assert.is_truthy(problem:find(detail, 1, true), problem)
    end
  end)
end)
