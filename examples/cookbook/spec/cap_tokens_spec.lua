local testing = require "perilune.testing"

describe("cap_tokens", function()
  local world
  before_each(function() world = testing.world {} end)

  --- What the target is asked for.
  local function sent(fields)
    fields.model, fields.messages = "capped", { { role = "user", content = "Hello" } }
    assert.equal(200, world:request({ body = fields }).status)
    local calls = world:calls()
    return calls[#calls].json
  end

  it("cuts what asks for more", function()
    assert.equal(1000, sent({ max_tokens = 100000 }).max_tokens)
    local body = sent { max_completion_tokens = 2000 }
    assert.equal(1000, body.max_completion_tokens)
    assert.is_nil(body.max_tokens)
  end)

  it("leaves what asks for less", function()
    assert.equal(50, sent({ max_tokens = 50 }).max_tokens)
  end)

  it("sets a limit where there is none", function()
    assert.equal(1000, sent({}).max_tokens)
    assert.equal(1000, sent({ max_tokens = "many" }).max_tokens)
  end)

  it("refuses prompts that are too long", function()
    local answer = world:request { model = "capped", messages = { { role = "user",
      content = ("word"):rep(21000) } } }
    assert.equal(400, answer.status)
    assert.equal("prompt_too_long", answer:json().error.code)
    assert.is_truthy(answer:json().error.message:find("20000 are allowed", 1, true))
    assert.same({}, world:called())
  end)
end)
