local testing = require "perilune.testing"

local MEMBERS = { ["x-lab"] = "members" }

describe("priority-groups", function()
  local world

  before_each(function()
    world = testing.world()
    world:upstream("limited"):between("0s", "30s", 429)
  end)

  it("passes the 429 on, and leaves the target alone until it said to come back", function()
    local answer = world:request { model = "gpt-4o" }
    assert.equal(429, answer.status)
    assert.equal("60", answer.headers["retry-after"])
    assert.equal(60000, world:health("limited/gpt-4o").out_for_ms)
    assert.equal(200, world:request({ model = "gpt-4o" }).status)
    world:advance("59s")
    world:request { model = "gpt-4o" }
    world:advance("1s")
    assert.equal(200, world:request({ model = "gpt-4o" }).status)
    assert.same({ "limited/gpt-4o", "reserve/gpt-4o", "reserve/gpt-4o", "limited/gpt-4o" },
      world:called())
  end)

  it("stays within a group as long as one of it is left", function()
    for _ = 1, 50 do world:request { model = "gpt-4o-mini", headers = MEMBERS } end
    local counts = {}
    for _, name in ipairs(world:called()) do counts[name] = (counts[name] or 0) + 1 end
    assert.equal(1, counts["limited/gpt-4o-mini"])
    assert.equal(49, counts["member/gpt-4o-mini"])
    assert.is_nil(counts["reserve/gpt-4o-mini"])
  end)

  it("hands over to the next group when the operator takes the last one out", function()
    world:eject("limited", "5m")
    world:eject("member/gpt-4o-mini")
    assert.equal("Hello from reserve/gpt-4o-mini.",
      world:request({ model = "gpt-4o-mini", headers = MEMBERS }):text())
    world:restore("member/gpt-4o-mini")
    assert.equal("Hello from member/gpt-4o-mini.",
      world:request({ model = "gpt-4o-mini", headers = MEMBERS }):text())
  end)

  it("repeats nothing within a request", function()
    world:upstream("reserve"):always(503)
    world:upstream("limited"):always(503)
    world:advance("30s")
    assert.equal(503, world:request({ model = "gpt-4o" }).status)
    assert.equal(1, #world:called())
  end)
end)
