local testing = require "perilune.testing"

describe("hedge", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(fields)
    local body = { model = "quick", stream = true,
      messages = { { role = "user", content = "Hello" } } }
    for key, value in pairs(fields or {}) do body[key] = value end
    return world:request { body = body, stream = body.stream }
  end

  --- Until the tail of the first target is known, it may take 2 s.
  local function learn()
    world:upstream("hosted"):always { words = "Hello from hosted", first = "300ms" }
    for _ = 1, 40 do ask() end
    return #world:called()
  end

  it("asks one target as long as it is as fast as usual", function()
    assert.equal(40, learn())
  end)

  it("asks the next one when it is slower than that, and passes on who is first", function()
    local before = learn()
    world:upstream("hosted"):always { words = "Hello from hosted", first = "20s" }
    world:upstream("spare"):always { words = "Hello from spare", first = "200ms" }
    local answer = ask()
    assert.equal("Hello from spare", answer:text())
    assert.is_true(answer.first_byte_ms < 600, answer.first_byte_ms)
    assert.same({ "hosted/large", "spare/large" }, { unpack(world:called(), before + 1) })
    assert.equal("cancelled", world:calls()[before + 1].outcome)
  end)

  it("knows a time for the first requests", function()
    world:upstream("hosted"):always { words = "Hello from hosted", first = "20s" }
    world:upstream("spare"):always { words = "Hello from spare", first = "0ms" }
    assert.equal(2000, ask().first_byte_ms)
  end)

  it("is for few requests: an upstream that is always slow is not asked for twice", function()
    world:upstream("hosted"):always { words = "Hello from hosted", first = "5s" }
    world:upstream("spare"):always { words = "Hello from spare", first = "1s" }
    for _ = 1, 200 do ask() end
    local second = 0
    for _, name in ipairs(world:called()) do
      if name == "spare/large" then second = second + 1 end
    end
    assert.is_true(second >= 5 and second <= 5 + 200 * 0.05, second)
  end)

  it("leaves alone what nobody waits for, and what is dear", function()
    world:upstream("hosted"):always { after = "10s", words = "Hello from hosted", first = "10s" }
    assert.equal(200, ask({ stream = false }).status)
    local long = { { role = "user", content = ("word "):rep(8000) } }
    assert.equal(200, ask({ messages = long }).status)
    assert.same({ "hosted/large", "hosted/large" }, world:called())
  end)

  it("goes on as ever when a target fails", function()
    world:upstream("hosted"):always(503)
    assert.equal(200, ask().status)
    assert.same({ "hosted/large", "spare/large" }, world:called())
  end)
end)
