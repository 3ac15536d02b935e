--- Which targets are tried, when, with what, and what the client gets.

local support = require "support"

local function config(providers, targets, more)
  return ([[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  %s
  providers = { %s },
  routes = { { match = { model = "*" }, targets = { %s }, %s } },
}
]]):format(more and more.top or "", providers, targets, more and more.route or "")
end

local QUICK = [[
  retry = { attempts = %d, backoff = { base = "%s", max = "8s", floor = "1ms" } },
  deadline = "%s"]]

local function quick(attempts, base, deadline)
  return { route = QUICK:format(attempts or 3, base or "1ms", deadline or "10s") }
end

local function provider(name, up, more)
  return ('%s = { api = "openai", url = "%s/v1", %s }, '):format(name, up.url, more or "")
end

local function answering(status, body, headers)
  return support.answering(function() return status, body or { ok = true }, headers end)
end

describe("attempts", function()
  after_each(support.finish)

  it("go down the priorities without waiting, and say so", function()
    local first, second, third = answering(503), answering(429), answering(200, { id = "third" })
    local gw = support.gateway({ config = config(
      provider("a", first) .. provider("b", second) .. provider("c", third),
      [[{ provider = "c", model = "m3", priority = 2 }, { provider = "a", model = "m1" },
        { provider = "b", model = "m2", priority = 1 }]], quick(3, "8s")) })
    local since = support.now()
    local answer = gw:chat({ headers = { ["X-Request-Id"] = "my-own-id" } })
    assert.is_true(support.now() - since < 6)
    assert.equal(200, answer.status)
    assert.equal("third", answer:json().id)
    assert.equal("my-own-id", answer.headers["x-request-id"])
    assert.equal("c/m3", answer.headers["x-perilune-target"])
    assert.equal("3", answer.headers["x-perilune-attempts"])
    assert.truthy(answer.headers["x-perilune-trail"]:match(
      "^a/m1;503;%d+ms, b/m2;429;%d+ms, c/m3;200;%d+ms$"))
    assert.equal("m1", first.requests[1]:json().model)
    assert.equal("m2", second.requests[1]:json().model)
    assert.equal("m3", third.requests[1]:json().model)
    assert.equal("my-own-id", third.requests[1].headers["x-request-id"])
  end)

  it("splice the body and leave the rest of it byte for byte", function()
    local up = answering(200)
    local gw = support.gateway({ config = config(provider("a", up),
      [[{ provider = "a", model = "real \"model\"",
          body = { set = { top_k = 5, tags = { "x" } }, unset = { "secret_field" } } }]]) })
    local sent = '{ "model" : "" , "n":12345678901234567890,"empty":[], '
      .. '"secret_field":{"a":[1]},"x":1e2 }'
    local answer = gw:request({ path = "/v1/chat/completions", body = sent, method = "POST",
      headers = { ["Content-Type"] = "application/json" } })
    assert.equal(200, answer.status)
    local body = up.requests[1].body
    assert.truthy(body:find([["model" : "real \"model\""]], 1, true))
    assert.truthy(body:find('"n":12345678901234567890,"empty":[]', 1, true))
    assert.falsy(body:find("secret_field", 1, true))
    local parsed = up.requests[1]:json()
    assert.equal(5, parsed.top_k)
    assert.same({ "x" }, parsed.tags)
    assert.equal(100, parsed.x)
  end)

  it("set and remove headers per target, and keep credentials apart", function()
    local keyed, passing, open = answering(503), answering(503), answering(200)
    local gw = support.gateway({ config = config(
      provider("keyed", keyed, 'key = "sk-of-keyed"') ..
      provider("passing", passing, 'auth = "passthrough"') ..
      provider("open", open, 'headers = { ["X-Team"] = "blue" }'),
      [[{ provider = "keyed" }, { provider = "passing", priority = 1 },
        { provider = "open", priority = 2,
          headers = { set = { ["X-New"] = "1" }, remove = { "x-old" } } }]], quick(3)) })
    local answer = gw:chat({ headers = { Authorization = "Bearer client-key",
      ["X-Old"] = "yes", Cookie = "session=1", ["X-Api-Key"] = "client-key-2" } })
    assert.equal(200, answer.status)
    local one, two, three = keyed.requests[1], passing.requests[1], open.requests[1]
    assert.equal("Bearer sk-of-keyed", one.headers.authorization)
    assert.falsy(one.raw:find("client-key", 1, true))
    assert.falsy(one.headers.cookie)
    assert.equal("yes", one.headers["x-old"])
    assert.equal("Bearer client-key", two.headers.authorization)
    assert.equal("client-key-2", two.headers["x-api-key"])
    assert.falsy(two.raw:find("sk-of-keyed", 1, true))
    assert.falsy(three.headers.authorization)
    assert.falsy(three.raw:find("client-key", 1, true))
    assert.falsy(three.raw:find("sk-of-keyed", 1, true))
    assert.equal("1", three.headers["x-new"])
    assert.equal("blue", three.headers["x-team"])
    assert.falsy(three.headers["x-old"])
  end)

  it("give Anthropic's API its key and its version", function()
    local keyed, versioned, set = answering(503), answering(503), answering(200)
    local providers = provider("keyed", keyed, 'key = "sk-of-keyed"')
      .. provider("versioned", versioned, 'headers = { ["Anthropic-Version"] = "2026-01-01" }')
      .. provider("set", set)
    local gw = support.gateway({ config = config((providers:gsub('"openai"', '"anthropic"')),
      [[{ provider = "keyed" }, { provider = "versioned", priority = 1 },
        { provider = "set", priority = 2,
          headers = { set = { ["Anthropic-Version"] = "2026-02-02" } } }]], quick(3)) })
    local function ask(headers)
      local answer = gw:request({ path = "/v1/messages", method = "POST", headers = headers,
        json = { model = "gpt-4", max_tokens = 1, messages = {} } })
      assert.equal(200, answer.status)
    end
    ask({ ["X-Api-Key"] = "client-key" })
    ask({ ["X-Api-Key"] = "client-key", ["anthropic-version"] = "2025-05-05" })
    local bare, own = keyed.requests[1], keyed.requests[2]
    assert.equal("sk-of-keyed", bare.headers["x-api-key"])
    assert.falsy(bare.headers.authorization)
    assert.equal("2023-06-01", bare.headers["anthropic-version"])
    assert.equal("2025-05-05", own.headers["anthropic-version"])
    for number = 1, 2 do
      assert.equal("2026-01-01", versioned.requests[number].headers["anthropic-version"])
      assert.equal("2026-02-02", set.requests[number].headers["anthropic-version"])
      assert.falsy(versioned.requests[number].raw:find("client-key", 1, true))
    end
  end)

  it("do not share a connection between passed-through credentials", function()
    local up = answering(200)
    local gw = support.gateway({ workers = 1,
      config = config(provider("a", up, 'auth = "passthrough"'), '{ provider = "a" }') })
    for _, key in ipairs({ "one", "two", "one", "two" }) do
      gw:chat({ headers = { Authorization = "Bearer " .. key } })
    end
    assert.equal(4, #up.requests)
    assert.equal(2, #up.connections)
  end)

  it("reuse connections otherwise", function()
    local up = answering(200)
    local gw = support.gateway({ workers = 1,
      config = config(provider("a", up, 'key = "k"'), '{ provider = "a" }') })
    for _ = 1, 5 do gw:chat() end
    assert.equal(1, #up.connections)
  end)

  it("end with the last target's own error", function()
    local first = answering(503)
    local last = answering(429, { error = { message = "slow down", type = "x", code = "y" } },
      { ["Retry-After"] = "7" })
    local gw = support.gateway({ config = config(provider("a", first) .. provider("b", last),
      '{ provider = "a" }, { provider = "b", priority = 1 }', quick(2)) })
    local answer = gw:chat()
    assert.equal(429, answer.status)
    assert.equal("slow down", answer:json().error.message)
    assert.equal("7", answer.headers["retry-after"])
  end)

  it("leave a plain 400 alone, and its body", function()
    local first = answering(400,
      { error = { message = "bad temperature", type = "invalid_request_error" } })
    local second = answering(200)
    local gw = support.gateway({ config = config(provider("a", first) .. provider("b", second),
      '{ provider = "a" }, { provider = "b", priority = 1 }', quick(3)) })
    local answer = gw:chat()
    assert.equal(400, answer.status)
    assert.equal("bad temperature", answer:json().error.message)
    assert.equal(0, #second.requests)
  end)

  it("go on when the context is too long for the first target", function()
    local first = answering(400, { error = { message = "This model's maximum context length is 10",
      type = "invalid_request_error", code = "context_length_exceeded" } })
    local second = answering(200)
    local gw = support.gateway({ config = config(provider("a", first) .. provider("b", second),
      '{ provider = "a" }, { provider = "b", priority = 1 }', quick(3)) })
    assert.equal(200, gw:chat().status)
    assert.equal(1, #first.requests)
  end)

  it("answer 502 in OpenAI's form when nothing answered", function()
    local port = support.refused_port()
    local gw = support.gateway({ config = config(
      ('a = { api = "openai", url = "http://127.0.0.1:%d/v1" }'):format(port),
      '{ provider = "a" }', quick(2)) })
    local answer = gw:chat()
    assert.equal(502, answer.status)
    assert.equal("connect", answer:json().error.code)
    assert.equal("upstream_error", answer:json().error.type)
    assert.truthy(answer.headers["x-perilune-trail"]:find("a;connect;", 1, true))
    assert.equal("2", answer.headers["x-perilune-attempts"])
  end)

  it("answer 502 for a name that cannot be resolved", function()
    local gw = support.gateway({ config = config(
      [[a = { api = "openai", url = "http://no-such-host.invalid/v1",
              timeouts = { connect = "2s" } }]],
      '{ provider = "a" }', quick(1)) })
    local answer = gw:chat()
    assert.truthy(answer.status == 502 or answer.status == 504)
    assert.truthy(answer.headers["x-perilune-trail"]:find("a;dns;", 1, true)
      or answer.headers["x-perilune-trail"]:find("a;timeout_connect;", 1, true))
  end)

  it("answer 504 when the head does not come in time", function()
    local hanging = support.upstream(function(conn)
      conn:read_request()
      conn:wait_closed(10)
    end)
    local gw = support.gateway({ config = config(
      provider("a", hanging, 'timeouts = { head = "120ms" }'), '{ provider = "a" }', quick(1)) })
    local answer = gw:chat()
    assert.equal(504, answer.status)
    assert.equal("timeout_head", answer:json().error.code)
  end)

  it("end a try at its own limit, and go on", function()
    local slow = support.upstream(function(conn)
      conn:read_request()
      conn:wait_closed(10)
    end)
    local good = answering(200)
    local gw = support.gateway({ config = config(
      provider("a", slow, 'timeouts = { try = "120ms" }') .. provider("b", good),
      '{ provider = "a" }, { provider = "b", priority = 1 }', quick(3)) })
    local answer = gw:chat()
    assert.equal(200, answer.status)
    assert.truthy(answer.headers["x-perilune-trail"]:find("a;timeout_try;1", 1, true))
  end)

  it("stop at the request's deadline", function()
    local hanging = support.upstream(function(conn)
      conn:read_request()
      conn:wait_closed(10)
    end)
    local gw = support.gateway({ config = config(provider("a", hanging), '{ provider = "a" }',
      quick(5, "1ms", "200ms")) })
    local since = support.now()
    local answer = gw:chat()
    assert.equal(504, answer.status)
    assert.equal("timeout_deadline", answer:json().error.code)
    assert.is_true(support.now() - since < 8) -- the upstream leaves after 10 s
  end)

  it("wait for Retry-After when it fits, and only then", function()
    local calls = 0
    local up = support.answering(function()
      calls = calls + 1
      if calls == 1 then return 429, { error = {} }, { ["retry-after-ms"] = "250" } end
      return 200, { ok = true }
    end)
    local one_target = config(provider("a", up), '{ provider = "a" }', quick(3))
    local gw = support.gateway({ config = one_target })
    local since = support.now()
    assert.equal(200, gw:chat().status)
    assert.is_true(support.now() - since >= 0.2)

    local far = answering(429, { error = {} }, { ["Retry-After"] = "60" })
    gw = support.gateway({ config = config(provider("a", far), '{ provider = "a" }', quick(3)) })
    since = support.now()
    assert.equal(429, gw:chat().status)
    assert.is_true(support.now() - since < 9)
    assert.equal(1, #far.requests)
  end)

  it("share by weight within a priority", function()
    local a, b = answering(200), answering(200)
    local gw = support.gateway({ config = config(provider("a", a) .. provider("b", b),
      '{ provider = "a", weight = 80 }, { provider = "b", weight = 20 }') })
    local connection = support.connect(gw)
    for _ = 1, 300 do
      local answer = connection:request({ path = "/v1/chat/completions", json = { model = "m" } })
      assert.equal(200, answer.status)
    end
    -- 240 expected; five standard deviations are 35
    assert.is_true(#a.requests > 205 and #a.requests < 275, "a served " .. #a.requests)
    assert.equal(300, #a.requests + #b.requests)
  end)

  it("lose no request when the primary dies in between", function()
    local primary = answering(200, { from = "primary" })
    local second = answering(200, { from = "second" })
    local gw = support.gateway({ config = config(provider("a", primary) .. provider("b", second),
      '{ provider = "a" }, { provider = "b", priority = 1 }', quick(3)) })
    for number = 1, 20 do
      if number == 8 then primary:stop() end
      local answer = gw:chat()
      assert.equal(200, answer.status)
      assert.equal(number < 8 and "primary" or "second", answer:json().from)
    end
  end)

  it("keep quiet about themselves when told so", function()
    local up = answering(200)
    local gw = support.gateway({ config = config(provider("a", up), '{ provider = "a" }',
      { top = "response_headers = false," }) })
    local answer = gw:chat()
    assert.equal(200, answer.status)
    assert.falsy(answer.headers["x-perilune-target"])
    assert.falsy(answer.headers["x-perilune-trail"])
    assert.truthy(answer.headers["x-request-id"])
  end)
end)
