local testing = require "perilune.testing"

describe("by_tokens", function()
  local world
  before_each(function() world = testing.world {} end)

  --- Asks with a prompt of so many tokens; gives the targets that were called.
  local function called(tokens, fields)
    local request = { model = "auto", messages = { { role = "user",
      content = ("word"):rep(tokens) } } }
    for key, value in pairs(fields or {}) do request[key] = value end
    assert.equal(200, world:request(request).status)
    return world:called()
  end

  it("sends short prompts to the small model", function()
    assert.same({ "own/small" }, called(100))
  end)

  it("falls back to the large one", function()
    world:upstream("own"):answers(503)
    assert.same({ "own/small", "hosted/large" }, called(100))
  end)

  it("sends long prompts to the large model at once", function()
    assert.same({ "hosted/large" }, called(7000))
  end)

  it("leaves room for the answer", function()
    assert.same({ "own/small" }, called(5000))
    assert.same({ "own/small", "hosted/large" }, called(5000, { body = {
      model = "auto", max_tokens = 4000,
      messages = { { role = "user", content = ("word"):rep(5000) } },
    } }))
  end)

  it("lets the models decide what seems too long for all of them", function()
    world:upstream("own"):answers { status = 400, body = { error = {
      message = "too long", code = "context_length_exceeded" } } }
    assert.same({ "own/small", "hosted/large" }, called(200000))
  end)
end)
