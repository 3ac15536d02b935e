--- The access log of the real gateway: one line per request, whatever becomes of it.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  access_log = %s,
  drain = "%s", %s
  limits = { body = "2KiB", head = "8KiB", request_line = "4KiB", head_timeout = "100ms" },
  providers = {
    one = { url = "%s/v1", stream_usage = %s, timeouts = { idle = "300ms" } },
    two = { url = "%s/v1" },
  },
  routes = {
    { name = "broken", match = { model = "broken" }, policy = "broken",
      targets = { { provider = "two" } } },
    { name = "strict", match = { model = "strict" }, policy = "broken",
      on_policy_error = "fail", targets = { { provider = "two" } } },
    { name = "hasty", match = { model = "hasty" }, deadline = "50ms",
      targets = { { provider = "one" } } },
    { name = "all", match = { model = "*" },
      targets = { { provider = "one" }, { provider = "two", priority = 1 } },
      retry = { attempts = 2, backoff = { base = "1ms", max = "2ms", floor = "1ms" } } },
  },
}
]]

local BROKEN = [[return function() error("not today") end]]
local ANSWER = { id = "x", object = "chat.completion", model = "served", choices = {},
  usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 } }

local function good() return 200, ANSWER end

--- A gateway before two upstreams that answer as told.
local function start(options)
  local one = support.answering(options.one or good)
  local two = support.answering(options.two or good)
  local gw = support.gateway({
    config = CONFIG:format(options.log or "{}", options.drain or "5s", options.more or "", one.url,
      tostring(options.stream_usage or false), two.url),
    policies = { broken = BROKEN }, args = options.args, workers = options.workers or 1,
    prelude = options.prelude,
  })
  return gw, one, two
end

--- The whole lines of a text, decoded; raises when one is no JSON object.
local function decode(text)
  local list = {}
  for line in text:gmatch("([^\n]*)\n") do
    if not line:find("^perilune: listening") then
      list[#list + 1] = assert(cjson.decode(line), "no JSON: " .. line)
    end
  end
  return list
end

--- The log's lines once there are so many.
local function wait_lines(gw, count, read)
  local list
  support.wait_until(("%d lines of the access log"):format(count), function()
    list = decode(read and read() or gw:stdout())
    return #list >= count
  end)
  assert.equal(count, #list)
  return list
end

local function wait_line(gw) return wait_lines(gw, 1)[1] end

local function events(connection, list)
  connection:start_chunked(200)
  for _, data in ipairs(list) do connection:event(data) end
end

local DELTA = { choices = { { index = 0, delta = { content = "hi" } } } }

describe("the access log", function()
  after_each(support.finish)

  it("tells all of a request that was served", function()
    local gw, one = start({})
    gw:chat({ model = "m", headers = { ["x-request-id"] = "abc" } })
    local line = wait_line(gw)
    assert.matches("^%d+%-%d+%-%d+T%d+:%d+:%d+%.%d+Z$", line.time)
    assert.same({ "info", "request", "abc", "POST", "/v1/chat/completions", "127.0.0.1" },
      { line.level, line.scope, line.id, line["http.request.method"], line["url.path"],
        line["client.address"] })
    assert.same({ 200, "complete", "all", "fallback", "one", "127.0.0.1:" .. one.port, 1 },
      { line["http.response.status_code"], line["end"], line.route, line.policy, line.target,
        line.endpoint, line.generation })
    assert.same({ "chat", "one", "m", "served", 3, 5 },
      { line["gen_ai.operation.name"], line["gen_ai.provider.name"], line["gen_ai.request.model"],
        line["gen_ai.response.model"], line["gen_ai.usage.input_tokens"],
        line["gen_ai.usage.output_tokens"] })
    assert.equal(#one.requests[1].body, line["http.request.body.size"])
    assert.equal(#cjson.encode(ANSWER), line["http.response.body.size"])
    assert.is_nil(line.reason)
    assert.is_nil(line.request_body)
    assert.equal(1, #line.attempts)
    assert.same({ "one", "ok", 200, false },
      { line.attempts[1].target, line.attempts[1].class, line.attempts[1].status,
        line.attempts[1].reused })
    assert.is_number(line.attempts[1].head_ms)
    assert.is_number(line.attempts[1].connect_ms)
  end)

  it("tells of each try", function()
    local gw = start({ one = function() return 429, { error = { message = "slow down" } } end })
    gw:chat({ model = "m" })
    local line = wait_line(gw)
    assert.same({ "one", "two" }, { line.attempts[1].target, line.attempts[2].target })
    assert.same({ "rate_limited", "ok" }, { line.attempts[1].class, line.attempts[2].class })
    assert.equal("two", line.target)
    assert.is_true(line.attempts[2].start_ms >= line.attempts[1].total_ms)
    gw:wait_log("warn  request %S+: moved from one to two: rate_limited")
  end)

  it("says why an answer was not taken for one", function()
    local gw = start({
      one = function(_, connection)
        events(connection, { "{}", "[DONE]" })
        connection:finish_chunked()
      end,
    })
    gw:chat({ stream = true })
    local tries = wait_line(gw).attempts
    assert.same({ "empty", "the stream ended without content" },
      { tries[1].class, tries[1].detail })
  end)

  it("shows what the ring of recent requests shows, with the trace's ids", function()
    local gw, one = start({ more = 'tracing = { endpoint = "http://127.0.0.1:1", sample = 0 },' })
    gw:chat()
    local line = wait_line(gw)
    assert.same(line, cjson.decode(gw:admin({ path = "/admin/requests/recent" }).body).records[1])
    assert.equal(16, #line.span_id)
    assert.equal(line.trace_id, one.requests[1].headers.traceparent:match("^00%-(%x+)%-%x+%-0%x$"))
  end)

  it("has the id of a client's trace where there are none of ours", function()
    local gw, trace_id = start({}), ("0123456789abcdef"):rep(2)
    gw:chat({ headers = { traceparent = ("00-%s-00f067aa0ba902b7-01"):format(trace_id) } })
    local line = wait_line(gw)
    assert.same({ trace_id, nil }, { line.trace_id, line.span_id })
  end)

  it("tells of streams", function()
    local gw = start({ one = function(_, connection)
      events(connection, { DELTA, "[DONE]" })
      connection:finish_chunked()
    end })
    gw:chat({ model = "m", stream = true })
    local line = wait_line(gw)
    assert.is_true(line.stream)
    assert.equal("complete", line["end"])
    assert.is_number(line.first_token_ms)
    assert.is_number(line.attempts[1].first_token_ms)
  end)

  it("tells of a stream that its upstream cut", function()
    local gw = start({ one = function(_, connection)
      events(connection, { DELTA })
      connection:reset()
    end })
    gw:chat({ model = "m", stream = true })
    local line = wait_line(gw)
    assert.same({ "warn", "cut", "truncated", 200 },
      { line.level, line["end"], line.reason, line["http.response.status_code"] })
    assert.equal("truncated", line.attempts[1].class)
  end)

  it("tells of a client that left", function()
    local gw, one = start({ one = function(_, connection) connection:wait_closed(10) end })
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", method = "POST", json = { model = "m" } })
    one:wait_requests(1)
    connection:reset()
    local line = wait_line(gw)
    assert.same({ "client_gone", "client_gone", "abandoned" },
      { line["end"], line.reason, line.attempts[1].class })
    assert.is_nil(line["http.response.status_code"])
  end)

  it("tells of what the edge refuses, with all that is known of it", function()
    local gw = start({})
    local function raw(bytes) return support.request({ to = gw, raw = bytes }).status end
    assert.equal(505, raw("GET /x HTTP/9.9\r\n\r\n"))
    assert.equal(431, raw("GET /big?q HTTP/1.1\r\nHost: a\r\nX: " .. ("y"):rep(9000) .. "\r\n\r\n"))
    assert.equal(413, raw("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
      .. "Content-Length: 5000\r\n\r\n"))
    assert.equal(408, raw("GET /slow HTTP/1.1\r\nHo"))
    assert.equal(400, gw:request({ path = "/v1/chat/completions", body = "{" }).status)
    assert.equal(404, gw:request({ path = "/nothing", method = "GET" }).status)
    local lines = wait_lines(gw, 6)
    local seen = {}
    for position, line in ipairs(lines) do
      assert.equal("refused", line["end"])
      assert.equal("127.0.0.1", line["client.address"])
      seen[position] = { line["http.response.status_code"], line.reason, line["url.path"] }
    end
    assert.same({
      { 505, "http_version_not_supported" , seen[1][3] },
      { 431, "headers_too_large", "/big" },
      { 413, "request_too_large", "/v1/chat/completions" },
      { 408, "request_timeout", "/slow" },
      { 400, "invalid_body", "/v1/chat/completions" },
      { 404, "unknown_url", "/nothing" },
    }, seen)
    assert.is_true(lines[4].duration_ms >= 90)
  end)

  it("tells of requests that no target could serve, and of deadlines", function()
    local gw = start({
      one = function(_, connection) connection:reset() end,
      two = function(_, connection) connection:reset() end,
    })
    assert.equal(502, gw:chat({ model = "m" }).status)
    local line = wait_line(gw)
    assert.same({ "failed", "reset", 2 }, { line["end"], line.reason, #line.attempts })
    assert.is_string(line.attempts[1].detail)
  end)

  it("tells of deadlines", function()
    local gw = start({ one = function(_, connection) connection:wait_closed(10) end })
    assert.equal(504, gw:chat({ model = "hasty" }).status)
    local line = wait_line(gw)
    assert.same({ "failed", "timeout_deadline", 504 },
      { line["end"], line.reason, line["http.response.status_code"] })
  end)

  it("tells of policies that fail", function()
    local gw = start({})
    assert.equal(200, gw:chat({ model = "broken" }).status)
    assert.equal(500, gw:chat({ model = "strict" }).status)
    local lines = wait_lines(gw, 2)
    assert.same({ "complete", true, "error" },
      { lines[1]["end"], lines[1].floor, lines[1].policy_fault })
    assert.same({ "failed", "policy_error" }, { lines[2]["end"], lines[2].reason })
    assert.is_nil(lines[2].floor)
  end)

  it("tells of requests that the drain has cut off", function()
    local gw, one = start({ drain = "50ms",
      one = function(_, connection) connection:wait_closed(10) end })
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", method = "POST", json = { model = "m" } })
    one:wait_requests(1)
    gw:stop()
    local line = wait_line(gw)
    assert.same({ "killed", "drain", "warn" }, { line["end"], line.reason, line.level })
  end)

  it("stays valid JSON whatever clients and upstreams write", function()
    local gw = start({ one = function() return 200, { model = "a\"b\\c", choices = {} } end })
    local models = { "quo\"te", "new\nline", "back\\slash", "\0\1\127", "\xe2\x82",
      ("x"):rep(1500), ("\xc3\xa9"):rep(700) }
    for _, model in ipairs(models) do
      gw:chat({ model = model })
    end
    gw:request({ path = "/" .. ("p"):rep(3000), method = "GET" })
    local lines = wait_lines(gw, #models + 1)
    for _, line in ipairs(lines) do
      assert.is_true(#(line["gen_ai.request.model"] or "") <= 1024 + 3)
      assert.is_true(#line["url.path"] <= 1024 + 3)
    end
    assert.equal("new\nline", lines[2]["gen_ai.request.model"])
    assert.equal("a\"b\\c", lines[1]["gen_ai.response.model"])
  end)

  it("keeps bodies when asked, without what is secret in them", function()
    local gw = start({ log = [[{ bodies = { request = "200B", response = "20B" },
      redact = { "social-id" } }]] })
    gw:request({ path = "/v1/chat/completions", method = "POST", headers = {
      Authorization = "Bearer sk-in-a-header" }, body = [[{"model":"m","api_key" : "sk-1234",]]
      .. [["Social_ID":"99","tool":"{\"password\":\"hunter2\",\"a\":1}","max_tokens":7,]]
      .. [["token":["x","y"]] .. (" "):rep(100) .. "]}" })
    local line, text = wait_line(gw), gw:stdout()
    for _, secret in ipairs({ "sk-1234", "hunter2", "99", "sk-in-a-header" }) do
      assert.is_nil(text:find('"' .. secret, 1, true))
    end
    assert.is_nil(text:find("hunter2", 1, true))
    assert.matches('"max_tokens":7', line.request_body, 1, true)
    assert.equal(20, #line.response_body)
  end)

  it("is text when asked to be, and then so is the log", function()
    local gw = start({ args = { "--log-format", "text" } })
    gw:chat({ model = "m m", headers = { ["x-request-id"] = "abc" } })
    gw:wait_output("stdout", "\n[%d-]+T[%d:.]+Z 200 complete %d+ms POST /v1/chat/completions "
      .. "\"m m\" %-> one .-input_tokens=3 output_tokens=5 .-client=127.0.0.1 id=abc\n")
  end)

  it("has the log in JSON as well", function()
    local gw = start({ args = { "--log-format", "json" }, one = function() return 503, {} end })
    gw:chat({ model = "m" })
    gw:wait_log("moved from one to two")
    for _, line in ipairs(decode(gw:stderr())) do
      assert.same({ "string", "string", "string" },
        { type(line.time), type(line.level), type(line.message) })
    end
  end)

  it("can be off", function()
    local gw = start({ log = "false" })
    gw:chat({ model = "m" })
    gw:stop()
    assert.matches("^perilune: listening[^\n]*\n$", gw:stdout())
  end)

  it("refuses at start what it cannot write to", function()
    local folder = support.make_folder()
    support.write_file(folder .. "/gateway.lua", [[return {
      access_log = { path = "/nowhere/at/all.log" },
      providers = { one = { url = "http://127.0.0.1:1/v1" } },
      routes = { { match = { model = "*" }, targets = { { provider = "one" } } } },
    }]])
    support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
    local ended = support.perilune({ "run", folder, "--listen", "127.0.0.1:0" })
    assert.equal(1, ended.status)
    assert.equal("perilune: access_log.path: /nowhere/at/all.log: No such file or directory\n",
      ended.stderr)
  end)

  it("serves as before while nobody reads it, and counts what it lost", function()
    local folder = support.make_folder()
    local pipe = folder .. "/pipe"
    assert.equal(0, support.run({ "mkfifo", pipe }).status)
    -- opened for both, so that opening does not wait for the reader that never reads
    local reader = assert(io.open(pipe, "r+"))
    local gw = start({ log = ('{ path = "%s", bodies = { request = "64KiB" } }'):format(pipe) })
    local body = cjson.encode({ model = "m", text = ("\1"):rep(300) })
    local dropped
    local tasks = {}
    for task = 1, 8 do
      tasks[task] = function()
        for _ = 1, 100 do
          assert.equal(200, gw:request({ path = "/v1/chat/completions", method = "POST",
            body = body }).status)
        end
      end
    end
    for _ = 1, 6 do
      support.together(tasks, 60)
      dropped = tonumber(gw:admin({ path = "/metrics" }).body:match(
        "\nperilune_access_log_dropped_total (%d+)"))
      if dropped > 0 then break end
    end
    assert.is_true(dropped > 0)
    reader:close()
  end)

  it("serves on when the disk is full, and counts what it lost", function()
    local gw = start({ log = '{ path = "/dev/full" }' })
    for _ = 1, 5 do assert.equal(200, gw:chat({ model = "m" }).status) end
    support.wait_until("lost lines to be counted", function()
      return gw:admin({ path = "/metrics" }).body:find("\nperilune_access_log_dropped_total 5\n")
    end)
  end)

  it("has a line for each of many requests, also while its file is moved away", function()
    local log_name = "requests.log"
    local number = 0
    local function at_random(_, connection)
      number = number + 1
      if number % 5 == 0 then return connection:reset() end
      return number % 3 == 0 and 503 or 200, ANSWER
    end
    local gw = start({ log = ('{ path = "%s" }'):format(log_name), workers = 2,
      one = at_random, two = at_random })
    local path = gw.folder_of_policies .. "/" .. log_name
    local moved_count, count, tasks = 0, 40, {}
    for task = 1, 8 do
      tasks[task] = function()
        for turn = 1, count do
          gw:chat({ model = ("%d-%d"):format(task, turn) })
          if task == 1 and turn % 10 == 0 then
            moved_count = moved_count + 1
            assert(os.rename(path, path .. "." .. moved_count))
            gw:signal("USR1")
            support.wait_until("a new file", function()
              local file = io.open(path)
              if file then file:close() end
              return file
            end)
          end
        end
      end
    end
    support.together(tasks, 60)
    local function read_all()
      local texts = {}
      for position = 0, moved_count do
        local file = io.open(position == 0 and path or path .. "." .. position)
        texts[#texts + 1] = file and file:read("*a") or ""
        if file then file:close() end
      end
      return table.concat(texts)
    end
    local seen = {}
    for _, line in ipairs(wait_lines(gw, 8 * count, read_all)) do
      local model = line["gen_ai.request.model"]
      assert.is_nil(seen[model])
      seen[model] = true
    end
  end)

  it("follows reloads, but for its path, and tells of requests that they cut off", function()
    local one = support.answering(function(_, connection) connection:wait_closed(10) end)
    local two = support.answering(good)
    local function config(log)
      return ([[return {
        admin = { address = "127.0.0.1:0" }, access_log = %s, reload = { drain = "0ms" },
        providers = { one = { url = "%s/v1" }, two = { url = "%s/v1" } },
        routes = { { match = { model = "hang" }, targets = { { provider = "one" } } },
                   { match = { model = "*" }, targets = { { provider = "two" } } } },
      }]]):format(log, one.url, two.url)
    end
    local gw = support.gateway({ config = config("{}"), workers = 1 })
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", method = "POST", json = { model = "hang" } })
    one:wait_requests(1)
    gw:write_policy("gateway", config('{ format = "text", path = "elsewhere.log" }'))
    gw:signal("HUP")
    gw:wait_log("access_log.path has changed, which takes a restart")
    local line = wait_line(gw)
    assert.same({ "killed", "reload", 1 }, { line["end"], line.reason, line.generation })
    gw:chat({ model = "m" })
    gw:wait_output("stdout", "\n[%d-]+T[%d:.]+Z 200 complete ")
  end)

  it("is joined by a line in the log for each target that is back", function()
    local number = 0
    local one = support.answering(function()
      number = number + 1
      return number == 1 and 500 or 200, ANSWER
    end)
    local gw = support.gateway({ config = ([[return {
      admin = { address = "127.0.0.1:0" },
      providers = { one = { url = "%s/v1",
        health = { consecutive_5xx = 1, base_ejection = "50ms", max_ejection = "50ms" } } },
      routes = { { match = { model = "*" }, targets = { { provider = "one" } },
        retry = { attempts = 1 }, panic = "fail" } },
    }]]):format(one.url) })
    assert.equal(500, gw:chat({ model = "m" }).status)
    gw:wait_log("warn  target one is out: consecutive_5xx")
    support.wait_until("a good answer", function()
      return gw:chat({ model = "m" }).status == 200
    end)
    gw:wait_log("info  target one is back: it has answered its probe")
  end)

  it("can be replayed by `perilune simulate`", function()
    local gw = start({ one = function() return 503, { error = { message = "no" } } end })
    for _ = 1, 3 do gw:chat({ model = "m" }) end
    wait_lines(gw, 3)
    local read = require "perilune.simulate.log"
    for line in gw:stdout():gmatch("({[^\n]*)\n") do
      local record = assert(read.parse(line))
      assert.same({ "m", "complete", 200, 2, "overloaded" },
        { record.model, record.ended, record.status, #record.attempts, record.attempts[1].class })
    end
  end)
end)

describe("stream_usage", function()
  after_each(support.finish)

  local USAGE = { choices = {}, model = "served",
    usage = { prompt_tokens = 7, completion_tokens = 9, total_tokens = 16 } }

  --- An upstream that answers with a text in pieces of `size` bytes.
  local function in_pieces(text, size)
    return function(_, connection)
      connection:start_chunked(200)
      for at = 1, #text, size do connection:chunk(text:sub(at, at + size - 1)) end
      connection:finish_chunked()
    end
  end

  local function stream_text(line_end, with_usage)
    local list = { cjson.encode(DELTA) }
    if with_usage then list[2] = (cjson.encode(USAGE):gsub('"choices":{}', '"choices":[]')) end
    list[#list + 1] = "[DONE]"
    for position, data in ipairs(list) do
      list[position] = "data: " .. data .. line_end .. line_end
    end
    return table.concat(list)
  end

  local function ask(gw, extra)
    local body = [[{"model":"m","stream":true]] .. (extra or "") .. "}"
    return gw:request({ path = "/v1/chat/completions", method = "POST", body = body })
  end

  for name, line_end in pairs({ LF = "\n", CRLF = "\r\n", CR = "\r" }) do
    it("asks for token counts and takes the event out again, ends of lines: " .. name, function()
      local text, size = stream_text(line_end, true), 1
      local gw, one = start({ stream_usage = true, one = function(request, connection)
        in_pieces(text, size)(request, connection)
      end })
      for count, pieces in ipairs({ 1, 2, 3, 7, 64, #text }) do
        size = pieces
        assert.equal(stream_text(line_end), ask(gw).body)
        assert.same({ include_usage = true }, one.requests[count]:json().stream_options)
      end
      for _, line in ipairs(wait_lines(gw, 6)) do
        assert.same({ 7, 9 }, { line["gen_ai.usage.input_tokens"],
          line["gen_ai.usage.output_tokens"] })
      end
    end)
  end

  it("cut in two at each byte", function()
    local text, cut = stream_text("\r\n", true), 1
    local gw = start({ stream_usage = true, one = function(_, connection)
      connection:start_chunked(200)
      connection:chunk(text:sub(1, cut))
      connection:chunk(text:sub(cut + 1))
      connection:finish_chunked()
    end })
    for position = 1, #text - 1 do
      cut = position
      assert.equal(stream_text("\r\n"), ask(gw).body)
    end
  end)

  it("keeps other stream_options, and to clients that ask their event", function()
    local text = stream_text("\n", true)
    local gw, one = start({ stream_usage = true, one = in_pieces(text, 10) })
    ask(gw, [[,"stream_options":{"x":[1,2],"include_usage":false}]])
    assert.equal(text, ask(gw, [[,"stream_options":{"include_usage":true}]]).body)
    assert.same({ x = { 1, 2 }, include_usage = true }, one.requests[1]:json().stream_options)
    assert.same({ include_usage = true }, one.requests[2]:json().stream_options)
  end)

  it("leaves all as it is without the option", function()
    local text = stream_text("\n", true)
    local gw, one = start({ one = in_pieces(text, 10) })
    assert.equal(text, ask(gw).body)
    assert.is_nil(one.requests[1]:json().stream_options)
  end)
end)
