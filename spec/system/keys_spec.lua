--- A provider's keys in the real gateway: several workers, what operators see, reloads. Their turns
-- and ejections by the clock are in spec/kit.

local cjson = require "cjson.safe"
local support = require "support"

local A, B = "sk-first-aaaaaaaaaaaa-0001", "sk-second-bbbbbbbbbb-0002"

local CONFIG = [[
return {
  providers = { many = { url = "%s/v1", keys = { %s },
    health = { base_ejection = "60s", jitter = 0, %s } } },
  routes = { { match = { model = "*" }, targets = { { provider = "many", model = "m" } },
    retry = { attempts = 4, backoff = { base = "1ms", floor = "1ms", max = "1ms" } } } },
}
]]

local function quoted(keys)
  local list = {}
  for position, key in ipairs(keys) do list[position] = ("%q"):format(key) end
  return table.concat(list, ", ")
end

--- An upstream that refuses the keys in `refused`, and counts what it gets by key.
local function make_upstream(refused)
  local up
  up = support.answering(function(request)
    local key = request.headers.authorization:match("^Bearer (.+)$")
    up.seen[key] = (up.seen[key] or 0) + 1
    if up.refused[key] then return 401, { error = { message = "Incorrect API key provided" } } end
    return 200, { id = "x" }
  end)
  up.seen, up.refused = {}, refused or {}
  return up
end

local function start(up, keys, more)
  return support.gateway { workers = 3, config = CONFIG:format(up.url, quoted(keys), more or "") }
end

local function keys_of(gw)
  local answer = gw:admin { path = "/admin/targets" }
  assert.equal(200, answer.status)
  return answer:json().providers[1].keys
end

local function ask(gw, count)
  for _ = 1, count do assert.equal(200, gw:chat().status) end
end

local function write(gw, up, keys)
  gw:write_policy("gateway", CONFIG:format(up.url, quoted(keys), ""))
  assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
end

describe("keys", function()
  after_each(support.finish)

  it("that are refused are out for all workers, and shown without their secret", function()
    local up = make_upstream { [A] = true }
    local gw = start(up, { A, B })
    ask(gw, 12)
    assert.equal(1, up.seen[A])
    assert.equal(12, up.seen[B])
    local keys = keys_of(gw)
    assert.same({ "key 1 of 2 (sk-…0001)", false, "open", "auth" },
      { keys[1].name, keys[1].fit, keys[1].state, keys[1].why })
    assert.is_true(keys[1].out_for_ms > 50000 and keys[1].out_for_ms <= 60000)
    assert.same({ "key 2 of 2 (sk-…0002)", true, "closed" },
      { keys[2].name, keys[2].fit, keys[2].state })
    local metrics = gw:admin({ path = "/metrics" }).body
    assert.is_truthy(metrics:find('perilune_key_out{provider="many",key="1"} 1', 1, true))
    assert.is_truthy(metrics:find('perilune_key_out{provider="many",key="2"} 0', 1, true))
    assert.is_truthy(metrics:find(
      'perilune_key_ejections_total{provider="many",key="1",reason="auth"} 1', 1, true))
  end)

  it("are shown nowhere", function()
    local up = make_upstream { [A] = true }
    local gw = start(up, { A, B })
    ask(gw, 2)
    for _, path in ipairs { "/admin/targets", "/admin/config", "/admin/routes", "/admin/summary",
      "/admin/requests/recent", "/metrics" } do
      local body = gw:admin({ path = path }).body
      assert.is_nil(body:find("aaaaaaaa", 1, true), path)
      assert.is_nil(body:find("bbbbbbbb", 1, true), path)
    end
    local shown = gw:admin({ path = "/admin/config" }):json()
    assert.same({ "sk-…0001", "sk-…0002" }, shown.providers[1].keys)
    local tries = gw:admin({ path = "/admin/requests/recent" }):json().records
    assert.is_true(#tries >= 2)
    local found = {}
    for _, request in ipairs(tries) do
      for _, attempt in ipairs(request.attempts) do
        found[attempt.key] = ("%s %s"):format(attempt.class, attempt.work or "done")
      end
    end
    assert.same({ "auth refused", "ok done" }, found)
  end)

  it("share their connections", function()
    local up = make_upstream()
    local gw = support.gateway { workers = 1, config = CONFIG:format(up.url, quoted { A, B }, "") }
    ask(gw, 6)
    assert.same({ 3, 3 }, { up.seen[A], up.seen[B] })
    local recent = gw:admin({ path = "/admin/requests/recent" }):json().records
    local fresh = 0
    for _, request in ipairs(recent) do
      if not request.attempts[1].reused then fresh = fresh + 1 end
    end
    assert.equal(1, fresh)
  end)

  it("keep their state over a reload, wherever they stand in the list", function()
    local up = make_upstream { [A] = true }
    local gw = start(up, { A, B })
    ask(gw, 4)
    write(gw, up, { B, A })
    assert.same({ true, false }, { keys_of(gw)[1].fit, keys_of(gw)[2].fit })
    ask(gw, 4)
    assert.equal(1, up.seen[A])
    local fresh = "sk-fresh-cccccccccccc-0003"
    write(gw, up, { fresh })
    assert.is_true(keys_of(gw)[1].fit)
    ask(gw, 3)
    assert.equal(3, up.seen[fresh])
  end)

  it("are in service again when an operator restores their provider", function()
    local up = make_upstream { [A] = true, [B] = true }
    local gw = start(up, { A, B })
    assert.equal(401, gw:chat().status)
    assert.equal(503, gw:admin({ path = "/readyz" }).status)
    up.refused = {}
    assert.equal(200, gw:admin({ path = "/admin/targets/restore?provider=many",
      method = "POST" }).status)
    assert.equal(200, gw:admin({ path = "/readyz" }).status)
    ask(gw, 2)
    assert.same({ true, true }, { keys_of(gw)[1].fit, keys_of(gw)[2].fit })
  end)

  it("are what explain says when all are out", function()
    local up = make_upstream { [A] = true, [B] = true }
    local gw = start(up, { A, B })
    gw:chat()
    local answer = gw:admin { path = "/admin/explain", method = "POST",
      headers = { ["Content-Type"] = "application/json" },
      body = cjson.encode { model = "x", path = "/v1/chat/completions" } }
    assert.equal(200, answer.status, answer.body)
    assert.equal("provider_auth", answer:json().candidates[1].in_spite_of)
  end)

  it("that are accepted serve active checks", function()
    local up = make_upstream { [A] = true }
    local gw = start(up, { A, B }, 'active = { interval = "20ms", timeout = "20ms" }')
    ask(gw, 1)
    support.wait_until("checks by the second key", function()
      return (up.seen[B] or 0) > 4
    end)
    assert.is_true(gw:admin({ path = "/admin/targets" }):json().providers[1].fit)
  end)
end)
