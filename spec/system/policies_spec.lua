--- Policies through the real gateway: the shipped ones as they lie in policies/, and small ones
-- made here that use everything a policy may use.

local cjson = require "cjson.safe"
local support = require "support"

local CHAT = "/v1/chat/completions"

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  on_policy_error = "fail",
  providers = {
    one = { url = "%s/v1", health = false },
    two = { url = "%s/v1", health = false },
  },
  routes = { %s },
}
]]

local gw, one, two

--- Starts a gateway with two scripted upstreams. The routes and policies come from the spec.
local function start(answer_one, answer_two, routes, policies)
  one, two = support.answering(answer_one), support.answering(answer_two)
  gw = support.gateway({ workers = 1, policies = policies,
    config = CONFIG:format(one.url, two.url, routes) })
end

local function chat(body, more)
  local options = { path = CHAT, json = body }
  for key, value in pairs(more or {}) do options[key] = value end
  return gw:request(options)
end

local function last_body(up)
  return up.requests[#up.requests]:json()
end

describe("policies/weighted.lua", function()
  local ROUTES = [[
    { match = { model = "virtual" }, policy = "weighted", targets = {
      { provider = "one", model = "large", weight = 75 },
      { provider = "two", model = "small", weight = 25 } } },
    { match = { model = "spare" }, policy = "weighted", targets = {
      { provider = "one", model = "large" },
      { provider = "two", model = "small", priority = 1 } } },
  ]]
  local answer

  setup(function()
    start(function(request) return answer(request, "one") end,
      function(request) return answer(request, "two") end, ROUTES,
      { weighted = support.read_file("policies/weighted.lua") })
  end)
  teardown(support.finish)

  it("shares the requests of one name between two models", function()
    answer = function(request, from) return 200, { from = from, model = request:json().model } end
    local count, connection = { one = 0, two = 0 }, support.connect(gw)
    for number = 1, 400 do
      local body = connection:request({ path = CHAT, json = { model = "virtual", n = number } })
        :json()
      assert.equal(body.from == "one" and "large" or "small", body.model)
      count[body.from] = count[body.from] + 1
    end
    -- 300 expected; five standard deviations are 43
    assert.is_true(count.one > 257 and count.one < 343, "one served " .. count.one)
    assert.equal(count.one, #one.requests)
    assert.equal(count.two, #two.requests)
  end)

  it("goes on with the sibling when one model cannot", function()
    for _, failure in ipairs({
      { 503, {} }, { 401, {} }, { 404, {} }, { 429, {} },
      { 400, { error = { code = "content_filter" } } },
      { 400, { error = { code = "context_length_exceeded" } } },
    }) do
      answer = function(_, from)
        if from == "one" then return failure[1], failure[2] end
        return 200, { from = from }
      end
      local response = chat({ model = "spare" })
      assert.equal("two", response:json().from)
      assert.truthy(response.headers["x-perilune-trail"]:find(
        "^one/large;" .. failure[1] .. ";%d+ms, two/small;200;%d+ms$"))
    end
    gw:wait_log("one/large left: context_length")
  end)

  it("leaves the client's own fault to the client", function()
    answer = function() return 400, { error = { message = "bad temperature" } } end
    local response = chat({ model = "spare" })
    assert.equal(400, response.status)
    assert.equal("1", response.headers["x-perilune-attempts"])
  end)
end)

describe("policies/degrade.lua", function()
  local ROUTES = [[
    { match = { model = "smart" }, policy = "degrade", targets = {
      { provider = "one", model = "large", priority = 0,
        timeouts = { head = "100ms", first_token = "100ms" } },
      { provider = "two", model = "small", priority = 1 } },
      retry = { attempts = 3, backoff = { base = "1ms", max = "1ms", floor = "1ms" } } },
  ]]
  local large, small

  setup(function()
    start(function(request, conn) return large(request, conn) end,
      function(request, conn) return small(request, conn) end, ROUTES,
      { degrade = support.read_file("policies/degrade.lua") })
  end)
  teardown(support.finish)

  local function good(from)
    return function() return 200, { from = from } end
  end

  local function unavailable() return 503, { error = { message = "no" } } end

  --- Bodies that a client sends, and what the smaller model gets of them.
  local BODIES = {
    { '{"model":"smart","n":1}', '{"model":"small","n":1,"max_tokens":512}' },
    { '{"model":"smart","max_tokens":4000}', '{"model":"small","max_tokens":512}' },
    { '{"model":"smart","max_tokens":512}', '{"model":"small","max_tokens":512}' },
    { '{"max_tokens": 100 ,"model":"smart"}', '{"max_tokens": 100 ,"model":"small"}' },
    { '{"model":"smart","max_completion_tokens":4000}',
      '{"model":"small","max_completion_tokens":512}' },
    { '{"model":"smart","max_completion_tokens":9,"max_tokens":9999}',
      '{"model":"small","max_completion_tokens":9,"max_tokens":512}' },
    { '{"model":"smart","max_tokens":null}', '{"model":"small","max_tokens":512}' },
  }

  local function send(path, body)
    return gw:request({ path = path, body = body,
      headers = { ["Content-Type"] = "application/json" } })
  end

  it("leaves a request to the large model as it is", function()
    large, small = good("large"), good("small")
    for _, pair in ipairs(BODIES) do
      assert.equal("large", send(CHAT, pair[1]):json().from)
      assert.equal((pair[1]:gsub("smart", "large")), one.requests[#one.requests].body)
    end
    assert.equal(0, #two.requests)
  end)

  it("caps the answer of the smaller one, and only that", function()
    large, small = unavailable, good("small")
    for _, pair in ipairs(BODIES) do
      assert.equal("small", send(CHAT, pair[1]):json().from)
      assert.equal((pair[1]:gsub("smart", "large")), one.requests[#one.requests].body)
      assert.equal(pair[2], two.requests[#two.requests].body)
    end
    for path, body in pairs({ ["/v1/completions"] = '{"model":"small","max_tokens":512}',
      ["/v1/embeddings"] = '{"model":"small"}' }) do
      assert.equal("small", send(path, '{"model":"smart"}'):json().from)
      assert.equal(body, two.requests[#two.requests].body)
    end
  end)

  it("gives the large one the client's own limit again in a later round", function()
    for _, pair in ipairs(BODIES) do
      local calls = 0
      large = function()
        calls = calls + 1
        if calls == 1 then return unavailable() end
        return 200, { from = "large" }
      end
      small = unavailable
      assert.equal("large", send(CHAT, pair[1]):json().from)
      local sent, wanted = last_body(one), cjson.decode(pair[1])
      wanted.model = "large"
      if wanted.max_tokens == cjson.null then wanted.max_tokens = nil end -- says the same
      assert.same(wanted, sent)
    end
  end)

  it("answers with the smaller one when the large one is too slow", function()
    large = function(_, conn) conn:wait_closed(5) end
    small = good("small")
    local response = chat({ model = "smart" })
    assert.equal("small", response:json().from)
    assert.truthy(response.headers["x-perilune-trail"]:find("^one/large;timeout_head;"))

    large = function(_, conn)
      conn:start_chunked()
      conn:chunk(": thinking\n\n")
      conn:wait_closed(5)
    end
    response = chat({ model = "smart", stream = true })
    assert.equal("small", response:json().from)
    assert.truthy(response.headers["x-perilune-trail"]:find("^one/large;timeout_first_token;"))
  end)

  it("does not ask the smaller one what the large one refuses", function()
    local count = #two.requests
    for _, status in ipairs({ 400, 401, 404, 422 }) do
      large = function() return status, { error = { message = "no" } } end
      assert.equal(status, chat({ model = "smart" }).status)
    end
    assert.equal(count, #two.requests)
  end)
end)

-- What the policies of the next specs are made of; each is the route of the model of its name.
local POLICIES = {
  edit = [[
    return function(req, route)
      assert(req:set("temperature", 0.5))
      assert(req:set("stop", { "a", "b" }))
      assert(req:set("nested", { deep = { 1, { x = "y" } } }))
      assert(req:set("text", "o'neil \"x\" \\ é \n \0"))
      assert(req:set("flag", false))
      assert(req:unset("secret"))
      assert(req:unset("never there"))
      assert(req:set("gone", 1))
      assert(req:unset("gone"))
      assert(req:unset("back"))
      assert(req:set("back", "again"))
      assert(req:set("model", "not this"))
      return req:relay(req:send(route.targets[1]))
    end]],
  many = [[
    return function(req, route)
      for number = 1, 64 do assert(req:set("k" .. number, number)) end
      local ok, why = req:set("one more", 1)
      assert(ok == nil and why == "too_many")
      assert(req:set("k1", "again"))
      return req:relay(req:send(route.targets[1]))
    end]],
  opaque = [[
    return function(req)
      local ok, why = req:set("a", 1)
      local also, why_also = req:unset("a")
      local body, no_body = req:json()
      return req:respond(200, { set = { tostring(ok), why }, unset = { tostring(also), why_also },
        json = { tostring(body), no_body }, bytes = #req:body(),
        tokens = { req:tokens_estimate() } })
    end]],
  echo = [[
    return function(req, route)
      local names = {}
      for number, target in ipairs(route.targets) do
        names[number] = { target.name, target.provider, target.model or "", target.priority,
          target.weight }
      end
      return req:respond(207, { id = req.id, method = req.method, path = req.path,
        query = req.query, model = req.model, stream = req.stream, peer = req.peer,
        header = req.headers["X-TEAM"], no_header = req.headers["x-none"] == nil,
        body = req:body(), json = req:json(), left = req:remaining_ms(), last = req.last == nil,
        route = { route.name, route.policy, route.deadline_ms, route.retry.attempts },
        targets = names })
    end]],
  text = [[
    return function(req)
      return req:respond(404, "no\0thing\n", { ["Content-Type"] = "text/x", ["X-Own"] = "1" })
    end]],
  refuse = [[
    return function(req) return req:fail(403, "team_required", 'Set "x-team"') end]],
  pieces = [[
    local gw = require "perilune"
    local has_read = 0
    return function(req)
      local number = tonumber(req.headers["x-has-read"])
      if number then
        has_read = number
        return req:respond(200, {})
      end
      req:start(201, { ["Content-Type"] = "text/event-stream", ["X-Own"] = "1" })
      for number = 1, 3 do
        req:write(("data: %d\n\n"):format(number))
        while has_read < number do gw.sleep("1ms") end
      end
      req:write("")
      return req:finish()
    end]],
  aborts = [[
    local gw = require "perilune"
    return function(req, route)
      local when = req:json().when
      if when == "start" or when == "write" then req:start(200, {}) end
      if when == "write" then req:write("some words") gw.sleep("20ms") end
      if when == "send" then assert(req:send(route.targets[1])) end
      if when == "sleep" then gw.sleep("1ms") end
      req:abort()
      local ok, problem = pcall(req.respond, req, 200, "x")
      assert(not ok and problem:find("has been answered"))
    end]],
  sleeps = [[
    local gw = require "perilune"
    return function(req)
      local before = gw.now_ms()
      gw.sleep("60ms")
      gw.sleep("0ms")
      gw.sleep("1.5ms")
      local bad = {}
      for number, text in ipairs { "10", "", "ten ms", "-1ms", "1 ms" } do
        bad[number] = not pcall(gw.sleep, text)
      end
      bad[#bad + 1] = not pcall(gw.sleep, 10)
      return req:respond(200, { waited = gw.now_ms() - before, bad = bad })
    end]],
  reads = [[
    return function(req, route)
      local res = assert(req:send(route.targets[1]))
      local value = res:json()
      assert(res:json().a[2] == value.a[2] and #res:body() > 0)
      return req:respond(res.status, { a = value.a, head = res.headers["X-Head"],
        none = res.headers["x-none"] == nil, target = res.target.name,
        last = req.last == res, head_ms = res.head_ms >= 0 })
    end]],
  words = [[
    return function(req, route)
      local res = assert(req:send(route.targets[1]))
      local text, code = res:text()
      local prompt, answer = req:tokens_estimate()
      return req:respond(200, { text = text, code = code, prompt = prompt, answer = answer })
    end]],
  reads_more = [[
    return function(req, route)
      local res = assert(req:send(route.targets[1]))
      local body, code = res:body()
      if not body then req:log("no body: " .. code) end
      if code == "truncated" then return req:fail(502, code, "broken") end
      req:log("body of " .. (body and #body or 0))
      local ok, class = req:relay(res)
      req:log("relayed: " .. tostring(ok) .. " " .. tostring(class))
    end]],
  stale = [[
    return function(req, route)
      local first = assert(req:send(route.targets[1]))
      local second = assert(req:send(route.targets[1]))
      for _, act in ipairs {
        function() return first.status end, function() return first:body() end,
        function() return first.headers.a end, function() return req:relay(first) end,
        function() second.status = 1 end, function() req.model = "x" end,
        function() route.targets[1].weight = 9 end, function() route.name = "x" end,
        function() return req.nothing end, function() return second.nothing end,
        function() return req:write("x") end, function() return req:finish() end,
        function() return req:respond(99, "x") end, function() return req:start(600) end,
        function() return req:respond(200, "x", { ["a b"] = "c" }) end,
        function() return req:respond(200, "x", { a = "b\r\nc: d" }) end,
        function() return req:set(1, 2) end, function() return req:set("f", req.set) end,
      } do
        assert(not pcall(act))
      end
      assert(first ~= second and req.last == second)
      return req:relay(second)
    end]],
  failing = [[
    local gw = require "perilune"
    return function(req, route)
      local res, err = req:send(route.targets[1])
      assert(res == nil and req.last == nil)
      local class, status = gw.classify(res, err)
      assert(class == err.class and status == nil)
      return req:respond(200, { class = err.class, detail = err.detail, target = err.target.name })
    end]],
  silent = "return function() end",
  raises = "return function(req) error('for the ' .. 'log') end",
  raises_later = [[
    return function(req)
      req:start(200, { ["Content-Length"] = "1000" })
      req:write("words")
      error("too late")
    end]],
  loops = "return function() while true do end end",
  waits = [[
    local gw = require "perilune"
    return function(req, route)
      gw.sleep("80ms")
      return req:relay(req:send(route.targets[1]))
    end]],
  floods = [[
    local piece = ("0123456789abcde\n"):rep(4096)
    return function(req)
      req:start(200, { ["Content-Type"] = "text/plain" })
      for _ = 1, 300 do req:write(piece) end
      req:finish()
      req:log("written all")
    end]],
  late = [[
    local gw = require "perilune"
    return function(req, route)
      assert(req:send(route.targets[1]))
      while req:remaining_ms() > 0 do gw.sleep("20ms") end
      local res, err = req:send(route.targets[1])
      return req:relay(res, err)
    end]],
  late_relay = [[
    local gw = require "perilune"
    return function(req, route)
      local res = assert(req:send(route.targets[1]))
      while req:remaining_ms() > 0 do gw.sleep("20ms") end
      return req:relay(res)
    end]],
  late_read = [[
    local gw = require "perilune"
    return function(req, route)
      local res = assert(req:send(route.targets[1]))
      while req:remaining_ms() > 0 do gw.sleep("20ms") end
      local body, code = res:body()
      return req:respond(200, { body = body or "none", code = code or "none" })
    end]],
  race = [[
    local gw = require "perilune"
    return function(req, route)
      local best
      for _, target in ipairs(route.targets) do
        local res, err = req:send(target)
        req:log(target.name .. " " .. gw.classify(res, err))
        if res and res.status == 200 then best = res break end
      end
      if not best then return req:fail(502, "nobody", "Nobody answered") end
      return req:relay(best)
    end]],
  nothing = "return function(req) return req:relay(nil, nil) end",
}

describe("a policy of one's own", function()
  local answer

  setup(function()
    local routes = {}
    for name in pairs(POLICIES) do
      routes[#routes + 1] = ([[
        { name = "r-%s", match = { model = "%s" }, policy = "%s", deadline = "%s", targets = {
          { provider = "one", model = "m-one", weight = 3, body = { set = { own = "target's" } } },
          { provider = "two", priority = 1, timeouts = { head = "5s" } } } }, ]]):format(name, name,
        name, name:find("late") and "600ms" or "10s")
    end
    start(function(request, conn) return answer(request, conn) end,
      function() return 200, { from = "two" } end,
      table.concat(routes) .. [[
        { match = { path = "/v1/opaque" }, policy = "opaque", targets = { { provider = "one" } } },
        { match = { path = "/v1/echo" }, policy = "echo", targets = { { provider = "one" } } },
      ]], POLICIES)
  end)
  teardown(support.finish)
  before_each(function()
    answer = function(request) return 200, { from = "one", model = request:json().model } end
  end)

  it("edits the body that is sent", function()
    local response = chat({ model = "edit", secret = "x", back = 1, own = "mine", keep = { 1 } })
    assert.equal(200, response.status)
    assert.same({ model = "m-one", temperature = 0.5, stop = { "a", "b" }, back = "again",
      nested = { deep = { 1, { x = "y" } } }, text = "o'neil \"x\" \\ é \n \0", flag = false,
      own = "target's", keep = { 1 } }, last_body(one))
  end)

  it("edits 64 fields, and no more", function()
    assert.equal(200, chat({ model = "many" }).status)
    local body = last_body(one)
    assert.equal("again", body.k1)
    assert.equal(64, body.k64)
    assert.equal(nil, body["one more"])
  end)

  it("is told that a body is not JSON", function()
    local response = gw:request({ path = "/v1/opaque", body = "\0\1\2",
      headers = { ["Content-Type"] = "a/b" } })
    assert.same({ set = { "nil", "not_json" }, unset = { "nil", "not_json" },
      json = { "nil", "malformed" }, bytes = 3, tokens = { 0, 0 } }, response:json())
  end)

  it("sees the request, the route and the targets", function()
    local response = gw:request({ path = CHAT .. "?a=b%20c", headers = { ["x-team"] = "blue",
      ["X-Request-Id"] = "id-1", ["Content-Type"] = "application/json" },
      body = '{"model":"echo","stream":true,"x":[1]}' })
    assert.equal(207, response.status)
    assert.equal("application/json", response.headers["content-type"])
    assert.equal("id-1", response.headers["x-request-id"])
    local seen = response:json()
    assert.is_true(seen.left > 5000 and seen.left <= 10000)
    seen.left = nil
    assert.same({ id = "id-1", method = "POST", path = CHAT, query = "a=b%20c", model = "echo",
      stream = true, peer = "127.0.0.1", header = "blue", no_header = true,
      body = '{"model":"echo","stream":true,"x":[1]}',
      json = { model = "echo", stream = true, x = { 1 } }, last = true,
      route = { "r-echo", "echo", 10000, 3 },
      targets = { { "one/m-one", "one", "m-one", 0, 3 }, { "two", "two", "", 1, 1 } } }, seen)
    seen = gw:request({ method = "DELETE", path = "/v1/echo/1" }):json()
    assert.equal("DELETE", seen.method)
    assert.equal("", seen.query)
    assert.equal("", seen.body)
    assert.equal(nil, seen.model)
    assert.is_false(seen.stream)
  end)

  it("answers with bytes, a table or an error", function()
    local response = chat({ model = "text" })
    assert.equal(404, response.status)
    assert.equal("no\0thing\n", response.body)
    assert.equal("text/x", response.headers["content-type"])
    assert.equal("1", response.headers["x-own"])
    assert.falsy(response.headers["x-perilune-attempts"])
    response = chat({ model = "refuse" })
    assert.equal(403, response.status)
    assert.same({ error = { message = 'Set "x-team"', type = "invalid_request_error",
      code = "team_required", param = cjson.null } }, response:json())
    response = chat({ model = "nothing" })
    assert.equal(503, response.status)
    assert.equal("no_target", response:json().error.code)
  end)

  it("answers in pieces that go out as they are written", function()
    local response = chat({ model = "pieces" }, { streamed = true })
    assert.equal(201, response.status)
    assert.equal("1", response.headers["x-own"])
    for number = 1, 3 do
      assert.equal(tostring(number), response:next_event().data)
      local told = chat({ model = "pieces" }, { headers = { ["X-Has-Read"] = number } })
      assert.equal(200, told.status)
    end
    response:read_body()
    assert.equal("complete", response.ended)
    -- the connection goes on
    response.connection:send({ path = CHAT, json = { model = "text" } })
    assert.equal(404, response.connection:read_response().status)
  end)

  it("breaks the client's connection in any phase", function()
    for _, when in ipairs({ "at once", "sleep", "send", "start" }) do
      local connection = support.connect(gw)
      connection:send({ path = CHAT, json = { model = "aborts", when = when } })
      assert.equal("reset", connection:wait_closed(), when)
      assert.equal("", connection.stream.buffer, when)
    end
    local response = chat({ model = "aborts", when = "write" })
    assert.equal("some words", response.body)
    assert.equal("reset", response.ended)
  end)

  it("waits, and only with a unit", function()
    local seen = chat({ model = "sleeps" }):json()
    assert.is_true(seen.waited >= 40 and seen.waited < 10000, "waited " .. seen.waited)
    assert.same({ true, true, true, true, true, true }, seen.bad)
  end)

  it("reads an answer before it decides", function()
    answer = function() return 203, { a = { 1, 2 } }, { ["X-Head"] = "h" } end
    local response = chat({ model = "reads" })
    assert.equal(203, response.status)
    assert.same({ a = { 1, 2 }, head = "h", none = true, target = "one/m-one", last = true,
      head_ms = true }, response:json())
  end)

  it("reads the words of an answer, and estimates the length of a request", function()
    local text = ("word"):rep(1000)
    local request = { model = "words", stream = true, max_tokens = 7, prompt = text }
    answer = function(_, conn)
      conn:respond(200, { ["Content-Type"] = "text/event-stream" },
        'data: {"choices":[{"text":"one "}]}\n\ndata: {"choices":[{"text":"two"}]}\n\n'
        .. "data: [DONE]\n\n")
    end
    local seen = chat(request):json()
    assert.equal("one two", seen.text)
    assert.equal(7, seen.answer)
    assert.is_true(seen.prompt >= 1000 and seen.prompt < 1020, tostring(seen.prompt))
    answer = function() return 400, { error = { message = "too much" } } end
    assert.equal("too much", chat(request):json().text)
    answer = function(_, conn) conn:respond(200, {}, ("x"):rep(1048577)) end
    assert.equal("too_large", chat(request):json().code)
  end)

  it("reads what is there of an answer, and relays it whole all the same", function()
    for _, case in ipairs({ { 200, 1000, 1000 }, { 200, 1048576, 1048576 },
      { 200, 3000000, "too_large" }, { 500, 1000, 1000 }, { 500, 3000000, 65536 } }) do
      local body = ("x"):rep(case[2])
      answer = function(_, conn) conn:respond(case[1], {}, body) end
      local response = chat({ model = "reads_more" },
        { headers = { ["X-Request-Id"] = ("q-%d-%d"):format(case[1], case[2]) } })
      assert.equal(case[1], response.status)
      assert.is_true(response.body == body)
      local prefix = ("request q%%-%d%%-%d: "):format(case[1], case[2])
      if case[3] == "too_large" then
        gw:wait_log(prefix .. "no body: too_large")
      else
        local bytes = gw:wait_log(prefix .. "body of (%d+)")
        assert.equal(case[3], tonumber(bytes))
      end
      gw:wait_log(prefix .. "relayed: true nil")
    end
  end)

  it("is told when an answer breaks off", function()
    local function broken(status, length, sent)
      answer = function(_, conn)
        conn:write(("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n"):format(status, length)
          .. ("x"):rep(sent))
        conn:close()
      end
    end
    broken(200, 1000, 10)
    assert.equal("truncated", chat({ model = "reads_more" }):json().error.code)
    broken(200, 9000000, 4000000)
    assert.is_true(chat({ model = "reads_more" }).ended ~= "complete")
    gw:wait_log("relayed: nil truncated")
    broken(500, 9000000, 4000000)
    local headers = { ["X-Request-Id"] = "broken-500" }
    assert.is_true(chat({ model = "reads_more" }, { headers = headers }).ended ~= "complete")
    gw:wait_log("request broken%-500: relayed: nil truncated")
  end)

  it("cannot use what has ended, nor change what is not its own", function()
    local response = chat({ model = "stale" })
    assert.equal(200, response.status, response.body)
    assert.equal("2", response.headers["x-perilune-attempts"])
    assert.equal(200, chat({ model = "race" }).status)
  end)

  it("is told why there is no answer", function()
    answer = function(_, conn) conn:close() end
    local seen = chat({ model = "failing" }):json()
    assert.equal("reset", seen.class)
    assert.equal("one/m-one", seen.target)
    assert.truthy(seen.detail:find("127.0.0.1:" .. one.port, 1, true))
  end)

  it("tries targets in an order of its own", function()
    answer = function() return 500, {} end
    local response = chat({ model = "race" }, { headers = { ["X-Request-Id"] = "race-1" } })
    assert.equal("two", response:json().from)
    gw:wait_log("request race%-1: one/m%-one server_error\n.-request race%-1: two ok")
    assert.equal("race", last_body(two).model)
    assert.equal(nil, last_body(two).own)
  end)

  it("that fails is a clear error for its client alone", function()
    for name, reason in pairs({ silent = "without an answer", raises = "for the log",
      loops = "more than 50 ms" }) do
      local response = chat({ model = name })
      assert.equal(500, response.status, name)
      assert.equal("policy_error", response:json().error.code)
      assert.equal("server_error", response:json().error.type)
      assert.falsy(response.body:find("log", 1, true))
      gw:wait_log("policy " .. name .. " failed %([%w_]+%): [^\n]*" .. reason)
    end
    local response = chat({ model = "raises_later" })
    assert.equal("words", response.body)
    assert.is_true(response.ended == "cut" or response.ended == "reset")
    assert.equal(404, chat({ model = "text" }).status)
  end)

  it("ends with its client", function()
    local count = #one.requests
    local connection = support.connect(gw)
    connection:send({ path = CHAT, json = { model = "waits" } })
    connection:reset()
    assert.equal(200, chat({ model = "waits" }).status) -- began later: the other would be through
    assert.equal(count + 1, #one.requests)
  end)

  it("waits for a client that does not read, and holds up nobody", function()
    local response = chat({ model = "floods" }, { streamed = true })
    assert.equal(200, chat({ model = "race" }).status)
    assert.equal(200, chat({ model = "waits" }).status)
    assert.falsy(gw:stderr():find("written all", 1, true))
    local total = 0
    for data in function() return response:read_piece() end do total = total + #data end
    assert.equal(300 * 65536, total)
    assert.equal("complete", response.ended)
    gw:wait_log("written all")
  end)

  it("has no time left after the deadline", function()
    local response = chat({ model = "late" })
    assert.equal(504, response.status)
    assert.equal("timeout_deadline", response:json().error.code)
    assert.equal("timeout_error", response:json().error.type)
    -- what has come whole in time can still be relayed
    answer = function() return 200, { from = "one" } end
    assert.equal("one", chat({ model = "late_relay" }):json().from)
    -- what goes on is broken off
    answer = function(_, conn)
      conn:start_chunked(200, { ["Content-Type"] = "text/plain" })
      conn:chunk("words")
      conn:wait_closed(15)
    end
    local since = support.now()
    response = chat({ model = "late_relay" })
    assert.is_true(response.status == 504 or response.ended ~= "complete")
    assert.same({ body = "none", code = "timeout_deadline" },
      chat({ model = "late_read" }):json())
    assert.is_true(support.now() - since < 12)
  end)
end)

describe("req:tokens_estimate()", function()
  setup(function()
    gw = support.gateway({ workers = 1, config = [[
return {
  listen = { address = "127.0.0.1:0" },
  admin = { address = "127.0.0.1:0" },
  budgets = { memory = "8MiB" },
  on_policy_error = "fail",
  providers = { none = { url = "http://127.0.0.1:1/v1" } },
  routes = { { policy = "count", targets = { { provider = "none" } } } },
}
]], policies = { count = [[
      return function(req)
        local body, code = req:json()
        local prompt, answer = req:tokens_estimate()
        return req:respond(200, { code = code, prompt = prompt, answer = answer })
      end]] } })
  end)
  teardown(support.finish)

  it("goes by the length of a body that would not fit the memory once decoded", function()
    local body = '{"model":"m","max_tokens":5,"input":[' .. ("[],"):rep(100000) .. "[]]}"
    local response = gw:request({ path = CHAT, body = body,
      headers = { ["Content-Type"] = "application/json" } })
    assert.same({ code = "too_large", prompt = math.ceil(#body / 4), answer = 0 },
      response:json())
  end)
end)
