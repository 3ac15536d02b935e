--- Policies that are wrong: what happens to the request, what the log says, and that nobody else
-- notices. All run in one worker of one gateway.

local support = require "support"

--- Each policy serves the model of its name. "slow" waits at its target; "good" is the default one.
local POLICIES = {
  raises = [[
    return function() error("boom") end]],
  raises_table = [[
    return function() error({ code = 1 }) end]],
  raises_lines = [[
    return function() error("one\nrequest x: policy failed: forged\27[31m", 0) end]],
  raises_after_send = [[
    return function(req, route) req:send(route.targets[1]) error("after send") end]],
  raises_after_relay = [[
    return function(req, route)
      req:relay(req:send(route.targets[1]))
      error("after relay")
    end]],
  raises_after_start = [[
    return function(req)
      req:start(200, { ["content-type"] = "text/plain" })
      req:write("half of it")
      error("after start")
    end]],
  returns_at_once = [[
    return function() return 42 end]],
  returns_after_send = [[
    return function(req, route) req:send(route.targets[1]) end]],
  returns_after_start = [[
    return function(req) req:start(200) req:write("half of it") end]],
  indexes_nil = [[
    return function(req) return req.headers["x-none"].len end]],
  calls_what_is_not_there = [[
    return function(req) return req:forward() end]],

  loops = [[
    return function() while true do end end]],
  loops_in_pcall = [[
    return function()
      while true do pcall(function() while true do end end) end
    end]],
  loops_in_sort = [[
    return function()
      while true do
        pcall(table.sort, { 3, 2, 1 }, function() while true do end end)
      end
    end]],
  loops_in_gsub = [[
    return function()
      return ("x"):gsub("x", function() while true do end end)
    end]],
  loops_in_metamethod = [[
    return function()
      local t = setmetatable({}, { __index = function() while true do end end,
        __tostring = function() while true do end end })
      pcall(tostring, t)
      return t.x
    end]],
  loops_in_pattern = [[
    return function(req)
      return req:respond(200, ("a"):rep(5000):find(".-.-.-.-b") or "none")
    end]],
  loops_in_pattern_in_pcall = [[
    return function(req)
      local text = ("a"):rep(5000)
      while true do pcall(string.gsub, text, "(.-).-.-.-b", "") end
    end]],
  loops_in_pattern_in_sort = [[
    return function(req)
      local text = ("a"):rep(5000)
      table.sort({ 3, 2, 1 }, function(a, b)
        pcall(text.match, text, ".-.-.-.-b")
        return a < b
      end)
    end]],
  loops_in_pattern_in_gsub = [[
    return function(req)
      local text = ("a"):rep(5000)
      return text:gsub("a", function()
        for _ in text:gmatch(".-.-.-.-b") do end
      end)
    end]],
  loops_after_start = [[
    return function(req)
      req:start(200)
      req:write("half of it")
      while true do end
    end]],
  loops_in_waiting = [[
    local gw = require "perilune"
    return function()
      while true do gw.sleep("20ms") end
    end]],
  loops_in_waiting_protected = [[
    local gw = require "perilune"
    return function()
      while true do pcall(gw.sleep, "20ms") end
    end]],
  recurses = [[
    local function deeper(n) return 1 + deeper(n + 1) end
    return function() return deeper(1) end]],
  recurses_protected = [[
    local function deeper() local ok, e = pcall(deeper) return ok, e, {} end
    return function() while true do deeper() end end]],

  fills_memory_with_tables = [[
    return function()
      local t = {}
      while true do t = { t, {}, {} } end
    end]],
  fills_memory_with_text = [[
    return function()
      local t = "x"
      while true do t = t .. t end
    end]],
  fills_memory_protected = [[
    return function(req)
      local t, ok = {}, true
      while ok do
        ok = pcall(function() t[#t + 1] = ("x"):rep(4000000) .. #t end)
      end
      t = nil
      return req:respond(200, "full")
    end]],
  asks_for_too_much = [[
    return function() return ("x"):rep(1e9) end]],

  answers_twice = [[
    return function(req)
      req:respond(200, "first")
      req:respond(500, "second")
    end]],
  fails_after_answer = [[
    return function(req)
      req:respond(200, "first")
      req:fail(500, "late", "second")
    end]],
  sends_after_answer = [[
    return function(req, route)
      req:respond(200, "first")
      req:send(route.targets[1])
    end]],
  answers_after_relay = [[
    return function(req, route)
      req:relay(req:send(route.targets[1]))
      req:respond(500, "second")
    end]],
  starts_twice = [[
    return function(req)
      req:start(200)
      req:write("half of it")
      req:start(200)
    end]],
  writes_after_finish = [[
    return function(req)
      req:start(200)
      req:write("first")
      req:finish()
      req:write("second")
    end]],
  writes_without_start = [[
    return function(req) req:write("x") end]],
  finishes_without_start = [[
    return function(req) req:finish() end]],
  edits_after_answer = [[
    return function(req) req:respond(200, "first") req:set("n", 1) end]],

  uses_old_answer = [[
    return function(req, route)
      local first = req:send(route.targets[1])
      req:send(route.targets[1])
      return req:respond(200, "status " .. first.status)
    end]],
  uses_old_headers = [[
    return function(req, route)
      local headers = req:send(route.targets[1]).headers
      req:send(route.targets[1])
      return req:respond(200, headers["content-type"])
    end]],
  relays_old_answer = [[
    return function(req, route)
      local first = req:send(route.targets[1])
      req:send(route.targets[1])
      return req:relay(first)
    end]],
  relays_twice = [[
    return function(req, route)
      local res = req:send(route.targets[1])
      req:relay(res)
      req:relay(res)
    end]],
  relays_what_is_none = [[
    return function(req) return req:relay("an answer") end]],
  sends_to_what_is_none = [[
    return function(req) return req:relay(req:send("one")) end]],
  sends_to_nobody = [[
    return function(req) return req:relay(req:send(nil)) end]],
  sends_a_request_as_target = [[
    return function(req) return req:relay(req:send(req)) end]],
  sends_without_end = [[
    return function(req, route)
      while true do req:send(route.targets[1]) end
    end]],
  waits_within_sort = [[
    local gw = require "perilune"
    return function()
      table.sort({ 2, 1 }, function() gw.sleep("1ms") end)
    end]],
  sends_within_gsub = [[
    return function(req, route)
      pcall(string.gsub, "x", "x", function() req:send(route.targets[1]) end)
      return req:relay(req:send(route.targets[1]))
    end]],

  sets_a_global = [[
    return function(req) count = 1 end]],
  sets_a_library_field = [[
    return function() string.shout = function() end end]],
  sets_the_module = [[
    return function() require("perilune").sleep = 1 end]],
  sets_the_route = [[
    return function(_, route) route.deadline_ms = 1 end]],
  sets_a_target = [[
    return function(_, route) route.targets[1].weight = 1 end]],
  sets_the_request = [[
    return function(req) req.model = "x" end]],
  sets_a_header_of_the_request = [[
    return function(req) req.headers["x"] = "y" end]],
  changes_strings = [[
    return function() getmetatable("").__index = {} end]],
  changes_the_request = [[
    return function(req) getmetatable(req).__index = {} end]],
  changes_the_globals = [[
    return function() setmetatable(getmetatable, {}) end]],

  breaks_a_line_in_a_value = [[
    return function(req)
      return req:respond(200, "x", { ["x-a"] = "1\r\nx-b: 2" })
    end]],
  breaks_a_line_in_a_name = [[
    return function(req)
      return req:respond(200, "x", { ["x-a\r\nx-b"] = "1" })
    end]],
  breaks_a_line_in_start = [[
    return function(req) req:start(200, { ["x-a"] = "1\n" }) end]],
  has_a_nul_in_a_value = [[
    return function(req) return req:respond(200, "x", { ["x-a"] = "a\0b" }) end]],
  has_a_name_that_is_none = [[
    return function(req) return req:respond(200, "x", { ["x a:"] = "1" }) end]],
  has_an_empty_name = [[
    return function(req) return req:respond(200, "x", { [""] = "1" }) end]],
  has_a_value_that_is_none = [[
    return function(req) return req:respond(200, "x", { ["x-a"] = {} }) end]],
  has_headers_that_are_none = [[
    return function(req) return req:respond(200, "x", "x-a: 1") end]],
  has_a_list_of_headers = [[
    return function(req) return req:respond(200, "x", { "x-a: 1" }) end]],
  has_a_status_that_is_none = [[
    return function(req) return req:respond(99, "x") end]],
  has_a_status_that_is_interim = [[
    return function(req) return req:respond(101, "x") end]],
  has_no_status = [[
    return function(req) return req:respond(nil, "x") end]],
  has_a_body_that_is_none = [[
    return function(req) return req:respond(200, function() end) end]],
  has_a_body_without_end = [[
    return function(req)
      local t = {}
      t.t = t
      return req:respond(200, t)
    end]],
  has_a_body_with_a_function = [[
    return function(req) return req:respond(200, { f = function() end }) end]],
  sets_what_is_no_json = [[
    return function(req) return req:set("n", 0 / 0) end]],
  sets_a_key_that_is_none = [[
    return function(req) return req:set(1, 2) end]],
  sleeps_without_a_unit = [[
    return function() require("perilune").sleep(100) end]],
  sleeps_backwards = [[
    return function() require("perilune").sleep("-1s") end]],
  calls_without_self = [[
    return function(req) return req.body() end]],
  calls_with_another_self = [[
    return function(req) return req.body(setmetatable({}, getmetatable(""))) end]],

  keeps_the_request = [[
    local kept
    return function(req)
      if kept then kept:respond(200, "from the past") end
      kept = req
      return req:respond(200, "kept")
    end]],
  keeps_the_headers = [[
    local kept
    return function(req)
      if kept then return req:respond(200, kept["host"] or "gone") end
      kept = req.headers
      return req:respond(200, "kept")
    end]],
  keeps_the_answer = [[
    local kept
    return function(req, route)
      if kept then return req:respond(200, "status " .. kept.status) end
      kept = req:send(route.targets[1])
      return req:respond(200, "kept")
    end]],
  takes_anothers = [[
    local first
    return function(req, route)
      if first then
        if req.headers["x-how"] == "respond" then return first:respond(200, "not yours") end
        if req.headers["x-how"] == "abort" then return first:abort() end
        return first:relay(first:send(route.targets[1]))
      end
      first = req
      return req:relay(req:send(route.targets[1]))
    end]],

  frames_by_itself = [[
    return function(req)
      return req:respond(200, "four", { ["Content-Length"] = "2", ["Transfer-Encoding"] = "chunked",
        Connection = "close, x-a", ["Keep-Alive"] = "1", Trailer = "x", Upgrade = "h2c",
        ["x-a"] = "1", ["x-request-id"] = "forged", ["x-perilune-target"] = "forged" })
    end]],
  answers_without_a_body = [[
    return function(req) return req:respond(204, "ignored") end]],
  logs_anything = [[
    local gw = require "perilune"
    return function(req)
      req:log("one\nrequest x: forged")
      gw.log(nil)
      gw.log(("y"):rep(100000))
      return req:respond(200, "logged")
    end]],
}

local MISSING = { "os", "io", "debug", "package", "coroutine", "ffi", "jit", "load", "loadstring",
  "loadfile", "dofile", "xpcall", "collectgarbage", "getfenv", "setfenv", "rawget", "rawset",
  "newproxy", "print", "module", "gcinfo", "_G", "arg" }

local up, gw

local function write_config()
  local names, routes = {}, {}
  for name in pairs(POLICIES) do names[#names + 1] = name end
  table.sort(names)
  for index, name in ipairs(names) do
    routes[index] = ('{ match = { model = "%s" }, policy = "%s", deadline = "%s", '
      .. 'targets = { { provider = "one" } } },'):format(name, name,
      name:find("^loops_in_waiting") and "150ms" or "20s")
  end
  return ([[
return {
  on_policy_error = "fail",
  providers = { one = { url = "%s/v1" } },
  routes = {
    %s
    { match = { model = "*" }, targets = { { provider = "one" } } },
  },
}
]]):format(up.url, table.concat(routes, "\n    "))
end

local function start()
  for _, name in ipairs(MISSING) do
    POLICIES["wants_" .. name:lower()] = ("return function() return %s.x end"):format(name)
  end
  up = support.answering(function(request)
    if request.headers["x-wait"] then
      support.wait_until("the word to answer", function() return up.may_answer end)
    end
    return 200, { from = "upstream" }
  end)
  gw = support.gateway({ config = write_config(), policies = POLICIES, workers = 1 })
end

local number = 0

--- A request to a policy; its answer, and what the log says of it.
local function run(policy, headers)
  number = number + 1
  local id = ("id-%d-%s"):format(number, policy)
  headers = headers or {}
  headers["X-Request-Id"] = id
  local answer = gw:chat({ model = policy, headers = headers })
  assert.equal(id, answer.headers["x-request-id"])
  return answer, id
end

--- The log's line about a request whose policy failed.
local function log_of(id)
  return gw:wait_log("error request " .. id:gsub("%p", "%%%0")
    .. ": policy [%w_]+ failed %([%w_]+%): ([^\n]*)\n")
end

local function assert_serving()
  local answer = gw:chat()
  assert.equal(200, answer.status)
  assert.equal("upstream", answer:json().from)
end

--- The policy ends in a 500 that does not tell why, and in a line of the log that does.
local function assert_policy_error(policy, log_pattern)
  local answer, id = run(policy)
  assert.equal(500, answer.status)
  assert.equal("application/json", answer.headers["content-type"])
  assert.same({ error = { message = "The gateway's policy failed while it handled this request.",
    type = "server_error", code = "policy_error", param = require("cjson").null } }, answer:json())
  assert.matches(log_pattern, log_of(id))
  assert_serving()
end

--- The first answer is the client's; the log says what came after it.
local function assert_answered_once(policy, body, log_pattern)
  local answer, id = run(policy)
  assert.equal(200, answer.status)
  assert.equal("complete", answer.ended)
  assert.equal(body, answer.body)
  assert.matches(log_pattern, log_of(id))
  assert_serving()
end

--- What was begun is broken off, not ended.
local function assert_broken_off(policy, log_pattern)
  local answer, id = run(policy)
  assert.equal(200, answer.status)
  assert.not_equal("complete", answer.ended)
  assert.matches(log_pattern, log_of(id))
  assert_serving()
end

describe("a policy that", function()
  setup(start)
  teardown(support.finish)

  it("raises an error is a 500, with the reason in the log", function()
    assert_policy_error("raises", "^raises.lua:1: boom$")
    assert_policy_error("raises_table", "without a message")
    assert_policy_error("raises_after_send", "^raises_after_send.lua:1: after send$")
    assert_policy_error("indexes_nil", "^indexes_nil.lua:1: attempt to index field")
    assert_policy_error("calls_what_is_not_there", "a request has no field 'forward'")
  end)

  it("raises several lines forges none in the log", function()
    assert_policy_error("raises_lines", "^raises_lines.lua:1: one$")
    assert.falsy(gw:stderr():find("forged", 1, true))
    local answer = run("logs_anything")
    assert.equal("logged", answer.body)
    gw:wait_log("one%?request x: forged\n")
    for line in gw:stderr():gmatch("[^\n]*\n") do
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d.%d%d%dZ %l+ ", line)
      assert.is_true(#line <= 2048)
    end
  end)

  it("raises an error after its answer harms it no more", function()
    assert_answered_once("raises_after_relay", '{"from":"upstream"}', "after relay$")
  end)

  it("raises an error in the middle of its answer has it broken off", function()
    assert_broken_off("raises_after_start", "after start$")
    assert_broken_off("starts_twice", "an answer has been begun already")
  end)

  it("returns without an answer is a 500", function()
    assert_policy_error("returns_at_once", "returned without an answer")
    assert_policy_error("returns_after_send", "returned without an answer")
    assert_broken_off("returns_after_start", "returned without an answer")
  end)

  it("computes without end is stopped, wherever it does", function()
    for _, where in ipairs({ "", "_in_pcall", "_in_sort", "_in_gsub", "_in_metamethod" }) do
      assert_policy_error("loops" .. where, "used more than 50 ms of CPU without a pause")
    end
    assert_broken_off("loops_after_start", "used more than 50 ms of CPU without a pause")
    assert_policy_error("recurses_protected", "used more than 50 ms of CPU without a pause")
  end)

  it("computes without end does not stop others", function()
    local since = support.now()
    local tasks = {}
    for index = 1, 30 do
      tasks[index] = function()
        if index % 10 == 0 then return run("loops_in_pcall").status end
        local answer = gw:chat()
        return answer.status
      end
    end
    for index, status in ipairs(support.together(tasks)) do
      assert.equal(index % 10 == 0 and 500 or 200, status)
    end
    assert.is_true(support.now() - since < 20)
  end)

  it("matches a pattern without end is stopped, wherever it does", function()
    for _, where in ipairs({ "", "_in_pcall", "_in_sort", "_in_gsub" }) do
      local policy = "loops_in_pattern" .. where
      assert_policy_error(policy, "^" .. policy .. "%.lua:%d: used more than 50 ms of CPU")
    end
  end)

  -- There is one worker: whoever comes while the pattern is matched waits for its 50 ms of CPU. The
  -- rest of the limit is for what else the machine does; unbounded, the pattern takes hours.
  it("matches a pattern without end does not stop others", function()
    for _ = 1, 5 do
      local took_s = {}
      local tasks = { function() return run("loops_in_pattern_in_pcall").status end }
      for index = 1, 10 do
        tasks[#tasks + 1] = function()
          local since = support.now()
          local status = gw:chat().status
          took_s[index] = support.now() - since
          return status
        end
      end
      for index, status in ipairs(support.together(tasks)) do
        assert.equal(index == 1 and 500 or 200, status)
      end
      for index = 1, 10 do assert.is_true(took_s[index] < 5, took_s[index]) end
    end
  end)

  it("waits without end is stopped at its deadline", function()
    for _, policy in ipairs({ "loops_in_waiting", "loops_in_waiting_protected" }) do
      local since = support.now()
      local answer = run(policy)
      assert.equal(504, answer.status)
      assert.equal("timeout_deadline", answer:json().error.code)
      assert.is_true(support.now() - since < 15)
      assert_serving()
    end
  end)

  it("recurses without end is a 500", function()
    assert_policy_error("recurses", "stack overflow")
  end)

  it("takes memory without end is a 500, and gives it back", function()
    for _ = 1, 3 do
      for _, policy in ipairs({ "fills_memory_with_text", "fills_memory_with_tables" }) do
        local answer, id = run(policy)
        assert.equal(500, answer.status)
        local line = log_of(id) -- whichever limit is reached first
        assert.truthy(line:find("not enough memory", 1, true)
          or line:find("ms of CPU without a pause", 1, true), line)
        assert_serving()
      end
    end
    assert_policy_error("asks_for_too_much", "memory")
    local answer = run("fills_memory_protected")
    assert.is_true(answer.status == 200 or answer.status == 500)
    for _ = 1, 5 do assert_serving() end
  end)

  it("answers twice has answered once", function()
    assert_answered_once("answers_twice", "first", "this request has been answered")
    assert_answered_once("fails_after_answer", "first", "this request has been answered")
    assert_answered_once("sends_after_answer", "first", "this request has been answered")
    assert_answered_once("edits_after_answer", "first", "this request has been answered")
    assert_answered_once("writes_after_finish", "first", "this request has been answered")
    assert_answered_once("answers_after_relay", '{"from":"upstream"}',
      "this request has been answered")
    assert_answered_once("relays_twice", '{"from":"upstream"}', "this request has been answered")
  end)

  it("goes on with an answer that was not begun is a 500", function()
    assert_policy_error("writes_without_start", "start an answer first")
    assert_policy_error("finishes_without_start", "start an answer first")
  end)

  it("uses an answer after the next send is a 500", function()
    for _, policy in ipairs({ "uses_old_answer", "uses_old_headers", "relays_old_answer" }) do
      assert_policy_error(policy, "this answer was dropped by a later send")
    end
  end)

  it("sends or relays what is none is a 500", function()
    assert_policy_error("relays_what_is_none", "perilune.response expected, got string")
    assert_policy_error("sends_to_what_is_none", "perilune.target expected, got string")
    assert_policy_error("sends_to_nobody", "perilune.target expected, got")
    assert_policy_error("sends_a_request_as_target", "perilune.target expected, got userdata")
    assert_policy_error("sends_without_end", "no more than 64 tries")
  end)

  it("waits where it cannot is a 500, and a send from there none at all", function()
    assert_policy_error("waits_within_sort", "sort")
    local sent_count = #up.requests
    local answer = run("sends_within_gsub")
    assert.equal(200, answer.status)
    assert.equal("1", answer.headers["x-perilune-attempts"])
    assert.equal(sent_count + 1, #up.requests)
  end)

  it("changes what all share is a 500", function()
    assert_policy_error("sets_a_global", "global 'count' cannot be set: declare it with 'local'")
    assert_policy_error("sets_a_library_field", "library field 'shout' cannot be set")
    assert_policy_error("sets_the_module", 'perilune is read%-only: cannot set "sleep"')
    assert_policy_error("sets_the_route", 'perilune.route is read%-only: cannot set "deadline_ms"')
    assert_policy_error("sets_a_target", "a target's fields cannot be set")
    assert_policy_error("sets_the_request", "a request's fields cannot be set")
    assert_policy_error("sets_a_header_of_the_request", "cannot be set")
    assert_policy_error("changes_strings", "attempt to index a string value")
    assert_policy_error("changes_the_request", "attempt to index a string value")
    assert_policy_error("changes_the_globals", "table expected, got function")
  end)

  it("wants what it may not have is a 500", function()
    for _, name in ipairs(MISSING) do
      assert_policy_error("wants_" .. name:lower(), ("global '%s' %%(a nil value%%)"):format(name))
    end
  end)

  it("sends headers that would break the answer is a 500", function()
    for _, policy in ipairs({ "breaks_a_line_in_a_value", "breaks_a_line_in_a_name",
      "breaks_a_line_in_start", "has_a_nul_in_a_value", "has_a_name_that_is_none",
      "has_an_empty_name" }) do
      assert_policy_error(policy, "the header '")
    end
    assert_policy_error("has_a_value_that_is_none", "headers must be a table of name = value")
    assert_policy_error("has_a_list_of_headers", "headers must be a table of name = value")
    assert_policy_error("has_headers_that_are_none", "table expected, got string")
  end)

  it("answers with what is no answer is a 500", function()
    assert_policy_error("has_a_status_that_is_none", "a status is within 200..599")
    assert_policy_error("has_a_status_that_is_interim", "a status is within 200..599")
    assert_policy_error("has_no_status", "number expected")
    assert_policy_error("has_a_body_that_is_none", "string expected, got function")
    assert_policy_error("has_a_body_without_end", "the body cannot be encoded")
    assert_policy_error("has_a_body_with_a_function", "the body cannot be encoded")
  end)

  it("calls what there is in a wrong way is a 500", function()
    assert_policy_error("sets_what_is_no_json", "set: 'n' cannot be encoded")
    assert_policy_error("sets_a_key_that_is_none", "set: the key must be a string")
    assert_policy_error("sleeps_without_a_unit", 'a duration such as "100ms" is expected')
    assert_policy_error("sleeps_backwards", "perilune.sleep: the duration")
    assert_policy_error("calls_without_self", "perilune.request expected, got no value")
    assert_policy_error("calls_with_another_self", "bad argument")
  end)

  it("keeps a request or an answer for later finds it dead", function()
    assert.equal("kept", (run("keeps_the_request")).body)
    assert_policy_error("keeps_the_request", "this request has ended")
    assert.equal("kept", (run("keeps_the_headers")).body)
    assert_policy_error("keeps_the_headers", "this request has ended")
    assert.equal("kept", (run("keeps_the_answer")).body)
    assert_policy_error("keeps_the_answer", "its request has ended")
  end)

  it("reaches for another request that is being handled does it no harm", function()
    up.may_answer = false
    local first
    support.spawn("the first request", function()
      first = run("takes_anothers", { ["X-Wait"] = "1" })
    end)
    local sent_count = #up.requests
    up:wait_requests(sent_count + 1)
    for _, how in ipairs({ "respond", "abort", "send" }) do
      local answer, id = run("takes_anothers", { ["X-How"] = how })
      assert.equal(500, answer.status)
      assert.matches("another run of the policy", log_of(id))
    end
    assert.is_nil(first)
    up.may_answer = true
    support.wait_until("the first answer", function() return first end)
    assert.equal(200, first.status)
    assert.equal("upstream", first:json().from)
  end)

  it("frames its answer by itself is not listened to", function()
    local answer = run("frames_by_itself")
    assert.equal(200, answer.status)
    assert.equal("four", answer.body)
    assert.equal("4", answer.headers["content-length"])
    for _, name in ipairs({ "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade",
      "x-perilune-target" }) do
      assert.is_nil(answer.headers[name], name)
    end
    answer = run("answers_without_a_body")
    assert.equal(204, answer.status)
    assert.is_nil(answer.headers["content-length"])
    assert.equal("", answer.body)
  end)
end)
