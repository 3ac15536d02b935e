--- What operators ask of the configuration: what would become of a request, and what is in force.

local cjson = require "cjson.safe"
local support = require "support"

local KEY = "sk-aaaabbbbccccdddd4f2a"
local CONFIG = [[
return {
  admin = { token = "t0ken-t0ken-t0ken" },
  providers = {
    a = { url = "%s/base", key = secret "A_KEY", headers = { ["x-team"] = "blue" } },
    b = { url = "%s/v1", headers = { ["x-api-key"] = "short", ["x-note"] = "with " .. env "A_KEY" } },
    c = { url = "%s/v1" },
  },
  routes = {
    { name = "posts", match = { model = "gpt-*", method = "PUT" }, targets = { { provider = "c" } } },
    { name = "keyed", match = { headers = { ["X-Secret-Route"] = "open-sesame-open-sesame" } },
      targets = { { provider = "c" } } },
    { name = "chat", match = { model = "gpt-*" }, deadline = "30s", panic = "fail",
      deadline_header = "x-timeout-ms",
      targets = {
        { provider = "a", model = "big", weight = 3, body = { set = { user = secret "A_KEY" },
          unset = { "seed" } } },
        { provider = "b", weight = 1, limits = { concurrent = 1, queue = 2 } },
        { provider = "c", weight = 0 },
        { provider = "a", model = "small", priority = 1 } },
      retry = { attempts = 4, backoff = { base = "100ms", max = "100ms", floor = "100ms" } } },
    { name = "rest", match = { model = "*" }, targets = { { provider = "b" } } },
  } }]]

describe("what operators ask", function()
  local gw, up

  before_each(function()
    up = support.answering(function()
      support.wait_until("the word to answer", function() return up.open end)
      return 200, { id = "x" }
    end)
    gw = support.gateway { config = CONFIG:format(up.url, up.url, up.url), env = { A_KEY = KEY } }
  end)
  after_each(support.finish)

  local function ask(path, body)
    return gw:admin { path = path, method = body and "POST" or "GET", body = body,
      headers = { Authorization = "Bearer t0ken-t0ken-t0ken" } }
  end

  local function explain(request)
    local answer = ask("/admin/explain", type(request) == "string" and request
      or cjson.encode(request))
    assert.equal(200, answer.status, answer.body)
    return answer:json(), answer.body
  end

  local function change(what)
    assert.equal(200, ask("/admin/targets/" .. what, "").status)
  end

  local function names(list)
    local out = {}
    for position, item in ipairs(list) do out[position] = item.target end
    table.sort(out)
    return table.concat(out, " ")
  end

  it("says which route serves a request, and why the others do not", function()
    local answer = explain { model = "gpt-4" }
    assert.equal("chat", answer.route.name)
    assert.equal("fallback", answer.route.policy)
    assert.same({ 30000, 30000 }, { answer.route.deadline_ms, answer.deadline_ms })
    assert.equal(4, answer.route.retry.attempts)
    local whys = {}
    for position, route in ipairs(answer.routes) do whys[position] = route.why end
    assert.same({ "the method is POST, not PUT",
      "the header x-secret-route does not have the value that is asked for",
      "the first that matches", "matches, too; an earlier one comes first" }, whys)
    assert.equal("posts", explain({ method = "PUT", model = "gpt-4" }).route.name)
    assert.equal("keyed", explain({ model = "x",
      headers = { ["X-SECRET-ROUTE"] = "open-sesame-open-sesame" } }).route.name)
    assert.equal("rest", explain({ path = "/v1/files", method = "GET" }).route.name)
    assert.equal("unknown_url", explain({ path = "/v2/files" }).refused)
    local function timed(text)
      return explain { model = "gpt-4", headers = { ["X-Timeout-Ms"] = text } }
    end
    assert.equal(1500, timed("1500").deadline_ms)
    assert.same({ "invalid_deadline" }, { timed("soon").refused, timed("soon").route })
  end)

  it("says who would be tried, in which order, and with what share", function()
    local answer = explain { model = "gpt-4" }
    assert.equal("a/big b c a/small", (names { answer.candidates[1], answer.candidates[2] }) .. " "
      .. answer.candidates[3].target .. " " .. answer.candidates[4].target)
    assert.same({}, answer.left_out)
    assert.equal("attempts", answer.ends)
    for _, item in ipairs(answer.candidates) do
      local share = ({ ["a/big"] = 0.75, b = 0.25 })[item.target] or 0
      assert.equal(share, item.share_ratio)
      assert.equal("closed", item.state)
    end
  end)

  it("says who is left out and why", function()
    change("eject?target=a/big&for=5m")
    change("drain?provider=c")
    local busy = {}
    support.spawn("client", function() busy.answer = gw:chat { model = "y" } end)
    up:wait_requests(1) -- b has as many as it may
    local answer = explain { model = "gpt-4" }
    assert.equal("a/small", answer.candidates[1].target)
    local whys = {}
    for _, item in ipairs(answer.left_out) do whys[item.target] = item.why end
    assert.same({ ["a/big"] = "operator", c = "provider_drained", b = "busy" }, whys)
    for _, item in ipairs(answer.left_out) do
      if item.target == "a/big" then
        assert.is_true(item.out_for_ms > 290000 and item.out_for_ms <= 300000)
      end
    end
    change("eject?provider=a")
    answer = explain { model = "gpt-4" }
    assert.same({}, answer.candidates)
    assert.equal("would_queue", answer.ends)
    assert.equal("b", answer.queue_target)
    up.open = true
    support.wait_until("the answer", function() return busy.answer end)
    change("eject?target=b")
    assert.equal("all_ejected", explain({ model = "gpt-4" }).ends)
  end)

  it("shows what the first would get, exactly, without credentials", function()
    change("eject?target=b")
    change("eject?target=c")
    local answer, text = explain('{"body":{"seed":1,"n":12345678901234567890,"model":"gpt-4",'
      .. '"tools":[],"f":1.50}}')
    assert.equal("a/big", answer.first.target)
    assert.equal(up.url .. "/base/chat/completions", answer.first.url)
    assert.truthy(text:find('"body":{"n":12345678901234567890,"model":"big","tools":[],"f":1.50,'
      .. '"user":"sk-…4f2a"}', 1, true), text)
    assert.falsy(text:find(KEY, 1, true))
  end)

  it("sends nothing and leaves no trace", function()
    for _ = 1, 20 do explain { model = "gpt-4" } end
    assert.equal(0, #up.requests)
    for _, target in ipairs(ask("/admin/targets"):json().targets) do
      assert.equal(0, target.in_flight)
      assert.equal(0, target.counters.ok + target.counters.neutral + target.counters.probes)
    end
  end)

  it("refuses what is no question", function()
    for body, message in pairs {
      [""] = "a JSON object is expected", ["[]"] = "a JSON object is expected",
      ["{"] = "a JSON object is expected", ['{"mode":"x"}'] = "only method, path",
      ['{"model":1}'] = "model: a string", ['{"path":"v1"}'] = "path: a string",
      ['{"headers":[]}'] = "headers: an object", ['{"body":"x"}'] = "body: an object",
      ['{"body":{"model":2}}'] = "body.model: a string",
    } do
      local answer = ask("/admin/explain", body)
      assert.equal(400, answer.status)
      assert.truthy(answer:json().error.message:find(message, 1, true), answer.body)
    end
    assert.equal(401, gw:admin({ path = "/admin/explain", method = "POST", body = "{}" }).status)
  end)

  it("shows the configuration without its secrets", function()
    for _, path in ipairs { "/admin/config", "/admin/routes" } do
      local answer = ask(path)
      assert.equal(200, answer.status)
      for _, secret in ipairs { KEY, "t0ken-t0ken", "short", "open-sesame-open" } do
        assert.falsy(answer.body:find(secret, 1, true), secret)
      end
      assert.equal(401, gw:admin({ path = path }).status)
    end
    local config = ask("/admin/config"):json()
    local a, b = config.providers[1], config.providers[2]
    assert.equal("sk-…4f2a", a.key)
    assert.equal("blue", a.headers["x-team"])
    assert.equal("…", b.headers["x-api-key"])
    assert.equal("with sk-…4f2a", b.headers["x-note"])
    assert.equal("t0k…0ken", config.admin.token)
    assert.equal("sk-…4f2a", config.targets[3].set_body.user)
    assert.equal(4, a.line)
    local routes = ask("/admin/routes"):json().routes
    assert.equal("chat", routes[3].name)
    assert.equal(12, routes[3].line)
    assert.equal("gpt-*", routes[3].match.model)
    assert.same({ name = "a/big", provider = "a", model = "big", priority = 0, weight = 3 },
      routes[3].targets[1])
  end)
end)
