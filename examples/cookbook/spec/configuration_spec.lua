--- The recipes that need no policy of their own.

local testing = require "perilune.testing"

describe("the configuration", function()
  local world
  before_each(function() world = testing.world {} end)

  local function ask(model, fields, headers)
    local body = { model = model, messages = { { role = "user", content = "Hello" } } }
    for key, value in pairs(fields or {}) do body[key] = value end
    return world:request { body = body, headers = headers }
  end

  it("sends what can wait to the cheap model, whatever it asks for", function()
    ask("gpt-4o", nil, { ["x-priority"] = "batch" })
    assert.same({ "own/small" }, world:called())
    assert.equal("small", world:calls()[1].json.model)
  end)

  it("knows aliases, and has a default", function()
    ask("gpt-4")
    ask("gpt-4o")
    ask("something-else")
    assert.same({ "hosted/large", "hosted/large", "own/small" }, world:called())
    assert.equal("large", world:calls()[1].json.model)
  end)

  it("has no default for other endpoints", function()
    local body = { model = "something-else", input = "Hello" }
    assert.equal(404, world:request({ path = "/v1/embeddings", body = body }).status)
  end)

  it("falls back on the statuses that it names, twice at each priority", function()
    world:upstream("hosted"):always(503)
    assert.equal(200, ask("reliable").status)
    assert.same({ "hosted/large", "hosted/large", "own/small" }, world:called())
  end)

  it("takes other statuses as final", function()
    world:upstream("hosted"):always(401)
    assert.equal(401, ask("reliable").status)
    assert.same({ "hosted/large" }, world:called())
  end)

  it("goes to the large window when the small one says that it is too small", function()
    world:upstream("own"):answers({ status = 400, body = { error = {
      message = "This model's maximum context length is 8192 tokens" } } }, 503)
    assert.equal(200, ask("reader").status)
    assert.equal(503, ask("reader").status)
    assert.same({ "own/small", "hosted/large", "own/small" }, world:called())
  end)

  it("answers within the client's time, and keeps some of it for the other target", function()
    world:upstream("hosted"):always "hang"
    local headers = { ["x-request-timeout-ms"] = "8000" }
    local answer = ask("punctual", nil, headers)
    assert.same({ 200, 5000 }, { answer.status, answer.duration_ms })
    assert.same({ "hosted/large", "own/small" }, world:called())
    world:upstream("own"):always "hang"
    answer = ask("punctual", nil, headers)
    assert.same({ 504, 8000 }, { answer.status, answer.duration_ms })
    world = testing.world {}
    world:upstream("hosted"):always "hang"
    assert.same({ 200, 27000 }, { ask("punctual").status, world:calls()[2].at_ms })
  end)

  it("says to those who wait for a stream that it is at work", function()
    world:upstream("hosted"):always { words = "Hello", after = "11s" }
    local answer = ask("punctual", { stream = true })
    assert.same({ 5000, "Hello" }, { answer.first_byte_ms, answer:text() })
    assert.equal(2, select(2, answer.body:gsub(": perilune waiting\n\n", "")))
  end)

  it("goes on with the other key when one is refused", function()
    world:upstream("pooled"):always(function(call)
      return call.headers.authorization == "Bearer key-a" and 401 or 200
    end)
    for _ = 1, 4 do assert.equal(200, ask("pooled").status) end
    local refused = 0
    for _, call in ipairs(world:calls()) do
      if call.headers.authorization == "Bearer key-a" then refused = refused + 1 end
    end
    assert.same({ 1, 5 }, { refused, #world:calls() })
  end)

  it("does not ask again for what may have been served", function()
    world:upstream("hosted"):answers("reset", "refuse", 503)
    assert.equal(502, ask("costly").status)
    assert.equal(200, ask("costly").status)
    assert.equal(200, ask("costly").status)
    assert.same({ "hosted/large", "hosted/large", "pooled/large", "hosted/large", "pooled/large" },
      world:called())
  end)

  it("shows the canary to the same few users", function()
    local users, seen = 500, {}
    for _ = 1, 2 do
      for number = 1, users do
        ask("assistant", nil, { ["x-user"] = "user-" .. number })
        local called = world:called()
        local name = called[#called]
        assert.equal(seen[number] or name, name)
        seen[number] = name
      end
    end
    local count = 0
    for _, name in ipairs(seen) do
      if name == "hosted/large-next" then count = count + 1 end
    end
    assert.is_true(count >= 1 and count <= 15, count .. " of " .. users)
  end)

  it("falls back from a canary that fails", function()
    world:upstream("hosted/large-next"):always(500)
    for number = 1, 200 do
      assert.equal(200, ask("assistant", nil, { ["x-user"] = "user-" .. number }).status)
    end
  end)

  it("keeps each user at one machine", function()
    for number = 1, 20 do
      for _ = 1, 2 do ask("chat", { user = "user-" .. number }) end
    end
    local called, machines = world:called(), {}
    for position = 1, #called, 2 do
      assert.equal(called[position], called[position + 1])
      machines[called[position]] = true
    end
    assert.same({ ["own/small"] = true, ["spare/small"] = true }, machines)
  end)

  it("asks for JSON, whatever the client does", function()
    ask("extractor", { response_format = { type = "text" } })
    assert.same({ type = "json_object" }, world:calls()[1].json.response_format)
  end)
end)
