--- Errors of the gateway's own, in the form that the client's library reads: told by the path, or
-- by an `anthropic-version`, as far as either has come.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  limits = { request_line = "1KiB", head = "4KiB", header_count = 20, body = "16KiB",
    head_timeout = "300ms", body_idle = "300ms" },
  providers = { one = { url = "%s/v1" } },
  routes = {
    { match = { model = "broken" }, targets = { { provider = "one" } }, policy = "broken",
      on_policy_error = "fail" },
    { match = { model = "team" }, targets = { { provider = "one" } }, policy = "team" },
    { match = { model = "gpt-4" }, targets = { { provider = "one" } } },
  },
}
]]

local POLICIES = {
  ["fallback.lua"] = support.FALLBACK,
  ["broken.lua"] = 'return function() error("oops") end',
  ["team.lua"] = [[return function(req)
    return req:fail(403, "team_required", "Set x-team", {
      param = "metadata", headers = { ["Retry-After"] = "9" } })
  end]],
}

local MESSAGES, CHAT = "/v1/messages", "/v1/chat/completions"

local gw

local function send(bytes)
  local connection = support.connect(gw)
  connection.stream.timeout_s = 5
  connection:write(bytes)
  local answer = connection:read_response()
  connection:close()
  return answer
end

local function head(path, more)
  return ("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s"):format(path,
    more or "")
end

local function assert_anthropic(answer, status, kind, code)
  assert.equal(status, answer.status)
  assert.equal("application/json", answer.headers["content-type"])
  local body = answer:json()
  assert.same({ "error", kind, code },
    { body.type, body.error.type, body.error.details.error_code })
  assert.is_string(body.error.message)
  return body
end

local function assert_openai(answer, status, kind, code)
  assert.equal(status, answer.status)
  assert.equal("application/json", answer.headers["content-type"])
  local body = answer:json()
  assert.is_nil(body.type)
  assert.same({ kind, code }, { body.error.type, body.error.code })
  assert.is_nil(answer.headers["request-id"])
  return body
end

describe("errors of the gateway's own", function()
  setup(function()
    local up = support.answering(function() return 200, { ok = true } end)
    gw = support.gateway({ config = CONFIG:format(up.url), files = POLICIES })
  end)
  teardown(support.finish)

  -- what is refused before there is a request: bytes behind the path, status, types, code
  local REFUSED = {
    { "a body that is too large", "Content-Length: 20000\r\n\r\n", 413, "request_too_large",
      "invalid_request_error", "request_too_large" },
    { "a body that turns out too large", "Transfer-Encoding: chunked\r\n\r\n5000\r\n"
      .. ("x"):rep(20000), 413, "request_too_large", "invalid_request_error", "request_too_large" },
    { "a head that is too large", ("X-A: " .. ("a"):rep(900) .. "\r\n"):rep(5), 431,
      "invalid_request_error", "invalid_request_error", "headers_too_large" },
    { "a header that is broken", "X-A: a\0b\r\n\r\n", 400, "invalid_request_error",
      "invalid_request_error", "bad_request" },
    { "a coding that is not known", "Transfer-Encoding: gzip\r\n\r\n", 501,
      "invalid_request_error", "invalid_request_error", "not_implemented" },
    { "a head that does not end", "X-A: a\r\n", 408, "timeout_error", "timeout_error",
      "request_timeout" },
    { "a body that does not come", "Content-Length: 10\r\n\r\n{", 408, "timeout_error",
      "timeout_error", "request_timeout" },
  }
  for _, case in ipairs(REFUSED) do
    it("refuse " .. case[1] .. " in the client's form", function()
      local status, code = case[3], case[6]
      local body = assert_anthropic(send(head(MESSAGES, case[2])), status, case[4], code)
      assert.equal(cjson.null, body.request_id)
      assert_anthropic(send(head(MESSAGES .. "?beta=true", case[2])), status, case[4], code)
      assert_anthropic(send(head("/v1/files", "Anthropic-Version: 2023-06-01\r\n" .. case[2])),
        status, case[4], code)
      assert_openai(send(head(CHAT, case[2])), status, case[5], code)
      assert_openai(send(head("/v1/files", case[2])), status, case[5], code)
    end)
  end

  it("refuse a request line in the client's form only when its path has come", function()
    local long = ("x"):rep(2000)
    assert_anthropic(send("POST " .. MESSAGES .. "?" .. long), 414, "invalid_request_error",
      "uri_too_long")
    assert_openai(send("POST " .. MESSAGES .. long), 414, "invalid_request_error", "uri_too_long")
    assert_openai(send("BREW " .. MESSAGES .. " HTTP/1.1\r\n"), 405, "invalid_request_error",
      "method_not_allowed")
    assert_anthropic(send("POST " .. MESSAGES .. " HTTP/7.0\r\n"), 505, "invalid_request_error",
      "http_version_not_supported")
    assert_openai(send("\0"), 400, "invalid_request_error", "bad_request")
  end)

  local function ask(path, body, headers)
    return gw:request({ path = path, method = "POST", body = body,
      headers = headers or { ["X-Request-Id"] = "req-7", ["Content-Type"] = "application/json" } })
  end

  -- what goes wrong with a whole request: body, status, Anthropic's type, OpenAI's, code
  local WRONG = {
    { "a body that is no JSON", "{", 400, "invalid_request_error", "invalid_request_error",
      "invalid_body" },
    { "a model that is not there", '{"model":"nobody"}', 404, "not_found_error",
      "invalid_request_error", "model_not_found" },
    { "no model", "{}", 400, "invalid_request_error", "invalid_request_error", "missing_model" },
    { "a policy that fails", '{"model":"broken"}', 500, "api_error", "server_error",
      "policy_error" },
    { "a policy that refuses", '{"model":"team"}', 403, "permission_error",
      "invalid_request_error", "team_required" },
  }
  for _, case in ipairs(WRONG) do
    it("say " .. case[1] .. " in the client's form", function()
      local answer = ask(MESSAGES, case[2])
      local body = assert_anthropic(answer, case[3], case[4], case[6])
      assert.same({ "req-7", "req-7", "req-7" },
        { body.request_id, answer.headers["request-id"], answer.headers["x-request-id"] })
      assert_openai(ask(CHAT, case[2]), case[3], case[5], case[6])
      assert_openai(ask("/v1/responses", case[2]), case[3], case[5], case[6])
    end)
  end

  it("take a policy's parameter and headers along", function()
    local answer = ask(CHAT, '{"model":"team"}')
    assert.equal("metadata", answer:json().error.param)
    assert.equal("9", answer.headers["retry-after"])
    assert.equal("9", ask(MESSAGES, '{"model":"team"}').headers["retry-after"])
  end)

  it("say a path that is not served in the client's form", function()
    assert_anthropic(ask("/v2/messages", "{}"), 404, "not_found_error", "unknown_url")
    assert_anthropic(ask("/v1/../x", "{}", { ["anthropic-version"] = "1" }), 400,
      "invalid_request_error", "invalid_path")
    assert_openai(ask("/v2/chat", "{}"), 404, "invalid_request_error", "unknown_url")
  end)
end)
