--- Clients that are slow, many, idle, deaf or gone: each limit strikes when it should, on nobody
-- else, and leaves nothing behind.

local support = require "support"

local CONFIG = [[
return {
  drain = "2s",
  limits = { %s },
  providers = { one = { url = "%s/v1", timeouts = { first_token = "20s" } } },
  routes = {
    { match = { model = "large" }, targets = { { provider = "one" } }, policy = "large" },
    { match = { model = "*" }, targets = { { provider = "one" } }, retry = { attempts = 1 } },
  },
}
]]

--- Answers with 16 MB that it makes itself.
local LARGE_BYTES = 16 * 1024 * 1024
local LARGE_POLICY = [[
local text = ("x"):rep(16 * 1024 * 1024)
return function(req) return req:respond(200, text) end
]]

local CHAT = "/v1/chat/completions"

local function start(up, limits, options)
  options = options or {}
  options.config = CONFIG:format(limits or "", up.url)
  options.policies = { large = LARGE_POLICY }
  options.workers = options.workers or 1
  return support.gateway(options)
end

local function answering()
  return support.answering(function() return 200, { ok = true } end)
end

--- How many sockets a process has open, its listeners included.
local function socket_count(gw)
  local pipe = assert(io.popen(("ls -l /proc/%d/fd | grep -c socket:"):format(gw.pid)))
  local count = tonumber(pipe:read("*a"))
  pipe:close()
  return count
end

--- Waits without a condition: for what must not happen meanwhile.
local function pass_time(connection, seconds)
  return connection.stream:fill(seconds)
end

local function assert_timeout_answer(connection, words)
  local answer = connection:read_response(5)
  assert.equal(408, answer.status)
  assert.equal("request_timeout", answer:json().error.code)
  assert.truthy(answer:json().error.message:find(words, 1, true))
  assert.equal("close", answer.headers.connection)
  assert.equal("closed", connection:wait_closed(5))
end

local function each_at_once(items, run)
  local tasks = {}
  for index, item in ipairs(items) do
    tasks[index] = function() run(item) end
  end
  support.together(tasks)
end

describe("a slow client", function()
  after_each(support.finish)

  it("that does not finish its head is told so after head_timeout", function()
    local up = answering()
    local gw = start(up, 'head_timeout = "200ms"')
    each_at_once({ "P", "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" }, function(part)
      local connection = support.connect(gw)
      local since = support.now()
      connection:write(part)
      assert_timeout_answer(connection, "head took too long")
      assert.is_true(support.now() - since >= 0.19)
    end)
    assert.equal(0, #up.requests)
    assert.equal(200, gw:chat().status)
  end)

  it("cannot stretch its head byte by byte", function()
    local gw = start(answering(), 'head_timeout = "250ms"')
    local connection = support.connect(gw)
    local head = "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Long: " .. ("x"):rep(1000)
    local since = support.now()
    for index = 1, #head do
      connection:write(head:sub(index, index))
      if pass_time(connection, 0.03) or connection.ended then break end
    end
    assert_timeout_answer(connection, "head took too long")
    assert.is_true(support.now() - since < 15) -- the head would take half a minute
  end)

  it("that stops in its body is told so after body_idle", function()
    local up = answering()
    local gw = start(up, 'body_idle = "200ms"')
    each_at_once({
      "Content-Length: 100\r\n\r\n{", "Content-Length: 100\r\n\r\n",
      "Transfer-Encoding: chunked\r\n\r\n5\r\n{",
      "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0",
    }, function(rest)
      local connection = support.connect(gw)
      connection:write("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" .. rest)
      assert_timeout_answer(connection, "body stopped arriving")
    end)
    assert.equal(0, #up.requests)
    assert.equal(200, gw:chat().status)
  end)

  it("that goes on with its body is served, however long it takes", function()
    local up = answering()
    local gw = start(up, 'head_timeout = "2s", body_idle = "2s"')
    local connection = support.connect(gw)
    local body = '{"model":"gpt-4"}'
    connection:write(("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(CHAT,
      #body))
    connection:write_in_pieces(body, 3, function() pass_time(connection, 0.4) end)
    assert.equal(200, connection:read_response().status)
    assert.equal(body, up.requests[1].body)
  end)

  it("that is idle between requests is left after keepalive_idle, and not before", function()
    local gw = start(answering(), 'keepalive_idle = "2s"')
    local silent, kept = support.connect(gw), support.connect(gw)
    local since = support.now()
    for _ = 1, 5 do
      assert.equal(200, kept:request({ path = CHAT, json = { model = "m" } }).status)
      pass_time(kept, 0.5)
    end
    assert.is_true(support.now() - since > 2) -- longer than the limit in all
    assert.equal("closed", silent:wait_closed(10))
    assert.equal("closed", kept:wait_closed(10))
    assert.equal("", kept.buffer)
  end)

  it("that waits for a slow answer is not idle", function()
    local up = support.answering(function(_, connection)
      pass_time(connection, 0.25)
      return 200, { ok = true }
    end)
    local gw = start(up, 'head_timeout = "50ms", body_idle = "50ms", keepalive_idle = "50ms", '
      .. 'write_stall = "50ms"')
    assert.equal(200, gw:chat().status)
  end)
end)

describe("a client that does not read", function()
  after_each(support.finish)

  --- Sends a request for far more than the kernel's buffers hold, and reads nothing.
  local function deaf_client(gw, model, fields, buffer_bytes)
    local connection = support.connect(gw)
    connection.stream:set_receive_buffer(buffer_bytes or 4096)
    connection:send({ path = CHAT, json = { model = model, stream = true }, headers = fields })
    return connection
  end

  --- Reads at last: the answer must not look whole.
  local function assert_cut(connection)
    local bytes, how = connection:read_all()
    assert.equal("reset", how)
    assert.is_true(#bytes < LARGE_BYTES)
    assert.falsy(bytes:find("\r\n0\r\n\r\n", 1, true))
  end

  it("is left after write_stall in a stream, and so is its upstream", function()
    local closed
    local up = support.upstream(function(connection)
      connection:read_request()
      connection:start_chunked()
      local event = "data: \"" .. ("y"):rep(64000) .. "\"\n\n"
      while connection:chunk(event) do end
      closed = true
    end)
    local gw = start(up, 'write_stall = "300ms"')
    local connection = deaf_client(gw, "m")
    support.wait_until("the upstream to be closed", function() return closed end, 10)
    assert_cut(connection)
    assert.equal(404, gw:request({ path = "/" }).status)
  end)

  it("is left after write_stall in a whole answer of an upstream", function()
    local closed
    local up = support.upstream(function(connection)
      connection:read_request()
      connection:respond(200, nil, ("z"):rep(LARGE_BYTES))
      closed = connection:wait_closed(10)
    end)
    local gw = start(up, 'write_stall = "300ms"')
    local connection = deaf_client(gw, "m")
    support.wait_until("the upstream to be closed", function() return closed end, 10)
    assert_cut(connection)
  end)

  it("is left after write_stall in a whole answer of a policy", function()
    local gw = start(answering(), 'write_stall = "300ms"')
    local before = socket_count(gw)
    local kept = deaf_client(gw, "large")
    local closing = deaf_client(gw, "large", { Connection = "close" })
    support.wait_until("both to be there", function() return socket_count(gw) == before + 2 end)
    support.wait_until("both to be left", function() return socket_count(gw) == before end)
    assert_cut(kept)
    assert_cut(closing)
  end)

  it("for long enough to be left, but slowly, is served to the end", function()
    local gw = start(answering(), 'write_stall = "2s"')
    local connection = deaf_client(gw, "large", nil, 64 * 1024)
    local answer = assert(connection:read_head())
    for _ = 1, 8 do -- 200 KB/s: the gateway's kernel wants nothing more for seconds
      local until_s = support.now() + 0.35
      for _ = 1, 8 do assert(answer:read_piece()) end
      support.wait_until("a while to pass", function() return support.now() >= until_s end)
    end
    local total_bytes = #answer.body
    for piece in function() return answer:read_piece() end do total_bytes = total_bytes + #piece end
    assert.equal("complete", answer.ended)
    assert.equal(LARGE_BYTES, total_bytes)
  end)
end)

describe("many clients", function()
  after_each(support.finish)

  it("are served up to limits.connections, the others are left at once", function()
    local up = answering()
    local gw = start(up, "connections = 20")
    local connections = {}
    for index = 1, 20 do
      connections[index] = support.connect(gw)
      assert.equal(200, connections[index]:request({ path = CHAT, json = { model = "m" } }).status)
    end
    for _ = 1, 5 do
      local refused = support.connect(gw)
      local bytes, how = refused:read_all(5)
      assert.same({ "", "closed" }, { bytes, how })
    end
    for index = 1, 20 do
      assert.equal(200, connections[index]:request({ path = CHAT, json = { model = "m" } }).status)
    end
    for index = 1, 5 do connections[index]:close() end
    support.wait_until("a place to be free", function()
      local connection = support.connect(gw)
      connection:send({ path = CHAT, json = { model = "m" } })
      local answer = connection:read_head()
      return answer and answer.status == 200
    end)
  end)

  it("may send thousands of requests on a connection", function()
    local up = answering()
    local gw = start(up)
    local connection = support.connect(gw)
    for number = 1, 2000 do
      assert.equal(200, connection:request({ path = "/v1/models" }).status, number)
    end
    for number = 1, 1000 do
      assert.equal(200, connection:request({ path = CHAT, json = { model = "m" } }).status, number)
    end
    assert.equal(1000, #up.requests)
    assert.equal(1, #up.connections)
  end)

  it("may all wait at the same time", function()
    local count = 200
    local up
    up = support.answering(function(request)
      support.wait_until("all requests", function() return #up.requests == count end)
      return 200, { said = request:json().messages[1].content }
    end)
    local gw = start(up, nil, { workers = 2 })
    local tasks = {}
    for index = 1, count do
      tasks[index] = function()
        local answer = gw:chat({ content = "I am " .. index })
        return answer.status == 200 and answer:json().said
      end
    end
    for index, said in ipairs(support.together(tasks)) do
      assert.equal("I am " .. index, said)
    end
    assert.equal(count, #up.requests)
  end)

  it("may use up the descriptors: the gateway waits, and goes on when there are some", function()
    local gw = start(answering(), nil, { prelude = "ulimit -n 48" })
    local function cpu_ticks()
      local stat = support.read_file(("/proc/%d/stat"):format(gw.pid))
      local user, system = stat:match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
      return tonumber(user) + tonumber(system)
    end
    local connections = {}
    for index = 1, 60 do connections[index] = support.connect(gw) end
    gw:wait_log("accept failed")
    local before, until_s = cpu_ticks(), support.now() + 0.3
    support.wait_until("a while to pass", function() return support.now() >= until_s end)
    assert.is_true(cpu_ticks() - before < 10, "the gateway spins") -- of 30 ticks
    for index = 1, 60 do connections[index]:close() end
    assert.equal(200, gw:chat().status)
  end)
end)

describe("a client that leaves", function()
  after_each(support.finish)

  it("by ending its direction has left, answer or not", function()
    local closed
    local up = support.upstream(function(connection)
      connection:read_request()
      closed = connection:wait_closed(10)
    end)
    local gw = start(up)
    local connection = support.connect(gw)
    connection:send({ path = CHAT, json = { model = "m" } })
    up:wait_requests(1)
    connection:shutdown()
    support.wait_until("the upstream to be closed", function() return closed end)
    assert.same({ "", "closed" }, { connection:read_all() })
    -- what can be answered at once is
    connection = support.connect(gw)
    connection:send({ path = "/v1/models" })
    connection:shutdown()
    assert.equal(200, connection:read_response().status)
    assert.equal("closed", connection:wait_closed())
  end)

  it("in the middle of an answer that ends its connection costs nothing", function()
    local gw = start(answering())
    local before = socket_count(gw)
    for _, leave in ipairs({ "close", "reset", "shutdown", "close", "reset" }) do
      local connection = support.connect(gw)
      connection:send({ path = CHAT, json = { model = "large" },
        headers = { Connection = "close" } })
      assert(connection:read_head()):read_piece()
      connection[leave](connection)
      connection:close()
    end
    support.wait_until("all to be gone", function() return socket_count(gw) == before end)
    assert.equal(200, gw:chat().status)
  end)

  --- An upstream that streams for as long as somebody listens, or ends by itself after some events;
  -- `busy_count` is how many requests it is working on.
  local function start_streaming()
    local up
    up = support.upstream(function(connection)
      while connection:read_request() do
        up.busy_count = up.busy_count + 1
        local ends = math.random(2) == 1
        if math.random(3) > 1 then
          connection:start_chunked()
          for _ = 1, math.random(5) do connection:event({ n = ("x"):rep(math.random(3000)) }) end
        end
        if not ends then
          connection:wait_closed(20)
          up.busy_count = up.busy_count - 1
          return
        end
        connection:event("[DONE]")
        connection:finish_chunked()
        up.busy_count = up.busy_count - 1
      end
    end)
    up.busy_count = 0
    return up
  end

  local LEAVE = { "close", "reset", "shutdown" }
  local BODY = '{"model":"m","stream":true,"x":"' .. ("y"):rep(3000) .. '"}'
  local MESSAGE = ("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(CHAT,
    #BODY, BODY)

  --- Gets as far as chance will have it, and leaves.
  local function visit(gw)
    local connection = support.connect(gw)
    local sent_bytes = math.random(2) == 1 and #MESSAGE or math.random(0, #MESSAGE)
    connection:write(MESSAGE:sub(1, sent_bytes))
    if math.random(2) == 1 then pass_time(connection, math.random() * 0.05) end
    if math.random(2) == 1 then pass_time(connection, math.random() * 0.05) end
    connection[LEAVE[math.random(#LEAVE)]](connection)
    connection:close()
  end

  it("at any moment, in bulk, leaves nothing behind", function()
    math.randomseed(20250302)
    local up = start_streaming()
    local gw = start(up, nil, { workers = 2 })
    local before = socket_count(gw)
    for _ = 1, 3 do
      local tasks = {}
      for index = 1, 100 do
        tasks[index] = function() visit(gw) end
      end
      support.together(tasks)
    end
    support.wait_until("the upstream to be done", function() return up.busy_count == 0 end)
    local function idle_count()
      local count = 0
      for _, connection in ipairs(up.connections) do
        count = count + (connection.stream.ended and 0 or 1)
      end
      return count
    end
    -- what is left are connections that may be used again
    support.wait_until("all clients to be gone", function()
      return socket_count(gw) <= before + idle_count()
    end)
    assert.equal(404, gw:request({ path = "/" }).status)
    assert.equal(413, gw:request({ path = "/v1/x", method = "POST",
      headers = { ["Content-Length"] = "99999999" } }).status)
  end)

  it("does not make the gateway grow", function()
    math.randomseed(20250303)
    local up = start_streaming()
    local gw = start(up)
    local function rss_kib()
      return tonumber(support.read_file(("/proc/%d/status"):format(gw.pid)):match("VmRSS:%s+(%d+)"))
    end
    local function cycle()
      local tasks = {}
      for index = 1, 50 do
        tasks[index] = function() visit(gw) end
      end
      support.together(tasks)
      for _, field in ipairs({ "close", "keep-alive", "close" }) do
        local connection = support.connect(gw)
        connection.stream:set_receive_buffer(4096)
        connection:send({ path = CHAT, json = { model = "large", x = ("y"):rep(300000) },
          headers = { Connection = field } })
        assert(connection:read_head()):read_piece()
        connection:close()
      end
      support.wait_until("the upstream to be done", function() return up.busy_count == 0 end)
    end
    for _ = 1, 3 do cycle() end
    local warm_kib = rss_kib()
    for _ = 1, 7 do cycle() end
    local maps = support.read_file(("/proc/%d/maps"):format(gw.pid))
    if maps:find("lib[atu]+b?san") then return end -- sanitizers keep freed memory
    local grown_kib = rss_kib() - warm_kib
    assert.is_true(grown_kib < 3000, ("grown by %d KiB"):format(grown_kib))
  end)
end)
