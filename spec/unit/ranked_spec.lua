local support = require "spec.unit.support"

local TARGETS = {
  { name = "big" }, { name = "medium", priority = 1 }, { name = "small", priority = 2 },
}
local RANKS = { small = 0, big = 5 }

local function by_name(target) return RANKS[target.name] end

local function make(options)
  local world = { clock = support.clock(), random = support.random(1), log = {} }
  options = options or {}
  options.targets = options.targets or TARGETS
  return support.public_module(support.native(world)), support.route(options)
end

--- Runs a policy that goes through the ranked route; `answers` fail until one is good.
local function called(rank_of, answers, options)
  options = options or {}
  options.targets, options.answers = options.targets or TARGETS, answers
  return support.run(function(gw)
    return function(req, route)
      local res, err
      for target in gw.candidates(gw.ranked(route, rank_of)) do
        res, err = req:send(target)
        if not route.retry:wants(gw.classify(res, err)) then break end
      end
      return req:relay(res, err)
    end
  end, options)
end

describe("perilune.ranked", function()
  it("orders the targets by their ranks, and leaves out those without one", function()
    local run = called(by_name, { small = { 503 }, big = { 200 } })
    assert.same({ "small", "big" }, run:called())
    assert.equal(200, run.answer.status)
  end)

  it("puts targets of one rank side by side, whatever their priorities", function()
    local function same() return 0 end
    local answers = { big = { 503 }, medium = { 503 }, small = { 503 } }
    local run = called(same, answers, { balance = "round_robin", retry = { attempts = 3 } })
    local names = run:called()
    table.sort(names)
    assert.same({ "big", "medium", "small" }, names)
    assert.same({ 0, 0, 0 }, run:times_ms())
  end)

  it("gives none when none has a rank", function()
    local run = called(function() return false end, {})
    assert.same({}, run:called())
    assert.is_nil(run.answer.status)
  end)

  it("keeps what the route says besides", function()
    local gw, route = make { balance = "p2c", panic = "fail", max_ejection_ratio = 0.5, name = "x" }
    local other = gw.ranked(route, by_name)
    for _, name in ipairs { "name", "policy", "deadline_ms", "retry", "balance", "panic",
      "max_ejection_ratio" } do
      assert.equal(route[name], other[name], name)
    end
    local names = {}
    for position, target in ipairs(other.targets) do names[position] = target.name end
    assert.same({ "big", "small" }, names)
    assert.is_nil(other.other)
    other.targets[1] = nil
    assert.equal(2, #other.targets)
    assert.has_error(function() other.panic = "use" end)
    assert.has_error(function() other.ranks[1] = 7 end)
  end)

  it("makes each kind once, so that turns go on", function()
    local gw, route = make()
    local kind = gw.ranked(route, by_name)
    assert.equal(kind, gw.ranked(route, function(target) return RANKS[target.name] end))
    assert.is_false(kind == gw.ranked(route, function() return 0 end))
    assert.is_false(kind == gw.ranked(select(2, make()), by_name))
  end)

  it("works on with more kinds than it keeps", function()
    local gw, route = make()
    for number = 1, 100 do
      local kind = gw.ranked(route, function() return number end)
      assert.equal(number, kind.ranks[1])
    end
    local function last() return 100 end
    assert.is_false(gw.ranked(route, last) == gw.ranked(route, last))
    local function first() return 1 end
    assert.equal(gw.ranked(route, first), gw.ranked(route, first))
  end)

  it("ranks a ranked route anew", function()
    local gw, route = make()
    local two = gw.ranked(route, by_name)
    local one = gw.ranked(two, function(target) return target.priority == 0 and 0 end)
    assert.equal(1, #one.targets)
    assert.equal("big", one.targets[1].name)
  end)

  it("refuses what is no route, no function, no rank", function()
    local gw, route = make()
    for _, case in ipairs {
      { "a route is expected", function() gw.ranked(nil, by_name) end },
      { "a route is expected", function() gw.ranked({}, by_name) end },
      { "a function%(target%) is expected, not a nil", function() gw.ranked(route) end },
      { "target big must be a number, nil or false, not true",
        function() gw.ranked(route, function() return true end) end },
      { "not nan", function() gw.ranked(route, function() return math.huge - math.huge end) end },
    } do
      local ok, message = pcall(case[2])
      assert.is_false(ok)
      assert.matches("ranked_spec.lua:%d+: perilune.ranked: .*" .. case[1], message)
    end
  end)
end)
