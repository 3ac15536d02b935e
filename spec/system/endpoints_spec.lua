--- Every kind of request and answer, byte for byte through the real gateway: endpoints, bodies,
-- framings, paths and headers.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  providers = {
    based = { url = "%s/v1", key = "sk-secret", health = false },
    bare = { url = "%s", health = false },
    deep = { url = "%s/api/openai/v1/", health = false },
  },
  routes = {
    { match = { headers = { ["x-base"] = "bare" } }, targets = { { provider = "bare" } } },
    { match = { headers = { ["x-base"] = "deep" } }, targets = { { provider = "deep" } } },
    { match = { model = "alias" },
      targets = { { provider = "based", model = "a-longer-name/x" } } },
    { match = { model = "a/rather long alias" },
      targets = { { provider = "based", model = "r" } } },
    { match = { model = { "*" } }, targets = { { provider = "based" } }, models = { "listed" },
      retry = { attempts = 1 } },
  },
}
]]

local JSON = { ["Content-Type"] = "application/json" }
local CHAT = "/v1/chat/completions"

local gw, up
local play_next -- function(connection), for each request; "close" ends the connection

local function start_all()
  up = support.upstream(function(conn)
    while conn:fill(60) do
      if play_next(conn) == "close" then return end
    end
  end)
  gw = support.gateway({ config = CONFIG:format(up.url, up.url, up.url) })
end

--- What the upstream does from here on, once it has read a request.
local function play(act)
  play_next = function(conn)
    local request = conn:read_request()
    return request and act(conn, request) or nil
  end
end

local function answer_json(conn)
  conn:respond_json(200, { ok = true })
end

--- The request that the upstream has read last.
local function last_request()
  return up.requests[#up.requests]
end

--- All values of a header, in order.
local function values_of(message, name)
  local values = {}
  for _, pair in ipairs(message.headers.list) do
    if pair[1]:lower() == name then values[#values + 1] = pair[2] end
  end
  return values
end

local ALL_BYTES = {}
for byte = 0, 255 do ALL_BYTES[#ALL_BYTES + 1] = string.char(byte) end
ALL_BYTES = table.concat(ALL_BYTES)

--- Text that repeats only after a length that no buffer has.
local function filler(length_bytes)
  local piece = ("0123456789abcdef"):rep(4096):sub(1, 65521)
  return piece:rep(math.ceil(length_bytes / #piece)):sub(1, length_bytes)
end

describe("endpoints", function()
  setup(start_all)
  teardown(support.finish)
  before_each(function() play(answer_json) end)

  describe("with JSON bodies", function()
    local ENDPOINTS = { "chat/completions", "completions", "embeddings", "responses", "messages",
      "images/generations", "moderations", "rerank", "audio/speech", "some/future/endpoint" }

    for _, endpoint in ipairs(ENDPOINTS) do
      it("pass " .. endpoint .. " with the target's model and nothing else changed", function()
        local form = '{"n":12345678901234567890 ,"model": "%s","empty":[],\n"text":"\\u00e9 \\/ é"}'
        local text = '{"id" : 1e400, "data":[ ], "big":98765432109876543210}\n'
        play(function(conn) conn:respond(200, { ["Content-Type"] = "application/json" }, text) end)
        local answer = gw:request({ path = "/v1/" .. endpoint, body = form:format("alias"),
          headers = JSON })
        assert.equal(200, answer.status)
        assert.equal(text, answer.body)
        assert.equal("complete", answer.ended)
        assert.equal("/v1/" .. endpoint, last_request().target)
        assert.equal(form:format("a-longer-name/x"), last_request().body)
        gw:request({ path = "/v1/" .. endpoint, body = form:format("a\\/rather \\u006cong alias"),
          headers = JSON })
        assert.equal(form:format("r"), last_request().body)
      end)
    end

    for what, content_type in pairs({
      ["a vendor's JSON type"] = "application/vnd.api+json; charset=utf-8",
      ["curl's default type"] = "application/x-www-form-urlencoded",
      ["plain text"] = "text/plain;charset=UTF-8",
      ["no type"] = false,
    }) do
      it("read the model from a body with " .. what, function()
        local answer = gw:request({ path = CHAT, body = '{"model":"alias"}',
          headers = { ["Content-Type"] = content_type } })
        assert.equal(200, answer.status)
        assert.equal('{"model":"a-longer-name/x"}', last_request().body)
        assert.equal(content_type or nil, last_request().headers["content-type"])
      end)
    end

    it("refuse what is not JSON, and contact nobody", function()
      local count = #up.requests
      for _, body in ipairs({ '{"model":"alias"', "[1]", '{"model":1}', '{"a":01}', "model=alias",
        '{"model":"alias"}x', '{"model":"\\ud800"}', "\0", '{"model":"alias","model":"other"}' }) do
        local answer = gw:request({ path = CHAT, body = body, headers = JSON })
        assert.equal(400, answer.status, body)
        assert.equal("invalid_body", answer:json().error.code)
        assert.equal("invalid_request_error", answer:json().error.type)
      end
      assert.equal(count, #up.requests)
    end)

    it("are refused beside /v1/", function()
      local answer = gw:request({ path = "/v2/chat/completions", json = { model = "alias" } })
      assert.equal(404, answer.status)
      assert.equal("unknown_url", answer:json().error.code)
    end)
  end)

  describe("with multipart bodies", function()
    local BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    -- bytes that look like parts, but are not
    local FILE = ALL_BYTES .. "\r\n--" .. BOUNDARY:sub(1, -2) .. "\r\nContent-Disposition: "
      .. 'form-data; name="model"\r\n\r\nalias\r\n' .. ALL_BYTES:reverse() .. "\r\n--"

    local function part(name, value, more)
      return ("--%s\r\nContent-Disposition: form-data; name=\"%s\"%s\r\n\r\n%s\r\n"):format(
        BOUNDARY, name, more or "", value)
    end

    local function form(...)
      return table.concat({ ... }) .. "--" .. BOUNDARY .. "--\r\n"
    end

    local file = part("file", FILE, '; filename="a.wav"\r\nContent-Type: audio/wav')

    local function send(path, body)
      return gw:request({ path = path, body = body,
        headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. BOUNDARY } })
    end

    for _, path in ipairs({ "/v1/audio/transcriptions", "/v1/images/edits" }) do
      it("pass " .. path .. " with the target's model and the file byte for byte", function()
        for _, pair in ipairs({ { "alias", "a-longer-name/x" }, { "a/rather long alias", "r" } }) do
          local rest = part("response_format", "json")
          assert.equal(200, send(path, form(part("model", pair[1]), file, rest)).status)
          assert.is_true(form(part("model", pair[2]), file, rest) == last_request().body)
          assert.equal("multipart/form-data; boundary=" .. BOUNDARY,
            last_request().headers["content-type"])
          assert.equal(200, send(path, form(file, rest, part("model", pair[1]))).status)
          assert.is_true(form(file, rest, part("model", pair[2])) == last_request().body)
        end
      end)
    end

    it("stay as they are when no model is named or the target keeps it", function()
      for _, body in ipairs({ form(file), form(part("model", "unknown"), file) }) do
        assert.equal(200, send("/v1/images/variations", body).status)
        assert.is_true(body == last_request().body)
      end
    end)

    it("are refused when they are broken", function()
      local count = #up.requests
      local twice = form(part("model", "a"), part("model", "b"))
      for _, body in ipairs({ "x", form(file):sub(1, -5), twice }) do
        local answer = send("/v1/images/edits", body)
        assert.equal(400, answer.status)
        assert.equal("invalid_body", answer:json().error.code)
      end
      assert.equal(count, #up.requests)
    end)
  end)

  describe("with other bodies", function()
    it("pass bytes of any type as they are", function()
      local body = ALL_BYTES .. '{"model":"alias"}'
      for _, content_type in ipairs({ "application/octet-stream", "audio/wav", "X/y+z; a=\"b;c\"",
        "multipart/mixed; boundary=x", "" }) do
        assert.equal(200, gw:request({ path = "/v1/uploads", body = body,
          headers = { ["Content-Type"] = content_type } }).status)
        assert.is_true(body == last_request().body)
        assert.equal(content_type, last_request().headers["content-type"])
      end
    end)

    for _, method in ipairs({ "POST", "PUT", "PATCH" }) do
      it("pass " .. method .. " without a body", function()
        for _, length in ipairs({ "0", false }) do
          local answer = gw:request({ method = method, path = "/v1/batches/b1/cancel",
            headers = { ["Content-Length"] = length } })
          assert.equal(200, answer.status)
          assert.equal(method, last_request().method)
          assert.equal("", last_request().body)
          assert.equal("0", last_request().headers["content-length"])
        end
      end)
    end

    it("pass DELETE with a body", function()
      assert.equal(200, gw:request({ method = "DELETE", path = "/v1/x", body = '{"a": 1}',
        headers = JSON }).status)
      assert.equal("DELETE", last_request().method)
      assert.equal('{"a": 1}', last_request().body)
    end)

    it("take chunked bodies, however they are cut", function()
      local body = '{"model":"alias","text":"' .. filler(3000) .. '"}'
      for _, size in ipairs({ 1, 7, 1000, #body }) do
        local pieces = {}
        for at = 1, #body, size do
          local piece = body:sub(at, at + size - 1)
          pieces[#pieces + 1] = ("%X\r\n%s\r\n"):format(#piece, piece)
        end
        local connection = support.connect(gw)
        connection:send({ method = "POST", path = CHAT,
          headers = { ["Transfer-Encoding"] = "chunked", ["Content-Type"] = "application/json" } })
        connection:write_in_pieces(table.concat(pieces) .. "0\r\n\r\n", 4093)
        assert.equal(200, connection:read_response().status)
        assert.equal((body:gsub("alias", "a-longer-name/x", 1)), last_request().body)
        assert.falsy(last_request().headers["transfer-encoding"])
      end
    end)

    it("take an empty chunked body", function()
      local connection = support.connect(gw)
      connection:send({ method = "POST", path = "/v1/batches/b1/cancel",
        headers = { ["Transfer-Encoding"] = "chunked" } })
      connection:write("0\r\n\r\n")
      assert.equal(200, connection:read_response().status)
      assert.equal("0", last_request().headers["content-length"])
    end)

    it("ask for the body of a client that waits for 100", function()
      local connection = support.connect(gw)
      local body = '{"model":"alias"}'
      connection:write(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"):format(CHAT, #body)
        .. "Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
      local interim = assert(connection.stream:read_through("\r\n\r\n"))
      assert.truthy(interim:find("^HTTP/1.1 100 "))
      connection:write(body)
      assert.equal(200, connection:read_response().status)
      assert.falsy(last_request().headers.expect)
    end)

    it("take 50 MiB exactly, and not a byte more", function()
      local form = '{"model":"%s","text":"%s"}'
      local text = filler(50 * 1024 * 1024 - #form:format("alias", ""))
      local answer = gw:request({ path = CHAT, body = form:format("alias", text), headers = JSON,
        timeout_s = 20 })
      assert.equal(200, answer.status)
      assert.is_true(form:format("a-longer-name/x", text) == last_request().body)
      up.requests = {}
      collectgarbage()

      answer = support.request({ to = gw, raw = "POST /v1/files HTTP/1.1\r\nHost: x\r\n"
        .. ("Content-Length: %d\r\n\r\n"):format(50 * 1024 * 1024 + 1) })
      assert.equal(413, answer.status)
      assert.equal("request_too_large", answer:json().error.code)
    end)

    it("take 50 MiB of a file", function()
      local body = filler(50 * 1024 * 1024 - #ALL_BYTES) .. ALL_BYTES
      assert.equal(200, gw:request({ method = "PUT", path = "/v1/uploads/u/parts", body = body,
        headers = { ["Content-Type"] = "application/octet-stream" }, timeout_s = 20 }).status)
      assert.is_true(body == last_request().body)
      up.requests = {}
      local connection = support.connect(gw)
      connection:write("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        .. ("Content-Type: a/b\r\n\r\n%x\r\n"):format(#body))
      connection:write(body)
      connection:write("\r\n0\r\n\r\n")
      assert.equal(200, connection:read_response(20).status)
      assert.is_true(body == last_request().body)
      up.requests = {}
      collectgarbage()
    end)
  end)

  describe("without bodies", function()
    it("pass methods, paths and queries as they are", function()
      for _, case in ipairs({
        { "GET", "/v1/files/file-abc123" },
        { "GET", "/v1/files/file-abc123/content?x=1&y=%20%2F+z&&=&x=2" },
        { "DELETE", "/v1/files/file-abc123" },
        { "GET", "/v1/batches?limit=2&after=a%2Fb%3D" },
        { "GET", "/v1/a%20b//c/;d=1/~e" },
        { "GET", "/v1/" },
        { "GET", "/v1/files?q=/../.." },
        { "GET", "/v1/v1/files" },
      }) do
        local answer = gw:request({ method = case[1], path = case[2] })
        assert.equal(200, answer.status, case[2])
        local request = last_request()
        assert.equal(case[1], request.method)
        assert.equal(case[2], request.target)
        assert.equal("", request.body)
        assert.falsy(request.headers["content-length"])
        assert.falsy(request.headers["transfer-encoding"])
      end
    end)

    it("map the path to the provider's", function()
      for _, case in ipairs({
        { "bare", "/v1/files/x?a=b", "/files/x?a=b" },
        { "deep", "/v1/files/x?a=b", "/api/openai/v1/files/x?a=b" },
        { "bare", "/v1/", "/" },
        { "deep", "/v1/", "/api/openai/v1/" },
        { "bare", "/v1/v1/x", "/v1/x" },
      }) do
        assert.equal(200, gw:request({ path = case[2], headers = { ["X-Base"] = case[1] } }).status)
        assert.equal(case[3], last_request().target)
        assert.equal("127.0.0.1:" .. up.port, last_request().headers.host)
      end
    end)

    it("refuse paths that could lead elsewhere", function()
      local count = #up.requests
      for _, path in ipairs({ "/v1/../admin", "/v1/files/..", "/v1/./x", "/v1/%2e%2E/x",
        "/v1/.%2e/x", "/v1/..\\x" }) do
        assert.equal(400, gw:request({ path = path }).status, path)
      end
      for _, path in ipairs({ "/", "/v1", "/v2/files", "/files", "/V1/files" }) do
        assert.equal(404, gw:request({ path = path }).status, path)
      end
      assert.equal(count, #up.requests)
    end)

    it("answer HEAD with the answer's head alone", function()
      local connection = support.connect(gw)
      for _, content_type in ipairs({ "audio/wav", "text/event-stream" }) do
        play(function(conn)
          conn:respond(200, { ["Content-Type"] = content_type, ETag = '"x"' }, ("x"):rep(12345))
        end)
        local answer = connection:request({ method = "HEAD", path = "/v1/files/f/content" })
        assert.equal(200, answer.status)
        assert.equal("HEAD", last_request().method)
        assert.equal("12345", answer.headers["content-length"])
        assert.equal('"x"', answer.headers.etag)
        assert.falsy(answer.headers["transfer-encoding"])
      end
      assert.equal("", connection.stream.buffer)
    end)

    it("list the models of the configuration themselves", function()
      local count = #up.requests
      local answer = gw:request({ path = "/v1/models" })
      assert.equal(200, answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      local names = {}
      for position, model in ipairs(answer:json().data) do
        names[position] = model.id
        assert.equal("model", model.object)
      end
      assert.same({ "alias", "a/rather long alias", "listed" }, names)
      assert.equal("alias", gw:request({ path = "/v1/models/alias" }):json().id)
      assert.equal("a/rather long alias",
        gw:request({ path = "/v1/models/a%2Frather%20long%20alias" }):json().id)
      assert.equal("listed", gw:request({ path = "/v1/models/listed?x=1" }):json().id)
      local missing = gw:request({ path = "/v1/models/nobody" })
      assert.equal(404, missing.status)
      assert.equal("model_not_found", missing:json().error.code)
      local head = gw:request({ method = "HEAD", path = "/v1/models" })
      assert.equal(200, head.status)
      assert.equal(tostring(#answer.body), head.headers["content-length"])
      assert.equal(count, #up.requests)
      assert.equal(200, gw:request({ method = "DELETE", path = "/v1/models/ft-1" }).status)
      assert.equal("/v1/models/ft-1", last_request().target)
    end)
  end)

  describe("with answers", function()
    it("of bytes pass them as they are, whatever the framing", function()
      local body = ALL_BYTES:rep(100)
      local framings = {
        length = function(conn) conn:respond(200, { ["Content-Type"] = "audio/mpeg" }, body) end,
        chunked = function(conn)
          conn:start_chunked(200, { ["Content-Type"] = "audio/mpeg" })
          for at = 1, #body, 999 do conn:chunk(body:sub(at, at + 998)) end
          conn:write("0;last=1\r\nX-Trailer: a\r\nX-More: b\r\n\r\n")
        end,
        close = function(conn)
          conn:write("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n" .. body)
          return "close"
        end,
        ["old close"] = function(conn)
          conn:write("HTTP/1.0 200\r\nContent-Type: audio/mpeg\r\n\r\n" .. body)
          return "close"
        end,
      }
      for name, framing in pairs(framings) do
        play(framing)
        local connection = support.connect(gw)
        for _ = 1, 2 do -- the client's connection goes on in any case
          local answer = connection:request({ path = "/v1/audio/speech", json = { model = "tts" } })
          assert.equal(200, answer.status)
          assert.equal("audio/mpeg", answer.headers["content-type"])
          assert.is_true(body == answer.body, name)
          assert.equal("complete", answer.ended)
          assert.equal(name == "length" and tostring(#body) or nil,
            answer.headers["content-length"])
          assert.same({ list = {} }, answer.trailers or { list = {} })
        end
      end
    end)

    it("without a body keep their status and their headers", function()
      for _, status in ipairs({ 204, 304 }) do
        play(function(conn)
          conn:write(("HTTP/1.1 %d X\r\nETag: \"a\"\r\n\r\n"):format(status))
        end)
        local connection = support.connect(gw)
        for _ = 1, 2 do
          local answer = connection:request({ path = "/v1/files/f",
            headers = { ["If-None-Match"] = '"a"' } })
          assert.equal(status, answer.status)
          assert.equal('"a"', answer.headers.etag)
          assert.equal('"a"', last_request().headers["if-none-match"])
          assert.falsy(answer.headers["transfer-encoding"])
        end
        assert.equal("", connection.stream.buffer)
      end
    end)

    it("of length 0 are whole", function()
      play(function(conn) conn:respond(200, {}, "") end)
      local answer = gw:request({ path = "/v1/x" })
      assert.equal("0", answer.headers["content-length"])
      assert.equal("complete", answer.ended)
    end)

    it("pass redirects and odd statuses to the client", function()
      for _, status in ipairs({ 201, 202, 206, 299, 301, 307, 418, 422, 451, 599 }) do
        play(function(conn) conn:respond(status, { Location = "/v1/elsewhere" }, "body") end)
        local answer = gw:request({ path = "/v1/x" })
        assert.equal(status, answer.status)
        assert.equal("/v1/elsewhere", answer.headers.location)
        assert.equal("body", answer.body)
      end
    end)

    it("after interim ones are the final one alone", function()
      play(function(conn)
        for _ = 1, 3 do conn:write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") end
        conn:write("HTTP/1.1 100 Continue\r\n\r\n")
        conn:respond_json(200, { ok = 1 })
      end)
      local answer = gw:chat({ model = "alias" })
      assert.equal(200, answer.status)
      assert.equal(0, #answer.interim)
      assert.falsy(answer.headers.link)
      assert.same({ ok = 1 }, answer:json())
    end)

    it("that come early, while the body is being sent, are passed on", function()
      for _, status in ipairs({ 401, 413 }) do
        play_next = function(conn)
          conn:read_through("\r\n\r\n")
          conn:respond_json(status, { error = { message = "no" } }, { Connection = "close" })
          while conn:fill(5) do conn.stream:take(#conn.stream.buffer) end
          return "close"
        end
        local answer = gw:request({ path = "/v1/files", body = filler(20 * 1024 * 1024),
          headers = { ["Content-Type"] = "application/octet-stream" } })
        assert.equal(status, answer.status)
        assert.equal("no", answer:json().error.message)
        assert.truthy(answer.headers["x-perilune-trail"]:find("^based;" .. status .. ";%d+ms$"))
      end
    end)

    it("of the gateway that come early reach a client that is still sending", function()
      local connection = support.connect(gw)
      connection:write("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
      local chunk = ("%x\r\n%s\r\n"):format(1024 * 1024, filler(1024 * 1024))
      for _ = 1, 51 do assert(connection:write(chunk)) end
      local answer = connection:read_response()
      assert.equal(413, answer.status)
      assert.equal("request_too_large", answer:json().error.code)
      assert.equal("close", answer.headers.connection)
      for _ = 1, 3 do assert(connection:write(chunk)) end -- no reset, which could take it back
    end)
  end)

  describe("with HTTP/1.0 clients", function()
    local BODY = '{"model":"x"}'
    local OLD = ("POST %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
      .. "%%s\r\n%s"):format(CHAT, #BODY, BODY)

    it("keep a connection only when asked to", function()
      local connection = support.connect(gw)
      connection.method = "POST"
      for _ = 1, 2 do
        connection:write(OLD:format("Connection: keep-alive\r\n"))
        local answer = connection:read_response()
        assert.equal(200, answer.status)
        assert.equal("1.0", answer.version)
        assert.equal("keep-alive", answer.headers.connection)
      end
      connection:write(OLD:format(""))
      assert.equal("close", connection:read_response().headers.connection)
      assert.equal("closed", connection:wait_closed())
    end)

    it("stream without chunks, to the end of the connection", function()
      play(function(conn)
        conn:start_chunked()
        conn:event("1")
        conn:event("[DONE]")
        conn:finish_chunked()
      end)
      local answer = support.request({ to = gw, raw = OLD:format("") })
      assert.equal("1.0", answer.version)
      assert.falsy(answer.headers["transfer-encoding"])
      assert.equal("data: 1\n\ndata: [DONE]\n\n", answer.body)
      assert.equal("close", answer.ended)
    end)

    it("see a cut answer end in a reset", function()
      for _, content_type in ipairs({ "text/event-stream", "audio/mpeg" }) do
        play(function(conn)
          conn:start_chunked(200, { ["Content-Type"] = content_type })
          conn:chunk("data: 1\n\n")
          conn:write("5\r\nab")
          return "close"
        end)
        local answer = support.request({ to = gw, raw = OLD:format("") })
        assert.equal("reset", answer.ended)
      end
    end)
  end)

  describe("and headers", function()
    it("pass those of the client, but for the ones that end here", function()
      gw:request({ path = CHAT, json = { model = "alias" }, headers = {
        { "X-Custom", "a, b" }, { "X-Custom", "c" }, { "User-Agent", "spec/1" },
        { "Accept", "text/event-stream" }, { "OpenAI-Beta", "assistants=v2" },
        { "X-Empty", "" }, { "X-High", "caf\233 \195\169" }, { "Idempotency-Key", "k-1" },
        { "X-Request-Id", "mine" },
        { "Connection", "keep-alive, X-Listed" }, { "Connection", "x-listed-too" },
        { "X-Listed", "1" }, { "X-Listed-Too", "1" }, { "Keep-Alive", "timeout=5" },
        { "TE", "trailers" }, { "Trailer", "X-T" }, { "Upgrade", "websocket" },
        { "Proxy-Authorization", "Basic cHJveHk=" }, { "Proxy-Connection", "keep-alive" },
        { "Accept-Encoding", "gzip, br" }, { "Authorization", "Bearer of-the-client" },
        { "X-Api-Key", "of-the-client" }, { "Cookie", "of-the-client" },
      } })
      local request = last_request()
      assert.same({ "a, b", "c" }, values_of(request, "x-custom"))
      assert.equal("spec/1", request.headers["user-agent"])
      assert.equal("text/event-stream", request.headers.accept)
      assert.equal("assistants=v2", request.headers["openai-beta"])
      assert.equal("", request.headers["x-empty"])
      assert.equal("caf\233 \195\169", request.headers["x-high"])
      assert.equal("k-1", request.headers["idempotency-key"])
      assert.same({ "mine" }, values_of(request, "x-request-id"))
      assert.same({ "identity" }, values_of(request, "accept-encoding"))
      assert.same({ "Bearer sk-secret" }, values_of(request, "authorization"))
      assert.same({ "127.0.0.1:" .. up.port }, values_of(request, "host"))
      for _, name in ipairs({ "connection", "x-listed", "x-listed-too", "keep-alive", "te",
        "trailer", "upgrade", "proxy-authorization", "proxy-connection", "x-api-key", "cookie",
      }) do
        assert.same({}, values_of(request, name), name)
      end
      assert.falsy(request.raw:find("of-the-client", 1, true))
    end)

    it("pass those of the upstream, but for the ones that end here", function()
      play(function(conn)
        conn:respond_json(200, { ok = true }, {
          { "Set-Cookie", "a=1; Path=/" },
          { "Set-Cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT" },
          { "X-RateLimit-Remaining-Tokens", "17" }, { "openai-processing-ms", "12" },
          { "X-Empty", "" }, { "Server", "upstream" }, { "Cache-Control", "no-cache" },
          { "X-Request-Id", "of-the-upstream" }, { "X-Perilune-Target", "forged" },
          { "x-perilune-anything", "forged" },
          { "Connection", "x-listed" }, { "Connection", "keep-alive,  X-Listed-Too" },
          { "X-Listed", "1" }, { "X-Listed-Too", "1" }, { "Keep-Alive", "timeout=5" },
          { "Proxy-Authenticate", "Basic" }, { "Trailer", "X-T" }, { "Upgrade", "h2c" },
        })
      end)
      local answer = gw:chat({ model = "alias", headers = { ["X-Request-Id"] = "mine" } })
      assert.same({ "a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT" },
        values_of(answer, "set-cookie"))
      assert.equal("17", answer.headers["x-ratelimit-remaining-tokens"])
      assert.equal("12", answer.headers["openai-processing-ms"])
      assert.equal("", answer.headers["x-empty"])
      assert.equal("upstream", answer.headers.server)
      assert.equal("no-cache", answer.headers["cache-control"])
      assert.same({ "mine" }, values_of(answer, "x-request-id"))
      assert.same({ "based/a-longer-name/x" }, values_of(answer, "x-perilune-target"))
      assert.equal(1, #values_of(answer, "date"))
      assert.equal(1, #values_of(answer, "content-length"))
      for _, name in ipairs({ "connection", "x-listed", "x-listed-too", "keep-alive", "trailer",
        "upgrade", "proxy-authenticate", "x-perilune-anything" }) do
        assert.same({}, values_of(answer, name), name)
      end
    end)

    it("pass as many as the limits allow", function()
      local headers = {}
      for number = 1, 97 do headers[number] = { "X-Many-" .. number, ("v"):rep(500) } end
      play(function(conn)
        local fields = {}
        for number = 1, 120 do fields[number] = { "X-Back-" .. number, ("w"):rep(500) } end
        conn:respond_json(200, { ok = true }, fields)
      end)
      local answer = gw:request({ path = CHAT, json = { model = "alias" }, headers = headers })
      assert.equal(200, answer.status)
      for number = 1, 97 do
        assert.equal(500, #last_request().headers["x-many-" .. number])
      end
      for number = 1, 120 do
        assert.equal(500, #answer.headers["x-back-" .. number])
      end
      headers[98] = { "X-Many-98", "v" }
      answer = gw:request({ path = CHAT, json = { model = "alias" }, headers = headers })
      assert.equal(431, answer.status)
      assert.truthy(cjson.decode(answer.body).error)
    end)

    it("give each request an id of its own when the client's is not usable", function()
      local ids = {}
      for _, id in ipairs({ false, "has space", ("x"):rep(129), "" }) do
        local answer = gw:chat({ model = "alias", headers = { ["X-Request-Id"] = id } })
        local own = answer.headers["x-request-id"]
        assert.truthy(own:find("^%x+$"))
        assert.equal(own, last_request().headers["x-request-id"])
        assert.falsy(ids[own])
        ids[own] = true
      end
    end)
  end)
end)

describe("an answer of 200 MB", function()
  setup(start_all)
  teardown(support.finish)

  local function status_kib(field)
    local status = support.read_file(("/proc/%d/status"):format(gw.pid))
    return tonumber(status:match(field .. ":%s+(%d+) kB"))
  end

  it("is passed exactly, in little memory", function()
    local block, block_count = filler(1024 * 1024 - 7), 200
    play(function(conn)
      conn:write("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        .. ("Content-Length: %d\r\n\r\n"):format(#block * block_count))
      for _ = 1, block_count do conn:write(block) end
    end)
    gw:request({ path = "/v1/models" })
    local before_kib = status_kib("VmRSS")
    local connection = support.connect(gw)
    connection:send({ path = "/v1/files/f/content" })
    local head = assert(connection:read_head())
    assert.equal(tostring(#block * block_count), head.headers["content-length"])
    local stream, twice, total = connection.stream, block .. block, 0
    while total < #block * block_count do
      assert(#stream.buffer > 0 or stream:fill())
      local data, at = stream:take(#stream.buffer), total % #block
      if data ~= twice:sub(at + 1, at + #data) then error("wrong bytes at " .. total) end
      total = total + #data
    end
    assert.equal(#block * block_count, total)
    local maps = support.read_file(("/proc/%d/maps"):format(gw.pid))
    if not maps:find("lib[at]san") then
      local grown_kib = status_kib("VmHWM") - before_kib
      assert.is_true(grown_kib < 8 * 1024, "grown by KiB: " .. grown_kib)
    end
  end)
end)
