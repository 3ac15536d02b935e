--- Requests that are wrong, on purpose or not: each gets a JSON error that says what is wrong, none
-- reaches an upstream, in whole or in part, and the gateway goes on serving.
--
-- What breaks the framing of HTTP ends the connection. What is wrong in a message that is whole
-- (its JSON, its model, its path) leaves the connection open for the next request.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  limits = { request_line = "1KiB", head = "4KiB", header_count = 20, body = "16KiB" },
  providers = { one = { url = "%s/v1" } },
  routes = { { match = { model = { "gpt-4", "real-*" } }, targets = { { provider = "one" } } } },
}
]]

local CHAT = "/v1/chat/completions"
local GOOD_BODY = '{"model":"gpt-4","messages":[]}'

local up, gw
local served_count -- requests that were meant to reach the upstream

--- A good request on its own connection is served.
local function assert_serving()
  assert.equal(200, gw:chat().status)
  served_count = served_count + 1
end

--- Nothing reached the upstream but what was meant to.
local function assert_nothing_sent()
  assert.equal(served_count, #up.requests)
  for _, request in ipairs(up.requests) do
    assert.equal("/v1/chat/completions", request.target)
    assert.falsy(request.raw:find("smuggled", 1, true))
  end
end

local function assert_json_error(answer, status, words)
  assert.equal(status, answer.status)
  if answer.framing == "none" then return end -- to HEAD
  assert.equal("application/json", answer.headers["content-type"])
  assert.equal("complete", answer.ended)
  local problem = answer:json().error
  assert.is_string(problem.type)
  assert.is_string(problem.code)
  assert.truthy(problem.message:find(words, 1, true), problem.message)
  return problem
end

--- `bytes` are answered by an error, and by nothing else until the connection has ended.
local function assert_refused(bytes, status, words, piece_bytes)
  local connection = support.connect(gw)
  connection.stream.timeout_s = 5
  if piece_bytes then
    connection:write_in_pieces(bytes, piece_bytes)
  else
    connection:write(bytes)
  end
  local answer = connection:read_response()
  local problem = assert_json_error(answer, status, words)
  assert.equal("invalid_request_error", problem.type)
  assert.equal("close", answer.headers.connection)
  local rest, how = connection:read_all()
  assert.equal("", rest)
  assert.equal("closed", how)
  connection:close()
  assert_nothing_sent()
  assert_serving()
  return answer
end

--- A whole message is answered by an error, and the connection serves a good one after it.
local function assert_answered(options, status, words)
  local connection = support.connect(gw)
  local answer = connection:request(options)
  local problem = assert_json_error(answer, status, words)
  assert_nothing_sent()
  local good = connection:request({ path = CHAT, body = GOOD_BODY })
  served_count = served_count + 1
  assert.equal(200, good.status)
  assert_nothing_sent()
  connection:close()
  return problem, answer
end

local function lines(...)
  return table.concat({ ... }, "\r\n") .. "\r\n"
end

--- A POST whose fields are given; the body is a good one.
local function post(...)
  return lines("POST " .. CHAT .. " HTTP/1.1", "Host: a", "Content-Type: application/json", ...)
    .. "\r\n" .. GOOD_BODY
end

local LENGTH = "Content-Length: " .. #GOOD_BODY

local function chunked(body, ...)
  return lines("POST " .. CHAT .. " HTTP/1.1", "Host: a", "Content-Type: application/json",
    "Transfer-Encoding: chunked", ...) .. "\r\n" .. body
end

local GOOD_CHUNK = ("%x\r\n%s\r\n"):format(#GOOD_BODY, GOOD_BODY)

local SMUGGLED = lines("POST /v1/smuggled HTTP/1.1", "Host: a", "Content-Length: 2") .. "\r\n{}"

local function start()
  served_count = 0
  up = support.answering(function(request)
    return 200, { echo = request.body }
  end)
  gw = support.gateway({ config = CONFIG:format(up.url) })
end

describe("bad input:", function()
  setup(start)
  teardown(support.finish)
  before_each(function() up.requests, served_count = {}, 0 end)

  describe("a request head", function()
    local CASES = {
      -- what, bytes, status, words of the message
      { "with two Content-Lengths", post(LENGTH, LENGTH), 400, "more than one Content-Length" },
      { "with two different Content-Lengths", post("Content-Length: 0", LENGTH), 400,
        "more than one Content-Length" },
      { "with a list of Content-Lengths", post("Content-Length: 31, 31"), 400,
        "Content-Length is not a number" },
      { "with a signed Content-Length", post("Content-Length: +31"), 400,
        "Content-Length is not a number" },
      { "with a negative Content-Length", post("Content-Length: -1"), 400,
        "Content-Length is not a number" },
      { "with a hexadecimal Content-Length", post("Content-Length: 0x1f"), 400,
        "Content-Length is not a number" },
      { "with a Content-Length beyond 64 bits", post("Content-Length: 18446744073709551647"), 400,
        "Content-Length is not a number" },
      { "with an empty Content-Length", post("Content-Length:"), 400,
        "Content-Length field is empty" },
      { "with Content-Length and Transfer-Encoding", post(LENGTH, "Transfer-Encoding: chunked"),
        400, "both Content-Length and Transfer-Encoding" },
      { "with Transfer-Encoding and Content-Length", post("Transfer-Encoding: chunked", LENGTH),
        400, "both Content-Length and Transfer-Encoding" },
      { "with two Transfer-Encodings", chunked(GOOD_CHUNK .. "0\r\n\r\n",
        "Transfer-Encoding: chunked"), 400, "more than one Transfer-Encoding" },
      { "with a Transfer-Encoding that only ends in chunked",
        post("Transfer-Encoding: xchunked"), 501, "something other than" },
      { "with a Transfer-Encoding that is not chunked alone",
        post("Transfer-Encoding: gzip, chunked"), 501, "something other than" },
      { "with chunked twice", post("Transfer-Encoding: chunked, chunked"), 400,
        "something behind" },
      { "with an unknown Transfer-Encoding", post("Transfer-Encoding: identity"), 501,
        "something other than" },
      { "of HTTP/1.0 with Transfer-Encoding", lines("POST " .. CHAT .. " HTTP/1.0",
        "Transfer-Encoding: chunked") .. "\r\n" .. GOOD_CHUNK .. "0\r\n\r\n", 400,
        "HTTP/1.0 request has a Transfer-Encoding" },
      { "with a folded line", post("X-Folded: one\r\n two", LENGTH), 400, "folding" },
      { "with a first line that is folded", lines("GET /v1/models HTTP/1.1", " Host: a")
        .. "\r\n", 400, "folding" },
      { "with a NUL in a value", post("X-Nul: a\0b", LENGTH), 400, "NUL" },
      { "with a NUL in a name", post("X-N\0l: a", LENGTH), 400, "NUL" },
      { "with a NUL in the target", "GET /v1/mod\0els HTTP/1.1\r\nHost: a\r\n\r\n", 400, "NUL" },
      { "with another control byte in a value", post("X-Bell: a\7b", LENGTH), 400,
        "control byte" },
      { "with a CR alone in a value", post("X-Cr: a\rb", LENGTH), 400, "not followed by LF" },
      { "with a bare LF behind the request line",
        "GET /v1/models HTTP/1.1\nHost: a\r\n\r\n", 400, "LF without CR" },
      { "with a bare LF behind a field", "GET /v1/models HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", 400,
        "LF without CR" },
      { "that ends in a bare LF", "GET /v1/models HTTP/1.1\r\nHost: a\r\n\n", 400,
        "LF without CR" },
      { "with a space before the colon", post("Content-Length : 31"), 400, "colon" },
      { "with a tab before the colon", post("Transfer-Encoding\t: chunked", LENGTH), 400,
        "colon" },
      { "with a field without a name", post(": value", LENGTH), 400, "colon" },
      { "with a field without a colon", post("No-Colon", LENGTH), 400, "colon" },
      { "with a name that is no token", post("X(Y): 1", LENGTH), 400, "colon" },
      { "without Host", "GET /v1/models HTTP/1.1\r\n\r\n", 400, "no Host" },
      { "with two Hosts", "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400,
        "more than one Host" },
      { "with a Host that is none", "GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n", 400,
        "Host field is not" },
      { "with an empty line first", "\r\nGET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "method" },
      { "without a version", "GET /v1/models\r\nHost: a\r\n\r\n", 400, "HTTP version" },
      { "with a version of its own", "GET /v1/models HTTP/1.15\r\nHost: a\r\n\r\n", 400,
        "HTTP version" },
      { "with a version in small letters", "GET /v1/models http/1.1\r\nHost: a\r\n\r\n", 400,
        "HTTP version" },
      { "with two spaces in the request line", "GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "slash" },
      { "with something behind the version", "GET /v1/models HTTP/1.1 x\r\nHost: a\r\n\r\n", 400,
        "HTTP version" },
      { "with a space in the target", "GET /v1/a b HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "HTTP version" },
      { "with bytes above ASCII in the target", "GET /v1/\195\164 HTTP/1.1\r\nHost: a\r\n\r\n",
        400, "byte not allowed" },
      { "with an absolute target", "GET http://b/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "slash" },
      { "with two slashes first", "GET //b/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "two slashes" },
      { "with a fragment", "GET /v1/models#x HTTP/1.1\r\nHost: a\r\n\r\n", 400,
        "byte not allowed" },
      { "of HTTP/2.0", "GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n", 505, "neither 1.0 nor 1.1" },
      { "of HTTP/0.9", "GET /v1/models\r\n\r\n", 400, "HTTP version" },
      { "of HEAD with a body", "HEAD /v1/models HTTP/1.1\r\nHost: a\r\n" .. LENGTH .. "\r\n\r\n"
        .. GOOD_BODY, 400, "HEAD request has a body" },
      { "that expects what is not known", post(LENGTH, "Expect: 200-ok"), 417, "100-continue" },
      { "that is a TLS handshake", "\22\3\1\2\0\1\0\1\252\3\3" .. ("\161"):rep(32) .. "\r\n\r\n",
        400, "method" },
    }
    for _, case in ipairs(CASES) do
      it(case[1] .. " is refused", function()
        assert_refused(case[2], case[3], case[4])
      end)
    end

    it("is refused in the same way when it comes byte by byte", function()
      for _, case in ipairs(CASES) do
        assert_refused(case[2], case[3], case[4], 1)
      end
    end)

    it("of HTTP/2 is refused as a method that is not supported", function()
      local answer = assert_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 405,
        "method")
      assert.truthy(answer.headers.allow)
    end)

    it("with an unknown method is refused, with what is allowed", function()
      for _, method in ipairs({ "TRACE", "CONNECT", "BREW", "post", "PROPFIND", "G" }) do
        local answer = assert_refused(("%s %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(method, CHAT),
          405, "method")
        assert.equal("method_not_allowed", answer:json().error.code)
        assert.matches("GET, HEAD, POST", answer.headers.allow)
      end
    end)

    it("with too long a request line is refused", function()
      for _, path_bytes in ipairs({ 1024, 5000, 200000 }) do
        local answer = assert_refused(("GET /v1/%s HTTP/1.1\r\nHost: a\r\n\r\n"):format(
          ("a"):rep(path_bytes)), 414, "request line is larger than 1024 bytes")
        assert.equal("uri_too_long", answer:json().error.code)
      end
      -- the longest that is allowed: 1024 bytes with the line end
      local path = "/v1/" .. ("a"):rep(1024 - #"GET /v1/ HTTP/1.1\r\n")
      assert.equal(404, gw:request({ path = path }).status)
      assert.equal(414, gw:request({ path = path .. "a" }).status)
    end)

    it("that is too large is refused", function()
      local answer = assert_refused(post("X-Big: " .. ("a"):rep(5000), LENGTH), 431,
        "head is larger than 4096 bytes")
      assert.equal("headers_too_large", answer:json().error.code)
      assert_refused(post("X-Big: " .. ("a"):rep(3000), "X-More: " .. ("b"):rep(3000), LENGTH), 431,
        "head is larger than 4096 bytes")
      assert_refused("GET /v1/models HTTP/1.1\r\n" .. ("a"):rep(300000), 431,
        "head is larger than 4096 bytes")
    end)

    it("with too many fields is refused", function()
      local fields = {}
      for number = 1, 21 do fields[number] = "X-" .. number .. ": 1" end
      assert_refused(post(unpack(fields)), 431, "more than 20 header fields")
    end)
  end)

  describe("a chunked body", function()
    local CASES = {
      { "without a size", "\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400, "chunk size" },
      { "with a size that is no number", "xyz\r\nabc\r\n0\r\n\r\n", 400, "chunk size" },
      { "with a signed size", "+1f\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400, "chunk size" },
      { "with a size with 0x", "0x1f\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400, "chunk size" },
      { "with a space before the size", " 1f\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400,
        "chunk size" },
      { "with a space behind the size", "1f \r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400,
        "chunk size" },
      { "with a chunk extension", "1f;name=value\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400,
        "chunk size" },
      { "with an extension of the last chunk", GOOD_CHUNK .. "0;a\r\n\r\n", 400, "chunk size" },
      { "with a bare LF behind the size", "1f\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400,
        "chunk size" },
      { "with a size of more than 64 bits", "1000000000000001f\r\n" .. GOOD_BODY, 400,
        "more than 16 digits" },
      { "with a size that overflows", "fffffffffffffff0\r\n" .. GOOD_BODY, 413,
        "body is larger than 16384 bytes" },
      { "with a chunk longer than its size", "1e\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n", 400,
        "not followed by CR and LF" },
      { "without a line end behind the data", "1f\r\n" .. GOOD_BODY .. "0\r\n\r\n", 400,
        "not followed by CR and LF" },
      { "with a bare LF behind the data", "1f\r\n" .. GOOD_BODY .. "\n0\r\n\r\n", 400,
        "not followed by CR and LF" },
      { "with trailers", GOOD_CHUNK .. "0\r\nX-Trailer: 1\r\n\r\n", 400, "trailer" },
      { "with a trailer that frames", GOOD_CHUNK .. "0\r\nContent-Length: 5\r\n\r\n", 400,
        "trailer" },
    }
    for _, case in ipairs(CASES) do
      it(case[1] .. " is refused", function()
        assert_refused(chunked(case[2]), case[3], case[4])
        assert_refused(chunked(case[2]), case[3], case[4], 1)
      end)
    end

    it("is put together when it is right", function()
      local connection = support.connect(gw)
      local pieces = {}
      for byte in GOOD_BODY:gmatch(".") do pieces[#pieces + 1] = "1\r\n" .. byte .. "\r\n" end
      connection:write(chunked(table.concat(pieces) .. "000\r\n\r\n"))
      local answer = connection:read_response()
      served_count = served_count + 1
      assert.equal(200, answer.status)
      assert.equal(GOOD_BODY, answer:json().echo)
      local sent = up.requests[#up.requests]
      assert.equal(tostring(#GOOD_BODY), sent.headers["content-length"])
      assert.falsy(sent.headers["transfer-encoding"])
    end)
  end)

  describe("a body over the limit", function()
    local OVER = 16 * 1024 + 1

    it("is refused by its Content-Length, before it comes", function()
      local answer = assert_refused(post("Content-Length: " .. OVER), 413,
        "body is larger than 16384 bytes")
      assert.equal("request_too_large", answer:json().error.code)
    end)

    it("is refused while it comes, and the client can read why", function()
      assert_refused(lines("POST " .. CHAT .. " HTTP/1.1", "Host: a",
        "Content-Length: 400000") .. "\r\n" .. ("x"):rep(400000), 413,
        "body is larger than 16384 bytes")
    end)

    it("is refused in chunks as soon as they are too much", function()
      local half = ("x"):rep(8192)
      local chunk = ("%x\r\n%s\r\n"):format(#half, half)
      assert_refused(chunked(chunk .. chunk .. "1\r\nx\r\n0\r\n\r\n"), 413,
        "body is larger than 16384 bytes")
      assert_refused(chunked("4001\r\n"), 413, "body is larger than 16384 bytes")
    end)

    it("is served when it is exactly as large as allowed", function()
      local frame = '{"model":"gpt-4","x":""}'
      local body = frame:gsub('"}$', ("x"):rep(OVER - 1 - #frame) .. '"}')
      assert.equal(OVER - 1, #body)
      local answer = gw:request({ path = CHAT, body = body })
      served_count = served_count + 1
      assert.equal(200, answer.status)
      assert.equal(body, up.requests[#up.requests].body)
      assert.equal(413, gw:request({ path = CHAT, body = body .. " " }).status)
    end)
  end)

  describe("a body", function()
    local function json_refused(body, words)
      local problem = assert_answered({ path = CHAT, body = body,
        headers = { ["Content-Type"] = "application/json" } }, 400, words or "not usable JSON")
      assert.equal("invalid_body", problem.code)
    end

    it("that is JSON cut anywhere is refused, and the connection goes on", function()
      local whole = '{"model":"gpt-4","n":[1,{"a":"\\u00e9"}],"t":true,"x":-1.5e3}'
      assert.equal(200, gw:request({ path = CHAT, body = whole }).status)
      served_count = served_count + 1
      local connection = support.connect(gw)
      for length = 1, #whole - 1 do
        local answer = connection:request({ path = CHAT, body = whole:sub(1, length) })
        assert_json_error(answer, 400, "not usable JSON")
      end
      connection:close()
      assert_nothing_sent()
      assert_serving()
    end)

    local BROKEN = {
      { "that is no object", "[1,2]" },
      { "that is a string", '"gpt-4"' },
      { "of white space", "  \r\n " },
      { "with text behind the object", GOOD_BODY .. "x" },
      { "with two objects", GOOD_BODY .. GOOD_BODY },
      { "with a comma too many", '{"model":"gpt-4",}' },
      { "with a comma too few", '{"model":"gpt-4" "n":1}' },
      { "with single quotes", "{'model':'gpt-4'}" },
      { "with a key without quotes", '{model:"gpt-4"}' },
      { "with a comment", '{"model":"gpt-4"/* x */}' },
      { "with NaN", '{"model":"gpt-4","n":NaN}' },
      { "with a number that begins with 0", '{"model":"gpt-4","n":01}' },
      { "with a raw control byte in a string", '{"model":"gpt-4","n":"\1"}' },
      { "with a raw NUL", '{"model":"gpt-4"\0}' },
      { "with an unknown escape", '{"model":"gpt-4","n":"\\x41"}' },
      { "that is not UTF-8", '{"model":"gpt-4","n":"\255"}' },
      { "with an overlong encoding", '{"model":"gpt-4","n":"\192\175"}' },
      { "with an encoded surrogate", '{"model":"gpt-4","n":"\237\160\128"}' },
      { "that is nested without end", '{"model":"gpt-4","n":' .. ("["):rep(15000) },
      { "that is nested too deep", '{"model":"gpt-4","n":' .. ("["):rep(7000) .. ("]"):rep(7000)
        .. "}" },
      { "with two models", '{"model":"gpt-4","model":"gpt-5"}', "duplicate key" },
      { "with two models, one escaped", '{"model":"gpt-4","\\u006dodel":"gpt-5"}',
        "duplicate key" },
      { "with two models, one escaped first", '{"mod\\u0065l":"gpt-4","n":1,"model":"gpt-5"}',
        "duplicate key" },
      { "with two streams", '{"model":"gpt-4","stream":true,"stream":false}', "duplicate key" },
      { "with a model that is a number", '{"model":4}', "'model' must be a string" },
      { "with a model that is null", '{"model":null}', "'model' must be a string" },
      { "with a model that is an array", '{"model":["gpt-4"]}', "'model' must be a string" },
      { "with a model that is an object", '{"model":{"id":"gpt-4"}}', "'model' must be a string" },
      { "with a model that is true", '{"model":true}', "'model' must be a string" },
      { "with a model of half a surrogate", '{"model":"gpt-\\ud83d"}' , "'model' is not" },
    }
    for _, case in ipairs(BROKEN) do
      it(case[1] .. " is refused", function()
        json_refused(case[2], case[3])
      end)
    end

    it("without a model is refused", function()
      for _, body in ipairs({ "{}", '{"messages":[]}', '{"model":""}', '{"Model":"gpt-4"}' }) do
        local problem = assert_answered({ path = CHAT, body = body }, 400, "model parameter")
        assert.equal("missing_model", problem.code)
        assert.equal("model", problem.param)
      end
      assert_answered({ path = CHAT, method = "POST", headers = { ["Content-Length"] = "0" } }, 400,
        "model parameter")
    end)

    it("with an unknown model is refused in OpenAI's form", function()
      for _, model in ipairs({ "nobody", "GPT-4", "gpt", "gpt-4\0", "a\"b\\", ("m"):rep(9000),
        "<script>", "\226\128\174" }) do
        local problem = assert_answered({ path = CHAT, json = { model = model } }, 404,
          "does not exist")
        assert.same({ "invalid_request_error", "model_not_found", "model" },
          { problem.type, problem.code, problem.param })
        assert.is_true(#problem.message < 600)
      end
    end)

    it("that is multipart and broken is refused", function()
      local part = 'Content-Disposition: form-data; name="model"\r\n\r\n'
      local function form(type, body)
        local problem = assert_answered({ path = "/v1/audio/transcriptions", body = body,
          headers = { ["Content-Type"] = type } }, 400, "multipart body is not usable")
        assert.equal("invalid_body", problem.code)
      end
      local GOOD_TYPE = "multipart/form-data; boundary=b"
      form("multipart/form-data", "--b\r\n" .. part .. "gpt-4\r\n--b--\r\n")
      form("multipart/form-data; boundary=", "--b\r\n" .. part .. "gpt-4\r\n--b--\r\n")
      form("multipart/form-data; boundary=" .. ("b"):rep(71), "--b--\r\n")
      form(GOOD_TYPE, "--b\r\n" .. part .. "gpt-4\r\n")
      form(GOOD_TYPE, "--b\r\n" .. part)
      form(GOOD_TYPE, "--b\r\nno colon\r\n\r\ngpt-4\r\n--b--\r\n")
      form(GOOD_TYPE, "not a form")
      form(GOOD_TYPE, "--b\r\n" .. part .. "gpt-4\r\n--b\r\n" .. part .. "gpt-5\r\n--b--\r\n")
    end)
  end)

  describe("a path", function()
    it("with dot segments is refused, however they are written", function()
      for _, path in ipairs({ "/v1/../admin", "/v1/./x", "/v1/chat/..", "/v1/.", "/..", "/.",
        "/v1/%2e%2e/admin", "/v1/%2E%2e/admin", "/v1/.%2E/admin", "/v1/%2e/x", "/v1/x/%2e%2e",
        "/v1/..\\admin", "/v1\\..\\admin", "/v1/..%2fadmin", "/v1/..%2Fadmin", "/v1/%2e%2e%2fadmin",
        "/v1/a%2f..", "/v1/..%5cadmin", "/v1/%2f../x", "/v1/x%2F..%2Fy",
        "/v1/../v1/chat/completions" }) do
        local problem = assert_answered({ path = path, body = GOOD_BODY }, 400, "segments")
        assert.equal("invalid_path", problem.code)
      end
    end)

    it("with dots that are no segments is not", function()
      local connection = support.connect(gw)
      for _, path in ipairs({ "/v1/models/gpt-4.1", "/v1/models/...", "/v1/models/a..b",
        "/v1/models/.well", "/v1/models/x%2fy", "/v1/models/%2e%2e%2e" }) do
        assert_json_error(connection:request({ path = path }), 404, "does not exist")
      end
    end)

    it("outside of /v1/ is unknown", function()
      for _, path in ipairs({ "/", "/v1", "/v2/chat/completions", "/chat/completions", "/V1/models",
        "/admin/reload", "/healthz", "/metrics", "/?v1/", "/%76%31/models", "/v1%2fmodels",
        "/v10/models" }) do
        local problem = assert_answered({ path = path, body = GOOD_BODY }, 404, "Unknown")
        assert.equal("unknown_url", problem.code)
      end
    end)

    it("of an asterisk is unknown", function()
      local answer = support.request({ to = gw, raw = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" })
      assert_json_error(answer, 404, "Unknown")
      assert_nothing_sent()
    end)

    it("with OPTIONS is answered with what is allowed", function()
      local _, answer = assert_answered({ method = "OPTIONS", path = CHAT }, 405, "OPTIONS")
      assert.matches("GET, HEAD, POST", answer.headers.allow)
    end)

    it("of a model that is not there is not found", function()
      assert_answered({ path = "/v1/models/nobody" }, 404, "does not exist")
      local answer = gw:request({ method = "HEAD", path = "/v1/models/nobody" })
      assert.equal(404, answer.status)
      assert.equal("", answer.body)
    end)
  end)

  describe("Expect: 100-continue", function()
    local HEAD = lines("POST " .. CHAT .. " HTTP/1.1", "Host: a", LENGTH, "Expect: 100-continue")
      .. "\r\n"

    it("is answered, and the request served when its body comes", function()
      local connection = support.connect(gw)
      connection:write(HEAD)
      assert.equal("HTTP/1.1 100 Continue\r\n\r\n", (connection:read_through("\r\n\r\n")))
      assert_nothing_sent()
      connection:write_in_pieces(GOOD_BODY, 3)
      assert.equal(200, connection:read_response().status)
      assert.equal(200, connection:request({ path = CHAT, body = GOOD_BODY }).status)
      served_count = served_count + 2
      assert_nothing_sent()
      assert.falsy(up.requests[#up.requests - 1].headers.expect)
    end)

    it("is served when the client does not wait", function()
      local connection = support.connect(gw)
      for _ = 1, 20 do
        connection:write(HEAD .. GOOD_BODY)
        assert.equal(200, connection:read_response().status)
        connection:write(HEAD)
        connection:write(GOOD_BODY)
        assert.equal(200, connection:read_response().status)
        served_count = served_count + 2
      end
      assert_nothing_sent()
    end)

    it("gets the error instead when the body would be too large", function()
      assert_refused(lines("POST " .. CHAT .. " HTTP/1.1", "Host: a", "Content-Length: 99999",
        "Expect: 100-continue") .. "\r\n", 413, "body is larger")
    end)

    it("means nothing in HTTP/1.0", function()
      local connection = support.connect(gw)
      connection:write((HEAD:gsub("HTTP/1.1", "HTTP/1.0")))
      connection:write(GOOD_BODY)
      local answer = connection:read_response()
      served_count = served_count + 1
      assert.equal(200, answer.status)
      assert.equal(0, #answer.interim)
      assert_nothing_sent()
    end)
  end)

  describe("HTTP/1.0", function()
    it("is served, and the connection ends", function()
      local connection = support.connect(gw)
      connection:write(lines("POST " .. CHAT .. " HTTP/1.0", LENGTH) .. "\r\n" .. GOOD_BODY)
      local answer = connection:read_response()
      served_count = served_count + 1
      assert.equal(200, answer.status)
      assert.equal("1.0", answer.version)
      assert.equal("close", answer.headers.connection)
      assert.equal("closed", connection:wait_closed())
    end)

    it("is kept alive when it asks for it", function()
      local connection = support.connect(gw)
      for _ = 1, 3 do
        connection:write(lines("POST " .. CHAT .. " HTTP/1.0", LENGTH, "Connection: keep-alive")
          .. "\r\n" .. GOOD_BODY)
        local answer = connection:read_response()
        served_count = served_count + 1
        assert.equal(200, answer.status)
        assert.equal("keep-alive", answer.headers.connection)
      end
    end)
  end)

  describe("a second request behind the first", function()
    --- Two messages in one write: one answer, then the end; the second was not looked at.
    local function assert_first_only(first, second, status)
      local connection = support.connect(gw)
      connection:write(first .. second)
      local answer = connection:read_response()
      if status == 200 and first:find(CHAT, 1, true) then served_count = served_count + 1 end
      assert.equal(status, answer.status)
      local rest, how = connection:read_all()
      assert.equal("", rest)
      assert.equal("closed", how)
      assert_nothing_sent()
      assert_serving()
    end

    it("is dropped, and the connection ends after the first answer", function()
      assert_first_only(post(LENGTH), SMUGGLED, 200)
      assert_first_only("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", SMUGGLED, 200)
      assert_first_only("HEAD /v1/models HTTP/1.0\r\n\r\n", SMUGGLED, 200)
      assert_first_only(chunked(GOOD_CHUNK .. "0\r\n\r\n"), SMUGGLED, 200)
      assert_first_only(post("Content-Length: 3"), SMUGGLED, 400)
    end)

    it("is dropped when it comes while the first is being served", function()
      local go_on = false
      local slow = support.answering(function()
        support.wait_until("the second request to be sent", function() return go_on end)
        return 200, { ok = true }
      end)
      local own = support.gateway({ config = CONFIG:format(slow.url) })
      local connection = support.connect(own)
      connection:write(post(LENGTH))
      slow:wait_requests(1)
      connection:write(SMUGGLED .. post(LENGTH) .. ("x"):rep(200000))
      go_on = true
      assert.equal(200, connection:read_response().status)
      local rest = connection:read_all()
      assert.equal("", rest)
      assert.equal(1, #slow.requests)
      own:stop()
    end)

    it("is served when it comes after the first answer", function()
      local connection = support.connect(gw)
      for _ = 1, 50 do
        connection:write(post(LENGTH))
        assert.equal(200, connection:read_response().status)
        served_count = served_count + 1
      end
      assert_nothing_sent()
    end)
  end)

  describe("smuggling", function()
    --- Whatever is answered: the upstream gets at most one request, and it is the outer one.
    local ATTEMPTS = {
      { "CL.TE", post("Content-Length: 13", "Transfer-Encoding: chunked") },
      { "TE.CL", chunked("0\r\n\r\n" .. SMUGGLED, "Content-Length: 4") },
      { "TE with a tab", post("Content-Length: 5", "Transfer-Encoding:\tchunked") },
      { "TE with a vertical tab", post("Content-Length: 5", "Transfer-Encoding: \11chunked") },
      { "TE folded", post("Content-Length: 5", "Transfer-Encoding:\r\n chunked") },
      { "TE in quotes", post("Content-Length: 5", 'Transfer-Encoding: "chunked"') },
      { "TE in a hidden line", post("Content-Length: 5", "X: y\nTransfer-Encoding: chunked") },
      { "TE behind a CR", post("Content-Length: 5", "X: y\rTransfer-Encoding: chunked") },
      { "TE with a space in its name", post("Content-Length: 5", "Transfer Encoding: chunked") },
      { "TE with a NUL", post("Content-Length: 5", "Transfer-Encoding: chunked\0") },
      { "CL with spaces within", post("Content-Length: 3 1") },
      { "CL twice by a list", post("Content-Length: 5,31") },
      { "CL of another name", post("Content_Length: 0", "Content-Length: 31", "Content-Length:0") },
      { "CL.0", lines("GET /v1/models HTTP/1.1", "Host: a", "Content-Length: " .. #SMUGGLED)
        .. "\r\n" .. SMUGGLED },
      { "a last chunk of several zeros", chunked(GOOD_CHUNK .. "00000\r\n\r\n" .. SMUGGLED) },
      { "a last chunk with a bare LF", chunked(GOOD_CHUNK .. "0\n\n" .. SMUGGLED) },
      { "a chunk size with a CR", chunked("1f\r\r\n" .. GOOD_BODY .. "\r\n0\r\n\r\n" .. SMUGGLED) },
      { "an extension with a line feed", chunked("1f;\n" .. GOOD_BODY .. "\r\n0\r\n\r\n"
        .. SMUGGLED) },
      { "a second head in the target",
        "GET /v1/models%20HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n" },
      { "Upgrade to h2c", lines("GET /v1/models HTTP/1.1", "Host: a",
        "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
        .. "\r\n" .. SMUGGLED },
      { "an empty POST", lines("POST " .. CHAT .. " HTTP/1.1", "Host: a") .. "\r\n" .. SMUGGLED },
    }
    for _, attempt in ipairs(ATTEMPTS) do
      it("by " .. attempt[1] .. " brings nothing upstream", function()
        for _, tail in ipairs({ "", "0\r\n\r\n" .. SMUGGLED }) do
          local connection = support.connect(gw)
          local sent_count = #up.requests
          connection:write(attempt[2] .. tail)
          connection:shutdown()
          local bytes = connection:read_all()
          connection:close()
          local _, answers = bytes:gsub("HTTP/1%.[01] %d%d%d ", "")
          assert.is_true(answers <= 1, bytes)
          assert.is_true(#up.requests <= sent_count + 1)
          served_count = #up.requests
          assert_nothing_sent()
        end
        assert_serving()
      end)
    end

    it("by headers that name others of ours is not passed on", function()
      local answer = gw:request({ path = CHAT, body = GOOD_BODY, headers = {
        { "Connection", "keep-alive, X-Internal" }, { "X-Internal", "1" },
        { "Keep-Alive", "timeout=9" }, { "TE", "trailers" }, { "Upgrade", "h2c" },
        { "Proxy-Authorization", "Basic abc" }, { "Trailer", "X-A" },
      } })
      served_count = served_count + 1
      assert.equal(200, answer.status)
      local sent = up.requests[#up.requests].headers
      for _, name in ipairs({ "x-internal", "keep-alive", "te", "upgrade", "proxy-authorization",
        "trailer" }) do
        assert.is_nil(sent[name], name)
      end
    end)

    it("by a request id is not possible", function()
      for _, id in ipairs({ "a\tb", ("x"):rep(129), "a b" }) do
        local answer = gw:request({ path = CHAT, body = GOOD_BODY,
          headers = { ["X-Request-Id"] = id } })
        served_count = served_count + 1
        assert.equal(200, answer.status)
        assert.matches("^%x+$", answer.headers["x-request-id"])
        assert.equal(answer.headers["x-request-id"],
          up.requests[#up.requests].headers["x-request-id"])
      end
    end)
  end)

  it("random bytes and mutilated requests never bring the gateway down", function()
    math.randomseed(20250301)
    local good = post(LENGTH, "X-One: two", "Connection: keep-alive")
    for _ = 1, 300 do
      local bytes = {}
      for index = 1, #good do bytes[index] = good:sub(index, index) end
      for _ = 1, math.random(1, 4) do
        bytes[math.random(#bytes)] = string.char(math.random(0, 255))
      end
      local connection = support.connect(gw)
      connection:write(table.concat(bytes, "", 1, math.random(#bytes)))
      connection:shutdown()
      local answer = connection:read_all()
      connection:close()
      assert.is_true(answer == "" or answer:find("^HTTP/1%.[01] %d%d%d ") ~= nil, answer)
      assert.falsy(answer:find("text/html", 1, true), answer)
    end
    served_count = #up.requests
    for _, request in ipairs(up.requests) do
      local body = cjson.decode(request.body)
      assert.is_table(body, request.raw)
    end
    assert_serving()
  end)
end)
