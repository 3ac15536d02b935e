--- The dashboard: what its files are allowed to do, and the page itself in a headless Chromium,
-- when there is one. And the admin listener on a unix socket.

local support = require "support"

local CONFIG = [[
return {
  admin = { %s },
  providers = { east = { url = "%s/v1", health = false }, west = { url = "%s/v1" } },
  routes = { { name = "chat", match = { model = "*" },
    targets = { { provider = "east", model = "m" }, { provider = "west", priority = 1 } },
    retry = { attempts = 2, backoff = { base = "1ms", max = "1ms", floor = "1ms" } } } },
}]]

local function start(admin)
  local east = support.answering(function() return 500, { error = {} } end)
  local west = support.answering(function() return 200, { id = "x" } end)
  return support.gateway { config = CONFIG:format(admin or "", east.url, west.url) }
end

local function chromium_path()
  for _, name in ipairs { "chromium", "chromium-browser", "google-chrome" } do
    local found = support.run { "/bin/sh", "-c", "command -v " .. name }
    if found.status == 0 then return found.stdout:match("%S+") end
  end
  return nil
end

--- The page's text as it stands after some seconds of its own time, and its console.
local function open_page(path, url)
  local result = support.run({ path, "--headless=new", "--no-sandbox", "--disable-gpu",
    "--user-data-dir=" .. support.make_folder(), "--enable-logging=stderr",
    "--virtual-time-budget=5000", "--dump-dom", url }, { timeout_s = 60 })
  assert.equal(0, result.status, result.stderr)
  local messages = {}
  for line in result.stderr:gmatch("[^\n]*CONSOLE[^\n]*") do messages[#messages + 1] = line end
  return result.stdout, table.concat(messages, "\n")
end

local function text_of(dom, id)
  return dom:match('id="' .. id .. '"[^>]*>([^<]*)<')
end

describe("the dashboard", function()
  after_each(support.finish)

  it("is one page that may load its own two files and nothing else", function()
    local gw = start('token = "t0ken"')
    local types = { ["/"] = "text/html; charset=utf-8",
      ["/dashboard.css"] = "text/css; charset=utf-8",
      ["/dashboard.js"] = "text/javascript; charset=utf-8" }
    for path, content_type in pairs(types) do
      local answer = gw:admin { path = path }
      assert.equal(200, answer.status)
      assert.equal(content_type, answer.headers["content-type"])
      assert.equal("nosniff", answer.headers["x-content-type-options"])
      assert.equal("DENY", answer.headers["x-frame-options"])
      local policy = answer.headers["content-security-policy"]
      assert.truthy(policy:find("default-src 'none'; script-src 'self'; style-src 'self'", 1, true))
      assert.truthy(policy:find("frame-ancestors 'none'", 1, true))
      assert.falsy(policy:find("unsafe", 1, true))
      assert.falsy(answer.body:find("https?://", 1) and not answer.body:find("http://www.w3.org", 1,
        true))
      assert.equal("", gw:admin({ path = path, method = "HEAD" }).body)
      assert.equal(405, gw:admin({ path = path, method = "POST" }).status)
    end
    local html, script = gw:admin({ path = "/" }).body, gw:admin({ path = "/dashboard.js" }).body
    assert.falsy(html:find("%son%a+="))
    assert.falsy(html:find("<style", 1, true) or html:find("style=", 1, true))
    for _, word in ipairs { "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
      "eval(", "localStorage" } do
      assert.falsy(script:find(word, 1, true), word)
    end
    assert.equal(401, gw:admin({ path = "/admin/summary" }).status)
  end)

  it("shows what happens", function()
    local path = chromium_path()
    if not path then
      pending("chromium is not installed")
      return
    end
    local gw = start()
    for _ = 1, 3 do
      assert.equal(200, gw:chat({ model = "<img src=x onerror=alert(1)>" }).status)
    end
    gw:admin { path = "/admin/targets/eject?target=west&for=10m", method = "POST" }
    support.wait_until("the rates", function()
      return gw:admin({ path = "/admin/summary" }):json().last_minute.succeeded == 3
    end)
    local dom, messages = open_page(path, gw.admin_url .. "/")
    assert.equal("", messages)
    assert.equal("ready", text_of(dom, "state"))
    assert.truthy(tonumber(text_of(dom, "rate")))
    assert.equal("100\194\160%", text_of(dom, "success"):gsub("&nbsp;", "\194\160"))
    assert.truthy(tonumber(dom:match('data%-polls="(%d+)"')) >= 2)
    assert.truthy(dom:find("ejected by the operator, for ", 1, true))
    local _, rows = dom:gsub('class="row"', "")
    assert.equal(3, rows)
    assert.truthy(dom:find("&lt;img src=x onerror=alert(1)&gt; → west", 1, true))
    assert.falsy(dom:find("<img", 1, true))
    local _, failed = dom:gsub('<i class="k%-bad"', "")
    assert.equal(4, failed) -- each first try, and the legend
  end)

  it("asks for the token", function()
    local path = chromium_path()
    if not path then
      pending("chromium is not installed")
      return
    end
    local gw = start('token = "t0ken"')
    local dom = open_page(path, gw.admin_url .. "/")
    assert.equal("locked", text_of(dom, "state"))
    assert.truthy(dom:find('<dialog id="login"[^>]* open=""'))
  end)
end)

describe("the admin listener on a unix socket", function()
  after_each(support.finish)

  local function run(folder, address)
    return support.start { command = { support.BINARY, "run", folder, "--listen", "127.0.0.1:0",
      "--workers", "1", "--admin", address }, name = "perilune run" }
  end

  local function get(socket, path, ...)
    local result = support.run { "curl", "-s", "-o", "-", "-w", "%{http_code}", "--unix-socket",
      socket, "http://anything" .. path, ... }
    local body, status = result.stdout:match("^(.*)(%d%d%d)$")
    return tonumber(status), body
  end

  local function folder_of(admin)
    local folder = support.make_folder()
    support.write_file(folder .. "/gateway.lua", CONFIG:format(admin, "http://127.0.0.1:1",
      "http://127.0.0.1:1"))
    support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
    return folder
  end

  it("serves its owner without a token, and is gone at the end", function()
    local folder = folder_of('token = "t0ken"')
    local socket = folder .. "/admin.sock"
    local process = run(folder, "unix:" .. socket)
    process:wait_output("stdout", "admin on unix:" .. socket:gsub("%p", "%%%0"))
    assert.equal("srw-------", support.run({ "stat", "-c", "%A", socket }).stdout:match("%S+"))
    assert.equal(200, (get(socket, "/healthz")))
    assert.equal(200, (get(socket, "/admin/targets")))
    assert.equal(200, (get(socket, "/admin/targets/eject?target=west", "-X", "POST")))
    assert.equal(403, (get(socket, "/admin/targets", "-H", "Origin: http://evil.test")))
    process:signal("TERM")
    assert.equal(0, process:wait_exit(5))
    assert.is_nil(support.read_file(socket))
    assert.not_equal(0, support.run({ "test", "-e", socket }).status)
  end)

  it("takes the place of one that was left behind, and of nothing else", function()
    local folder = folder_of("")
    local socket = folder .. "/admin.sock"
    local first = run(folder, "unix:" .. socket)
    first:wait_output("stdout", "listening")
    local command = { support.BINARY, "run", folder, "--listen", "127.0.0.1:0", "--admin",
      "unix:" .. socket }
    local second = support.run(command)
    assert.equal(1, second.status)
    assert.truthy(second.stderr:find("Address already in use", 1, true))
    assert.equal(200, (get(socket, "/healthz")))
    first:kill()
    local third = run(folder, "unix:" .. socket)
    third:wait_output("stdout", "listening")
    assert.equal(200, (get(socket, "/healthz")))
    third:stop()
    support.write_file(socket, "not a socket")
    assert.equal(1, support.run(command).status)
    assert.equal("not a socket", support.read_file(socket))
  end)
end)
