local testing = require "perilune.testing"

local function failure(code)
  return { status = 400, body = { error = { message = "no", code = code } } }
end

describe("by_class", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask()
    return world:request { model = "careful", messages = { { role = "user", content = "Hello" } } }
  end

  it("goes to the large model with what is too long", function()
    world:upstream("own"):always(failure "context_length_exceeded")
    assert.equal(200, ask().status)
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("goes to the less strict one with what was filtered", function()
    world:upstream("own"):always(failure "content_filter")
    assert.equal(200, ask().status)
    assert.same({ "own/small", "hosted/lenient" }, world:called())
  end)

  it("goes to the next of the usual ones for the rest", function()
    world:upstream("own"):always(503)
    assert.equal(200, ask().status)
    assert.same({ "own/small", "spare/small" }, world:called())
  end)

  it("never asks the special ones for the rest", function()
    world:upstream("own"):always(503)
    world:upstream("spare"):always(503)
    assert.equal(503, ask().status)
    for _, name in ipairs(world:called()) do assert.is_nil(name:find("hosted", 1, true)) end
  end)

  it("takes what the special one says as final", function()
    world:upstream("own"):always(failure "content_filter")
    world:upstream("hosted"):always(429)
    assert.equal(429, ask().status)
    assert.same({ "own/small", "hosted/lenient" }, world:called())
  end)
end)
