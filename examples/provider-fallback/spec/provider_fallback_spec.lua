local testing = require "perilune.testing"

local function trail_of(answer)
  return (answer.headers["x-perilune-trail"]:gsub(";%d+ms", ""))
end

describe("provider-fallback", function()
  local world

  before_each(function()
    world = testing.world { env = { PRIMARY_PORT = "8000" } }
  end)

  it("asks the primary alone as long as it answers", function()
    assert.equal("Hello from primary/gpt-4.", world:request({ model = "gpt-4" }):text())
    assert.same({ "primary/gpt-4" }, world:called())
  end)

  it("falls back at once for every trigger in its list", function()
    for _, trigger in ipairs { 401, 404, 429, 500, 502, 503, "connect", "reset" } do
      world:restore("primary/gpt-4")
      world:restore("primary")
      world:upstream("primary"):always(trigger)
      local answer = world:request { model = "gpt-4" }
      assert.equal(200, answer.status)
      assert.equal(0, answer.duration_ms)
      assert.equal(("primary/gpt-4;%s, fallback/gpt-4;200"):format(trigger), trail_of(answer))
    end
  end)

  it("waits for a silent primary no longer than its limits say", function()
    world:upstream("primary"):answers("hang", { first = "5m" })
    assert.equal(30000, world:request({ model = "gpt-4" }).duration_ms)
    local answer = world:request { model = "gpt-4", stream = true }
    assert.equal(30000, answer.duration_ms)
    assert.equal("primary/gpt-4;timeout_first_token, fallback/gpt-4;200", trail_of(answer))
  end)

  it("leaves the primary alone after five failures, then lets one request try it", function()
    world:upstream("primary"):between("0s", "15s", 503)
    for _ = 1, 6 do assert.equal(200, world:request({ model = "gpt-4" }).status) end
    assert.equal(11, #world:called())
    assert.equal("consecutive_5xx", world:health("primary/gpt-4").reason)
    world:advance("12s") -- ten seconds, and up to a tenth more
    assert.equal("primary/gpt-4;503, fallback/gpt-4;200",
      trail_of(world:request { model = "gpt-4" }))
    assert.equal("fallback/gpt-4;200", trail_of(world:request { model = "gpt-4" }))
    world:advance("23s") -- twenty, the second time
    assert.equal("primary/gpt-4;200", trail_of(world:request { model = "gpt-4" }))
    assert.equal("closed", world:health("primary/gpt-4").state)
  end)

  it("shares 80 to 20 where both serve", function()
    local counts = { ["primary/gpt-4"] = 0, ["fallback/gpt-4"] = 0 }
    for _ = 1, 100 do world:request { model = "gpt-4-shared" } end
    for _, name in ipairs(world:called()) do counts[name] = counts[name] + 1 end
    assert.same({ ["primary/gpt-4"] = 80, ["fallback/gpt-4"] = 20 }, counts)
  end)
end)
