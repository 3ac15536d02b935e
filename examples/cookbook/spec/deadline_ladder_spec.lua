local testing = require "perilune.testing"

describe("deadline_ladder", function()
  local world
  before_each(function()
    world = testing.world {}
    world:upstream("hosted/medium"):always { words = "from medium" }
    world:upstream("own"):always { words = "from small" }
  end)

  local function ask(left_ms, fields)
    local request = { model = "prompt", headers = { ["x-request-timeout-ms"] = left_ms } }
    for key, value in pairs(fields or {}) do request[key] = value end
    return world:request(request)
  end

  it("begins with the best model that fits into the client's time", function()
    for left_ms, name in pairs { ["20000"] = "hosted/large", ["12000"] = "hosted/large",
      ["11999"] = "hosted/medium", ["4999"] = "own/small", ["500"] = "own/small" } do
      world = testing.world {}
      assert.equal(200, ask(left_ms).status)
      assert.same({ name }, world:called(), left_ms)
    end
  end)

  it("goes by the route's deadline when the client says nothing", function()
    ask(nil)
    assert.same({ "hosted/large" }, world:called())
  end)

  it("leaves each rung in time for the next", function()
    world:upstream("hosted/large"):always "hang"
    world:upstream("hosted/medium"):always "hang"
    local answer = ask("16000")
    assert.same({ "from small", 14000 }, { answer:text(), answer.duration_ms })
    assert.same({ "hosted/large", "hosted/medium", "own/small" }, world:called())
    assert.equal(11000, world:calls()[2].at_ms)
    assert.equal(14000, world:calls()[3].at_ms)
  end)

  it("keeps the answer short when little is left", function()
    ask("3999")
    assert.equal(150, world:calls()[1].json.max_tokens)
    ask("4500")
    assert.is_nil(world:calls()[2].json.max_tokens)
  end)

  it("does not cut a stream that has begun", function()
    world:upstream("hosted/large"):always { words = 60, every = "200ms" }
    local answer = ask("15000", { stream = true })
    assert.same({ "complete", 1 }, { answer.ended, #world:calls() })
  end)

  it("says that time is over when nobody has answered", function()
    world:upstream("hosted/large"):always "hang"
    world:upstream("hosted/medium"):always "hang"
    world:upstream("own"):always "hang"
    local answer = ask("8000")
    assert.same({ 504, 8000 }, { answer.status, answer.duration_ms })
  end)

  it("refuses a time that is none", function()
    assert.equal("invalid_deadline", ask("soon"):json().error.code)
  end)
end)
