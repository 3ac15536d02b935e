local testing = require "perilune.testing"

describe("deny", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(model, user, header)
    return world:request { headers = { ["x-user"] = header }, body = { model = model, user = user,
      messages = { { role = "user", content = "Hello" } } } }
  end

  local function is_denied(answer, code, text)
    local problem = answer:json().error
    assert.equal(403, answer.status)
    assert.equal(code, problem.code)
    assert.is_truthy(problem.message:find(text, 1, true))
    assert.same({}, world:called())
  end

  it("refuses models, and says what to use instead", function()
    is_denied(ask("guarded-2023"), "model_denied", "use guarded")
  end)

  it("refuses users, by the body and by the header", function()
    is_denied(ask("guarded", "mallory@example.com"), "user_denied", "closed")
    is_denied(ask("guarded", nil, "mallory@example.com"), "user_denied", "closed")
  end)

  it("believes the proxy more than the client", function()
    is_denied(ask("guarded", "alice@example.com", "mallory@example.com"), "user_denied", "closed")
  end)

  it("serves everybody else, whatever they call themselves", function()
    for _, user in ipairs { "alice@example.com", 7, true, {} } do
      assert.equal(200, ask("guarded", user).status)
    end
    assert.equal(200, ask("guarded").status)
    assert.equal(5, #world:called())
  end)
end)
