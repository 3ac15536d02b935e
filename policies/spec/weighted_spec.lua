local gateways = require "gateways"

local POLICY = "weighted"
local TARGETS = {
  { provider = "a", weight = 50 }, { provider = "b", weight = 30 }, { provider = "c", weight = 20 },
  { provider = "spare", priority = 1 },
}

describe("weighted", function()
  it("shares requests by weight", function()
    local world, counts, total = gateways.world(POLICY, TARGETS), { a = 0, b = 0, c = 0 }, 3000
    for _ = 1, total do world:request { model = "virtual" } end
    for _, name in ipairs(world:called()) do counts[name] = counts[name] + 1 end
    local chi = 0
    for name, share in pairs { a = 0.5, b = 0.3, c = 0.2 } do
      chi = chi + (counts[name] - total * share) ^ 2 / (total * share)
    end
    assert.is_true(chi < 13.8, "chi-square " .. chi) -- 2 degrees of freedom, p = 0.001
  end)

  it("tries the siblings before the spare, and logs who was left", function()
    local world = gateways.world(POLICY, TARGETS, { route = { retry = { attempts = 4 } } })
    for _, name in ipairs { "a", "b" } do world:upstream(name):always(503) end
    world:upstream("c"):always("connect")
    for number = 1, 20 do
      assert.equal(200, world:request({ model = "virtual" }).status)
      assert.equal(number * 4, #world:called())
      assert.equal("spare", world:called()[number * 4])
      local _, left = table.concat(world:log(), "\n"):gsub(" left: ", "")
      assert.equal(number * 3, left)
    end
    local log = table.concat(world:log(), "\n")
    assert.matches("c left: connect", log)
    assert.matches("a left: overloaded", log)
  end)

  it("goes on for what it says, and for nothing else", function()
    gateways.check_moves(POLICY)
  end)

  it("gives filtered content to another model", function()
    local world = gateways.pair(POLICY)
    world:upstream("first"):always(gateways.error(400, "content_filter"))
    assert.equal(200, world:request({ model = "virtual" }).status)
    assert.same({ "first", "second" }, world:called())
  end)
end)
