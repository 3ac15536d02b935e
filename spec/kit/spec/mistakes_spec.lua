--- What a spec gets wrong is said at its line, with what would have been right.

local testing = require "perilune.testing"

local ENV = { PRIMARY_KEY = "sk-test" }
local HERE = "^spec/kit/spec/mistakes_spec%.lua:%d+: "

--- The message of a mistake, which must name this file.
local function mistake(run, ...)
  local ran, problem = pcall(run, ...)
  assert.is_false(ran, "it is no mistake")
  assert.matches(HERE, problem)
  return (problem:gsub(HERE, ""))
end

describe("a mistake", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  it("in a name lists the names there are", function()
    local names = "there are: primary, primary/gpt-4, primary/solo, spare, spare/gpt-4"
    assert.equal('upstream: there is no target or provider "other"; ' .. names,
      mistake(function() world:upstream("other") end))
    assert.equal('eject: there is no target or provider "primray"; did you mean "primary"? '
      .. names, mistake(function() world:eject("primray", "1s") end))
    assert.matches("^restore: ", mistake(function() world:restore(7) end))
    assert.matches('^health: "primary" is a provider', mistake(function()
      world:health("primary")
    end))
  end)

  it("in a duration asks for its unit", function()
    assert.equal('advance: 10 is ambiguous: write "10s" or "10ms"',
      mistake(function() world:advance(10) end))
    assert.matches("^upstream primary: answer 1%.after: 5 is ambiguous", mistake(function()
      world:upstream("primary"):always { after = 5 }
    end))
    assert.matches("between: 5s is not after 10s", mistake(function()
      world:upstream("primary"):between("10s", "5s", 200)
    end))
    assert.matches("unknown unit", mistake(function() world:eject("primary", "1d") end))
  end)

  it("in a key guesses what was meant", function()
    assert.equal('upstream primary: answer 2: there is no "evry"; did you mean "every"?',
      mistake(function() world:upstream("primary"):answers(200, { evry = "1s" }) end))
    assert.matches('^request: there is no "modle"; did you mean "model"', mistake(function()
      world:request { modle = "gpt-4" }
    end))
    assert.matches('^world: there is no "sed"; did you mean "seed"', mistake(function()
      testing.world { sed = 1 }
    end))
    assert.matches('events%[1%]: there is no "dat"', mistake(function()
      world:upstream("primary"):always { events = { { dat = 1 } } }
    end))
  end)

  it("in an answer says what answers are", function()
    local up = world:upstream("primary")
    for _, bad in ipairs { 99, 600, 200.5, { status = "ok" }, { headers = "x" }, { body = 7 },
      { cut_after = -1 }, { cut_after = 1, stall_after = 1 }, { events = { 7 } }, { words = true },
      { done = "no" }, { headers = { [1] = "x" } }, { failure = "broken" } } do
      mistake(function() up:always(bad) end)
    end
    assert.matches('there is no failure "hagn"; did you mean "hang"', mistake(function()
      up:always("hagn")
    end))
    assert.matches("not true", mistake(function() up:always(true) end))
    assert.matches("none is given", mistake(function() up:answers() end))
  end)

  it("in a request says what requests are", function()
    for _, bad in ipairs { { model = 7 }, { stream = "yes" }, { path = "v1" }, { method = "GTE" },
      { headers = { ["a b"] = "x" } }, { body = 7 }, { messages = "hi" }, "hello" } do
      mistake(function() world:request(bad) end)
    end
  end)

  it("in a world says what worlds are", function()
    for _, bad in ipairs { { seed = "x" }, { start = "yesterday" },
      { start = "2026-13-01T00:00:00Z" },
      { files = { x = 1 } }, { env = { 1 } }, { directory = 7 }, { directory = "nowhere" },
      { config = { providers = { a = { url = "http://x", health = { unhealthy = print } } } } } } do
      mistake(function() testing.world(bad) end)
    end
    assert.matches("PRIMARY_KEY", mistake(function() testing.world() end))
  end)

  it("in an answer's function ends the spec with its own line", function()
    world:upstream("primary"):always(function(call) return call.jsn.model end)
    local problem = mistake(function() world:request { model = "alone" } end)
    assert.matches("attempt to index field 'jsn'", problem)
    world:upstream("primary"):always(function() return "broken" end)
    assert.matches("the function that answers for primary/solo gave: there is no failure",
      select(2, pcall(world.request, world, { model = "alone" })))
  end)

  it("is to move the world from inside it", function()
    local problems = {}
    world:upstream("primary"):always(function()
      for _, move in ipairs { function() world:advance("1s") end, function() world:run() end,
        function() world:start {} end, function() world:close() end } do
        problems[#problems + 1] = select(2, pcall(move))
      end
      return 200
    end)
    world:request { model = "alone" }
    assert.equal(4, #problems)
    for _, problem in ipairs(problems) do assert.matches("the world is running", problem) end
  end)

  it("does not keep another world from being run inside an answer's function", function()
    local other = testing.world { env = ENV }
    world:upstream("primary"):always(function()
      other:advance("5s")
      return other:request({ model = "alone" }).status
    end)
    assert.equal(200, world:request({ model = "alone" }).status)
    assert.same({ 0, 5000 }, { world:now_ms(), other:now_ms() })
  end)

  it("is to use a world that was closed", function()
    world:close()
    assert.has_error(function() world:now_ms() end)
    world:close()
  end)
end)

describe("a request that never ends", function()
  local function own(source)
    return testing.world { config = { providers = { a = { url = "http://127.0.0.1:1" } },
      routes = { { policy = "own", targets = { { provider = "a",
        timeouts = { head = "0ms", first_token = "0ms", idle = "0ms" } } } } } },
      files = { ["own.lua"] = source } }
  end

  it("ends with its deadline all the same", function()
    local world = own([[return function(req, route)
      return req:relay(req:send(route.targets[1])) end]])
    world:upstream("a"):always("hang")
    local answer = world:request { model = "m" }
    assert.same({ 504, 600000 }, { answer.status, answer.duration_ms })
  end)

  it("is named with what it waits for where time stands still", function()
    local world = own([[local gw = require "perilune"
      return function() while true do gw.sleep("0ms") end end]])
    local problem = mistake(function() world:request { model = "m" } end)
    assert.equal("at 0.000 s: a request that began at 0.000 s does not end: its policy waits for a "
      .. "timer, and more and more happens without time passing", problem)
  end)
end)
