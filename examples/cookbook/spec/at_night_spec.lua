local testing = require "perilune.testing"

--- The targets that are called at a time, in UTC; the policy adds an hour.
local function called(start, script)
  local world = testing.world { start = start }
  for name, answer in pairs(script or {}) do world:upstream(name):always(answer) end
  assert.equal(200, world:request({ model = "thrifty", messages = {} }).status)
  return world:called()
end

describe("at_night", function()
  it("asks the good model in working hours", function()
    assert.same({ "hosted/large" }, called("2026-01-05T07:00:00Z")) -- a Monday
    assert.same({ "hosted/large" }, called("2026-01-09T18:59:59Z")) -- a Friday
  end)

  it("asks the cheap one before and after", function()
    assert.same({ "own/small" }, called("2026-01-05T06:59:59Z"))
    assert.same({ "own/small" }, called("2026-01-05T19:00:00Z"))
  end)

  it("asks the cheap one on weekends", function()
    assert.same({ "own/small" }, called("2026-01-10T12:00:00Z"))
    assert.same({ "own/small" }, called("2026-01-11T12:00:00Z"))
  end)

  it("lets each stand in for the other", function()
    assert.same({ "own/small", "hosted/large" }, called("2026-01-10T12:00:00Z", { own = 503 }))
    assert.same({ "hosted/large", "own/small" }, called("2026-01-05T12:00:00Z", { hosted = 503 }))
  end)
end)
