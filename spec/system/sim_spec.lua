--- `perilune sim` on the wire: what the unit specs cannot see.

local support = require "support"

local CHAT = "/v1/chat/completions"

local function chat_body(text, more)
  local body = { model = "gpt-4", messages = { { role = "user", content = text } } }
  for key, value in pairs(more or {}) do body[key] = value end
  return body
end

local function connect_and_send(sim, body, headers)
  local connection = support.connect(sim)
  connection:send { path = CHAT, json = body, headers = headers }
  return connection
end

local function stats(sim)
  return sim:request({ path = "/admin/stats" }):json()
end

--- The text of a chat stream, and its last data.
local function said(events)
  local texts, last = {}, nil
  for _, event in ipairs(events) do
    last = event.data
    texts[#texts + 1] = last:match('"content":"([^"]*)"')
  end
  return table.concat(texts), last
end

describe("perilune sim", function()
  after_each(support.finish)

  it("answers whole and streamed", function()
    local sim = support.sim { "--mode", "echo" }
    local response = sim:chat { content = "one two" }
    assert.equal(200, response.status)
    assert.equal("complete", response.ended)
    assert.equal("one two", response:json().choices[1].message.content)
    response = sim:chat { content = "one two", stream = true }
    assert.equal("text/event-stream", response.headers["content-type"])
    assert.equal("chunked", response.headers["transfer-encoding"])
    assert.equal("complete", response.ended)
    assert.same({ "one two", "[DONE]" }, { said(response:events()) })
  end)

  it("serves all its endpoints", function()
    local sim = support.sim { "--model", "m" }
    for path, body in pairs {
      ["/v1/completions"] = { model = "m", prompt = "x" },
      ["/v1/responses"] = { model = "m", input = "x" },
      ["/v1/messages"] = { model = "m", max_tokens = 9,
        messages = { { role = "user", content = "x" } } },
      ["/v1/embeddings"] = { model = "m", input = "x" },
      ["/v1/images/generations"] = { model = "m", prompt = "x" },
      ["/tokenize"] = { prompt = "x" },
    } do
      local response = sim:request { path = path, json = body }
      assert.equal(200, response.status, path)
      assert.is_table(response:json(), path)
    end
    local form = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    assert.equal("m", sim:request({ path = "/v1/audio/transcriptions", body = form,
      headers = { ["Content-Type"] = "multipart/form-data; boundary=b" } }):json().model)
    assert.equal("m", sim:request({ path = "/v1/models" }):json().data[1].id)
    assert.equal("", sim:request({ path = "/health" }).body)
    assert.equal(404, sim:request({ path = "/nowhere" }).status)
    assert.equal(405, sim:request({ path = CHAT }).status)
  end)

  it("streams tokens as they come", function()
    local sim = support.sim { "--mode", "echo", "--time-to-first-token", "2s" }
    local started_s = support.now()
    local connection = connect_and_send(sim, chat_body("a b c", { stream = true }),
      { ["x-sim-failure"] = "stall", ["x-sim-stall-after"] = "2" })
    local head = assert(connection:read_head())
    assert.is_true(support.now() - started_s < 1.9, "the head waits for the first token")
    assert.matches("assistant", head:next_event().data)
    assert.matches('"a "', head:next_event().data)
    assert.is_true(support.now() - started_s >= 1.9)
    assert.matches('"b "', head:next_event().data)
    assert.equal(1, stats(sim).running)
    connection:close()
  end)

  it("resets and breaks connections so that no client can take the answer for whole", function()
    local sim = support.sim { "--mode", "echo" }
    local function fail(kind, is_stream)
      local connection = connect_and_send(sim, chat_body("a b c d e", { stream = is_stream }),
        { ["x-sim-failure"] = kind, ["x-sim-cut-after"] = "2" })
      local head, reason = connection:read_head()
      if not head then return nil, reason end
      head:read_body()
      return head, head.ended
    end
    local head, ended = fail("reset_before_headers")
    assert.is_nil(head)
    assert.equal("reset", ended)
    for _, is_stream in ipairs { true, false } do
      head, ended = fail("reset_after_headers", is_stream)
      assert.same({ 200, "" }, { head.status, head.body })
      assert.is_true(ended == "cut" or ended == "reset", ended)
      head, ended = fail("cut", is_stream)
      assert.is_true(ended == "cut" or ended == "reset", ended)
      assert.is_true(#head.body > 0)
      if is_stream then assert.equal("a b ", (said(head:events()))) end
    end
    head, ended = fail("empty", true)
    assert.same({ 200, "", "complete" }, { head.status, head.body, ended })
    head, ended = fail("empty")
    assert.same({ "0", "complete" }, { head.headers["content-length"], ended })
    head, ended = fail("no_done", true)
    assert.equal("complete", ended)
    assert.matches('"finish_reason":"stop"', (select(2, said(head:events()))))
    head, ended = fail("garbage", true)
    assert.equal("complete", ended)
    assert.is_truthy(head.body:find("data: {garbage\n\n", 1, true))
    assert.equal(0, stats(sim).running)
  end)

  it("fails the first requests, each in its way, and then is well", function()
    local sim = support.sim { "--mode", "echo", "--fail-first", "3", "--retry-after", "7",
      "--failure-types", "rate_limit", "server_error", "reset_before_headers" }
    local response = sim:chat()
    assert.same({ 429, "7" }, { response.status, response.headers["retry-after"] })
    response = sim:chat()
    assert.same({ 503, "7" }, { response.status, response.headers["retry-after"] })
    local _, reason = connect_and_send(sim, chat_body("x")):read_head()
    assert.equal("reset", reason)
    assert.equal(200, sim:chat().status)
    assert.same({ rate_limit = 1, server_error = 1, reset_before_headers = 1 },
      stats(sim).failures)
  end)

  it("is changed while it runs", function()
    local sim = support.sim { "--mode", "echo" }
    local response = sim:request { path = "/admin/config",
      json = { ["failure-injection-rate"] = 100, ["failure-types"] = { "invalid_api_key" } } }
    assert.equal(200, response.status)
    assert.equal(401, sim:chat().status)
    assert.equal(400, sim:request({ path = "/admin/config", json = { port = 1 } }).status)
    sim:request { path = "/admin/config", json = { ["failure-injection-rate"] = 0 } }
    assert.equal(200, sim:chat().status)
  end)

  it("makes requests wait, and gives the place of a client that leaves to the next", function()
    local sim = support.sim { "--mode", "echo", "--max-num-seqs", "1",
      "--max-waiting-queue-length", "1" }
    local stuck = connect_and_send(sim, chat_body("x", { stream = true }),
      { ["x-sim-failure"] = "stall", ["x-sim-stall-after"] = "0" })
    assert(stuck:read_head())
    local waiting = connect_and_send(sim, chat_body("second"))
    support.wait_until("a request to wait", function() return stats(sim).waiting == 1 end)
    local refused = sim:chat()
    assert.equal(429, refused.status)
    assert.equal("Failed to enqueue request, waiting requests queue is full",
      refused:json().error.message)
    stuck:close()
    assert.equal("second", waiting:read_response():json().choices[1].message.content)
    waiting:close()
    support.wait_until("the places to be free", function()
      local now = stats(sim)
      return now.running == 0 and now.waiting == 0
    end)
  end)

  it("hangs until the client leaves", function()
    local sim = support.sim {}
    local connection = connect_and_send(sim, chat_body("x"), { ["x-sim-failure"] = "hang" })
    local head, reason = connection:read_head(0.3)
    assert.is_nil(head)
    assert.equal("timeout", reason)
    connection:close()
  end)

  it("answers bodies that cannot be read in llm-d-inference-sim's form", function()
    local sim = support.sim {}
    for _, body in ipairs { "", "{", "[]", '{"model":1,"messages":[]}' } do
      local response = sim:request { path = CHAT, method = "POST", body = body }
      assert.equal(400, response.status)
      local err = response:json().error
      assert.matches("^Failed to read and parse request body, ", err.message)
      assert.equal("BadRequestError", err.type)
      assert.equal(400, err.code)
    end
  end)

  it("refuses bodies that are too large", function()
    local sim = support.sim { "--max-request-body-size-mb", "1" }
    local response = sim:request { path = CHAT, json = chat_body(("x"):rep(1048576)) }
    assert.equal(413, response.status)
    assert.equal(400, sim:request({ path = CHAT, body = (" "):rep(1048576) }).status)
  end)

  it("sends a request id only when told to", function()
    local plain = support.sim { "--mode", "echo" }
    assert.is_nil(plain:chat({ headers = { ["X-Request-Id"] = "mine" } }).headers["x-request-id"])
    local sim = support.sim { "--mode", "echo", "--enable-request-id-headers" }
    local response = sim:chat { headers = { ["X-Request-Id"] = "mine" } }
    assert.equal("mine", response.headers["x-request-id"])
    assert.equal("chatcmpl-mine", response:json().id)
  end)

  it("lasts through a big body of short tokens", function()
    local sim = support.sim { "--mode", "echo", "--max-model-len", "10000000" }
    local text = ("a "):rep(500000)
    local response = sim:request { path = CHAT, json = chat_body(text), timeout_s = 30 }
    assert.equal(200, response.status)
    assert.equal(1000000, response:json().usage.total_tokens)
  end)

  it("serves TLS", function()
    local files = support.certificates()
    local sim = support.sim { "--mode", "echo", "--ssl-certfile", files.cert, "--ssl-keyfile",
      files.key }
    local response = sim:chat { tls = { cafile = files.ca, server_name = "localhost" } }
    assert.equal(200, response.status)
  end)

  it("explains itself and its mistakes", function()
    local help = support.perilune { "sim", "--help" }
    assert.equal(0, help.status)
    assert.matches("^Usage: perilune sim ", help.stdout)
    assert.matches("GET /admin/stats%.\n", help.stdout)
    assert.is_nil(help.stdout:find("traceback", 1, true))
    local mistake = support.perilune { "sim", "--prot", "1" }
    assert.equal(2, mistake.status)
    assert.matches("unknown flag %-%-prot %(did you mean %-%-port%?%)", mistake.stderr)
  end)
end)
