--- Streamed answers through the real gateway: passed on as they come, never ended as whole when
-- they are not, paused for slow readers, dropped when the client leaves.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  providers = {
    one = { api = "openai", url = "%s/v1", timeouts = { first_token = "%s", idle = "%s" } },
    two = { api = "openai", url = "%s/v1" },
  },
  routes = {
    { match = { model = "*" },
      targets = { { provider = "one" }, { provider = "two", priority = 1 } },
      retry = { attempts = 4, backoff = { base = "1ms", max = "5ms", floor = "1ms" } },
      deadline = "20s" },
  },
}
]]

local function chunk(text)
  return { choices = { { index = 0, delta = { content = text } } } }
end

local function start(one, two, first_token, idle)
  return support.gateway({
    config = CONFIG:format(one.url, first_token or "5s", idle or "5s", two.url),
  })
end

--- An upstream that streams: `script(conn)` runs after the head.
local function streaming(script)
  return support.upstream(function(conn)
    while conn:read_request() do
      conn:start_chunked(200)
      if script(conn) == "closed" then return end
    end
  end)
end

local function good_stream(text)
  return streaming(function(conn)
    conn:event(chunk(text))
    conn:event("[DONE]")
    conn:finish_chunked()
  end)
end

--- Reads to the end; returns the data of all events and whether the answer ended cleanly.
local function read_all(connection, head)
  local data = {}
  while true do
    local event = head:next_event(10)
    if not event then break end
    data[#data + 1] = event.data or event
  end
  connection:wait_closed(0)
  return data
end

describe("a streamed answer", function()
  after_each(support.finish)

  it("is passed on event by event, before the next one exists", function()
    local go_on = false
    local up = streaming(function(conn)
      conn:event(chunk("first"))
      support.wait_until("the client to have the first event", function() return go_on end)
      conn:event(chunk("second"))
      conn:event("[DONE]")
      conn:finish_chunked()
    end)
    local gw = start(up, good_stream("unused"))
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true } })
    local head = assert(connection:read_head())
    assert.equal(200, head.status)
    local first = assert(head:next_event())
    assert.truthy((first.data or first):find("first", 1, true))
    go_on = true
    local rest = read_all(connection, head)
    assert.equal("[DONE]", rest[#rest])
    assert.equal("complete", head.ended)
  end)

  it("goes to the next target when the first sends nothing after its head", function()
    local silent = streaming(function(conn) conn:wait_closed(10) return "closed" end)
    local gw = start(silent, good_stream("from two"), "100ms")
    local answer = gw:chat({ stream = true })
    assert.equal(200, answer.status)
    assert.truthy(answer.body:find("from two", 1, true))
    assert.equal("two", answer.headers["x-perilune-target"])
    assert.truthy(answer.headers["x-perilune-trail"]:find("one;timeout_first_token;", 1, true))
  end)

  it("goes to the next target when the stream is empty", function()
    local empty = streaming(function(conn) conn:finish_chunked() end)
    local gw = start(empty, good_stream("from two"))
    local answer = gw:chat({ stream = true })
    assert.truthy(answer.body:find("from two", 1, true))
    assert.truthy(answer.headers["x-perilune-trail"]:find("one;empty;", 1, true))
  end)

  it("goes to the next target when the answer to a stream has no body at all", function()
    local empty = support.answering(function() return 200, "" end)
    local gw = start(empty, good_stream("from two"))
    local answer = gw:chat({ stream = true })
    assert.truthy(answer.body:find("from two", 1, true))
  end)

  it("goes to the next target when it breaks before its first event", function()
    local broken = streaming(function(conn)
      conn:chunk(": keep-alive\n\n")
      conn:reset()
      return "closed"
    end)
    local gw = start(broken, good_stream("from two"))
    local answer = gw:chat({ stream = true })
    assert.truthy(answer.body:find("from two", 1, true))
    assert.falsy(answer.body:find("keep-alive", 1, true))
  end)

  describe("that has not said anything yet", function()
    local ROLE = { choices = { { index = 0, delta = { role = "assistant", content = "" } } } }
    local FINISH = { choices = { { index = 0, delta = {}, finish_reason = "stop" } } }

    --- The client gets the second target's answer and nothing of the first one's.
    local function assert_left(script, outcome, first_token)
      local gw = start(streaming(script), good_stream("from two"), first_token)
      local answer = gw:chat({ stream = true })
      assert.same({ 200, "complete" }, { answer.status, answer.ended })
      assert.equal("data: " .. cjson.encode(chunk("from two")) .. "\n\ndata: [DONE]\n\n",
        answer.body)
      local trail = answer.headers["x-perilune-trail"]
      assert.truthy(trail:find("one;" .. outcome .. ";", 1, true), trail)
    end

    it("goes to the next target when only a role came, and its connection is closed", function()
      local closed
      assert_left(function(conn)
        conn:event(ROLE)
        conn:wait_closed(10)
        closed = true
        return "closed"
      end, "timeout_first_token", "150ms")
      support.wait_until("the first target to be let go", function() return closed end, 5)
    end)

    it("goes to the next target when only comments come", function()
      assert_left(function(conn)
        while conn:chunk(": keep-alive\n\n") do
          if conn:wait_closed(0.02) then break end
        end
        return "closed"
      end, "timeout_first_token", "200ms")
    end)

    it("goes to the next target at an error event, however it is cut", function()
      local text = "event: error\r\ndata: " .. cjson.encode({ type = "error",
        error = { type = "overloaded_error", message = "Overloaded" } }) .. "\r\n\r\n"
      for _, piece_bytes in ipairs { 1, 7, #text } do
        assert_left(function(conn)
          conn:event(ROLE)
          for offset = 1, #text, piece_bytes do
            conn:chunk(text:sub(offset, offset + piece_bytes - 1))
          end
          conn:wait_closed(10)
          return "closed"
        end, "overloaded")
      end
    end)

    it("goes to the next target when it finishes without content, or with garbage", function()
      assert_left(function(conn)
        conn:event(ROLE)
        conn:event(FINISH)
        conn:event("[DONE]")
        conn:finish_chunked()
      end, "empty")
      assert_left(function(conn)
        conn:event("[DONE]")
        conn:finish_chunked()
      end, "empty")
      assert_left(function(conn)
        conn:event("{garbage")
        conn:finish_chunked()
      end, "malformed")
    end)

    it("goes out from its beginning once it does", function()
      local up = streaming(function(conn)
        conn:chunk(": hello\n\n")
        conn:event(ROLE)
        conn:event({ choices = { { index = 0, delta = { tool_calls = { { index = 0 } } } } } })
        conn:event("[DONE]")
        conn:finish_chunked()
      end)
      local gw = start(up, good_stream("unused"))
      local answer = gw:chat({ stream = true })
      local beginning = ": hello\n\ndata: " .. cjson.encode(ROLE) .. "\n\n"
      assert.equal(beginning, answer.body:sub(1, #beginning))
      assert.truthy(answer.body:find("tool_calls", 1, true))
      assert.equal("complete", answer.ended)
    end)
  end)

  it("ends in an error event and a broken connection when the upstream is cut", function()
    local cut = streaming(function(conn)
      conn:event(chunk("some words"))
      conn:chunk("data: {\"half an ev")
      conn:reset()
      return "closed"
    end)
    local gw = start(cut, good_stream("unused"))
    local answer = gw:chat({ stream = true })
    assert.equal(200, answer.status)
    assert.not_equal("complete", answer.ended)
    assert.truthy(answer.body:find("some words", 1, true))
    assert.falsy(answer.body:find("half an ev", 1, true))
    assert.falsy(answer.body:find("[DONE]", 1, true))
    local last = assert(cjson.decode(answer.body:match("data: (%b{})\n\n$")))
    assert.equal("upstream_error", last.error.type)
    assert.equal("truncated", last.error.code)
  end)

  it("ends in an error event when the upstream falls silent", function()
    local stalled = streaming(function(conn)
      conn:event(chunk("some words"))
      conn:wait_closed(10)
      return "closed"
    end)
    local gw = start(stalled, good_stream("unused"), "5s", "150ms")
    local answer = gw:chat({ stream = true })
    assert.not_equal("complete", answer.ended)
    assert.truthy(answer.body:find("timeout_idle", 1, true))
  end)

  it("counts as cut when it is framed by close and has no [DONE]", function()
    local function until_close(last)
      return support.upstream(function(conn)
        conn:read_request()
        conn:write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        conn:write("data: " .. cjson.encode(chunk("words")) .. "\n\n" .. last)
      end)
    end
    local gw = start(until_close(""), good_stream("unused"))
    assert.not_equal("complete", gw:chat({ stream = true }).ended)
    gw = start(until_close("data: [DONE]\n\n"), good_stream("unused"))
    local answer = gw:chat({ stream = true })
    assert.equal("complete", answer.ended)
    assert.truthy(answer.body:find("[DONE]", 1, true))
  end)

  it("passes an event of many pieces and sizes unharmed", function()
    local big = ("x"):rep(200000)
    local up = streaming(function(conn)
      local text = "data: " .. cjson.encode(chunk(big)) .. "\r\n\r\n"
      for offset = 1, #text, 30011 do conn:chunk(text:sub(offset, offset + 30010)) end
      conn:event("[DONE]")
      conn:finish_chunked()
    end)
    local gw = start(up, good_stream("unused"))
    local answer = gw:chat({ stream = true })
    assert.equal("complete", answer.ended)
    assert.truthy(answer.body:find(big, 1, true))
  end)

  it("closes the upstream at once when the client leaves in mid-stream", function()
    local closed_after_ms
    local up = streaming(function(conn)
      conn:event(chunk("first"))
      local since = support.now()
      conn:wait_closed(10)
      closed_after_ms = (support.now() - since) * 1000
      return "closed"
    end)
    local gw = start(up, good_stream("unused"))
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true } })
    local head = assert(connection:read_head())
    assert(head:next_event())
    connection:close()
    support.wait_until("the upstream to be closed", function() return closed_after_ms end, 20)
    assert.is_true(closed_after_ms < 8000) -- the upstream waits for 10 s
  end)

  it("closes the upstream at once when the client leaves before the head", function()
    local closed = false
    local up = support.upstream(function(conn)
      conn:read_request()
      conn:wait_closed(10)
      closed = true
    end)
    local gw = start(up, good_stream("unused"))
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m" } })
    up:wait_requests(1)
    connection:reset()
    support.wait_until("the upstream to be closed", function() return closed end, 5)
    assert.equal(1, #up.requests)
  end)

  it("reads no further ahead of a client that does not read", function()
    local sent_bytes, done = 0, false
    local piece = "data: \"" .. ("y"):rep(64000) .. "\"\n\n"
    local up = streaming(function(conn)
      for _ = 1, 400 do -- 25 MB
        if not conn:chunk(piece) then break end
        sent_bytes = sent_bytes + #piece
      end
      conn:finish_chunked()
      done = true
    end)
    local gw = start(up, good_stream("unused"))
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true } })
    local head = assert(connection:read_head())
    -- the upstream must come to a halt: nothing more is taken for a while
    local last_bytes, since = -1, support.now()
    support.wait_until("the upstream to be held back", function()
      if sent_bytes ~= last_bytes then last_bytes, since = sent_bytes, support.now() end
      return support.now() - since > 0.3
    end, 10)
    assert.is_false(done)
    assert.is_true(sent_bytes < 24 * 1000 * 1000, "sent " .. sent_bytes)
    local total = 0
    for data in function() return head:read_piece(10) end do total = total + #data end
    assert.equal(400 * #piece, total)
    assert.equal("complete", head.ended)
  end)
end)
