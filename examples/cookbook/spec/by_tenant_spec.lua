local testing = require "perilune.testing"

describe("by_tenant", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(tenant)
    return world:request { model = "team-chat", headers = { ["x-tenant"] = tenant },
      messages = { { role = "user", content = "Hello" } } }
  end

  it("asks each tenant's targets in its own order", function()
    world:upstream("hosted"):answers(200, 503)
    world:upstream("own"):answers(200, 503)
    assert.equal(200, ask("acme").status)
    assert.equal(200, ask("bolt").status)
    assert.same({ "hosted/large", "own/small" }, world:called())
  end)

  it("falls back as the tenant may", function()
    world:upstream("own"):always(503)
    assert.equal(200, ask("bolt").status)
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("does not send a tenant's prompts where they may not go", function()
    world:upstream("own"):always(503)
    assert.equal(503, ask("clinic").status)
    for _, name in ipairs(world:called()) do assert.equal("own/small", name) end
  end)

  it("refuses tenants that it does not know, and requests without one", function()
    for _, tenant in ipairs { "nobody", "" } do
      local answer = ask(tenant)
      assert.equal(403, answer.status)
      assert.equal("unknown_tenant", answer:json().error.code)
    end
    assert.equal(403, world:request({ model = "team-chat", messages = {} }).status)
    assert.same({}, world:called())
  end)
end)
