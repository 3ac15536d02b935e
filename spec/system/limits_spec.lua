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

describe("a slow client", function()
  after_each(support.finish)

  it("that does not finish its head is told so after head_timeout", function()
    local up = answering()
    local gw = start(up, 'head_timeout = "200ms"')
    for _, part in ipairs({ "P", "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" }) do
      local connection = support.connect(gw)
      local since = support.now()
      connection:write(part)
      assert_timeout_answer(connection, "head took too long")
      assert.is_true(support.now() - since >= 0.19)
    end
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
    assert.is_true(support.now() - since < 2)
  end)

  it("that stops in its body is told so after body_idle", function()
    local up = answering()
    local gw = start(up, 'body_idle = "200ms"')
    for _, body in ipairs({ "Content-Length: 100\r\n\r\n{", "Content-Length: 100\r\n\r\n",
      "Transfer-Encoding: chunked\r\n\r\n5\r\n{", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0" })
    do
      local connection = support.connect(gw)
      connection:write("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" .. body)
      assert_timeout_answer(connection, "body stopped arriving")
    end
    assert.equal(0, #up.requests)
    assert.equal(200, gw:chat().status)
  end)

  it("that goes on with its body is served, however long it takes", function()
    local up = answering()
    local gw = start(up, 'head_timeout = "150ms", body_idle = "150ms"')
    local connection = support.connect(gw)
    local body = '{"model":"gpt-4"}'
    connection:write(("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(CHAT,
      #body))
    for index = 1, #body do
      pass_time(connection, 0.03)
      connection:write(body:sub(index, index))
    end
    assert.equal(200, connection:read_response().status)
    assert.equal(body, up.requests[1].body)
  end)

  it("that is idle between requests is left after keepalive_idle, and not before", function()
    local gw = start(answering(), 'keepalive_idle = "250ms"')
    local silent, kept = support.connect(gw), support.connect(gw)
    local since = support.now()
    for _ = 1, 5 do
      assert.equal(200, kept:request({ path = CHAT, json = { model = "m" } }).status)
      pass_time(kept, 0.1)
    end
    local last = support.now()
    assert.equal("closed", silent:wait_closed(5))
    assert.equal("closed", kept:wait_closed(5))
    assert.is_true(support.now() - last < 2)
    assert.is_true(support.now() - since >= 0.5)
    assert.equal("", kept.buffer)
  end)

  it("that waits for a slow answer is not idle", function()
    local up = support.answering(function(_, connection)
      pass_time(connection, 0.5)
      return 200, { ok = true }
    end)
    local gw = start(up, 'head_timeout = "100ms", body_idle = "100ms", keepalive_idle = "100ms", '
      .. 'write_stall = "100ms"')
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
      local event = "data: " .. ("y"):rep(64000) .. "\n\n"
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
    local gw = start(answering(), 'write_stall = "400ms"')
    local connection = deaf_client(gw, "large", nil, 64 * 1024)
    local answer = assert(connection:read_head())
    for _ = 1, 12 do -- 650 KB/s: the gateway's kernel wants nothing more for seconds
      local until_s = support.now() + 0.1
      for _ = 1, 8 do assert(answer:read_piece()) end
      support.wait_until("a tenth of a second", function() return support.now() >= until_s end)
    end
    local total_bytes = #answer.body
    for piece in function() return answer:read_piece() end do total_bytes = total_bytes + #piece end
    assert.equal("complete", answer.ended)
    assert.equal(LARGE_BYTES, total_bytes)
  end)
end)
