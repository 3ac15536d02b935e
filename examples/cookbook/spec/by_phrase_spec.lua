local testing = require "perilune.testing"

local SORRY = "I'm sorry, I can't help with that."

describe("by_phrase", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(stream)
    return world:request { model = "helpful", stream = stream,
      messages = { { role = "user", content = "How do I kill a process?" } } }
  end

  it("asks the next target when the answer is a refusal", function()
    world:upstream("own"):always { words = SORRY }
    world:upstream("hosted"):always { words = "kill PID" }
    local answer = ask()
    assert.equal("kill PID", answer:text())
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("gives the client the last refusal when all refuse", function()
    world:upstream("own"):always { words = SORRY }
    world:upstream("hosted"):always { words = "I cannot help with that either." }
    local answer = ask()
    assert.equal(200, answer.status)
    assert.equal("complete", answer.ended)
    assert.equal("I cannot help with that either.", answer:text())
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("does not mind the phrase within a long answer", function()
    local story = ("once upon a time "):rep(20) .. SORRY
    world:upstream("own"):always { words = story }
    assert.equal(story, ask():text())
    assert.same({ "own/small" }, world:called())
  end)

  it("reads errors, too", function()
    world:upstream("own"):always { status = 400, body = "no healthy upstream" }
    assert.equal(200, ask().status)
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("leaves other client errors alone", function()
    world:upstream("own"):always { status = 400, body = { error = { message = "bad" } } }
    assert.equal(400, ask().status)
    assert.same({ "own/small" }, world:called())
  end)

  it("asks the next target when an answer breaks off while it is read", function()
    world:upstream("own"):always "truncated"
    assert.equal(200, ask().status)
    assert.same({ "own/small", "hosted/large" }, world:called())
  end)

  it("lets streams pass as they come", function()
    world:upstream("own"):always { words = SORRY, first = "50ms", every = "100ms" }
    local answer = ask(true)
    assert.equal(SORRY, answer:text())
    assert.is_true(answer.first_byte_ms < answer.duration_ms - 300)
    assert.same({ "own/small" }, world:called())
  end)
end)
