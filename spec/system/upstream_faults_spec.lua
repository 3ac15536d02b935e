--- What upstreams do wrong, and what becomes of it: the next target, a clear error, or an answer
-- that nobody can take for a whole one. Every answer is written byte by byte by a script.

local cjson = require "cjson.safe"
local socket = require "socket"
local support = require "support"

local CHAT = "/v1/chat/completions"
local JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
local CHUNKED_HEAD = JSON_HEAD .. "Transfer-Encoding: chunked\r\n\r\n"
local STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  providers = { -- each try on its own: nobody is left out for what came before
    bad = { url = "%s/v1", health = false },
    good = { url = "%s/v1", health = false },
    refused = { url = "http://127.0.0.1:%d/v1", health = false },
    full = { url = "http://127.0.0.1:%d/v1", health = false, timeouts = { connect = "120ms" } },
  },
  routes = {
    %s
  },
}
]]

local ROUTE = '{ match = { model = "%s" }, targets = { %s }, retry = { %s } },\n'

--- Routes by model: { model, targets, more of `retry` }.
local function routes(list)
  local text = {}
  for number, route in ipairs(list) do
    local retry = route[3] or ""
    if not retry:find("attempts") then retry = retry .. " attempts = 2," end
    if not retry:find("backoff") then
      retry = retry .. ' backoff = { base = "1ms", max = "5ms", floor = "1ms" },'
    end
    text[number] = ROUTE:format(route[1], route[2], retry)
  end
  return table.concat(text)
end

local AND_GOOD = ', { provider = "good", priority = 1 }'

local function limited(limit)
  return ('{ provider = "bad", timeouts = { %s } }'):format(limit)
end

local gw, bad, good, full
-- What `bad` does with the next request; "close" ends the connection.
local play -- function(connection, request)
local play_raw -- function(connection), before the request is read; nil but for some specs

--- A port whose connections are never accepted: the queue of the kernel is full.
local function full_listener()
  local listener = assert(socket.tcp4())
  assert(listener:bind("127.0.0.1", 0))
  assert(listener:listen(0))
  local _, port = listener:getsockname()
  local kept = { listener = listener, port = tonumber(port) }
  for number = 1, 4 do
    kept[number] = assert(socket.tcp4())
    kept[number]:settimeout(0)
    kept[number]:connect("127.0.0.1", kept.port)
  end
  return kept
end

local function start_all(list)
  bad = support.upstream(function(conn)
    while true do
      if not conn:fill(60) then return end
      local act, request = play_raw, nil
      if not act then
        act, request = play, conn:read_request()
      end
      if act(conn, request) == "close" then return end
    end
  end)
  good = support.answering(function(request)
    return 200, { from = "good", id = request:json().id }
  end)
  full = full_listener()
  gw = support.gateway({ workers = 1, config = CONFIG:format(bad.url, good.url,
    support.refused_port(), full.port, routes(list)) })
end

local function finish_all()
  full.listener:close()
  for _, sock in ipairs(full) do sock:close() end
  support.finish()
end

--- The bad upstream writes these bytes and ends the connection.
local function writing(bytes)
  return function(conn)
    conn:write(bytes)
    return "close"
  end
end

local function chat(model, more)
  local body = { model = model }
  for key, value in pairs(more or {}) do body[key] = value end
  return gw:request({ path = CHAT, json = body })
end

--- Classes or statuses of the tries.
local function trail_of(answer)
  local outcomes = {}
  for outcome in answer.headers["x-perilune-trail"]:gmatch("[^;, ]+;([^;]+);%d+ms") do
    outcomes[#outcomes + 1] = outcome
  end
  return table.concat(outcomes, " ")
end

local function assert_moved_on(answer, class, what)
  assert.equal(200, answer.status, what)
  assert.equal(class .. " 200", trail_of(answer), what)
  assert.equal("good", answer:json().from, what)
end

local function assert_broken(answer, what)
  assert.equal(200, answer.status, what)
  assert.is_true(answer.ended == "cut" or answer.ended == "reset", what .. ": " .. answer.ended)
end

local PAIR = '{ provider = "bad" }' .. AND_GOOD
local ALONE = '{ provider = "bad" }'

describe("a malformed answer", function()
  setup(function()
    start_all({ { "pair", PAIR }, { "alone", ALONE, "attempts = 1," } })
  end)
  teardown(finish_all)

  local fields = {}
  for number = 1, 129 do fields[number] = ("X-%d: a\r\n"):format(number) end

  local HEADS = {
    ["of another protocol"] = "SSH-2.0-OpenSSH_9.2\r\n",
    ["of HTTP/2"] = "HTTP/2 200\r\n\r\n",
    ["of HTTP/3.0"] = "HTTP/3.0 200 OK\r\n\r\n",
    ["in lower case"] = "http/1.1 200 OK\r\n\r\n",
    ["that is an HTML page"] = "<html>502 Bad Gateway</html>\r\n\r\n",
    ["behind an empty line"] = "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ["with a status of two digits"] = "HTTP/1.1 20 OK\r\n\r\n",
    ["with a status of four digits"] = "HTTP/1.1 2000 OK\r\n\r\n",
    ["with status 99"] = "HTTP/1.1 099 OK\r\n\r\n",
    ["with status 600"] = "HTTP/1.1 600 OK\r\n\r\n",
    ["without a status"] = "HTTP/1.1 OK\r\n\r\n",
    ["without a space"] = "HTTP/1.1200 OK\r\n\r\n",
    ["that switches protocols"] = "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    ["with bare line feeds"] = "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ["with one bare line feed"] = "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n",
    ["with a bare CR"] = "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
    ["with NUL in a value"] = "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
    ["with a control byte in the reason"] = "HTTP/1.1 200 O\1K\r\n\r\n",
    ["with a space before the colon"] = "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ["with a line without colon"] = "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n",
    ["with an empty name"] = "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
    ["with a folded line"] = "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    ["with a name that is no token"] = "HTTP/1.1 200 OK\r\nA(b): c\r\n\r\n",
    ["with two lengths"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ["with a list of two lengths"] = "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
    ["with a signed length"] = "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    ["with a negative length"] = "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na",
    ["with an empty length"] = "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    ["with a hexadecimal length"] = "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\na",
    ["with a length and a rest"] = "HTTP/1.1 200 OK\r\nContent-Length: 1 1\r\n\r\na",
    ["with a huge length"] = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\na",
    ["with length and coding"] = JSON_HEAD .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
      .. "\r\n0\r\n\r\n",
    ["with another coding"] = JSON_HEAD .. "Transfer-Encoding: gzip\r\n\r\nabc",
    ["with two codings"] = JSON_HEAD .. "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ["with a coding twice"] = JSON_HEAD .. "Transfer-Encoding: chunked\r\n"
      .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ["with a coding like chunked"] = JSON_HEAD .. "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ["of HTTP/1.0 with a coding"] = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
      .. "\r\n",
    ["with a head of 64 KiB"] = JSON_HEAD .. "X: " .. ("a"):rep(65536) .. "\r\n\r\n",
    ["with 129 fields"] = "HTTP/1.1 200 OK\r\n" .. table.concat(fields) .. "\r\n",
    ["with interim answers without end"] = ("HTTP/1.1 102 Processing\r\n\r\n"):rep(20),
  }

  for what, bytes in pairs(HEADS) do
    it(what .. " leads to the next target", function()
      play = writing(bytes)
      assert_moved_on(chat("pair"), "malformed")
    end)
  end

  it("that is the last one is a 502", function()
    play = writing("SSH-2.0-OpenSSH_9.2\r\n")
    local answer = chat("alone")
    assert.equal(502, answer.status)
    assert.equal("malformed", answer:json().error.code)
    assert.equal("upstream_error", answer:json().error.type)
    assert.truthy(answer:json().error.message:find("bad", 1, true))
  end)

  it("is not made of what is merely odd", function()
    for _, bytes in ipairs({
      "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
      "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}",
      "HTTP/1.1 200 caf\233 \195\169\r\nContent-Length: 2\r\n\r\n{}",
      "HTTP/1.0 200 OK\r\n\r\n{}",
      "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n{}",
      "HTTP/1.1 200 OK\r\nX:\r\nY:\t a\t \r\nContent-Length:\t2 \r\n\r\n{}",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n02 ;a=\"b\"\r\n{}\r\n000\r\nT: x\r\n"
        .. "\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    }) do
      for size = 1, #bytes, #bytes - 1 do -- whole, and byte by byte
        play = function(conn)
          for at = 1, #bytes, #bytes - size + 1 do
            conn:write(bytes:sub(at, at + #bytes - size))
          end
          return "close"
        end
        local answer = chat("pair")
        assert.equal("200", trail_of(answer), bytes)
        assert.equal("{}", answer.body)
        assert.equal("complete", answer.ended)
      end
    end
  end)

  local CHUNKS = { "\r\n", "x\r\na\r\n", "-1\r\n", "0x1\r\na\r\n", "1\na\r\n", "1\r\nab\r\n",
    "1\r\na\nb", ("0"):rep(17) .. "1\r\na\r\n", "ffffffffffffffff\r\na", "1 1\r\na\r\n",
    "0\r\nbad trailer\r\n\r\n", "0\r\n\nx", "1;\1\r\na\r\n" }

  it("in its chunks is broken for the client, too", function()
    for _, chunk in ipairs(CHUNKS) do
      play = writing(CHUNKED_HEAD .. "2\r\n{}\r\n" .. chunk)
      assert_broken(chat("pair"), ("%q"):format(chunk))
    end
    gw:wait_log("answer of bad broke off: malformed")
  end)

  it("in the chunks before its first event leads to the next target", function()
    for _, chunk in ipairs(CHUNKS) do
      play = writing(STREAM_HEAD .. "Transfer-Encoding: chunked\r\n\r\n5\r\n: hi\n\r\n" .. chunk)
      assert_moved_on(chat("pair", { stream = true }), "malformed", ("%q"):format(chunk))
    end
  end)

  it("in the body of an error counts by its status", function()
    play = writing("HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzzz")
    assert_moved_on(chat("pair"), "503")
    local answer = chat("alone")
    assert.equal(503, answer.status)
    assert.equal("{}", answer.body)
    assert.equal("complete", answer.ended)
  end)
end)

describe("a connection that is lost", function()
  setup(function()
    start_all({ { "pair", PAIR }, { "alone", ALONE, "attempts = 1," } })
  end)
  teardown(finish_all)

  local function lost_after(bytes, how)
    return function(conn)
      conn:write(bytes)
      conn[how](conn)
      return "close"
    end
  end

  for _, how in ipairs({ "close", "reset" }) do
    it("by " .. how .. " before the end of the head leads to the next target", function()
      for _, bytes in ipairs({ "", "HTT", "HTTP/1.1 200 OK\r\nContent-", JSON_HEAD .. "\r" }) do
        play = lost_after(bytes, how)
        assert_moved_on(chat("pair"), "reset", bytes)
        assert.equal("reset", chat("alone"):json().error.code)
      end
    end)

    it("by " .. how .. " in the body leaves a broken answer", function()
      for _, bytes in ipairs({
        JSON_HEAD .. "Content-Length: 100\r\n\r\n",
        JSON_HEAD .. "Content-Length: 3\r\n\r\n{}",
        CHUNKED_HEAD,
        CHUNKED_HEAD .. "2\r\n{",
        CHUNKED_HEAD .. "2\r\n{}",
        CHUNKED_HEAD .. "2\r\n{}\r\n",
        CHUNKED_HEAD .. "2\r\n{}\r\n0",
        CHUNKED_HEAD .. "2\r\n{}\r\n0\r\n",
        CHUNKED_HEAD .. "2\r\n{}\r\n0\r\nA: b\r\n\r",
      }) do
        play = lost_after(bytes, how)
        assert_broken(chat("pair"), bytes)
      end
      gw:wait_log("answer of bad broke off: truncated")
    end)

    it("by " .. how .. " before the first event leads to the next target", function()
      for _, bytes in ipairs({
        "Content-Length: 100\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n: hi\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n6\r\ndata: ",
      }) do
        play = lost_after(STREAM_HEAD .. bytes, how)
        assert_moved_on(chat("pair", { stream = true }), "truncated", bytes)
      end
    end)
  end

  it("in a stream with a length is not filled up by the error event", function()
    local event = "data: 1\n\n"
    for missing_bytes = 1, 400, 57 do
      local rest = ("data: %s\n\n"):format(("x"):rep(500))
      play = writing(STREAM_HEAD .. ("Content-Length: %d\r\n\r\n"):format(#event + #rest) .. event
        .. rest:sub(1, #rest - missing_bytes))
      local answer = chat("pair", { stream = true })
      assert_broken(answer, "missing " .. missing_bytes)
      assert.equal(event, answer.body:sub(1, #event))
      assert.truthy(answer.body:find('"code":"truncated"', 1, true))
      assert.falsy(answer.body:find("xx", 1, true))
    end
  end)

  it("in the body of an error leaves the error, as far as it came", function()
    for _, framing in ipairs({ "Content-Length: 100\r\n\r\n",
      "Transfer-Encoding: chunked\r\n\r\n3\r\n" }) do
      play = writing("HTTP/1.1 500 X\r\nContent-Type: text/plain\r\n" .. framing .. "ab")
      assert_moved_on(chat("pair"), "500")
      local answer = chat("alone")
      assert.equal(500, answer.status)
      assert.equal("ab", answer.body)
      assert.equal("complete", answer.ended)
    end
  end)
end)

describe("a kept connection", function()
  setup(function()
    start_all({ { "pair", PAIR }, { "*", ALONE, "attempts = 1," } })
  end)
  teardown(finish_all)

  local function answer_with_id(conn, request)
    conn:respond_json(200, { id = request:json().id })
  end

  --- Sends a request that is answered, so that a connection is kept.
  local function warm_up(model)
    play = answer_with_id
    assert.equal("w", chat(model or "alone", { id = "w" }):json().id)
    return #bad.connections
  end

  it("is not used again when bytes follow the answer", function()
    for _, bytes in ipairs({
      JSON_HEAD .. "Content-Length: 2\r\n\r\n{}x",
      JSON_HEAD .. "Content-Length: 2\r\n\r\n{}" .. JSON_HEAD .. "Content-Length: 3\r\n\r\nbad",
      CHUNKED_HEAD .. "2\r\n{}\r\n0\r\n\r\nx",
      JSON_HEAD .. "Content-Length: 2\r\nConnection: x, Close\r\n\r\n{}",
    }) do
      play = function(conn)
        conn:write(bytes)
        conn:wait_closed(5)
        return "close"
      end
      local answer = chat("alone")
      assert.equal("{}", answer.body, bytes)
      assert.equal("complete", answer.ended)
      local count = #bad.connections
      assert.equal(count + 1, warm_up(), bytes)
    end
  end)

  it("is not used again when an answer without a body has one", function()
    for _, case in ipairs({ { "HEAD", 200 }, { "GET", 204 }, { "GET", 304 } }) do
      play = function(conn)
        conn:write(("HTTP/1.1 %d X\r\nContent-Length: 6\r\n\r\nHTTP/1"):format(case[2]))
        conn:wait_closed(5)
        return "close"
      end
      assert.equal(case[2], gw:request({ method = case[1], path = "/v1/files" }).status)
      local count = #bad.connections
      assert.equal(count + 1, warm_up())
    end
  end)

  for _, how in ipairs({ "close", "reset" }) do
    for _, size in ipairs({ 10, 4000000 }) do
      it(("that ends by %s just when it is used is replaced unseen, with %d bytes"):format(how,
        size), function()
        local count = warm_up()
        play_raw = function(conn)
          play_raw = nil
          conn[how](conn)
          return "close"
        end
        local answer = chat("alone", { id = "after", padding = ("x"):rep(size) })
        assert.equal(200, answer.status)
        assert.equal("after", answer:json().id)
        assert.equal("200", trail_of(answer))
        assert.equal(count + 1, #bad.connections)
      end)
    end
  end

  it("that ends while it is idle is not used", function()
    for _, how in ipairs({ "close", "reset" }) do
      local count = warm_up()
      bad.connections[count][how](bad.connections[count])
      assert.equal("w", chat("alone", { id = "w" }):json().id)
      assert.equal(count + 1, #bad.connections)
    end
  end)

  it("is replaced only once, and not after a byte of an answer", function()
    for _, case in ipairs({ { "", 1 }, { "H", 0 }, { JSON_HEAD, 0 } }) do
      local count = warm_up()
      play = writing(case[1])
      assert_moved_on(chat("pair"), "reset", case[1])
      assert.equal(count + case[2], #bad.connections, case[1])
    end
  end)

  it("that speaks unasked is closed, and what it said answers nothing", function()
    for _, bytes in ipairs({ "x", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
      JSON_HEAD .. 'Content-Length: 13\r\n\r\n{"id":"wrong"}' }) do
      local count = warm_up()
      local conn = bad.connections[count]
      conn:write(bytes)
      assert.truthy(conn:wait_closed(5))
      local answer = chat("alone", { id = "right" })
      assert.equal("right", answer:json().id)
      assert.equal(count + 1, #bad.connections)
    end
  end)
end)

describe("a stall", function()
  local CONNECT = '{ provider = "full" }'
  setup(function()
    start_all({
      { "connect", CONNECT .. AND_GOOD }, { "connect-alone", CONNECT, "attempts = 1," },
      { "head", limited('head = "100ms"') .. AND_GOOD },
      { "idle", limited('idle = "120ms", head = "10s"') .. AND_GOOD },
      { "slow", limited('idle = "2s"') .. AND_GOOD },
      { "idle-alone", limited('idle = "120ms"'), "attempts = 1," },
      { "try", limited('try = "150ms"') .. AND_GOOD },
      { "first", limited('first_token = "120ms", idle = "10s"') .. AND_GOOD },
      { "none", limited('head = "0ms", idle = "0ms", first_token = "0ms"') .. AND_GOOD },
    })
  end)
  teardown(finish_all)
  after_each(function() play_raw = nil end)

  --- Writes some bytes, and nothing more until the gateway has left.
  local function stalling_after(bytes)
    return function(conn)
      conn:write(bytes)
      conn:wait_closed(5)
      return "close"
    end
  end

  --- Writes bytes, and then one of `more` every 30 ms, or so many seconds, until the gateway has
  -- left.
  local function trickling(bytes, more, every_s)
    return function(conn)
      conn:write(bytes)
      for at = 1, #more do
        local _, reason = conn:fill(every_s or 0.03)
        if reason ~= "timeout" or not conn:write(more:sub(at, at)) then break end
      end
      return "close"
    end
  end

  it("in connect is left for the next target", function()
    assert_moved_on(chat("connect"), "timeout_connect")
    local answer = chat("connect-alone")
    assert.equal(504, answer.status)
    assert.equal("timeout_connect", answer:json().error.code)
    assert.equal("timeout_error", answer:json().error.type)
  end)

  it("before the end of the head is left for the next target", function()
    for _, bytes in ipairs({ "", "HTTP/1.1 200", JSON_HEAD, "HTTP/1.1 100 Continue\r\n\r\n" }) do
      play = stalling_after(bytes)
      assert_moved_on(chat("head"), "timeout_head", bytes)
    end
    play = trickling("", JSON_HEAD:rep(20))
    assert_moved_on(chat("head"), "timeout_head", "trickle")
  end)

  it("while the request is sent is left for the next target", function()
    local count = #good.requests
    play_raw = function() -- takes nothing
      support.wait_until("the next target", function() return #good.requests > count end, 10)
      return "close"
    end
    assert_moved_on(chat("head", { padding = ("x"):rep(20000000) }), "timeout_head")
  end)

  it("in the body breaks the answer off", function()
    for _, bytes in ipairs({ JSON_HEAD .. "Content-Length: 9\r\n\r\n{",
      CHUNKED_HEAD .. "1\r\n{\r\n", CHUNKED_HEAD }) do
      play = stalling_after(bytes)
      assert_broken(chat("idle"), bytes)
    end
    gw:wait_log("answer of bad broke off: timeout_idle")
  end)

  it("in a stream becomes an error event", function()
    play = stalling_after(STREAM_HEAD .. "\r\ndata: 1\n\ndata: tw")
    local answer = chat("idle", { stream = true })
    assert.equal(200, answer.status)
    assert.is_true(answer.ended ~= "complete" and answer.ended ~= "close")
    local events = answer:events()
    assert.equal("1", events[1].data)
    assert.equal("timeout_idle", cjson.decode(events[2].data).error.code)
    assert.equal(2, #events)
  end)

  it("before the first event is left for the next target", function()
    play = stalling_after(STREAM_HEAD .. "\r\n: comment\n\n")
    assert_moved_on(chat("first", { stream = true }), "timeout_first_token")
    play = trickling(STREAM_HEAD .. "\r\n", (": comment\n\n"):rep(50))
    assert_moved_on(chat("first", { stream = true }), "timeout_first_token")
    play = stalling_after(STREAM_HEAD .. "\r\n: comment\n\n")
    assert_moved_on(chat("idle", { stream = true }), "timeout_idle")
  end)

  it("in the body of an error ends it there", function()
    play = stalling_after("HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\nabc")
    assert_moved_on(chat("idle"), "503")
    local answer = chat("idle-alone")
    assert.equal(503, answer.status)
    assert.equal("abc", answer.body)
    assert.equal("complete", answer.ended)
  end)

  it("is none as long as something comes", function()
    local body = '{"a":1}'
    play = trickling(JSON_HEAD .. ("Content-Length: %d\r\n\r\n"):format(#body), body, 0.4)
    local answer = chat("slow")
    assert.equal(body, answer.body)
    assert.equal("complete", answer.ended)
  end)

  it("of the whole try ends at its limit", function()
    play = trickling(JSON_HEAD .. "Content-Length: 1000\r\n\r\n", ("x"):rep(1000))
    assert_broken(chat("try"), "body")
    gw:wait_log("answer of bad broke off: timeout_try")
    play = trickling("", JSON_HEAD:rep(20))
    assert_moved_on(chat("try"), "timeout_try")
  end)

  it("without limits is waited for", function()
    play = function(conn)
      conn:fill(0.1)
      conn:write(STREAM_HEAD .. "Content-Length: 10\r\n\r\n")
      conn:fill(0.1)
      conn:write("data: 1\n\n\n")
    end
    local answer = chat("none", { stream = true })
    assert.equal("data: 1\n\n\n", answer.body)
    assert.equal("complete", answer.ended)
  end)
end)

describe("an early answer", function()
  setup(function()
    start_all({ { "pair", PAIR }, { "alone", ALONE, "attempts = 1," } })
  end)
  teardown(finish_all)
  after_each(function() play_raw = nil end)

  --- Has the bad upstream answer when the head of the request is there, and read what comes after.
  local function answer_early(status)
    local seen = { bytes = 0 }
    play_raw = function(conn)
      conn:read_through("\r\n\r\n")
      conn:respond_json(status, { from = "early" })
      repeat
        seen.bytes = seen.bytes + #conn.stream:take(#conn.stream.buffer)
      until not conn:fill(5)
      seen.ended = true
      return "close"
    end
    return seen
  end

  local LARGE = { padding = ("x"):rep(20000000) }

  it("that is good is relayed whole", function()
    answer_early(200)
    local answer = chat("alone", LARGE)
    assert.equal(200, answer.status)
    assert.equal("early", answer:json().from)
    assert.equal("complete", answer.ended)
  end)

  it("that is an error counts like any other, and ends the sending", function()
    local seen = answer_early(503)
    assert_moved_on(chat("pair", LARGE), "503")
    support.wait_until("the connection's end", function() return seen.ended end)
    assert.is_true(seen.bytes < #LARGE.padding, "sent " .. seen.bytes)
    answer_early(400)
    local answer = chat("alone", LARGE)
    assert.equal(400, answer.status)
    assert.equal("early", answer:json().from)
  end)
end)

describe("the body of an error", function()
  setup(function()
    start_all({ { "alone", ALONE, "attempts = 1," } })
  end)
  teardown(finish_all)

  it("is relayed whole, however large", function()
    for _, size in ipairs({ 65535, 65536, 65537, 300000, 3000000 }) do
      local body = ("0123456789\n"):rep(math.ceil(size / 11)):sub(1, size)
      local framings = {
        ("Content-Length: %d\r\n\r\n%s"):format(size, body),
        ("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(size, body),
        "\r\n" .. body,
      }
      for number, framing in ipairs(framings) do
        play = writing("HTTP/1.1 502 X\r\nContent-Type: text/html\r\n" .. framing)
        local answer = chat("alone")
        assert.equal(502, answer.status)
        assert.is_true(answer.body == body, ("framing %d of %d bytes"):format(number, size))
        assert.equal("complete", answer.ended)
        assert.equal("text/html", answer.headers["content-type"])
      end
    end
  end)

  it("that breaks off after what was judged is broken for the client", function()
    for _, framing in ipairs({ "Content-Length: 300000\r\n\r\n",
      "Transfer-Encoding: chunked\r\n\r\n30000\r\n" }) do
      play = writing("HTTP/1.1 502 X\r\n" .. framing .. ("x"):rep(100000))
      local answer = chat("alone")
      assert.equal(502, answer.status)
      assert.is_true(answer.ended == "cut" or answer.ended == "reset")
    end
  end)
end)

describe("retry", function()
  local function status(code, body)
    return function(conn) conn:respond_json(code, body or { error = { message = "no" } }) end
  end

  local QUOTA = { error = { code = "insufficient_quota" } }
  local LONG = { error = { code = "context_length_exceeded" } }
  local SILENT = function(conn)
    conn:wait_closed(5)
    return "close"
  end
  local CUT = writing(STREAM_HEAD .. "Content-Length: 99\r\n\r\n: hi\n\n")
  local EMPTY = writing(STREAM_HEAD .. "\r\n: hi\n\n")

  -- retry.on, what the bad target does, whether the good one is tried; then more of the bad target
  local CASES = {
    { "429", status(429), true }, { "429", status(503), false }, { "500, 503", status(503), true },
    { '"5xx"', status(500), true }, { '"5xx"', status(599), true }, { '"5xx"', status(499), false },
    { '"4xx"', status(418), true }, { '"4xx"', status(500), false }, { "301", status(301), true },
    { '"rate_limited"', status(429), true }, { '"rate_limited"', status(429, QUOTA), false },
    { '"billing"', status(429, QUOTA), true }, { '"billing"', status(402), true },
    { '"auth"', status(401), true }, { '"auth"', status(403), true },
    { '"model_not_found"', status(404, {}), false },
    { '"model_not_found"', status(404, { error = { code = "model_not_found" } }), true },
    { '"context_length"', status(400, LONG), true }, { '"context_length"', status(400), false },
    { '"client_fault"', status(400), true }, { '"overloaded"', status(529), true },
    { '"server_error"', status(408), true }, { '"server_error"', status(503), false },
    { '"malformed"', writing("?\r\n"), true }, { '"reset"', writing("?\r\n"), false },
    { '"reset"', writing(""), true }, { '"connect"', writing(""), false },
    { '"timeout"', SILENT, true, 'timeouts = { head = "60ms" }' },
    { '"timeout_head"', SILENT, true, 'timeouts = { head = "60ms" }' },
    { '"timeout_connect"', SILENT, false, 'timeouts = { head = "60ms" }' },
    { '"timeout_try"', SILENT, true, 'timeouts = { try = "60ms" }' },
    { '"timeout"', false, true, 'provider = "full"' },
    { '"connect"', false, true, 'provider = "full"' },
    { '"connect"', false, true, 'provider = "refused"' },
    { '"reset", "timeout", "5xx"', false, false, 'provider = "refused"' },
    { '"reset"', CUT, true, stream = true }, { '"truncated"', CUT, true, stream = true },
    { '"empty"', EMPTY, true, stream = true }, { '"reset"', EMPTY, false, stream = true },
    { "", status(503), false }, { "", false, false, 'provider = "refused"' },
    -- without `on`, as the policy has it
    { false, status(400), false }, { false, status(400, LONG), true },
    { false, status(401), true },
    { false, status(422), false }, { false, status(429), true }, { false, status(501), false },
  }

  local function case_routes()
    local list = {}
    for number, case in ipairs(CASES) do
      local target = case[4] or ""
      if not target:find("provider") then target = 'provider = "bad", ' .. target end
      list[number] = { "case-" .. number, ("{ %s }"):format(target) .. AND_GOOD,
        case[1] and ("on = { %s },"):format(case[1]) }
    end
    return list
  end

  setup(function()
    local list = case_routes()
    local function models(spec) -- "x0 y0 z1": models with their priorities, all of them bad
      return (spec:gsub("(%a)(%d) ?", '{ provider = "bad", model = "%1", priority = %2 }, '))
    end
    local SLOW = 'backoff = { base = "1s", max = "1s", floor = "1s" }, '
    list[#list + 1] = { "rounds", models("x0 y0 z1"), SLOW .. "attempts = 7, per_priority = 1," }
    list[#list + 1] = { "again", models("x0 z1"), SLOW .. "attempts = 5, per_priority = 3," }
    list[#list + 1] = { "few", models("x0 y0 z1"), "attempts = 2," }
    list[#list + 1] = { "zero", models("x0") .. '{ provider = "good", weight = 0 }' }
    for _, route in ipairs(list) do route[2] = route[2]:gsub(", *$", "") end
    start_all(list)
  end)
  teardown(finish_all)

  for number, case in ipairs(CASES) do
    local name = ("%s: case %d %s"):format(case[1] or "by default", number,
      case[3] and "moves on" or "stays")
    it("on " .. name, function()
      play = case[2]
      local before = #good.requests
      local answer = chat("case-" .. number, { stream = case.stream })
      assert.equal(case[3] and 1 or 0, #good.requests - before)
      assert.equal(case[3] and "2" or "1", answer.headers["x-perilune-attempts"])
      if case[3] then
        assert.equal("good", answer:json().from)
      else
        assert.is_true(answer.status >= 400)
      end
    end)
  end

  --- The models that were tried, and where the policy waited before one: "x|y z".
  local function tries(model)
    local text, last_s = "", nil
    play = function(conn, request)
      local now_s = support.now()
      local waited = last_s and now_s - last_s > 0.8
      text = text .. (last_s and (waited and "|" or " ") or "") .. request:json().model
      last_s = now_s
      conn:respond_json(503, { error = { message = "no" } })
    end
    local answer = chat(model)
    assert.equal(503, answer.status)
    return text
  end

  it("gives each priority its number of tries in a round, and waits when it begins anew", function()
    local order = tries("rounds")
    local first, second, third = order:match("^([xy]) z ([xy])|z|([xy]) z|[xy]$")
    assert.truthy(first, order)
    assert.truthy(first ~= second, order)
    assert.truthy(third, order)
  end)

  it("repeats a priority that has fewer targets than tries", function()
    assert.equal("x|x|x z|z", tries("again"))
  end)

  it("ends after so many attempts", function()
    assert.truthy(tries("few"):find("^[xy] [xy]$"))
  end)

  it("takes a target without weight only after the others", function()
    play = status(503)
    for _ = 1, 5 do
      local answer = chat("zero")
      assert.equal("503 200", trail_of(answer))
    end
  end)
end)

describe("thousands of requests with random faults", function()
  local COUNT = 2500
  local SEED = tonumber(os.getenv("PERILUNE_SPEC_SEED")) or 20240229

  local SOME = '{ provider = "bad" }, { provider = "good", priority = 1 }'
  setup(function()
    start_all({ { "soak", SOME, "attempts = 2," } })
  end)
  teardown(finish_all)

  local random = math.random

  local function body_of(id)
    return cjson.encode({ id = id, text = id:rep(random(1, 400)) })
  end

  local function write_events(conn, id)
    conn:start_chunked()
    for _ = 1, random(5) do conn:event(body_of(id)) end
  end

  --- What both upstreams do with a request; each name says what is wrong with it.
  local ACTS = {
    good = function(conn, id) conn:respond_json(200, body_of(id)) end,
    chunked = function(conn, id)
      conn:write(CHUNKED_HEAD)
      local body, at = body_of(id), 1
      while at <= #body do
        local size = random(1, 2000)
        conn:chunk(body:sub(at, at + size - 1))
        at = at + size
      end
      conn:finish_chunked()
    end,
    until_close = function(conn, id)
      conn:write(JSON_HEAD .. "\r\n" .. body_of(id))
      return "close"
    end,
    close_after = function(conn, id)
      conn:respond_json(200, body_of(id))
      return "close"
    end,
    garbage_after = function(conn, id)
      local body = body_of(id)
      conn:write(JSON_HEAD .. ("Content-Length: %d\r\n\r\n%s"):format(#body, body)
        .. JSON_HEAD .. "Content-Length: 2\r\n\r\n{}")
    end,
    unavailable = function(conn) conn:respond_json(503, { error = { message = "no" } }) end,
    limited = function(conn)
      conn:respond_json(429, { error = { message = "no" } }, { ["retry-after-ms"] = "1" })
    end,
    close_before = function() return "close" end,
    reset_before = function(conn)
      conn:reset()
      return "close"
    end,
    half_head = writing(JSON_HEAD),
    malformed = writing("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    cut = function(conn, id)
      conn:write(JSON_HEAD .. "Content-Length: 100000\r\n\r\n" .. body_of(id))
      if random(2) == 1 then conn:reset() end
      return "close"
    end,
    cut_chunks = function(conn, id)
      conn:write(CHUNKED_HEAD)
      conn:chunk(body_of(id))
      return "close"
    end,
    events = function(conn, id)
      write_events(conn, id)
      conn:event("[DONE]")
      conn:finish_chunked()
    end,
    cut_events = function(conn, id)
      write_events(conn, id)
      conn:write("fff\r\ndata: half")
      if random(2) == 1 then conn:reset() end
      return "close"
    end,
    no_events = function(conn)
      conn:start_chunked()
      conn:chunk(": nothing\n\n")
      if random(2) == 1 then conn:finish_chunked() end
      return "close"
    end,
  }
  local FAULTY, NAMES = { cut = true, cut_chunks = true, cut_events = true }, {}
  for name in pairs(ACTS) do NAMES[#NAMES + 1] = name end
  table.sort(NAMES)

  local function open_file_count()
    local list = support.run({ "ls", ("/proc/%d/fd"):format(gw.pid) })
    return select(2, list.stdout:gsub("\n", ""))
  end

  it("end each in its own good answer or in a clear error (seed " .. SEED .. ")", function()
    math.randomseed(SEED)
    local last_act
    play = function(conn, request)
      last_act = random(2) == 1 and "good" or NAMES[random(#NAMES)]
      return ACTS[last_act](conn, request:json().id)
    end
    good:stop()
    good = support.upstream(function(conn)
      while true do
        local request = conn:read_request(60)
        if not request or play(conn, request) == "close" then return end
      end
    end, { port = good.port })

    --- Checks a stream: events of this request alone, and the right last one.
    local function check_events(answer, id, is_whole)
      local events = answer:events()
      local last = table.remove(events).data
      if is_whole then
        assert(last == "[DONE]", id)
      else
        assert(cjson.decode(last).error.code == "truncated", id)
      end
      for _, event in ipairs(events) do assert(cjson.decode(event.data).id == id, id) end
    end

    local function check_good(answer, id, is_whole)
      assert(is_whole or FAULTY[last_act], ("%s: %s by %s"):format(id, answer.ended, last_act))
      if answer.headers["content-type"] == "text/event-stream" then
        check_events(answer, id, is_whole)
      elseif is_whole then
        local body = answer:json()
        assert(body and body.id == id and #body.text % #id == 0, "wrong answer to " .. id)
      end
      return is_whole and "good" or "broken"
    end

    local ERRORS = { [429] = true, [502] = true, [503] = true }
    local function check_error(answer, id, is_whole)
      assert(is_whole and ERRORS[answer.status], ("%s: %d"):format(id, answer.status))
      assert(type(answer:json().error.message) == "string", id)
      return "failed"
    end

    local files_before, connection = open_file_count(), nil
    local counts = { good = 0, broken = 0, failed = 0 }
    for number = 1, COUNT do
      local id = ("r%d."):format(number)
      connection = connection or support.connect(gw)
      connection:send({ path = CHAT, json = { model = "soak", id = id, stream = random(2) == 1,
        padding = random(20) == 1 and ("p"):rep(random(200000)) or nil } })
      local answer = connection:read_response()
      local is_whole = answer.ended == "complete"
      local check = answer.status == 200 and check_good or check_error
      local outcome = check(answer, id, is_whole)
      counts[outcome] = counts[outcome] + 1
      if not is_whole or answer.headers.connection == "close" then
        connection:close()
        connection = nil
      end
    end
    assert.is_true(counts.good > COUNT / 2, "good: " .. counts.good)
    assert.is_true(counts.broken > 20, "broken: " .. counts.broken)
    assert.is_true(counts.failed > 20, "failed: " .. counts.failed)
    assert.is_true(open_file_count() <= files_before + 4)
  end)
end)
