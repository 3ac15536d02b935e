local gateways = require "gateways"

local POLICY = "degrade"
local TARGETS = { { provider = "big" }, { provider = "small", priority = 1 } }

local function degrade(options)
  return gateways.world(POLICY, TARGETS, options)
end

--- What the call asked the target for, but for the prompt.
local function limits(call)
  local body = call.json
  return { max_tokens = body.max_tokens, max_completion_tokens = body.max_completion_tokens }
end

describe("degrade", function()
  it("leaves the request to the big model alone", function()
    local world = degrade()
    world:request { model = "smart", body = { max_tokens = 4000 } }
    assert.same({ "big" }, world:called())
    assert.same({ max_tokens = 4000 }, limits(world:calls()[1]))
  end)

  it("caps what the small model may write", function()
    local cases = {
      { {}, { max_tokens = 512 } },
      { { max_tokens = 4000 }, { max_tokens = 512 } },
      { { max_tokens = 512 }, { max_tokens = 512 } },
      { { max_tokens = 100 }, { max_tokens = 100 } },
      { { max_completion_tokens = 4000 }, { max_completion_tokens = 512 } },
      { { max_completion_tokens = 7 }, { max_completion_tokens = 7 } },
      { { max_tokens = 9000, max_completion_tokens = 8000 },
        { max_tokens = 512, max_completion_tokens = 512 } },
      { { max_tokens = 9000, max_completion_tokens = 7 },
        { max_tokens = 512, max_completion_tokens = 7 } },
      { { max_tokens = "many" }, { max_tokens = 512 } },
    }
    local world = degrade()
    world:upstream("big"):always(429)
    for number, case in ipairs(cases) do
      assert.equal(200, world:request({ model = "smart", body = case[1] }).status)
      local big, small = world:calls()[number * 2 - 1], world:calls()[number * 2]
      assert.same({ "big", "small" }, { big.target, small.target })
      assert.same(case[1], limits(big))
      assert.same(case[2], limits(small))
    end
  end)

  it("does so when the big model is slow, too", function()
    local world = degrade { route = { targets = {
      { provider = "big", timeouts = { head = "9s", first_token = "4s" } },
      { provider = "small", priority = 1 } } } }
    world:upstream("big"):answers("hang", { first = "1m" })
    local answer = world:request { model = "smart" }
    assert.same({ 200, 9000 }, { answer.status, answer.duration_ms })
    answer = world:request { model = "smart", stream = true }
    assert.same({ "Hello from small.", 4000 }, { answer:text(), answer.duration_ms })
  end)

  it("lifts the cap when a later round comes back to the big model", function()
    local world = degrade()
    world:upstream("big"):answers(503, 200, 503, 200)
    world:upstream("small"):always(503)
    world:request { model = "smart", body = { max_tokens = 4000 } }
    assert.same({ "big", "small", "big" }, world:called())
    assert.same({ max_tokens = 4000 }, limits(world:calls()[3]))
    world:request { model = "smart" }
    assert.same({}, limits(world:calls()[6]))
  end)

  it("sets no limit where the endpoint knows none", function()
    local world = degrade()
    world:upstream("big"):always(429)
    world:request { model = "smart", path = "/v1/embeddings" }
    assert.same({ "big", "small" }, world:called())
    assert.same({}, limits(world:calls()[2]))
  end)

  it("survives a body that is not JSON", function()
    local world = degrade()
    world:upstream("big"):always(429)
    local answer = world:request { path = "/v1/old/completions", body = "--boundary",
      headers = { ["Content-Type"] = "application/octet-stream" } }
    assert.equal(200, answer.status)
    assert.equal("--boundary", world:calls()[2].body)
  end)

  it("goes on for what it says, and for nothing else", function()
    gateways.check_moves(POLICY, { [401] = false, [402] = false, [403] = false, [404] = false,
      [413] = false, context_length = false, billing = false, key = false, truncated = true })
  end)
end)
