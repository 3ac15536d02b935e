--- What becomes of a request after each class of failure: which target is asked next, when, and
-- what the client gets in the end.

local testing = require "perilune.testing"

local TOO_LONG = { status = 400, body = { error = { message = "too long",
  code = "context_length_exceeded", type = "invalid_request_error" } } }
local FILTERED = { status = 400, body = { error = { message = "no", code = "content_filter" } } }
local FAULT = { status = 400, body = { error = { message = "max_tokens is not a number" } } }

--- A gateway whose targets are providers of the same names, in this order.
-- @tparam table targets { name, fields of the target }, ...
-- @tparam[opt] table route further fields of the route
local function world_of(targets, route)
  local providers, list = {}, {}
  for position, entry in ipairs(targets) do
    local name, fields = entry[1], entry[2] or {}
    providers[name] = { url = "http://" .. name .. ".test/v1", health = entry.health }
    list[position] = { provider = name, priority = position - 1 }
    for key, value in pairs(fields) do list[position][key] = value end
  end
  local fields = { targets = list, policy = "fallback", retry = { attempts = 10 } }
  for key, value in pairs(route or {}) do fields[key] = value end
  return testing.world { config = { providers = providers, routes = { fields } } }
end

describe("a request that is too long for a target", function()
  it("goes to the next one at once, and never to the first again", function()
    local world = world_of { { "a" }, { "b" } }
    world:upstream("a"):always(TOO_LONG)
    world:upstream("b"):answers(503, 503, 200)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "b", "b", "b" }, world:called())
    assert.equal(0, world:calls()[2].at_ms)
  end)

  it("passes over those that have no more room", function()
    local world = world_of {
      { "a", { context_tokens = 8192 } }, { "b", { context_tokens = 4096 } },
      { "c", { context_tokens = 8192 } }, { "d", { context_tokens = 131072 } },
    }
    world:upstream("a"):always(TOO_LONG)
    local answer = world:request { model = "m" }
    assert.equal(200, answer.status)
    assert.same({ "a", "d" }, world:called())
    assert.equal(0, answer.duration_ms)
  end)

  it("asks those that do not say how much room they have", function()
    local world = world_of { { "a", { context_tokens = 8192 } }, { "b" }, { "c" } }
    for _, name in ipairs { "a", "b" } do world:upstream(name):always(TOO_LONG) end
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "b", "c" }, world:called())
  end)

  it("gets the error when nobody has room", function()
    local world = world_of { { "a", { context_tokens = 8192 } },
      { "b", { context_tokens = 4096 } } }
    world:upstream("a"):always(TOO_LONG)
    local answer = world:request { model = "m" }
    assert.same({ 400, "context_length_exceeded", 0 },
      { answer.status, answer:json().error.code, answer.duration_ms })
    assert.same({ "a" }, world:called())
  end)

  it("is not sent to anybody when the first is alone", function()
    local world = world_of { { "a" } }
    world:upstream("a"):always(TOO_LONG)
    assert.equal(400, world:request({ model = "m" }).status)
    assert.same({ "a" }, world:called())
  end)

  it("gets its error from a larger one, too", function()
    local world = world_of { { "a", { context_tokens = 10 } }, { "b", { context_tokens = 20 } } }
    for _, name in ipairs { "a", "b" } do world:upstream(name):always(TOO_LONG) end
    assert.equal(400, world:request({ model = "m" }).status)
    assert.same({ "a", "b" }, world:called())
  end)

  it("is found by weight, too", function()
    local world = world_of {
      { "a", { priority = 0, weight = 1000, context_tokens = 10 } },
      { "b", { priority = 0, weight = 1, context_tokens = 10 } },
      { "c", { priority = 0, weight = 1, context_tokens = 11 } },
    }
    for _, name in ipairs { "a", "b" } do world:upstream(name):always(TOO_LONG) end
    for _ = 1, 20 do assert.equal(200, world:request({ model = "m" }).status) end
    for position, name in ipairs(world:called()) do
      local before = world:called()[position - 1]
      assert.is_true(name == "c" or before ~= "a" and before ~= "b", "after " .. tostring(before))
    end
  end)

  it("does not put the target out for others", function()
    local world = world_of { { "a" }, { "b" } }
    world:upstream("a"):answers(TOO_LONG, 200)
    world:request { model = "m" }
    world:request { model = "m" }
    assert.same({ "a", "b", "a" }, world:called())
  end)
end)

describe("an error that would be one everywhere", function()
  local function assert_given_back(bad, retry, stream)
    local world = world_of({ { "a" }, { "b" } }, retry and { retry = retry })
    world:upstream("a"):always(bad)
    local answer = world:request { model = "m", stream = stream }
    assert.equal(400, answer.status)
    assert.same({ "a" }, world:called())
    return answer
  end

  it("goes back to the client after one attempt, untouched", function()
    for _, stream in ipairs { false, true } do
      local answer = assert_given_back(FILTERED, nil, stream)
      assert.same(FILTERED.body, answer:json())
      assert.same(FAULT.body, assert_given_back(FAULT, nil, stream):json())
    end
  end)

  it("does so whatever other classes and statuses are listed", function()
    local on = { 429, "5xx", "overloaded", "context_length", "connect", "reset", "timeout" }
    assert_given_back(FILTERED, { attempts = 5, on = on })
    assert_given_back(FAULT, { attempts = 5, on = on })
  end)

  it("goes on when its class or its very status is listed", function()
    for _, on in ipairs { { "content_filter" }, { 400 }, { "4xx" } } do
      local world = world_of({ { "a" }, { "b" } }, { retry = { on = on } })
      world:upstream("a"):always(FILTERED)
      assert.equal(200, world:request({ model = "m" }).status)
      assert.same({ "a", "b" }, world:called())
    end
  end)
end)

describe("retry.reactions", function()
  local function react(reactions, more)
    local retry = { attempts = 6, reactions = reactions, backoff = { base = "100ms",
      floor = "100ms" } }
    for key, value in pairs(more or {}) do retry[key] = value end
    return world_of({ { "a" }, { "b" } }, { retry = retry })
  end

  it("asks the same target once more after a back-off, then the next", function()
    local world = react { overloaded = "again" }
    world:upstream("a"):always(503)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "a", "b" }, world:called())
    assert.same({ 0, 100, 100 },
      { world:calls()[1].at_ms, world:calls()[2].at_ms, world:calls()[3].at_ms })
  end)

  it("does so for failures without an answer", function()
    local world = react { reset = "again" }
    world:upstream("a"):answers("reset", 200)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "a" }, world:called())
  end)

  it("does so for each target", function()
    local world = react { ["5xx"] = "again" }
    world:upstream("a"):always(500)
    world:upstream("b"):answers(502, 200)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "a", "b", "b" }, world:called())
  end)

  it("leaves a target that asks for time to the others", function()
    local world = react { rate_limited = "again" }
    world:upstream("a"):always { status = 429, headers = { ["retry-after"] = "2" } }
    assert.equal(0, world:request({ model = "m" }).duration_ms)
    assert.same({ "a", "b" }, world:called())
  end)

  it("does not wait beyond the deadline for it", function()
    local world = world_of({ { "a" }, { "b" } }, { deadline = "1s", retry = { attempts = 5,
      reactions = { overloaded = "again" }, backoff = { base = "5s", floor = "5s" } } })
    world:upstream("a"):always(503)
    assert.equal(0, world:request({ model = "m" }).duration_ms)
    assert.same({ "a", "b" }, world:called())
  end)

  it("gives up, or goes on, whatever the list says", function()
    local world = react({ [503] = "give_up", content_filter = "next" }, { on = { "5xx" } })
    world:upstream("a"):answers(503, FILTERED, 500)
    assert.equal(503, world:request({ model = "m" }).status)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.equal(200, world:request({ model = "m" }).status)
    assert.same({ "a", "a", "b", "a", "b" }, world:called())
  end)
end)

describe("a target that asks for time", function()
  local LATER = { status = 429, headers = { ["retry-after"] = "2" } }

  it("is not waited for while another one is fit", function()
    local world = world_of { { "a" }, { "b" } }
    world:upstream("a"):always(LATER)
    local answer = world:request { model = "m" }
    assert.same({ 200, 0 }, { answer.status, answer.duration_ms })
    assert.same({ "a", "b" }, world:called())
  end)

  it("is waited for when it is alone and there is time", function()
    local world = world_of { { "a" } }
    world:upstream("a"):answers(LATER, 200)
    local answer = world:request { model = "m" }
    assert.equal(200, answer.status)
    assert.is_true(answer.duration_ms >= 2000 and answer.duration_ms < 2100)
  end)

  it("may say so in the body, as Gemini does", function()
    local world = world_of { { "a" } }
    world:upstream("a"):answers({ status = 429, body = { { error = { code = 429, message = "m",
      status = "RESOURCE_EXHAUSTED", details = { { ["@type"] = "x", violations = {} },
        { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retryDelay = "2.5s" } } } } } },
      200)
    local answer = world:request { model = "m" }
    assert.equal(200, answer.status)
    assert.is_true(answer.duration_ms >= 2500 and answer.duration_ms < 2600)
    world:upstream("a"):always { status = 429, body = { error = { details = {
      { retryDelay = "60s" } } } } }
    world:request { model = "m" }
    assert.is_true(world:health("a").out_for_ms > 59000)
  end)

  it("is waited for when all others are out", function()
    local world = world_of { { "a" }, { "b" } }
    world:eject("b", "60s")
    world:upstream("a"):answers(LATER, 200)
    local answer = world:request { model = "m" }
    assert.equal(200, answer.status)
    assert.same({ "a", "a" }, world:called())
    assert.is_true(answer.duration_ms >= 2000)
  end)

  it("is not waited for when that would take too long", function()
    local world = world_of({ { "a" } }, { deadline = "1500ms" })
    world:upstream("a"):always(LATER)
    local answer = world:request { model = "m" }
    assert.same({ 429, 0 }, { answer.status, answer.duration_ms })
  end)
end)
