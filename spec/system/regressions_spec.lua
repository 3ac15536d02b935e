--- Faults that were found by reading and by trying to break the gateway, each with what showed it.

local support = require "support"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0"%s },
  admin = { address = "127.0.0.1:0" },
  limits = { write_stall = "60s" },
  on_policy_error = "fail",
  providers = { one = { api = "openai", url = "%s/v1" } },
  routes = { {
    match = { model = "*" }, targets = { { provider = "one" } }, policy = "mine", deadline = "%s",
  } },
}
]]

--- A gateway with one policy of the spec's own.
local function start(policy, options)
  options = options or {}
  local up = options.upstream or support.answering(function() return 200, { ok = true } end)
  options.config = CONFIG:format(options.listen or "", up.url, options.deadline or "20s")
  options.policies = { mine = policy }
  options.workers = options.workers or 1
  return support.gateway(options)
end

local function post(more)
  local request = { path = "/v1/chat/completions", json = { model = "m" } }
  for key, value in pairs(more or {}) do request[key] = value end
  return request
end

--- So that the address sanitizer's own memory does not count.
local LEAN = {
  ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "detect_leaks=1") .. ":quarantine_size_mb=1",
}

local function resident_mb(process)
  local status = support.read_file("/proc/" .. process.pid .. "/status")
  return tonumber(status:match("VmRSS:%s*(%d+)")) / 1024
end

--- A 200 whose length the client's x-bytes header says.
local SIZED = [[
return function(req) return req:respond(200, ("x"):rep(tonumber(req.headers["x-bytes"]))) end
]]

describe("a client", function()
  after_each(support.finish)

  -- The request was nobody's any more: evhttp had let go of it. LeakSanitizer tells.
  it("that leaves before the last bytes of a closing answer leaves nothing behind", function()
    local gw = start(SIZED)
    for _ = 1, 3 do
      local connection = support.connect(gw)
      connection:send(post({ headers = { ["X-Bytes"] = "8000000", Connection = "close" } }))
      assert.equal(200, connection:read_head().status)
      connection:reset()
    end
    assert.equal(200, gw:request(post({ headers = { ["X-Bytes"] = "1" } })).status)
  end)

  -- What such a client sent was read and kept, as fast as it came, until the refusal was out.
  it("that does not take its refusal cannot fill the gateway's memory", function()
    local gw = start(SIZED, { env = LEAN })
    local garbage, flood = "\0\r\n\r\n", ("A"):rep(65536)
    local clients = {}
    for step = 0, 40 do -- one of these sizes leaves no room for the refusal in the kernel
      local connection = support.connect(gw)
      connection:send(post({ headers = { ["X-Bytes"] = tostring(2000000 + step * 100000) } }))
      clients[#clients + 1] = connection
    end
    for _, connection in ipairs(clients) do assert.equal(200, connection:read_head().status) end
    local before_mb = resident_mb(gw)
    for _, connection in ipairs(clients) do connection:write(garbage) end
    support.together({ function()
      for _ = 1, 100 do
        for _, connection in ipairs(clients) do connection:write(flood, 0.001) end
      end
    end }, 60)
    local grown_mb = resident_mb(gw) - before_mb
    assert.is_true(grown_mb < 50, ("grew by %d MB"):format(grown_mb))
    for _, connection in ipairs(clients) do connection:reset() end
  end)

  -- Over TLS libevent delays write callbacks: the one of the 100 Continue ended the answer.
  it("that sends its body without waiting for 100 Continue is answered over TLS, too", function()
    local files = support.certificates()
    local gw = start(SIZED, {
      listen = (', tls = { cert = "%s", key = "%s" }'):format(files.cert, files.key),
    })
    for _ = 1, 20 do
      local connection = support.connect(gw, { tls = { server_name = "localhost" }, timeout_s = 3 })
      local head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Bytes: 100\r\n"
        .. "Content-Type: application/json\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n"
      connection:write(head)
      connection:write('{"model":"m"}')
      local bytes = connection:read_through(("x"):rep(100))
      assert.truthy(bytes, "no answer")
      assert.truthy(bytes:find("^HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"))
      connection:close()
    end
  end)

  -- It stayed in the queue of the listening socket, without an answer until the end of the drain.
  it("that has connected before the drain is still served", function()
    local gw = start([[
      local gw = require "perilune"
      return function(req)
        local since = gw.now_ms()
        repeat until gw.now_ms() - since > 40
        return req:respond(200, "served")
      end
    ]])
    local busy = support.connect(gw)
    busy:send(post())
    local waiting = {}
    for i = 1, 10 do
      waiting[i] = support.connect(gw)
      waiting[i]:send(post())
    end
    gw:signal("TERM")
    for _, connection in ipairs(waiting) do
      assert.equal("served", connection:read_response(10).body)
    end
    assert.equal(0, gw:wait_exit())
  end)
end)

describe("a drain", function()
  after_each(support.finish)

  -- Of those who connect all the time, each is either served or refused: what was connected was
  -- closed unread, because its request had not come yet or because it still was in the queue.
  it("loses no request of a client that could connect", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local gw = start([[
      return function(req, route) return req:relay((req:send(route.targets[1]))) end
    ]], { workers = 2, upstream = up })
    local served_count, lost_count, asked = 0, 0, false
    local function come_again()
      while true do
        local ok, connection = pcall(support.connect, gw)
        if not ok then return end
        connection:send(post({ headers = { Connection = "close" } }))
        local head = connection:read_head()
        if head and head.status == 200 then
          served_count = served_count + 1
        else
          lost_count = lost_count + 1
        end
        connection:close()
        if served_count >= 200 and not asked then
          asked = true
          gw:signal("TERM")
        end
      end
    end
    local clients = {}
    for i = 1, 20 do clients[i] = come_again end
    support.together(clients, 30)
    assert.is_true(served_count >= 200)
    assert.equal(0, lost_count)
    assert.equal(0, gw:wait_exit())
  end)
end)

describe("a policy", function()
  after_each(support.finish)

  -- The old value was freed while the request was still being written from it.
  it("that changes a field again while an upstream answers early has sent what it was", function()
    local seen, has_head
    local up = support.upstream(function(connection)
      local head = connection:read_through("\r\n\r\n")
      connection:start_chunked(200, { ["content-type"] = "application/json" })
      support.wait_until("the answer's head at the client", function() return has_head end)
      local size = tonumber(head:lower():match("content%-length: (%d+)"))
      seen = connection:read_exactly(size)
      connection:chunk("{}")
      connection:finish_chunked()
    end)
    local gw = start([[
      return function(req, route)
        req:set("field", ("a"):rep(100000))
        local res, err = req:send(route.targets[1])
        req:set("field", ("b"):rep(100000))
        for _ = 1, 20 do req:set("other", ("c"):rep(100000)) end
        return req:relay(res, err)
      end]], { upstream = up })
    local connection = support.connect(gw)
    local body = '{"model":"m","pad":"' .. ("x"):rep(9000000) .. '"}'
    support.spawn("client", function()
      connection:write("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body)
    end)
    assert.equal(200, connection:read_head().status)
    has_head = true
    support.wait_until("the whole request", function() return seen end)
    assert.equal(body:sub(1, -2) .. ',"field":"' .. ("a"):rep(100000) .. '"}', seen)
  end)

  it("that sleeps past the deadline is ended there", function()
    local gw = start([[
      local gw = require "perilune"
      return function() while true do gw.sleep("20ms") end end
    ]], { deadline = "300ms" })
    local since = support.now()
    local answer = gw:request(post())
    assert.equal(504, answer.status)
    assert.equal("timeout_deadline", answer:json().error.code)
    assert.is_true(support.now() - since < 5)
  end)

  it("that writes past the deadline is cut off, and not as if it were done", function()
    local gw = start([[
      local gw = require "perilune"
      return function(req)
        req:start(200, {})
        while true do
          req:write("x")
          gw.sleep("20ms")
        end
      end
    ]], { deadline = "300ms" })
    local answer = gw:request(post())
    assert.equal(200, answer.status)
    assert.equal("cut", answer.ended)
  end)

  -- The wait began all the same, and its timer ended the next send.
  it("that waits where it cannot is told so, and nothing else", function()
    local up = support.answering(function(_, connection)
      connection:wait_closed(0.4)
      return 200, { ok = true }
    end)
    local gw = start([[
      local gw = require "perilune"
      return function(req, route)
        local ok, problem = pcall(table.sort, { 3, 2, 1 }, function() gw.sleep("100ms") end)
        local res, err = req:send(route.targets[1])
        return req:respond(200, { ok = ok, problem = problem, status = res and res.status,
          class = err and err.class })
      end
    ]], { upstream = up })
    local body = gw:request(post()):json()
    assert.is_false(body.ok)
    assert.truthy(body.problem:find("table.sort", 1, true))
    assert.equal(200, body.status)
    assert.is_nil(body.class)
  end)

  it("cannot use the request of another run", function()
    local gw = start([[
      local gw = require "perilune"
      local first
      return function(req, route)
        if first then
          local ok, problem = pcall(first.send, first, route.targets[1])
          return req:respond(200, { ok = ok, problem = problem })
        end
        first = req
        local since = gw.now_ms()
        gw.sleep("500ms")
        return req:respond(200, { slept_ms = gw.now_ms() - since })
      end
    ]])
    local first = support.connect(gw)
    first:send(post())
    local second
    support.wait_until("the second run to find the first", function()
      second = gw:request(post()):json()
      return second.problem ~= nil
    end)
    assert.is_false(second.ok)
    assert.truthy(second.problem:find("another run", 1, true))
    assert.is_true(first:read_response():json().slept_ms >= 450)
  end)

  it("cannot set a deadline that is no number of milliseconds", function()
    local gw = start([[
      return function(req)
        local results = {}
        for i, ms in ipairs({ -1, 0 / 0, 1e300 }) do
          results[i] = pcall(req.set_deadline_ms, req, ms)
        end
        return req:respond(200, results)
      end
    ]])
    assert.same({ false, false, false }, gw:request(post()):json())
  end)

  -- Each such body left a buffer of its size behind.
  it("decodes no JSON that does not fit its memory", function()
    local gw = start([[
      return function(req)
        local body, code = req:json()
        return req:respond(200, { kind = type(body), code = code })
      end
    ]], { env = LEAN })
    local body = '{"model":"m","a":[' .. ("[],"):rep(5000000) .. "1]}"
    local before_mb
    for round = 1, 4 do
      local answer = gw:request(post({ json = false, body = body,
        headers = { ["Content-Type"] = "application/json" }, timeout_s = 30 }))
      assert.same({ kind = "nil", code = "too_large" }, answer:json())
      before_mb = before_mb or round == 2 and resident_mb(gw)
    end
    assert.is_true(resident_mb(gw) < before_mb + 25)
    assert.same({ kind = "table" }, gw:request(post()):json())
  end)

  -- LuaJIT bounds its own stack, not that of C: this ended the process.
  it("that calls string.gsub within itself without end fails alone", function()
    local gw = start([[
      return function(req)
        if not req.headers["x-deep"] then return req:respond(200, (("a"):gsub("a", "b"))) end
        local function again() return ("x"):gsub(".", again) end
        return again()
      end
    ]])
    assert.equal(500, gw:request(post({ headers = { ["X-Deep"] = "1" } })).status)
    assert.truthy(gw:stderr():find("called within itself too often", 1, true))
    assert.equal("b", gw:request(post()).body)
  end)

  -- The clock was looked at every 10000 instructions; these take minutes.
  it("that fills memory over and over is stopped soon", function()
    local gw = start([[
      return function()
        local kept = {}
        while true do
          pcall(function() kept[#kept + 1] = ("x"):rep(5e7 + #kept) end)
        end
      end
    ]])
    assert.equal(500, gw:request(post({ timeout_s = 60 })).status)
    local times = support.read_file("/proc/" .. gw.pid .. "/stat"):match("%) (.*)")
    local user, system = times:match("^" .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
    local cpu_s = (user + system) / 100
    assert.is_true(cpu_s < 4, ("it took %g s"):format(cpu_s))
    assert.truthy(gw:stderr():find("of CPU without a pause", 1, true))
  end)
end)

describe("the process", function()
  after_each(support.finish)

  it("may open as many files as the system lets it", function()
    local gw = start("return function(req) return req:respond(200, '') end",
      { prelude = "ulimit -Sn 64" })
    local soft, hard = support.read_file("/proc/" .. gw.pid .. "/limits")
      :match("Max open files%s+(%d+)%s+(%d+)")
    assert.equal(hard, soft)
    assert.not_equal("64", soft)
  end)
end)
