--- What operators see of requests: those in flight, with what each waits for, and the last ones.

local support = require "support"

local CONFIG = [[
return {
  admin = { recent = %d },
  providers = { a = { url = "%s/v1", health = false }, b = { url = "%s/v1", health = false } },
  routes = {
    { name = "chat", match = { model = "chat-*" }, deadline = "20s", %s
      targets = { { provider = "a", model = "m" }, { provider = "b", priority = 1 } },
      retry = { attempts = 2, backoff = { base = "1ms", max = "1ms", floor = "1ms" } } },
    { name = "stuck", match = { model = "stuck" }, policy = "stuck", targets = { { provider = "b" } } },
  } }]]

-- computes for 300 ms at a time, within its budget of 50 ms between two waits
local STUCK = [[
local gw = require "perilune"
return function(req, route)
  for _ = 1, 3 do
    local start = gw.now_ms()
    while gw.now_ms() - start < 40 do end
    gw.sleep("1ms")
  end
  return req:respond(200, "done")
end]]

--- An upstream that answers when it is let go.
local function held()
  local up
  up = support.answering(function()
    support.wait_until("the word to answer", function() return up.open end)
    return up.status or 200, { id = "x" }
  end)
  return up
end

local function start(a, b, options)
  options = options or {}
  return support.gateway { workers = options.workers or 2, policies = { stuck = STUCK },
    config = CONFIG:format(options.recent or 200, a.url, b.url, options.route or "") }
end

local function in_flight(gw, query)
  local answer = gw:admin { path = "/admin/requests" .. (query or "") }
  assert.equal(200, answer.status)
  return answer:json()
end

local function recent(gw, query)
  local answer = gw:admin { path = "/admin/requests/recent" .. (query or "") }
  assert.equal(200, answer.status)
  return answer:json()
end

local function chat(gw, model)
  local task = {}
  support.spawn("client", function() task.answer = gw:chat { model = model or "chat-1" } end)
  return task
end

local function wait_answers(...)
  for _, task in ipairs { ... } do
    support.wait_until("an answer", function() return task.answer end)
  end
end

describe("GET /admin/requests", function()
  after_each(support.finish)

  it("shows what each request waits for and what it has tried", function()
    local a, b = held(), held()
    a.open, a.status = true, 500
    local gw = start(a, b)
    assert.same({ in_flight = 0, silent_workers = {}, requests = {} }, in_flight(gw))
    local task = chat(gw)
    b:wait_requests(1)
    local seen = in_flight(gw)
    assert.equal(1, seen.in_flight)
    local request = seen.requests[1]
    assert.equal("the head of b", request.waits_for)
    assert.equal("chat", request.route)
    assert.equal("chat-1", request["gen_ai.request.model"])
    assert.equal("b", request.target)
    assert.equal("127.0.0.1", request["client.address"])
    assert.equal("/v1/chat/completions", request["url.path"])
    assert.is_true(request.deadline_in_ms > 5000 and request.deadline_in_ms <= 20000)
    assert.equal(1, #request.attempts)
    assert.equal("a/m", request.attempts[1].target)
    assert.equal(500, request.attempts[1].status)
    b.open = true
    wait_answers(task)
    support.wait_until("nothing in flight", function() return in_flight(gw).in_flight == 0 end)
  end)

  it("shows the oldest of all workers first, as many as are asked for", function()
    local a, b = held(), held()
    local gw, tasks = start(a, b, { workers = 3 }), {}
    for number = 1, 9 do
      tasks[number] = chat(gw, "chat-" .. number)
      a:wait_requests(number)
      local since = support.now() -- ages are in milliseconds: none is to be as old as the next
      support.wait_until("a later time", function() return support.now() > since + 0.002 end)
    end
    local seen = in_flight(gw)
    assert.equal(9, seen.in_flight)
    assert.equal(9, #seen.requests)
    for position = 1, 9 do -- each worker tells its requests' ages at a time of its own
      assert.equal("chat-" .. position, seen.requests[position]["gen_ai.request.model"])
    end
    seen = in_flight(gw, "?limit=2")
    assert.equal(9, seen.in_flight)
    assert.equal(2, #seen.requests)
    assert.equal("chat-1", seen.requests[1]["gen_ai.request.model"])
    a.open = true
    wait_answers(unpack(tasks))
  end)

  it("answers in time while a worker computes", function()
    local a, b = held(), held()
    local gw = start(a, b, { workers = 1 })
    local task = chat(gw, "stuck")
    support.wait_until("the request to be seen, or to be done", function()
      local seen = in_flight(gw)
      return seen.in_flight > 0 or #seen.silent_workers > 0 or task.answer
    end)
    wait_answers(task)
  end)

  it("goes on when its client leaves, and at the gateway's end", function()
    local a, b = held(), held()
    local gw = start(a, b)
    for _ = 1, 20 do
      local connection = support.connect(gw.admin_port)
      connection:write("GET /admin/requests HTTP/1.1\r\nHost: localhost\r\n\r\n")
      connection:close()
    end
    assert.equal(0, in_flight(gw).in_flight)
  end)
end)

describe("POST /admin/explain", function()
  after_each(support.finish)

  it("says when no route serves a request", function()
    local a, b = held(), held()
    local gw = start(a, b)
    local answer = gw:admin({ path = "/admin/explain", method = "POST",
      body = '{"model":"other"}' }):json()
    assert.equal("no_route", answer.refused)
    assert.equal('the model "other" does not match chat-*', answer.routes[1].why)
    assert.is_nil(answer.route)
  end)
end)

describe("GET /admin/requests/recent", function()
  after_each(support.finish)

  local function wait_records(gw, count, query)
    local seen
    support.wait_until(count .. " records", function()
      seen = recent(gw, query)
      return #seen.records == count
    end)
    return seen
  end

  it("shows requests with their trails, by the names of the access log", function()
    local a, b = held(), held()
    a.open, a.status, b.open = true, 500, true
    local gw = start(a, b)
    assert.same({ last = 0, records = {} }, recent(gw))
    assert.equal(200, gw:chat({ model = "chat-1" }).status)
    local seen = wait_records(gw, 1)
    assert.equal(1, seen.last)
    local record = seen.records[1]
    assert.equal("chat", record.route)
    assert.equal("complete", record["end"])
    assert.equal(200, record["http.response.status_code"])
    assert.equal("chat-1", record["gen_ai.request.model"])
    assert.equal("b", record.target)
    assert.equal(2, #record.attempts)
    assert.equal("a/m", record.attempts[1].target)
    assert.equal("server_error", record.attempts[1].class)
    assert.equal("ok", record.attempts[2].class)
    assert.is_true(record.attempts[2].start_ms >= record.attempts[1].start_ms)
  end)

  it("gives what is new since a number, and keeps as many as it is told", function()
    local a, b = held(), held()
    a.open = true
    local gw = start(a, b, { workers = 1, recent = 3 })
    for number = 1, 5 do gw:chat { model = "chat-" .. number } end
    local seen
    support.wait_until("the last", function()
      seen = recent(gw)
      return seen.last == 5
    end)
    assert.equal(3, #seen.records)
    assert.equal("chat-3", seen.records[1]["gen_ai.request.model"])
    assert.equal("chat-5", wait_records(gw, 1, "?since=4").records[1]["gen_ai.request.model"])
    assert.equal("chat-5", wait_records(gw, 1, "?limit=1").records[1]["gen_ai.request.model"])
    assert.same({ last = 5, records = {} }, recent(gw, "?since=5"))
  end)

  it("keeps nothing when it is told so", function()
    local a, b = held(), held()
    a.open = true
    local gw = start(a, b, { recent = 0 })
    gw:chat { model = "chat-1" }
    assert.same({}, recent(gw).records)
    gw:write_policy("gateway", CONFIG:format(5, a.url, b.url, ""))
    local reload = gw:admin { path = "/admin/reload", method = "POST" }
    assert.same({ "admin.recent" }, reload:json().needs_restart)
  end)

  it("goes on over a reload, by the new routes and with their generation", function()
    local a, b = held(), held()
    a.open = true
    local gw = start(a, b)
    gw:chat { model = "chat-1" }
    gw:write_policy("gateway", (CONFIG:format(200, a.url, b.url, ""):gsub('"chat"', '"talk"')))
    assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    gw:chat { model = "chat-2" }
    local records = wait_records(gw, 2).records
    assert.same({ "chat", 1, "talk", 2 }, { records[1].route, records[1].generation,
      records[2].route, records[2].generation })
    assert.equal("talk", gw:admin({ path = "/admin/routes" }):json().routes[1].name)
    assert.equal("talk", gw:admin({ path = "/admin/explain", method = "POST",
      body = '{"model":"chat-1"}' }):json().route.name)
    local summary = gw:admin({ path = "/admin/summary" }):json()
    assert.equal(2, summary.generation.number)
    assert.equal(1, summary.reloads.good)
    assert.equal("talk", summary.targets[1].route)
  end)

  it("is part of the summary", function()
    local a, b = held(), held()
    a.open = true
    local gw = start(a, b)
    gw:chat { model = "chat-1" }
    local summary
    support.wait_until("the summary to count it", function()
      summary = gw:admin({ path = "/admin/summary" }):json()
      return summary.last_minute.succeeded == 1
    end)
    assert.equal(1, #summary.recent.records)
    assert.equal(1, summary.last_minute.success_ratio)
    assert.is_true(summary.requests_per_second > 0)
    assert.equal(1, summary.generation.number)
    assert.is_true(summary.ready)
    assert.equal(0, #gw:admin({ path = "/admin/summary?since=1" }):json().recent.records)
    local tries = {}
    for _, target in ipairs(summary.targets) do
      tries[target.route .. " " .. target.name] = target.tries
    end
    assert.same({ ["chat a/m"] = 1, ["chat b"] = 0, ["stuck b"] = 0 }, tries)
  end)
end)
