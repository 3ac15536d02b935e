--- When an operator's policy fails before anything was sent, the floor policy serves the request;
-- and what it finds is the request as the client sent it.

local support = require "support"

local POLICIES = {
  raises = [[
    return function() error("boom") end]],
  raises_no_text = [[
    return function() error({}) end]],
  loops = [[
    return function() while true do end end]],
  fills_memory = [[
    return function()
      local t = {}
      while true do t[#t + 1] = ("x"):rep(1000000) .. #t end
    end]],
  holds_memory = [[
    local held = {}
    return function()
      while true do held[#held + 1] = ("x"):rep(100000) .. #held end
    end]],
  answers_nothing = [[
    return function() return 42 end]],
  waits_within_sort = [[
    local gw = require "perilune"
    return function() table.sort({ 2, 1 }, function() gw.sleep("1ms") end) end]],
  sends_then_raises = [[
    return function(req, route)
      local res = req:send(route.targets[1])
      error("got " .. res.status)
    end]],
  edits_then_raises = [[
    local gw = require "perilune"
    return function(req, route)
      req:set("temperature", 2)
      req:unset("user")
      req:set_deadline_ms(5000)
      for _ in gw.candidates(route) do error("reserved") end
    end]],
  shortens_then_raises = [[
    return function(req)
      req:set_deadline_ms(1000)
      error("left " .. tostring(req:remaining_ms() <= 1000))
    end]],
  lengthens = [[
    return function(req)
      req:set_deadline_ms(1e9)
      return req:respond(200, { remaining_ms = req:remaining_ms() })
    end]],
  keeps_itself = [[
    local kept
    return function(req)
      kept = kept or req
      error(tostring(pcall(function() return kept.id end)))
    end]],
  starts_then_raises = [[
    return function(req)
      req:start(200)
      req:write("half of it")
      error("after start")
    end]],
  refuses = [[
    return function() error("boom") end]],
  uses_up_tries = [[
    return function(req, route)
      while true do req:send(route.targets[1]) end
    end]],
  spends_the_deadline = [[
    local gw = require "perilune"
    return function()
      while true do gw.sleep("50ms") end
    end]],
}

local CONFIG = [[
return {
  budgets = { burst = "200ms", memory = "16MiB", log_lines = 3 },
  providers = { one = { url = "%s/v1" }, two = { url = "%s/v1" } },
  routes = {
    %s
    { match = { model = "*" }, targets = { { provider = "one" } } },
  },
}
]]

local one, two, gw

local function write_config()
  local names, routes = {}, {}
  for name in pairs(POLICIES) do names[#names + 1] = name end
  table.sort(names)
  for index, name in ipairs(names) do
    routes[index] = ('{ match = { model = "%s" }, policy = "%s", deadline = "%s", %s'
      .. 'targets = { { provider = "two", priority = 1 }, { provider = "one" } } },'):format(name,
      name, name == "spends_the_deadline" and "200ms" or "20s",
      name == "refuses" and 'on_policy_error = "fail", ' or "")
  end
  return CONFIG:format(one.url, two.url, table.concat(routes, "\n    "))
end

local function start()
  one = support.answering(function(request)
    if one.fails then return 503, { from = "one" } end
    return 200, { from = "one", temperature = request:json().temperature,
      user = request:json().user }
  end)
  two = support.answering(function() return 200, { from = "two" } end)
  gw = support.gateway({ config = write_config(), policies = POLICIES, workers = 1 })
end

local function run(policy)
  local answer = gw:chat({ model = policy, json = { model = policy, user = "u", temperature = 1,
    messages = { { role = "user", content = "hi" } } } })
  return answer, answer.headers["x-request-id"]
end

local function assert_floor(policy, reason, log_pattern)
  local answer, id = run(policy)
  assert.equal(200, answer.status)
  assert.equal("floor; reason=" .. reason, answer.headers["x-perilune-policy"])
  local text = gw:wait_log("error request " .. id:gsub("%p", "%%%0") .. ": policy " .. policy
    .. " failed %(" .. reason .. "%), the floor policy takes over: ([^\n]*)\n")
  assert.matches(log_pattern, text)
  return answer
end

describe("the floor policy serves a request whose policy", function()
  setup(start)
  teardown(support.finish)
  after_each(function() one.fails = false end)

  it("raises an error", function()
    local answer = assert_floor("raises", "error", "^raises.lua:1: boom$")
    assert.equal("one", answer:json().from)
    assert.matches("^policy;error;%d+ms, one;200;%d+ms$", answer.headers["x-perilune-trail"])
    assert_floor("raises_no_text", "error", "^raises_no_text.lua:1: .*without a message")
  end)

  it("computes without end", function()
    assert_floor("loops", "cpu_burst", "^loops.lua:1: used more than 200 ms of CPU")
  end)

  it("takes memory without end, and gives it back or not", function()
    assert_floor("fills_memory", "memory", "^fills_memory.lua:%d: .*not enough memory$")
    for _ = 1, 3 do assert_floor("holds_memory", "memory", "not enough memory") end
    -- the worker's VM stays full: the others are served nevertheless
    for _ = 1, 20 do assert.equal(200, gw:chat().status) end
  end)

  it("returns without an answer", function()
    assert_floor("answers_nothing", "no_answer", "returned without an answer")
  end)

  it("waits where it may not", function()
    assert_floor("waits_within_sort", "error", "^waits_within_sort.lua:2: .*table.sort")
  end)

  it("has tried a target already, which stays in the trail", function()
    one.fails = true
    local answer = assert_floor("sends_then_raises", "error", "got 200$")
    assert.matches("^two;200;%d+ms, policy;error;%d+ms, one;503;%d+ms, two;200;%d+ms$",
      answer.headers["x-perilune-trail"])
    assert.equal("3", answer.headers["x-perilune-attempts"])
    assert.equal("two", answer:json().from)
  end)

  it("has changed it, and finds it unchanged", function()
    local answer = assert_floor("edits_then_raises", "error", "reserved$")
    assert.same({ from = "one", temperature = 1, user = "u" }, answer:json())
    assert_floor("shortens_then_raises", "error", "left true$")
    assert_floor("keeps_itself", "error", "true$")
    assert_floor("keeps_itself", "error", "false$")
  end)

  it("did not ask for it", function()
    local answer, id = run("refuses")
    assert.equal(500, answer.status)
    assert.equal("policy_error", answer:json().error.code)
    assert.is_nil(answer.headers["x-perilune-policy"])
    gw:wait_log(id:gsub("%p", "%%%0") .. ": policy refuses failed %(error%): refuses.lua:1: boom\n")
  end)

  it("has begun an answer: that is broken off", function()
    local answer = run("starts_then_raises")
    assert.equal(200, answer.status)
    assert.not_equal("complete", answer.ended)
    assert.is_nil(answer.headers["x-perilune-policy"])
  end)

  it("has used up all tries: a 500", function()
    local answer, id = run("uses_up_tries")
    assert.equal(500, answer.status)
    assert.equal("64", answer.headers["x-perilune-attempts"])
    gw:wait_log(id:gsub("%p", "%%%0") .. ": policy floor failed %(error%): .*64 tries")
  end)

  it("has used up the deadline: a 504", function()
    local answer = run("spends_the_deadline")
    assert.equal(504, answer.status)
    assert.is_nil(answer.headers["x-perilune-policy"])
  end)

  it("meets a target that fails: the next one", function()
    one.fails = true
    local answer = run("raises")
    assert.equal(200, answer.status)
    assert.equal("two", answer:json().from)
  end)
end)

describe("a policy", function()
  setup(start)
  teardown(support.finish)

  it("cannot lengthen its route's deadline", function()
    assert.is_true(run("lengthens"):json().remaining_ms <= 20000)
  end)
end)
