--- The small parts of `perilune simulate`: random numbers, distributions, times, percentiles, the
-- command line, what a call costs.

local argv = require "perilune.simulate.argv"
local body = require "perilune.simulate.body"
local distribution = require "perilune.simulate.distribution"
local percentiles = require "perilune.simulate.percentiles"
local random = require "perilune.simulate.random"
local rfc3339 = require "perilune.rfc3339"
local spend = require "perilune.simulate.spend"

describe("perilune.simulate.random", function()
  it("gives the same sequence for the same name, whoever else has asked", function()
    local first, other = random.stream(7, 1, 42), random.stream(7, 1, 43)
    local values = { first:unit(), first:unit() }
    other:unit()
    local again = random.stream(7, 1, 42)
    assert.same(values, { again:unit(), again:unit() })
  end)

  it("gives other sequences for other names, in whatever part they differ", function()
    local seen = {}
    for _, name in ipairs { { 1 }, { 2 }, { 1, 0 }, { 1, 1 }, { 0, 1 }, { 2 ^ 40 }, { 2 ^ 41 },
      { -1 }, { 2 ^ 53 }, { 2 ^ 32 + 1 } } do
      local value = random.stream(unpack(name)):unit()
      assert.is_nil(seen[value], table.concat(name, ","))
      seen[value] = true
    end
  end)

  it("spreads the first numbers of neighbouring names evenly, and without a pattern", function()
    local buckets, changes, last = {}, 0, nil
    for number = 1, 20000 do
      local unit = random.stream(3, 9, number):unit()
      local bucket = math.floor(unit * 10)
      buckets[bucket] = (buckets[bucket] or 0) + 1
      if last and (last < 0.5) ~= (unit < 0.5) then changes = changes + 1 end
      last = unit
    end
    for bucket = 0, 9 do assert.is_true(math.abs(buckets[bucket] - 2000) < 200) end
    assert.is_true(math.abs(changes - 10000) < 300)
  end)

  it("gives normal numbers with mean 0 and deviation 1", function()
    local stream, sum, squares = random.stream(5), 0, 0
    for _ = 1, 20000 do
      local value = stream:normal()
      sum, squares = sum + value, squares + value * value
    end
    assert.is_true(math.abs(sum / 20000) < 0.03)
    assert.is_true(math.abs(squares / 20000 - 1) < 0.05)
  end)

  it("gives whole numbers from 1 to a limit", function()
    local stream, seen = random.stream(1), {}
    for _ = 1, 200 do seen[stream:below(3)] = true end
    assert.same({ true, true, true }, seen)
  end)

  it("gives a number for a text that depends on each byte of it", function()
    assert.equal(random.hash("primary/gpt-4"), random.hash("primary/gpt-4"))
    assert.not_equal(random.hash("primary/gpt-4"), random.hash("primary/gpt-5"))
    assert.not_equal(random.hash("ab"), random.hash("ba"))
  end)
end)

describe("perilune.simulate.distribution", function()
  it("gives a fixed quantity without asking for random numbers", function()
    assert.equal(120, distribution.sample(distribution.fixed(120), nil))
  end)

  it("gives a lognormal one whose median and 99th percentile are those asked for", function()
    local stream, quantity, values = random.stream(11), distribution.lognormal(200, 2000), {}
    for position = 1, 40000 do values[position] = distribution.sample(quantity, stream) end
    local found = percentiles.of(values, { 50, 99 })
    assert.is_true(math.abs(found[1] - 200) < 6, found[1])
    assert.is_true(math.abs(found[2] - 2000) < 120, found[2])
  end)
end)

describe("perilune.simulate.percentiles", function()
  it("takes values of the list, by nearest rank", function()
    local list = {}
    for value = 100, 1, -1 do list[#list + 1] = value end
    assert.same({ 1, 50, 90, 99, 100 }, percentiles.of(list, { 0, 50, 90, 99, 100 }))
    assert.same({ 7, 7, 7 }, percentiles.of({ 7 }, { 50, 99, 100 }))
    assert.same({ 2 }, percentiles.of({ 3, 1, 2 }, { 50 }))
  end)

  it("has nothing to say of an empty list", function()
    assert.same({}, percentiles.of({}, { 50, 99 }))
  end)
end)

describe("perilune.rfc3339", function()
  local GOOD = {
    ["1970-01-01T00:00:00Z"] = 0, ["2026-01-05T12:00:00Z"] = 1767614400000,
    ["2024-02-29T23:59:59.5+01:30"] = 1709245799500, ["1969-12-31t23:59:59z"] = -1000,
    ["2026-01-05 12:00:00.000250-00:00"] = 1767614400000.25,
    ["2016-12-31T23:59:60Z"] = 1483228800000,
  }

  it("reads times in any zone, to the microsecond", function()
    for text, ms in pairs(GOOD) do assert.equal(ms, (rfc3339.parse(text)), text) end
  end)

  it("refuses what is no time", function()
    for _, text in ipairs { "", "yesterday", "2026-01-05", "2026-01-05T12:00:00",
      "2023-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
      "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
      "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00+24:00",
      "2026-01-01T00:00:00Zx", ("9"):rep(100) } do
      local ms, code, detail = rfc3339.parse(text)
      assert.is_nil(ms, text)
      assert.equal("invalid", code)
      assert.truthy(detail:find("2026-01-05T12:00:00Z", 1, true))
    end
    assert.is_nil((rfc3339.parse(17)))
    assert.is_nil((rfc3339.parse(nil)))
  end)

  it("writes what it reads, to the second", function()
    for _, text in ipairs { "1970-01-01T00:00:00Z", "2000-02-29T12:34:56Z", "1999-12-31T23:59:59Z",
      "2026-03-01T00:00:00Z", "1969-12-31T23:59:59Z", "2100-02-28T01:02:03Z" } do
      assert.equal(text, rfc3339.format((rfc3339.parse(text))))
    end
  end)
end)

describe("perilune.simulate.body", function()
  local cjson = require "cjson.safe"

  it("makes a chat completion with a prompt of the right size", function()
    local made = cjson.decode(body.of {
      model = 'a "model"', stream = true, input_tokens = 300, body = { temperature = "0.5" },
    })
    assert.equal('a "model"', made.model)
    assert.is_true(made.stream)
    assert.equal(0.5, made.temperature)
    assert.equal("user", made.messages[1].role)
    assert.equal(1200, #made.messages[1].content)
  end)

  it("does not ask for a stream that is not wanted, and bounds the prompt", function()
    local made = cjson.decode(body.of {
      model = "m", stream = false, input_tokens = 1000000, body = {},
    })
    assert.is_nil(made.stream)
    assert.equal(128 * 1024, #made.messages[1].content)
  end)

  it("finds the limit that a policy has set", function()
    assert.equal(512, body.max_tokens('{"model":"m","max_tokens":512,"messages":[]}'))
    assert.equal(9, body.max_tokens('{"max_tokens":512,"max_completion_tokens" : 9}'))
    assert.is_nil(body.max_tokens('{"model":"m"}'))
  end)
end)

describe("perilune.simulate.spend", function()
  local PLAN = { status = 200, after_ms = 100, first_ms = 50, every_ms = 10, tokens = 20 }

  local function of(plan, elapsed_ms) return { spend.tokens(plan, 1000, elapsed_ms) } end

  it("pays for a whole answer", function()
    assert.same({ 1000, 20 }, of(PLAN, 340))
  end)

  it("pays for what was made until the call ended", function()
    assert.same({ 0, 0 }, of(PLAN, 99))
    assert.same({ 1000, 0 }, of(PLAN, 100))
    assert.same({ 1000, 0 }, of(PLAN, 149))
    assert.same({ 1000, 1 }, of(PLAN, 150))
    assert.same({ 1000, 5 }, of(PLAN, 199))
  end)

  it("pays for no more than was sent before it broke off or fell silent", function()
    local cut = { status = 200, after_ms = 0, first_ms = 0, every_ms = 1, tokens = 20,
      cut_after = 7 }
    local stalled = { status = 200, after_ms = 0, first_ms = 0, every_ms = 0, tokens = 20,
      stall_after = 3 }
    assert.same({ 1000, 7 }, of(cut, 500))
    assert.same({ 1000, 3 }, of(stalled, 500))
  end)

  it("does not pay for errors and broken connections", function()
    assert.same({ 0, 0 }, of({ status = 503, after_ms = 0 }, 10))
    assert.same({ 0, 0 }, of({ failure = "reset", after_ms = 0 }, 10))
  end)

  it("takes prices for a million tokens", function()
    assert.equal(2.5 + 5, spend.cost({ input = 2.5, output = 10 }, 1000000, 500000))
  end)
end)

describe("perilune.simulate.argv", function()
  local function refused(...)
    local options, code, message = argv.parse { ... }
    assert.is_nil(options)
    return code, message
  end

  it("reads options in any place, with or without an equals sign", function()
    assert.same(
      { directories = { "a", "b" }, scenario = "s.lua", requests = 10, seed = 3, json = true },
      argv.parse { "a", "--scenario", "s.lua", "b", "--requests=10", "--seed", "3", "--json" })
    assert.same({ directories = { "a" }, log = "l.jsonl" }, argv.parse { "--log=l.jsonl", "a" })
  end)

  it("has a help text that names every option", function()
    local code, message = refused("a", "--help")
    assert.equal("help", code)
    for _, option in ipairs { "--scenario", "--log", "--requests", "--seed", "--json" } do
      assert.truthy(message:find(option, 1, true))
    end
  end)

  it("refuses what it does not know, with a guess", function()
    local CASES = {
      { "unknown option --scenari (did you mean --scenario?)", "a", "--scenari", "x" },
      { "unknown option --x", "a", "--x" },
      { "unknown option -j", "-j" },
      { "--scenario needs a value", "a", "--scenario" },
      { "--log needs the name of a file", "a", "--log=" },
      { "--seed: a whole number from 0 to 9007199254740992 is expected, not '-1'", "--seed", "-1" },
      { "--requests: a whole number from 1 to 1000000 is expected, not '0'", "--requests", "0" },
      { "--requests: a whole number from 1 to 1000000 is expected, not '1e3'", "--requests=1e3" },
      { "--json takes no value", "a", "--json=yes" },
      { "a policy directory is needed", "--scenario", "s" },
      { "at most two directories can be given; unexpected 'c'", "a", "b", "c", "--log", "l" },
      { "--scenario FILE.lua or --log FILE.jsonl is needed", "a" },
    }
    for _, case in ipairs(CASES) do
      local code, message = refused(select(2, unpack(case)))
      assert.same({ "usage", case[1] }, { code, message })
    end
  end)
end)
