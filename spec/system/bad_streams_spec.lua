--- Streams as nobody should write them, and some do: each goes to the client byte by byte as it
-- came, whole, and within bounds of memory.

local cjson = require "cjson.safe"
local support = require "support"

local MIB = 1024 * 1024
local CONFIG = [[
return {
  providers = { one = { url = "%s/v1", health = false } },
  routes = { { targets = { { provider = "one" } }, retry = { attempts = 1 }, %s } },
}
]]

local function delta(text)
  return cjson.encode { choices = { { index = 0, delta = { content = text } } } }
end

local ROLE = '{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
local WORD = delta("word")

local gw, play -- play(conn): what the upstream does behind its head

local function start(route)
  local up = support.upstream(function(conn)
    while conn:read_request() do
      conn:start_chunked(200)
      play(conn)
      conn:finish_chunked()
    end
  end)
  -- one worker: what it costs in memory is seen in one place
  gw = support.gateway({ config = CONFIG:format(up.url, route or ""), workers = 1 })
end

local function in_pieces(text, size)
  return function(conn)
    for offset = 1, #text, size do conn:chunk(text:sub(offset, offset + size - 1)) end
  end
end

local function assert_passed(text, how)
  local answer = gw:chat({ stream = true })
  assert.equal(200, answer.status, how)
  assert.equal(text, answer.body, how)
  assert.equal("complete", answer.ended, how)
end

local function status_kib(name)
  return tonumber(support.read_file(("/proc/%d/status"):format(gw.pid)):match(name .. ":%s*(%d+)"))
end

--- Sanitizers keep freed memory, and need some of their own.
local function is_sanitized()
  return support.read_file(("/proc/%d/maps"):format(gw.pid)):find("lib[atu]+b?san") ~= nil
end

-- A stream that is only passed on, and one whose events are read all along.
local ROUTES = {
  ["a stream"] = "",
  ["a stream that could be rescued"] = 'rescue = "continue", malformed_events = "drop",',
}

local function specs(route)
  describe("that is written oddly", function()
    setup(function() start(route) end)
    teardown(support.finish)

    local function event(text) return "data: " .. text .. "\n\n" end
    local DONE = event "[DONE]"
    local ODD = {
      { "with CRLF", "data: " .. ROLE .. "\r\n\r\ndata: " .. WORD
        .. "\r\n\r\ndata: [DONE]\r\n\r\n" },
      { "with CR", "data: " .. ROLE .. "\r\rdata: " .. WORD .. "\r\rdata: [DONE]\r\r" },
      { "with all line ends", "data: " .. ROLE .. "\r\n\ndata: " .. WORD .. "\n\r\n: c\rid: 1\r"
        .. "data: " .. WORD .. "\r\r\ndata: [DONE]\n\r" },
      { "with a byte order mark", "\239\187\191" .. event(ROLE) .. event(WORD) .. DONE },
      { "without a space behind data:", "data:" .. ROLE .. "\n\ndata:" .. WORD
        .. "\n\ndata:[DONE]\n\n" },
      { "with several data lines", event(ROLE) .. "data: " .. WORD:gsub(",", ",\ndata: ") .. "\n\n"
        .. DONE },
      { "with unknown fields", "x-seen: 1\nretry: 5\n" .. event(ROLE) .. "id\nnote:"
        .. ("n"):rep(99) .. "\n" .. event(WORD) .. ":\n\n" .. DONE },
      { "with text of other scripts", event(ROLE) .. event(delta("é€😀 مرحبا 你好")) .. DONE },
      { "with events without data", "event: ping\n\nevent: x\nid: 7\n\n\n\n" .. event(WORD)
        .. DONE },
      { "with NUL and bytes that are no UTF-8", event(ROLE) .. event(WORD) .. ": \0\255\254\n\n"
        .. DONE },
    }

    for _, case in ipairs(ODD) do
      it(case[1] .. " comes as it was written, however it is cut", function()
        local text = case[2]
        play = in_pieces(text, #text)
        assert_passed(text, "whole")
        play = in_pieces(text, 1)
        assert_passed(text, "byte by byte")
        for first = 1, #text - 1, 3 do
          play = function(conn)
            conn:chunk(text:sub(1, first))
            conn:chunk(text:sub(first + 1))
          end
          assert_passed(text, "cut behind byte " .. first)
        end
      end)
    end
  end)

  describe("that is large", function()
    before_each(function() start(route) end)
    after_each(support.finish)

    it("may have 10,000 events in one packet", function()
      local text = "data: " .. ROLE .. "\n\n" .. ("data: " .. WORD .. "\n\n"):rep(10000)
        .. "data: [DONE]\n\n"
      play = in_pieces(text, #text)
      assert_passed(text)
    end)

    it("may have 10,000 events that say nothing before the first word", function()
      local text = (": ping\n\nevent: ping\ndata: {}\n\n"):rep(10000) .. "data: " .. WORD
        .. "\n\ndata: [DONE]\n\n"
      play = in_pieces(text, #text)
      assert_passed(text)
    end)

    -- Reads an answer whose text nobody wants to hold; gives its size and how it ended.
    local function read_large()
      local connection = support.connect(gw)
      connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true } })
      local head = assert(connection:read_head())
      assert.equal(200, head.status)
      local total_bytes, tail = 0, ""
      for piece in function() return head:read_piece(20) end do
        total_bytes = total_bytes + #piece
        tail = (tail .. piece):sub(-64)
      end
      connection:close()
      return total_bytes, tail, head.ended
    end

    local BEGIN = 'data: {"choices":[{"index":0,"delta":{"content":"'
    local END = '"}}]}\n\ndata: [DONE]\n\n'
    local LINE_BYTES, PIECE = 100 * MIB, ("x"):rep(MIB / 16)

    local function write_line(conn, before)
      conn:chunk(before .. BEGIN)
      for _ = 1, LINE_BYTES / #PIECE do
        if not conn:chunk(PIECE) then return end
      end
      conn:chunk(END)
    end

    for _, case in ipairs { { "first", "" }, { "later", "data: " .. WORD .. "\n\n" } } do
      it(("may have an event of 100 MB in one line, %s"):format(case[1]), function()
        play = function(conn) write_line(conn, case[2]) end
        local before_kib = status_kib("VmRSS")
        local total_bytes, tail, ended = read_large()
        assert.equal("complete", ended)
        assert.equal(#case[2] + #BEGIN + LINE_BYTES + #END, total_bytes)
        assert.equal(END, tail:sub(-#END))
        if is_sanitized() then return end
        local grown_kib = status_kib("VmHWM") - before_kib
        assert.is_true(grown_kib < 12 * 1024, grown_kib .. " KiB more than before")
      end)
    end
  end)

  describe("that says nothing", function()
    local GATE_BYTES, STREAM_COUNT = 64 * 1024, 200

    after_each(support.finish)

    -- Opens that many streams, whose upstreams send `bytes` of comments and then nothing.
    local function open_streams(bytes)
      local begun_count = 0
      play = function(conn)
        for _ = 1, bytes / 1024 do conn:chunk(": " .. ("."):rep(1020) .. "\n\n") end
        begun_count = begun_count + 1
        conn:wait_closed(60)
      end
      local before_kib, connections = status_kib("VmRSS"), {}
      for number = 1, STREAM_COUNT do
        connections[number] = support.connect(gw)
        connections[number]:send({ path = "/v1/chat/completions",
          json = { model = "m", stream = true } })
      end
      support.wait_until("all upstreams to have written", function()
        return begun_count == STREAM_COUNT
      end, 30)
      return connections, before_kib
    end

    it("holds no more than its gate's bytes", function()
      start(route)
      local connections, before_kib = open_streams(GATE_BYTES - 1024)
      -- the gateway has read all when what it holds grows no more
      local last_kib, since = -1, support.now()
      support.wait_until("the gateway to have read it", function()
        local now_kib = status_kib("VmRSS")
        if now_kib ~= last_kib then last_kib, since = now_kib, support.now() end
        return support.now() - since > 0.3
      end, 20)
      local per_stream_kib = (last_kib - before_kib) / STREAM_COUNT
      for _, connection in ipairs(connections) do connection:close() end
      if is_sanitized() then return end
      assert.is_true(per_stream_kib >= 32, per_stream_kib) -- they are held
      assert.is_true(per_stream_kib <= 96, per_stream_kib)
    end)

    it("is passed on when it says nothing in more", function()
      start(route .. 'gate = { bytes = "4KiB" }')
      local connections = open_streams(16 * 1024)
      for number = 1, STREAM_COUNT do
        local head = assert(connections[number]:read_head())
        assert.equal(200, head.status)
        local got_bytes = 0
        while got_bytes < 16 * 1024 do got_bytes = got_bytes + #assert(head:read_piece(10)) end
        connections[number]:close()
      end
    end)
  end)
end

for what, route in pairs(ROUTES) do
  describe(what, function() specs(route) end)
end
