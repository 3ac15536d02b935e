local testing = require "perilune.testing"

local FALLBACK = { model = "qwen-with-fallback" }

describe("model-virtualization", function()
  local world

  before_each(function() world = testing.world() end)

  it("shares one name 50 to 30 to 20, each model under its own name", function()
    local counts = {}
    for _ = 1, 100 do world:request { model = "virtual-qwen-model" } end
    for _, call in ipairs(world:calls()) do
      local model = call.json.model
      assert.equal(call.target, call.provider .. "/" .. model)
      counts[model] = (counts[model] or 0) + 1
    end
    assert.same({ ["qwen2.5:7b"] = 50, ["qwen2.5:1.5b"] = 30, ["qwen2.5:0.5b"] = 20 }, counts)
  end)

  it("moves on from every trigger in its list", function()
    local triggers = { 500, 502, 503, 504, 404, 401, 403, "connect", "reset", "hang" }
    for _, trigger in ipairs(triggers) do
      world:restore("large/qwen2.5:7b")
      world:restore("large")
      world:upstream("large"):always(trigger)
      assert.equal("Hello from small/qwen2.5:0.5b.", world:request(FALLBACK):text())
    end
  end)

  it("gives back what another model would refuse, too", function()
    world:upstream("large"):always(400)
    assert.equal(400, world:request(FALLBACK).status)
    assert.same({ "large/qwen2.5:7b" }, world:called())
  end)

  it("tries each of two in turn, six times in all, with waits between rounds", function()
    world:upstream("large"):always(503)
    world:upstream("small"):always(503)
    local answer = world:request(FALLBACK)
    assert.equal(503, answer.status)
    local large, small = "large/qwen2.5:7b", "small/qwen2.5:0.5b"
    assert.same({ large, small, large, small, large, small }, world:called())
    assert.is_true(answer.duration_ms > 0)
  end)

  it("leaves a model alone for five seconds after one failure, for ten after the next", function()
    world:upstream("large"):answers(503, 503, 200)
    world:request(FALLBACK)
    assert.equal("open", world:health("large/qwen2.5:7b").state)
    world:request(FALLBACK)
    world:advance("6s")
    world:request(FALLBACK)
    world:advance("9s")
    world:request(FALLBACK)
    world:advance("3s")
    world:request(FALLBACK)
    local large, small = "large/qwen2.5:7b", "small/qwen2.5:0.5b"
    assert.same({ large, small, small, large, small, small, large }, world:called())
  end)
end)
