local testing = require "perilune.testing"

describe("by_field", function()
  local world
  before_each(function() world = testing.world {} end)

  local function called(metadata)
    local answer = world:request { body = { model = "plans", metadata = metadata,
      messages = { { role = "user", content = "Hello" } } } }
    assert.equal(200, answer.status)
    return world:called()
  end

  it("follows the first rule that holds", function()
    assert.same({ "hosted/large" }, called { plan = "enterprise", region = "eu" })
  end)

  it("follows a later one", function()
    assert.same({ "own/small" }, called { plan = "standard", region = "eu" })
  end)

  it("has a target for everybody else, whatever they send", function()
    assert.same({ "own/small" }, called { plan = "gold" })
    assert.same({ "own/small", "own/small" }, called(nil))
    assert.same({ "own/small", "own/small", "own/small" }, called("enterprise"))
  end)

  it("lets the others stand in", function()
    world:upstream("hosted"):always(503)
    assert.same({ "hosted/large", "own/small" }, called { plan = "enterprise" })
  end)

  it("keeps the metadata to itself", function()
    called { plan = "trial" }
    assert.is_nil(world:calls()[1].json.metadata)
  end)
end)
