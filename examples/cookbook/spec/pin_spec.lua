local testing = require "perilune.testing"

describe("pin", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(target)
    return world:request { model = "lab", headers = { ["x-target"] = target },
      messages = { { role = "user", content = "Hello" } } }
  end

  it("asks the target that the header names", function()
    for _, name in ipairs { "spare/small", "own/small", "hosted/large" } do
      assert.equal(200, ask(name).status)
    end
    assert.same({ "spare/small", "own/small", "hosted/large" }, world:called())
  end)

  it("lets nothing take over", function()
    world:upstream("spare"):always(503)
    assert.equal(503, ask("spare/small").status)
    for _, name in ipairs(world:called()) do assert.equal("spare/small", name) end
  end)

  it("says when there is no such target", function()
    local answer = ask("hosted/huge")
    assert.equal(400, answer.status)
    assert.equal("unknown_target", answer:json().error.code)
    assert.same({}, world:called())
  end)

  it("does as usual without the header", function()
    assert.equal(200, world:request({ model = "lab", messages = {} }).status)
    assert.equal(1, #world:called())
  end)
end)
