--- Traces: what upstreams get of them, what a collector gets, and that nobody suffers when the
-- collector does.

local cjson = require "cjson.safe"
local support = require "support"

local CLIENTS_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
local CLIENTS_SPAN = "00f067aa0ba902b7"
local CLIENTS_PARENT = ("00-%s-%s-01"):format(CLIENTS_TRACE, CLIENTS_SPAN)

local CONFIG = [[
return {
  workers = %s,
  %s
  providers = { one = { url = "%s/v1" }, two = { url = "%s/v1" } },
  routes = { {
    name = "main", match = { model = "*" },
    targets = { { provider = "one", model = "m-1" }, { provider = "two", priority = 1 } },
    retry = { attempts = 4, backoff = { base = "1ms", max = "2ms", floor = "1ms" } },
    deadline = "20s",
  } },
}
]]

local function config(one, two, tracing, workers)
  return CONFIG:format(workers or 1, tracing and ("tracing = { %s },"):format(tracing) or "",
    one.url, (two or one).url)
end

local function tracing(collector, more)
  return ('endpoint = "%s", sample = 1, %s'):format(collector.url, more or "")
end

local function ok()
  return support.answering(function()
    return 200, { model = "m-1-2026", usage = { prompt_tokens = 3, completion_tokens = 5 } }
  end)
end

--- Attributes by name; integers become numbers, which they are as texts.
local function attributes_of(list)
  local found = {}
  for _, attribute in ipairs(list) do
    assert.is_nil(found[attribute.key], "twice: " .. attribute.key)
    local value = attribute.value
    if value.intValue then
      assert.is_string(value.intValue)
      found[attribute.key] = tonumber(value.intValue)
    else
      found[attribute.key] = value.stringValue or value.boolValue or value.doubleValue
    end
    assert.is_not_nil(found[attribute.key])
  end
  return found
end

--- Checks what every span must be and gives it with its attributes by name.
local function read_span(span)
  assert.truthy(span.traceId:match("^%x+$") and #span.traceId == 32)
  assert.truthy(span.spanId:match("^%x+$") and #span.spanId == 16)
  assert.truthy(span.kind == 2 or span.kind == 3)
  for _, key in ipairs({ "startTimeUnixNano", "endTimeUnixNano" }) do
    assert.truthy(span[key]:match("^%d+$") and #span[key] == 19)
  end
  assert.is_true(span.startTimeUnixNano <= span.endTimeUnixNano)
  span.is = attributes_of(span.attributes)
  return span
end

--- The spans in the body of one export.
local function read_export(request)
  assert.equal("POST", request.method)
  assert.equal("/v1/traces", request.target)
  assert.equal("application/json", request.headers["content-type"])
  local document = assert(cjson.decode(request.body))
  assert.equal(1, #document.resourceSpans)
  assert.equal(1, #document.resourceSpans[1].scopeSpans)
  local scope = document.resourceSpans[1].scopeSpans[1]
  assert.equal("perilune", scope.scope.name)
  for _, span in ipairs(scope.spans) do
    read_span(span)
  end
  return scope.spans, attributes_of(document.resourceSpans[1].resource.attributes)
end

--- A collector: `answer(number, request)` gives status, body and headers of each export, 200 by
-- default; the spans of those answered with 200 are kept in `spans`, all by their id in `by_id`.
local function start_collector(answer, options)
  local collector
  collector = support.answering(function(request, _, number)
    collector.exports = (collector.exports or 0) + 1
    local status, body, headers = 200, {}, nil
    if answer then status, body, headers = answer(collector.exports, request, number) end
    local spans, resource = read_export(request)
    assert.is_true(#spans <= 512)
    collector.resource = resource
    if status == 200 then
      for _, span in ipairs(spans) do
        assert.is_nil(collector.by_id[span.spanId], "a span came twice")
        collector.by_id[span.spanId] = span
        table.insert(collector.spans, span)
      end
    end
    return status, body or {}, headers
  end, options)
  collector.spans, collector.by_id = {}, {}
  return collector
end

local function wait_spans(collector, count)
  support.wait_until(count .. " spans", function() return #collector.spans >= count end, 15)
  return collector.spans
end

local function metric(gw, name)
  local text = gw:admin({ path = "/metrics" }).body
  return tonumber(text:match("\nperilune_" .. name:gsub("[{}]", "%%%0") .. " (%S+)"))
end

local function dropped(gw, reason)
  return metric(gw, ('spans_dropped_total{reason="%s"}'):format(reason))
end

describe("traces", function()
  after_each(support.finish)

  it("pass through as they are while tracing is off", function()
    local up = ok()
    local gw = support.gateway({ config = config(up) })
    gw:chat({ headers = { TraceParent = "cc-anything", TraceState = "a=1, b=2" } })
    gw:chat()
    assert.equal("cc-anything", up.requests[1].headers["traceparent"])
    assert.equal("a=1, b=2", up.requests[1].headers["tracestate"])
    assert.is_nil(up.requests[2].headers["traceparent"])
    assert.equal(0, metric(gw, "spans_exported_total"))
  end)

  it("go on from a client's, with a span per request and per try", function()
    local collector = start_collector()
    local bad, good = support.answering(function() return 503, {} end), ok()
    local gw = support.gateway({ config = config(bad, good, tracing(collector,
      'service_name = "gate", resource = { ["a.b"] = "c" }, headers = { ["X-Key"] = "s3cret" }')) })
    assert.equal(200, gw:chat({
      model = "any", headers = {
        traceparent = CLIENTS_PARENT, tracestate = "a=1, b=2", ["x-request-id"] = "the-id",
      },
    }).status)
    local spans = wait_spans(collector, 3)
    local server, first, second = spans[1], spans[2], spans[3]
    assert.same({ ["service.name"] = "gate", ["a.b"] = "c" }, collector.resource)
    assert.equal("s3cret", collector.requests[1].headers["x-key"])

    for _, span in ipairs(spans) do
      assert.equal(CLIENTS_TRACE, span.traceId)
    end
    assert.equal(CLIENTS_SPAN, server.parentSpanId)
    assert.equal(2, server.kind)
    assert.equal("POST /v1/chat/completions", server.name)
    assert.equal(200, server.is["http.response.status_code"])
    assert.equal("POST", server.is["http.request.method"])
    assert.equal("/v1/chat/completions", server.is["url.path"])
    assert.equal("127.0.0.1", server.is["client.address"])
    assert.equal("chat", server.is["gen_ai.operation.name"])
    assert.equal("any", server.is["gen_ai.request.model"])
    assert.equal("m-1-2026", server.is["gen_ai.response.model"])
    assert.equal(3, server.is["gen_ai.usage.input_tokens"])
    assert.equal(5, server.is["gen_ai.usage.output_tokens"])
    assert.equal("main", server.is["perilune.route"])
    assert.equal("fallback", server.is["perilune.policy"])
    assert.equal(1, server.is["perilune.generation"])
    assert.equal("the-id", server.is["perilune.request_id"])
    assert.is_nil(server.status)

    assert.equal(server.spanId, first.parentSpanId)
    assert.equal(3, first.kind)
    assert.equal("chat m-1", first.name)
    assert.equal(503, first.is["http.response.status_code"])
    assert.equal("overloaded", first.is["error.type"])
    assert.equal(2, first.status.code)
    assert.equal("127.0.0.1", first.is["server.address"])
    assert.equal(bad.port, first.is["server.port"])
    assert.equal("one/m-1", first.is["perilune.target"])

    assert.equal(server.spanId, second.parentSpanId)
    assert.equal(good.port, second.is["server.port"])
    assert.equal(1, second.is["http.request.resend_count"])
    assert.is_nil(second.status)
    assert.is_nil(second.is["error.type"])
    assert.is_true(first.endTimeUnixNano <= second.startTimeUnixNano)
    assert.is_true(server.startTimeUnixNano <= first.startTimeUnixNano)

    assert.equal(("00-%s-%s-01"):format(CLIENTS_TRACE, first.spanId),
      bad.requests[1].headers["traceparent"])
    assert.equal(("00-%s-%s-01"):format(CLIENTS_TRACE, second.spanId),
      good.requests[1].headers["traceparent"])
    assert.equal("a=1,b=2", good.requests[1].headers["tracestate"])
  end)

  it("show when the first token of a stream came", function()
    local collector = start_collector()
    local up = support.upstream(function(connection)
      connection:read_request()
      connection:start_chunked()
      connection:event({ choices = { { delta = { content = "x" } } } })
      connection:event("[DONE]")
      connection:finish_chunked()
    end)
    local gw = support.gateway({ config = config(up, nil, tracing(collector)) })
    gw:chat({ stream = true })
    local spans = wait_spans(collector, 2)
    assert.is_true(spans[1].is["gen_ai.request.stream"])
    assert.is_number(spans[1].is["gen_ai.response.time_to_first_chunk"])
    local event = spans[2].events[1]
    assert.equal("perilune.first_token", event.name)
    assert.is_true(spans[2].startTimeUnixNano <= event.timeUnixNano)
    assert.is_true(event.timeUnixNano <= spans[2].endTimeUnixNano)
  end)

  it("are ours to begin when a client's is none, and then without its state", function()
    local collector, up = start_collector(), ok()
    local gw = support.gateway({ config = config(up, nil, tracing(collector)) })
    for _, parent in ipairs({ "00-" .. CLIENTS_TRACE:upper() .. "-" .. CLIENTS_SPAN .. "-01",
      "ff-" .. CLIENTS_PARENT:sub(4), CLIENTS_PARENT .. "-more" }) do
      gw:chat({ headers = { traceparent = parent, tracestate = "a=1" } })
    end
    gw:chat({ headers = { { "traceparent", CLIENTS_PARENT }, { "traceparent", CLIENTS_PARENT } } })
    for _, request in ipairs(up.requests) do
      assert.truthy(request.headers["traceparent"]:match("^00%-%x+%-%x+%-03$"))
      assert.is_nil(request.headers["traceparent"]:find(CLIENTS_TRACE, 1, true))
      assert.is_nil(request.headers["tracestate"])
    end
    for _, span in ipairs(wait_spans(collector, 8)) do
      assert.equal(span.kind == 3, span.parentSpanId ~= nil)
    end
  end)

  it("tell of clients that leave, and of answers that break off", function()
    local collector = start_collector()
    local up = support.upstream(function(connection)
      local request = connection:read_request()
      if not request or not request:json().stream then
        connection:wait_closed(30)
        return
      end
      connection:start_chunked()
      connection:event({ choices = { { delta = { content = "x" } } } })
      connection:reset()
    end)
    local gw = support.gateway({ config = config(up, nil, tracing(collector)) })
    local client = support.connect(gw)
    client:send({ path = "/v1/chat/completions", json = { model = "x" } })
    up:wait_requests(1)
    client:close()
    local spans = wait_spans(collector, 2)
    assert.equal("client_gone", spans[1].is["perilune.end"])
    assert.is_nil(spans[1].status)
    assert.equal("abandoned", spans[2].is["perilune.class"])
    assert.is_nil(spans[2].status)

    gw:chat({ stream = true })
    spans = wait_spans(collector, 4)
    assert.equal("cut", spans[3].is["perilune.end"])
    assert.equal(2, spans[3].status.code)
    assert.equal(2, spans[4].status.code)
    assert.truthy(({ reset = true, truncated = true })[spans[4].is["error.type"]])
    assert.equal(4, #collector.spans)
  end)

  it("are sampled as the client says, and else by share", function()
    local collector, up = start_collector(), ok()
    local gw = support.gateway({ config = config(up, nil,
      ('endpoint = "%s", sample = 0'):format(collector.url)) })
    gw:chat()
    gw:chat({ headers = { traceparent = CLIENTS_PARENT:gsub("01$", "00") } })
    gw:chat({ headers = { traceparent = CLIENTS_PARENT } })
    local spans = wait_spans(collector, 2)
    assert.equal(2, #spans)
    assert.equal(CLIENTS_TRACE, spans[1].traceId)
    assert.truthy(up.requests[1].headers["traceparent"]:match("^00%-%x+%-%x+%-02$"))
    assert.truthy(up.requests[2].headers["traceparent"]:match("^00%-" .. CLIENTS_TRACE
      .. "%-%x+%-00$"))
    assert.equal(2, metric(gw, "spans_exported_total"))
  end)

  it("have one server span per request and one below it per try, whatever fails", function()
    local collector = start_collector()
    local tries = {}
    local function faulty(request, connection)
      local parent = request.headers["traceparent"]
      local trace, span = parent:match("^00%-(%x+)%-(%x+)%-03$")
      local n = tonumber(request:json().user)
      -- one that is reset on a kept connection goes out once more, and is still the same try
      assert(n % 11 == 0 or not tries[span], "two tries with one span")
      tries[span] = trace
      if n % 11 == 0 then
        connection:reset()
        return nil
      end
      if n % 3 == 0 then return 503, {} end
      if n % 7 == 0 then return 400, { error = { message = "no" } } end
      return 200, { n = n }
    end
    local one, two = support.answering(faulty), support.answering(faulty)
    local gw = support.gateway({ config = config(one, two, tracing(collector), 2) })
    local count, in_turn, statuses = 2000, 8, {}
    local waiting = in_turn
    for lane = 1, in_turn do
      support.spawn("lane " .. lane, function()
        local connection = support.connect(gw.port)
        for n = lane, count, in_turn do
          local answer = connection:request({
            method = "POST", path = "/v1/chat/completions",
            headers = { ["Content-Type"] = "application/json", ["X-Request-Id"] = "r" .. n },
            body = cjson.encode({ model = "x", user = tostring(n), messages = {} }),
          })
          statuses[n] = answer.status
        end
        waiting = waiting - 1
      end)
    end
    support.wait_until("all answers", function() return waiting == 0 end, 60)
    local try_count = 0
    for _ in pairs(tries) do
      try_count = try_count + 1
    end
    wait_spans(collector, count + try_count)
    assert.equal(0, gw:stop())
    assert.equal(count + try_count, #collector.spans)
    local servers = {}
    for _, span in ipairs(collector.spans) do
      if span.kind == 2 then
        local n = tonumber(span.is["perilune.request_id"]:sub(2))
        assert.is_nil(servers[n])
        servers[n] = span
        assert.equal(statuses[n], span.is["http.response.status_code"])
        span.tries = 0
      end
    end
    for _, span in ipairs(collector.spans) do
      if span.kind == 3 then
        assert.equal(span.traceId, tries[span.spanId])
        local server = collector.by_id[span.parentSpanId]
        assert.equal(server.traceId, span.traceId)
        server.tries = server.tries + 1
      end
    end
    for n = 1, count do
      assert.equal(servers[n].is["perilune.attempts"], servers[n].tries)
    end
  end)
end)

describe("a collector", function()
  after_each(support.finish)

  it("that is down costs requests nothing", function()
    local port = support.refused_port()
    local up = ok()
    local gw = support.gateway({ config = config(up, nil,
      ('endpoint = "http://127.0.0.1:%d", sample = 1'):format(port)) })
    for _ = 1, 20 do
      assert.equal(200, gw:chat().status)
    end
    gw:wait_log("traces are not exported to 127%.0%.0%.1:%d+: connect: ")
    assert.equal(40, metric(gw, "spans_queued"))
    assert.is_true(metric(gw, "span_export_failures_total") >= 1)
    assert.equal(0, dropped(gw, "unreachable"))
    local since = support.now()
    assert.equal(0, gw:stop())
    assert.is_true(support.now() - since < 15) -- spans are kept for a minute
  end)

  it("that comes back gets what was kept", function()
    local collector = start_collector()
    local gw = support.gateway({ config = config(ok(), nil, tracing(collector)) })
    gw:chat()
    wait_spans(collector, 2)
    collector:stop()
    for _ = 1, 10 do
      assert.equal(200, gw:chat().status)
    end
    support.wait_until("a try", function() return metric(gw, "span_export_failures_total") > 0 end)
    local again = start_collector(nil, { port = collector.port })
    assert.equal(20, #wait_spans(again, 20))
    assert.equal(22, metric(gw, "spans_exported_total"))
    for reason in ("queue_full rejected unreachable shutdown"):gmatch("%S+") do
      assert.equal(0, dropped(gw, reason))
    end
  end)

  it("that is busy is asked again when it says", function()
    local asked = {}
    local collector = start_collector(function(number)
      asked[number] = support.now()
      if number == 1 then return 503, {}, { ["Retry-After"] = "2" } end
      if number == 2 then return 429, {} end
      return 200
    end)
    local gw = support.gateway({ config = config(ok(), nil, tracing(collector)) })
    gw:chat()
    wait_spans(collector, 2)
    assert.is_true(asked[2] - asked[1] >= 1.9)
    assert.equal(2, metric(gw, "spans_exported_total"))
    assert.equal(2, metric(gw, "span_export_failures_total"))
  end)

  it("that refuses loses spans, which are counted", function()
    local collector = start_collector(function(number)
      if number == 1 then return 500, {} end
      if number == 2 then
        return 200, { partialSuccess = { rejectedSpans = "1", errorMessage = "too odd" } }
      end
      return 200
    end)
    local gw = support.gateway({ config = config(ok(), nil, tracing(collector)) })
    gw:chat()
    support.wait_until("a drop", function() return dropped(gw, "rejected") == 2 end)
    gw:wait_log("not exported to .-: status 500; 2 spans dropped")
    gw:chat()
    support.wait_until("a drop", function() return dropped(gw, "rejected") == 3 end)
    assert.equal(1, metric(gw, "spans_exported_total"))
    gw:chat()
    wait_spans(collector, 4)
  end)

  it("that hangs holds up nobody, and the end for no more than a second", function()
    local hanging = support.upstream(function(connection)
      connection:read_request()
      connection:wait_closed(30)
    end)
    local gw = support.gateway({ config = config(ok(), nil, tracing(hanging, 'queue = "64KiB"')) })
    gw:chat()
    support.wait_until("an export", function() return #hanging.requests == 1 end)
    for _ = 1, 100 do
      assert.equal(200, gw:chat().status)
    end
    assert.is_true(dropped(gw, "queue_full") > 0)
    assert.is_true(metric(gw, "spans_queue_bytes") <= 65536)
    assert.equal(202, metric(gw, "spans_queued") + dropped(gw, "queue_full"))
    local since = support.now()
    assert.equal(0, gw:stop())
    assert.is_true(support.now() - since < 15) -- the collector hangs for 30 s
  end)

  it("that never ends its answer is not read to the end", function()
    local count = 0
    local endless = support.upstream(function(connection)
      while connection:read_request() do
        count = count + 1
        connection:start_chunked(200, { ["Content-Type"] = "application/json" })
        for _ = 1, 100 do
          if not connection:chunk(("x"):rep(8192)) then break end
        end
      end
    end)
    local gw = support.gateway({ config = config(ok(), nil, tracing(endless)) })
    gw:chat()
    support.wait_until("an export", function() return metric(gw, "spans_exported_total") == 2 end)
    gw:chat()
    support.wait_until("another", function() return metric(gw, "spans_exported_total") == 4 end)
    assert.equal(2, count)
  end)

  it("that answers too late is asked again", function()
    local collector
    collector = start_collector(function(number)
      if number > 1 then return 200 end
      support.wait_until("the second", function() return collector.exports == 2 end)
      return 503 -- which nobody waits for any more
    end)
    local gw = support.gateway({ config = config(ok(), nil,
      tracing(collector, 'timeout = "100ms"')) })
    gw:chat()
    wait_spans(collector, 2)
    support.wait_until("a count", function() return metric(gw, "spans_exported_total") == 2 end)
    assert.equal(1, metric(gw, "span_export_failures_total"))
  end)

  it("is verified when it is reached by TLS", function()
    local collector = start_collector(nil, { tls = support.server_tls() })
    local files = { ["ca.pem"] = support.read_file(support.certificates().ca) }
    local gw = support.gateway({ files = files, config = config(ok(), nil,
      tracing(collector, 'tls = { ca = "ca.pem" }')) })
    gw:chat()
    wait_spans(collector, 2)
    local wary = support.gateway({ config = config(ok(), nil, tracing(collector)) })
    wary:chat()
    wary:wait_log("not exported to 127%.0%.0%.1:%d+: tls: ")
    assert.equal(2, #collector.spans)
  end)

  it("gets what is left at the end", function()
    local collector = start_collector()
    local gw = support.gateway({ config = config(ok(), nil, tracing(collector)) })
    gw:chat()
    assert.equal(0, gw:stop())
    assert.equal(2, #collector.spans)
  end)

  it("is changed and turned off by a reload", function()
    local first, second, up = start_collector(), start_collector(), ok()
    local gw = support.gateway({ config = config(up, nil, tracing(first)) })
    gw:chat()
    wait_spans(first, 2)
    gw:write_policy("gateway", config(up, nil, tracing(second)))
    assert.equal(200, gw:admin({ method = "POST", path = "/admin/reload" }).status)
    gw:chat()
    assert.equal(2, wait_spans(second, 2)[1].is["perilune.generation"])
    gw:write_policy("gateway", config(up))
    assert.equal(200, gw:admin({ method = "POST", path = "/admin/reload" }).status)
    gw:chat()
    assert.equal(2, #first.spans)
    assert.equal(2, #second.spans)
    assert.is_nil(up.requests[3].headers["traceparent"])
  end)
end)
