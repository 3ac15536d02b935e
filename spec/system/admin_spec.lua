--- The operators' listener: who is let in, and what it says.

local support = require "support"

local CONFIG = [[
return {
  drain = "20s",
  admin = { %s },
  providers = { one = { url = "%s/v1" } },
  routes = { { match = { model = "*" }, targets = { { provider = "one" } } } },
}
]]

local function start(admin, up)
  local url = up and up.url or "http://127.0.0.1:1"
  return support.gateway({ config = CONFIG:format(admin or "", url) })
end

local function assert_error(answer, status, code)
  assert.equal(status, answer.status)
  assert.equal("application/json", answer.headers["content-type"])
  assert.equal("no-store", answer.headers["cache-control"])
  local problem = answer:json().error
  assert.equal(code, problem.code)
  assert.is_string(problem.message)
end

describe("the admin listener", function()
  after_each(support.finish)

  it("says that the gateway lives and is ready", function()
    local gw = start()
    for path, said in pairs({ ["/healthz"] = "ok", ["/readyz"] = "ready" }) do
      local answer = gw:admin({ path = path })
      assert.equal(200, answer.status)
      assert.equal(said, answer:json().status)
      assert.equal("application/json", answer.headers["content-type"])
      assert.equal("no-store", answer.headers["cache-control"])
      answer = gw:admin({ path = path, method = "HEAD" })
      assert.equal(200, answer.status)
      assert.equal("", answer.body)
    end
    assert.equal(200, gw:admin({ path = "/healthz?from=probe" }).status)
    local probe = support.request({ to = gw.admin_port, raw = "GET /healthz HTTP/1.0\r\n\r\n" })
    assert.equal(200, probe.status)
  end)

  it("is not ready while the gateway drains, and lives", function()
    local up
    up = support.upstream(function(connection)
      connection:read_request()
      connection:start_chunked()
      connection:event({ n = 1 })
      support.wait_until("the word to end", function() return up.may_end end)
      connection:event("[DONE]")
      connection:finish_chunked()
    end)
    local gw = start(nil, up)
    local response = gw:chat({ stream = true, streamed = true })
    local kept = support.connect(gw.admin_port)
    local ready = { path = "/readyz", headers = { Host = "localhost" } }
    assert.equal(200, kept:request(ready).status)
    gw:signal("TERM")
    gw:wait_log("draining")
    local answer = kept:request(ready)
    assert.equal(503, answer.status)
    assert.equal("draining", answer:json().status)
    assert.equal(503, gw:admin({ path = "/readyz" }).status)
    assert.equal(200, gw:admin({ path = "/healthz" }).status)
    up.may_end = true
    response:read_body()
    assert.equal("complete", response.ended)
    assert.equal(0, gw:wait_exit(5))
  end)

  it("has nothing else", function()
    local gw = start()
    for _, path in ipairs({ "/index.html", "/healthz/", "/healthzz", "/HEALTHZ", "/v1/models",
      "/admin", "/../healthz", "/%68ealthz", "/healthz%00" }) do
      assert_error(gw:admin({ path = path }), 404, "not_found")
    end
    for _, method in ipairs({ "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE" }) do
      local answer = gw:admin({ path = "/healthz", method = method })
      assert.equal(405, answer.status)
      assert.equal("method_not_allowed", answer:json().error.code)
    end
    assert.equal(413, gw:admin({ path = "/healthz", method = "POST",
      headers = { ["Content-Length"] = "2000000" } }).status)
    assert.equal(414, gw:admin({ path = "/" .. ("x"):rep(5000) }).status)
    assert.equal(404, gw:request({ path = "/healthz" }).status) -- not on the traffic's listener
  end)

  it("refuses a Host that is not its own: a page that has had its name point here", function()
    local gw = start()
    local port = gw.admin_port
    for _, host in ipairs({ "evil.test", "evil.test:" .. port, "127.0.0.1.evil.test",
      "localhost.evil.test", "127.0.0.2", "[::2]:" .. port, "0.0.0.0", "[::1", "::1", "2130706433",
      "localhost:x:80" }) do
      local answer = gw:admin({ path = "/healthz", host = host })
      if answer.status ~= 400 then assert_error(answer, 403, "wrong_host") end
    end
    for _, host in ipairs({ "localhost", "LocalHost:" .. port, "127.0.0.1", "127.0.0.1:" .. port,
      "[::1]", "[::1]:" .. port }) do
      assert.equal(200, gw:admin({ path = "/healthz", host = host }).status, host)
    end
    assert.equal(400, support.request({ to = port,
      raw = "GET /healthz HTTP/1.1\r\n\r\n" }).status)
  end)

  it("refuses what a page sends, token or not", function()
    for _, admin in ipairs({ "", 'token = "t0ken"' }) do
      local gw = start(admin)
      for _, origin in ipairs({ "https://evil.test", "null", "http://localhost:" .. gw.admin_port,
        "http://127.0.0.1", "http://127.0.0.1:1", "ftp://127.0.0.1:" .. gw.admin_port,
        "http://127.0.0.1:" .. gw.admin_port .. ".evil.test", "" }) do
        assert_error(gw:admin({ path = "/readyz", headers = { Origin = origin } }), 403,
          "cross_site")
        assert_error(gw:admin({ path = "/x", method = "POST",
          headers = { Origin = origin, Authorization = "Bearer t0ken" } }), 403, "cross_site")
      end
      for _, site in ipairs({ "cross-site", "same-site", "other", "" }) do
        for _, path in ipairs({ "/readyz", "/admin/targets", "/dashboard.js", "/" }) do
          assert_error(gw:admin({ path = path, headers = { ["Sec-Fetch-Site"] = site,
            Authorization = "Bearer t0ken" } }), 403, "cross_site")
        end
        assert_error(gw:admin({ path = "/admin/drain", method = "POST", headers = {
          ["Sec-Fetch-Site"] = site, ["Sec-Fetch-Mode"] = "navigate",
          ["Sec-Fetch-Dest"] = "document", Authorization = "Bearer t0ken" } }), 403, "cross_site")
      end
      gw:stop()
    end
  end)

  it("lets its own page in, and links that lead to it", function()
    local gw = start()
    local own = { Origin = "http://127.0.0.1:" .. gw.admin_port,
      ["Sec-Fetch-Site"] = "same-origin" }
    assert.equal(200, gw:admin({ path = "/admin/targets", headers = own }).status)
    assert.equal(200, gw:admin({ path = "/admin/targets/restore?target=one", method = "POST",
      headers = own }).status)
    assert.equal(200, gw:admin({ path = "/", headers = { ["Sec-Fetch-Site"] = "none" } }).status)
    assert.equal(200, gw:admin({ path = "/", headers = { ["Sec-Fetch-Site"] = "cross-site",
      ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Dest"] = "document" } }).status)
    assert_error(gw:admin({ path = "/", headers = { ["Sec-Fetch-Site"] = "cross-site",
      ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Dest"] = "iframe" } }), 403, "cross_site")
  end)

  it("is not ready when no route has a target that is fit", function()
    local up = support.answering(200)
    local gw = support.gateway { config = ([[return {
      providers = { one = { url = "%s/v1" }, two = { url = "%s/v1" } },
      routes = {
        { name = "a", match = { model = "a" }, targets = { { provider = "one" } } },
        { name = "b", match = { model = "b" }, targets = { { provider = "one" },
          { provider = "two" } } },
      } }]]):format(up.url, up.url) }
    local function ready(query)
      local answer = gw:admin { path = "/readyz" .. (query or "") }
      return answer.status, table.concat(answer:json().routes_without_target, ",")
    end
    local function change(what)
      assert.equal(200, gw:admin { path = "/admin/targets/" .. what, method = "POST" }.status)
    end
    assert.same({ 200, "" }, { ready() })
    change("eject?target=one")
    assert.same({ 200, "a" }, { ready() })
    assert.same({ 503, "a" }, { ready("?route=a") })
    assert.same({ 200, "a" }, { ready("?route=b") })
    assert_error(gw:admin { path = "/readyz?route=c" }, 404, "not_found")
    change("drain?provider=two")
    assert.same({ 503, "a,b" }, { ready() })
    assert.equal("no_usable_target", gw:admin({ path = "/readyz" }):json().status)
    change("restore?target=one")
    assert.same({ 200, "" }, { ready() })
  end)

  it("drains on demand, once", function()
    local up
    up = support.upstream(function(connection)
      connection:read_request()
      support.wait_until("the word to end", function() return up.may_end end)
      connection:respond_json(200, { id = "x" })
    end)
    local gw = start(nil, up)
    local response
    support.spawn("client", function() response = gw:chat() end)
    support.wait_until("the request", function() return #up.requests == 1 end)
    local kept = support.connect(gw.admin_port)
    local order = { path = "/admin/drain", method = "POST", headers = { Host = "localhost" } }
    for _ = 1, 3 do
      local answer = kept:request(order)
      assert.equal(202, answer.status)
      assert.same({ status = "draining", at_most_ms = 20000 }, answer:json())
    end
    assert.equal(503, kept:request({ path = "/readyz", headers = { Host = "localhost" } }).status)
    up.may_end = true
    support.wait_until("the answer", function() return response end)
    assert.equal(200, response.status)
    assert.equal(0, gw:wait_exit(5))
  end)

  it("asks for the token when there is one, but not for its health", function()
    local gw = start('token = "t0ken"')
    local function get(authorization, path)
      return gw:admin({ path = path or "/other", headers = { Authorization = authorization } })
    end
    for _, path in ipairs({ "/healthz", "/readyz" }) do
      assert.equal(200, get(false, path).status)
      assert.equal(200, gw:admin({ path = path, host = "gateway.example" }).status)
    end
    for _, authorization in ipairs({ false, "", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0kenn",
      "Bearer T0KEN", "Bearer  t0ken", "Basic t0ken", "t0ken", "Bearer t0ken, Bearer x" }) do
      local answer = get(authorization)
      assert_error(answer, 401, "unauthorized")
      assert.equal("Bearer", answer.headers["www-authenticate"])
    end
    assert_error(get("Bearer t0ken"), 404, "not_found")
    assert_error(get("bearer t0ken"), 404, "not_found")
    assert.falsy((gw:stdout() .. gw:stderr()):find("t0ken", 1, true))
  end)
end)
