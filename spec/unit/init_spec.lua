local support = require "spec.unit.support"

local function make()
  local world = { clock = support.clock(), random = support.random(1), log = {} }
  return support.public_module(support.native(world)), world
end

describe("perilune", function()
  it("outside the gateway only offers to be wired", function()
    local names = {}
    for name in pairs(require "perilune") do names[#names + 1] = name end
    assert.same({ "new" }, names)
  end)

  it("is wired to perilune.native inside the gateway", function()
    local _, world = make()
    local usual = package.loaded["perilune"]
    rawset(package.loaded, "perilune", nil)
    rawset(package.loaded, "perilune.native", support.native(world))
    local gw = require "perilune"
    rawset(package.loaded, "perilune", usual)
    rawset(package.loaded, "perilune.native", nil)
    assert.is_nil(gw.new)
    assert.equal(world.clock.ms, gw.now_ms())
  end)

  it("has what policies are promised, and is read-only", function()
    local gw = make()
    for _, name in ipairs { "candidates", "ranked", "classify", "sleep", "now_ms", "now_wall_ms",
      "date", "log", "random" } do
      assert.equal("function", type(gw[name]), name)
    end
    assert.has_error(function() gw.sleep = print end,
      "perilune is read-only: cannot set \"sleep\"")
  end)

  it("sleeps for durations with a unit", function()
    local gw, world = make()
    gw.sleep("100ms")
    gw.sleep("12.5ms")
    gw.sleep("1s")
    assert.same({ 100, 12.5, 1000 }, world.clock.slept)
    assert.equal(2112.5, gw.now_ms())
  end)

  it("refuses durations that are ambiguous or none", function()
    local gw, world = make()
    for _, duration in ipairs { "100", "", "soon", "-1s", 100, true, {} } do
      local ok, message = pcall(function() gw.sleep(duration) end)
      assert.is_false(ok)
      assert.matches("init_spec.lua:%d+: perilune.sleep: ", message)
    end
    assert.has_error(function() gw.sleep() end)
    assert.same({}, world.clock.slept)
  end)

  it("tells the date, of now or of a given time", function()
    local gw, world = make()
    assert.equal(world.clock.now_wall_ms(), gw.now_wall_ms())
    assert.same({ year = 2025, month = 6, day = 15, hour = 15, minute = 6, second = 41,
      weekday = 7 }, gw.date())
    assert.equal(18, gw.date(gw.now_wall_ms() + 3 * 3600000).hour)
    for _, value in ipairs { "now", 0 / 0, 1e300, false } do
      local ok, message = pcall(function() gw.date(value) end)
      assert.is_false(ok)
      assert.matches("init_spec.lua:%d+: perilune.date: ", message)
    end
  end)

  it("logs whatever it is given as text", function()
    local gw, world = make()
    gw.log("hello")
    gw.log(nil)
    assert.same({ { level = "info", text = "hello" }, { level = "info", text = "nil" } }, world.log)
  end)

  it("classifies, and gives random numbers", function()
    local gw = make()
    assert.same({ "overloaded", 503 }, { gw.classify(support.res(503)) })
  end)

  it("tells the core what the body of an answer has said", function()
    local world = { clock = support.clock(), random = support.random(1), log = {} }
    local native, told = support.native(world), {}
    native.classed = function(class) told[#told + 1] = class end
    local gw = support.public_module(native)
    assert.same({ "ok", 200 }, { gw.classify(support.res(200)) })
    assert.same({ "connect" }, { gw.classify(nil, { class = "connect" }) })
    assert.same({ "overloaded", 503 }, { gw.classify(support.res(503)) })
    assert.same({ "overloaded" }, told)
    for _ = 1, 100 do
      local unit, die = gw.random(), gw.random(6)
      assert.is_true(unit >= 0 and unit < 1)
      assert.is_true(die >= 1 and die <= 6 and die % 1 == 0)
    end
  end)
end)
