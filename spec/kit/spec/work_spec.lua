--- What every failure says of the work, and that work which may have been done is not asked for
-- again where the operator does not want that.

local testing = require "perilune.testing"

local POLICY = [[
local gw = require "perilune"
return function(req, route)
  local res, err
  for target in gw.candidates(route) do
    res, err = req:send(target)
    local of = res or err
    req:log(("%s %s"):format(target.name, tostring(of.work)))
    if res and res.status == 200 and req.headers["x-read"] then
      res:body()
      req:log(("%s %s"):format(target.name, tostring(res.work)))
    end
    if not route.retry:wants(gw.classify(res, err)) then break end
  end
  return req:relay(res, err)
end
]]

local CHAT = { choices = { { index = 0, delta = { content = "Hello" } } } }

local function world_of(retry, more)
  local route = { policy = "noting", targets = { { provider = "a" },
    { provider = "b", priority = 1 } }, retry = retry }
  for key, value in pairs(more or {}) do route[key] = value end
  return testing.world { files = { ["noting.lua"] = POLICY }, config = {
    providers = {
      a = { url = "http://a.test/v1", timeouts = { connect = "1s", head = "2s", idle = "2s",
        first_token = "2s" } },
      b = { url = "http://b.test/v1" },
    },
    routes = { route },
  } }
end

--- What the policy has noted of the first target.
local function works_of(world)
  local works = {}
  for _, line in ipairs(world:log()) do works[#works + 1] = line:match(": a (%S+)$") end
  return table.concat(works, " ")
end

local CASES = {
  { "connect", "not_sent" }, { "dns", "not_sent" }, { "tls", "not_sent" },
  { { failure = "connect", after = "10s" }, "not_sent" },
  { "reset", "uncertain" }, { "hang", "uncertain" }, { "malformed", "uncertain" },
  { 400, "refused" }, { 401, "refused" }, { 429, "refused" }, { 500, "refused" },
  { 503, "refused" }, { 529, "refused" }, { 302, "refused" },
  { 502, "uncertain" }, { 504, "uncertain" },
  { { events = {}, done = false }, "uncertain", stream = true },
  { { events = { { raw = "nonsense\n\n" }, { raw = "data: {\n\n" } } }, "uncertain",
    stream = true },
  { { events = { { raw = ": ping\n\n" } }, stall_after = 1 }, "uncertain", stream = true },
  { { events = { { data = { error = { type = "overloaded_error", message = "no" } } } } },
    "refused", stream = true },
  { { events = { { data = CHAT }, { data = CHAT } }, cut_after = 1 }, "nil partly_generated",
    stream = true, headers = { ["x-read"] = "1" } },
  { { words = "one two three", cut_after = 1 }, "nil partly_generated",
    headers = { ["x-read"] = "1" } },
  { 200, "nil" }, { 200, "nil", stream = true },
  { 200, "nil nil", headers = { ["x-read"] = "1" } },
}

describe("what was done", function()
  it("is said of every failure", function()
    for number, case in ipairs(CASES) do
      local world = world_of()
      world:upstream("a"):always(case[1])
      world:request { model = "m", stream = case.stream, headers = case.headers }
      assert.equal(case[2], works_of(world), "case " .. number)
    end
  end)

  it("is uncertain when there was no time for an answer", function()
    local world = world_of(nil, { deadline = "1s" })
    world:upstream("a"):always "hang"
    assert.equal(504, world:request({ model = "m" }).status)
    assert.equal("uncertain", works_of(world))
  end)

end)

describe("retry.uncertain and retry.partly_generated", function()
  local function called(retry, bad, stream, headers)
    local world = world_of(retry)
    world:upstream("a"):always(bad)
    local answer = world:request { model = "m", stream = stream, headers = headers }
    return table.concat(world:called(), " "), answer
  end

  it("repeat everything unless told otherwise", function()
    assert.equal("a b", (called(nil, "reset")))
    assert.equal("a b", (called(nil, 504)))
  end)

  it("forbid what they name, and the client gets the error", function()
    local careful = { attempts = 3, uncertain = false, on = { "5xx", "connect", "reset",
      "timeout", "empty" } }
    local names, answer = called(careful, "reset")
    assert.same({ "a", 502, "reset" }, { names, answer.status, answer:json().error.code })
    assert.equal("a", (called(careful, "hang")))
    assert.equal("a", (called(careful, 504)))
    assert.equal("a", (called(careful, { events = {}, done = false }, true)))
    assert.equal("a b", (called(careful, "connect")))
    assert.equal("a b", (called(careful, 503)))
  end)

  it("forbid it whatever reactions say", function()
    assert.equal("a", (called({ uncertain = false, reactions = { reset = "again" } }, "reset")))
  end)

  it("keep a policy from going on that does not ask", function()
    local world = testing.world { files = { ["stubborn.lua"] = [[
      local gw = require "perilune"
      return function(req, route)
        local res, err
        for target in gw.candidates(route) do
          res, err = req:send(target)
          if res and res.status == 200 then break end
        end
        return req:relay(res, err)
      end]] }, config = {
      providers = { a = { url = "http://a.test/v1" }, b = { url = "http://b.test/v1" } },
      routes = { { policy = "stubborn", retry = { uncertain = false },
        targets = { { provider = "a" }, { provider = "b" } }, balance = "round_robin" } } } }
    world:upstream("a"):always "reset"
    world:upstream("b"):always "reset"
    world:request { model = "m" }
    assert.equal(1, #world:called())
  end)

  it("hold for the floor policy, too", function()
    local world = testing.world { files = { ["broken.lua"] = [[
      return function(req, route)
        req:send(route.targets[1])
        error("broken")
      end]] }, config = {
      providers = { a = { url = "http://a.test/v1" } },
      routes = { { policy = "broken", retry = { uncertain = false },
        targets = { { provider = "a" } } } } } }
    world:upstream("a"):answers("reset", 200)
    local answer = world:request { model = "m" }
    assert.same({ 503, "work_uncertain" }, { answer.status, answer:json().error.code })
    assert.same({ "a" }, world:called())
  end)
end)

describe("hedging", function()
  it("is not for routes that do not repeat uncertain work", function()
    for _, uncertain in ipairs { false, true } do
      local world = testing.world { files = { ["hedging.lua"] = [[
        local gw = require "perilune"
        return function(req, route)
          local targets = gw.candidates(route)
          return req:relay(gw.hedge(req, route, targets(), targets, "100ms"))
        end]] }, config = {
        providers = { a = { url = "http://a.test/v1" }, b = { url = "http://b.test/v1" } },
        routes = { { policy = "hedging", retry = { uncertain = uncertain },
          targets = { { provider = "a" }, { provider = "b", priority = 1 } } } } } }
      world:upstream("a"):always { after = "1s" }
      assert.equal(200, world:request({ model = "m" }).status)
      assert.same(uncertain and { "a", "b" } or { "a" }, world:called())
    end
  end)
end)
