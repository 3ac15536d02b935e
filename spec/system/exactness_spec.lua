--- Exactly one line, one count and one trace of each request, and one of each try, whatever goes
-- wrong. REQUESTS=100000 makes it so many; the default keeps the whole within half a minute.

local cjson = require "cjson.safe"
local exposition = require "support.exposition"
local support = require "support"

local REQUEST_COUNT = tonumber(os.getenv("REQUESTS")) or 20000
local LANE_COUNT = 24
local PATIENCE_S = 60 + REQUEST_COUNT / 200

local CONFIG = [[
return {
  workers = 2,
  access_log = { path = "requests.log" },
  tracing = { endpoint = "%s", sample = 1, queue = "64MiB" },
  providers = {
    one = { url = "%s/v1", health = false, timeouts = { head = "50ms", first_token = "50ms",
      idle = "50ms" }, stream_usage = true },
    two = { url = "%s/v1", health = false },
  },
  routes = {
    { name = "broken", match = { model = "broken" }, policy = "broken",
      targets = { { provider = "two" } } },
    { name = "strict", match = { model = "strict" }, policy = "broken", on_policy_error = "fail",
      targets = { { provider = "two" } } },
    { name = "hasty", match = { model = "hasty" }, deadline = "20ms",
      targets = { { provider = "one" } } },
    { name = "all", match = { model = "m" },
      targets = { { provider = "one" }, { provider = "two", priority = 1 } },
      retry = { attempts = 3, per_priority = 2,
        backoff = { base = "1ms", max = "2ms", floor = "0ms" } } },
  },
}
]]

local BROKEN = [[return function() error("not today") end]]
local ANSWER = { id = "x", object = "chat.completion", model = "served", choices = {
  { index = 0, message = { role = "assistant", content = "hi" }, finish_reason = "stop" } },
  usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 } }
local DELTA = { choices = { { index = 0, delta = { content = "hi" } } } }
local USAGE = { choices = {}, usage = ANSWER.usage }

-- What goes wrong, and how often (of a hundred). `upstream`: what the first target does; `model`;
-- `stream`; `leaves`: when the client goes away; `raw`: bytes in place of a request.
local KINDS = {
  { share = 30 },
  { share = 20, stream = true, upstream = "stream" },
  { share = 5, upstream = 503 },
  { share = 4, upstream = 429 },
  { share = 4, upstream = 500, stream = true },
  { share = 3, upstream = 400 },
  { share = 4, upstream = "reset" },
  { share = 3, upstream = "cut_body" },
  { share = 4, upstream = "cut_stream", stream = true },
  { share = 2, upstream = "empty_stream", stream = true },
  { share = 1, upstream = "hang" },
  { share = 1, upstream = "stall", stream = true },
  { share = 1, upstream = "hang", model = "hasty" },
  { share = 2, model = "broken" },
  { share = 2, model = "strict" },
  { share = 2, model = "unknown" },
  { share = 2, leaves = "at_once" },
  { share = 2, leaves = "when_tried", upstream = "linger" },
  { share = 3, leaves = "in_stream", stream = true, upstream = "long_stream" },
  { share = 2, body = '{"model": "m", ' },
  { share = 1, path = "/v1/../admin" },
  { share = 1, raw = "GET /v1/models HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n" },
  { share = 1, raw = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n" },
}

--- The kinds of a hundred requests, mixed.
local function mixed_kinds()
  local list = {}
  for _, kind in ipairs(KINDS) do
    for _ = 1, kind.share do list[#list + 1] = kind end
  end
  assert(#list == 100)
  local mixed = {}
  for index = 1, 100 do mixed[index] = list[index * 37 % 100 + 1] end
  return mixed
end

-- ---- upstreams ---------------------------------------------------------------------------------

local function stream(connection, list)
  connection:start_chunked(200)
  for _, data in ipairs(list) do
    if not connection:event(data) then return false end
  end
  return true
end

local acts = {
  stream = function(connection)
    stream(connection, { DELTA, DELTA, USAGE, "[DONE]" })
    connection:finish_chunked()
  end,
  reset = function(connection) connection:reset() end,
  cut_body = function(connection)
    connection:write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
      .. "Content-Length: 99\r\n\r\n{")
    connection:close()
  end,
  cut_stream = function(connection)
    stream(connection, { DELTA, DELTA })
    connection:close()
  end,
  empty_stream = function(connection)
    stream(connection, { "[DONE]" })
    connection:finish_chunked()
  end,
  hang = function(connection) connection:wait_closed(10) end,
  linger = function(connection) connection:wait_closed(10) end,
  stall = function(connection)
    stream(connection, { DELTA })
    connection:wait_closed(10)
  end,
  long_stream = function(connection)
    stream(connection, { DELTA, DELTA })
    connection:wait_closed(10)
  end,
}

--- An upstream that does what the request's field `user` says, and keeps no request. `tries` gets
-- how often each request came; one that is reset on a kept connection goes out once more.
local function start_upstream(tries, obeys)
  return support.answering(function(request, connection)
    connection.owner.requests = {}
    local n = tonumber(request.headers["x-request-id"])
    tries[n] = (tries[n] or 0) + 1
    local asked = request:json()
    local act = obeys and asked.user or (asked.stream and "stream")
    if type(act) == "number" then return act, { error = { message = "no" } } end
    if act and acts[act] then return acts[act](connection) end
    return 200, ANSWER
  end)
end

-- ---- the collector -----------------------------------------------------------------------------

local function attribute(span, key)
  for _, item in ipairs(span.attributes) do
    if item.key == key then return item.value.stringValue or tonumber(item.value.intValue) end
  end
end

--- Counts what comes: `requests` by the request's id, `tries` by the span above them.
local function start_collector()
  local seen = { requests = {}, tries = {}, request_count = 0, try_count = 0 }
  local function take(span)
    if span.kind == 2 then
      local n = tonumber(attribute(span, "perilune.request_id"))
      assert.is_nil(seen.requests[n], "a second span of request " .. n)
      seen.requests[n] = { span_id = span.spanId, trace_id = span.traceId,
        status = attribute(span, "http.response.status_code"),
        ending = attribute(span, "perilune.end") }
      seen.request_count = seen.request_count + 1
    else
      seen.tries[span.parentSpanId] = (seen.tries[span.parentSpanId] or 0) + 1
      seen.try_count = seen.try_count + 1
    end
  end
  local up = support.answering(function(request, connection)
    connection.owner.requests = {}
    for _, span in ipairs(request:json().resourceSpans[1].scopeSpans[1].spans) do take(span) end
    return 200, {}
  end)
  seen.url = up.url
  return seen
end

-- ---- clients -----------------------------------------------------------------------------------

local function body_of(kind)
  return kind.body or cjson.encode({ model = kind.model or "m", stream = kind.stream,
    user = kind.upstream, messages = { { role = "user", content = "Hello" } } })
end

local function send(connection, kind, n)
  if kind.raw then return connection:write(kind.raw) end
  return connection:send({
    method = "POST", path = kind.path or "/v1/chat/completions", body = body_of(kind),
    headers = { ["Content-Type"] = "application/json", ["X-Request-Id"] = tostring(n) },
  })
end

--- Goes away as the kind says.
local function leave(connection, kind, n, tries)
  if kind.leaves == "when_tried" then
    support.wait_until("a try", function() return tries[n] end, PATIENCE_S)
  elseif kind.leaves == "in_stream" then
    assert(connection:read_head(PATIENCE_S)):next_event(PATIENCE_S)
  end
  connection:close()
end

--- Sends one request; the status that came back, and whether the connection is still good.
local function perform(connection, kind, n, tries)
  send(connection, kind, n)
  if kind.leaves then
    leave(connection, kind, n, tries)
    return nil, false
  end
  local answer = assert(connection:read_head(PATIENCE_S))
  answer:read_body(PATIENCE_S)
  local good = answer.ended == "complete" and answer.headers["connection"] ~= "close"
    and not kind.raw
  if not good then connection:close() end
  return answer.status, good
end

--- Sends all of them, several at a time; statuses by number.
local function send_all(gw, kinds, tries)
  local statuses, tasks = {}, {}
  for lane = 1, LANE_COUNT do
    tasks[lane] = function()
      local connection, good
      for n = lane, REQUEST_COUNT, LANE_COUNT do
        if not good then connection = support.connect(gw.port, { timeout_s = PATIENCE_S }) end
        statuses[n], good = perform(connection, kinds[n % 100 + 1], n, tries)
      end
    end
  end
  support.together(tasks, PATIENCE_S)
  return statuses
end

-- ---- what was told of them ---------------------------------------------------------------------

local function add(counts, ...)
  local key = table.concat({ ... }, "|")
  counts[key] = (counts[key] or 0) + 1
end

--- The access log: lines by the request's id, and counts under the labels of the metrics.
local function read_log(path)
  local told = { lines = {}, refused_count = 0, count = 0, requests = {}, attempts = {},
    attempt_count = 0 }
  for text in io.lines(path) do
    local line = assert(cjson.decode(text), text)
    local n = tonumber(line.id)
    local status = line["http.response.status_code"]
    told.count = told.count + 1
    add(told.requests, line.route or "none", line["end"],
      status and ("%dxx"):format(math.floor(status / 100)) or "none")
    for _, attempt in ipairs(line.attempts) do
      told.attempt_count = told.attempt_count + 1
      add(told.attempts, attempt.target, attempt.class)
    end
    if n then
      assert.is_nil(told.lines[n], "a second line of request " .. n)
      told.lines[n] = { status = status, ending = line["end"], attempt_count = #line.attempts,
        trace_id = line.trace_id, span_id = line.span_id }
    else
      told.refused_count = told.refused_count + 1
      assert.equal("refused", line["end"])
    end
  end
  return told
end

local function scrape(gw)
  return exposition.parse(gw:admin({ path = "/metrics" }).body).families
end

--- Samples of a counter that are not 0, under `labels`.
local function counts_of(family, ...)
  local counts, labels = {}, { ... }
  for _, sample in ipairs(family.samples) do
    local parts = {}
    for index, label in ipairs(labels) do parts[index] = sample.labels[label] end
    local key = table.concat(parts, "|")
    if sample.value > 0 then counts[key] = (counts[key] or 0) + sample.value end
  end
  return counts
end

local function check_requests(statuses, kinds, told, collector, tries)
  local refused_count = 0
  for n = 1, REQUEST_COUNT do
    local kind, line, span = kinds[n % 100 + 1], told.lines[n], collector.requests[n]
    if kind.raw then
      refused_count = refused_count + 1
      assert.is_nil(line)
      assert.is_nil(span)
      assert.equal(400, statuses[n])
    else
      assert(line, "no line of request " .. n)
      assert(span, "no span of request " .. n)
      if not kind.leaves then assert.equal(statuses[n], line.status) end
      assert.same({ line.status, line.ending, line.trace_id, line.span_id },
        { span.status, span.ending, span.trace_id, span.span_id })
      assert.equal(line.attempt_count, collector.tries[span.span_id] or 0)
      assert.is_true((tries[n] or 0) <= 2 * line.attempt_count)
    end
  end
  assert.equal(refused_count, told.refused_count)
end

describe("of each request", function()
  after_each(support.finish)

  it("there is one line, one count and one span, whatever goes wrong", function()
    local kinds, tries, collector = mixed_kinds(), {}, start_collector()
    local one, two = start_upstream(tries, true), start_upstream(tries, false)
    local gw = support.gateway({ config = CONFIG:format(collector.url, one.url, two.url),
      policies = { broken = BROKEN } })
    local statuses = send_all(gw, kinds, tries)
    local families
    support.wait_until("all requests to be counted", function()
      families = scrape(gw)
      return families.perilune_requests_total:sum() >= REQUEST_COUNT
    end, 30)
    local path = gw.folder_of_policies .. "/requests.log"
    local attempt_count = families.perilune_attempts_total:sum()
    support.wait_until("all spans", function()
      return collector.request_count + collector.try_count
        >= families.perilune_requests_total:sum() - REQUEST_COUNT / 50 + attempt_count
    end, 60)
    assert.equal(0, gw:stop())
    local told = read_log(path)
    assert.equal(REQUEST_COUNT, told.count)
    assert.equal(REQUEST_COUNT, families.perilune_requests_total:sum())
    assert.equal(REQUEST_COUNT, families.perilune_access_log_lines_total:sum())
    assert.equal(0, families.perilune_access_log_dropped_total:sum())
    assert.equal(0, families.perilune_spans_dropped_total:sum())
    assert.same(told.requests,
      counts_of(families.perilune_requests_total, "route", "end", "status_class"))
    assert.same(told.attempts, counts_of(families.perilune_attempts_total, "target", "class"))
    check_requests(statuses, kinds, told, collector, tries)
    assert.equal(told.attempt_count, collector.try_count)
    assert.equal(REQUEST_COUNT - told.refused_count, collector.request_count)
  end)
end)
