--- A request's time, and what a client hears while it waits, over real sockets.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  workers = 1,
  providers = { one = { url = "%s/v1" }, two = { url = "%s/v1" } },
  routes = {
    { match = { model = "*" },
      targets = { { provider = "one" }, { provider = "two", priority = 1 } },
      retry = { attempts = 2 }, deadline = "20s", deadline_header = "x-timeout-ms",
      gate = { heartbeat = "100ms" }, %s },
  },
}
]]
local BEAT = ": perilune waiting\n\n"

describe("a request's time", function()
  after_each(support.finish)

  --- An upstream that takes requests and never answers; `gone` counts the gateway's leaving.
  local function silent()
    local up
    up = support.upstream(function(conn)
      if not conn:read_request() then return end
      conn:wait_closed(30)
      up.gone = (up.gone or 0) + 1
    end)
    return up
  end

  --- One that says `text` in a stream, once `open` is set.
  local function streaming(text)
    local up
    up = support.upstream(function(conn)
      while conn:read_request() do
        support.wait_until("the word to answer", function() return up.open end)
        conn:start_chunked(200)
        conn:event({ choices = { { index = 0, delta = { content = text } } } })
        conn:event("[DONE]")
        conn:finish_chunked()
      end
    end)
    return up
  end

  local function start(one, two, route)
    return support.gateway { config = CONFIG:format(one.url, two.url, route or "") }
  end

  --- The access log's only line.
  local function wait_line(gw)
    local line
    support.wait_until("a line of the access log", function()
      line = gw:stdout():match("\n({[^\n]*})\n")
      return line
    end)
    return cjson.decode(line)
  end

  --- Sends a request and reads the head of its answer.
  local function ask(gw, more, headers)
    local connection = support.connect(gw)
    local json = { model = "m", messages = {} }
    for key, value in pairs(more or {}) do json[key] = value end
    connection:send { path = "/v1/chat/completions", json = json, headers = headers }
    return assert(connection:read_head(10)), connection
  end

  it("ends with the client's deadline, whatever the route's, at both sides", function()
    local one = silent()
    local gw = start(one, silent())
    local head = ask(gw, {}, { ["X-Timeout-Ms"] = "150" })
    assert.equal(504, head.status)
    assert.equal("timeout_deadline", cjson.decode(head:read_body()).error.code)
    support.wait_until("the upstream to be left", function() return one.gone == 1 end)
    assert.equal(400, ask(gw, {}, { ["X-Timeout-Ms"] = "150ms" }).status)
  end)

  it("leaves a silent target while there is time for the next", function()
    local one, two = silent(), streaming("from two")
    two.open = true
    local head = ask(start(one, two, 'reserve = "5s"'), { stream = true },
      { ["x-timeout-ms"] = "2000" })
    local body = assert(head:read_body(10))
    assert.is_truthy(body:find(": x%-perilune%-trail: one;timeout_try;%d+ms, two;200;%d+ms\n\n"))
    assert.is_truthy(body:find("from two", 1, true))
    assert.is_truthy(body:find("\n\ndata: [DONE]\n\n", 1, true))
    support.wait_until("the upstream to be left", function() return one.gone == 1 end)
  end)

  it("sends heartbeats as they are due, then the answer, and keeps the connection", function()
    local one = streaming("at last")
    local head, connection = ask(start(one, silent()), { stream = true })
    assert.equal(200, head.status)
    local body = ""
    while #body < 3 * #BEAT do body = body .. assert(head:read_piece(10)) end
    assert.equal(BEAT:rep(3), body:sub(1, 3 * #BEAT))
    one.open = true
    local rest = {}
    for event in function() return head:next_event(10) end do rest[#rest + 1] = event.data end
    assert.is_truthy(rest[#rest - 1]:find("at last", 1, true))
    assert.equal("[DONE]", rest[#rest])
    connection:send { path = "/v1/chat/completions", json = { model = "m", messages = {} } }
    assert.equal(200, connection:read_head(10).status)
  end)

  it("ends a stream of heartbeats with an error event and whole", function()
    local gw = start(silent(), silent())
    local head, connection = ask(gw, { stream = true }, { ["x-timeout-ms"] = "350" })
    assert.equal(200, head.status)
    local body = assert(head:read_body(10))
    assert.equal(BEAT, body:sub(1, #BEAT))
    local event = body:match("\n\ndata: (%b{})\n\n$")
    assert.equal("timeout_deadline", cjson.decode(event).error.code)
    local line = wait_line(gw)
    assert.same({ "failed", "timeout_deadline", 504, #body }, { line["end"], line.reason,
      line["http.response.status_code"], line["http.response.body.size"] })
    connection:send { path = "/v1/models", method = "GET" }
    assert.equal(200, connection:read_head(10).status)
  end)

  it("stops upstream's work when a client leaves that has had heartbeats", function()
    local one = silent()
    local gw = start(one, silent())
    local head, connection = ask(gw, { stream = true })
    assert.equal(BEAT, assert(head:read_piece(10)))
    connection:close()
    support.wait_until("the upstream to be left", function() return one.gone == 1 end)
    local line = wait_line(gw)
    assert.same({ "client_gone", 200 }, { line["end"], line["http.response.status_code"] })
    assert.equal(0, line["http.response.body.size"] % #BEAT)
  end)
end)
