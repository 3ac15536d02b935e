--- What a policy may use up, and what it cannot reach: no policy takes more of a worker than its
-- budgets, or gets at what belongs to others. All run in one worker of one gateway.

local support = require "support"

--- These never end by themselves. Most of their time goes by within single instructions and calls.
local RUNAWAYS = {
  loops = [[while true do end]],
  loops_in_pcall = [[while true do pcall(function() while true do end end) end]],
  loops_in_sort = [[
    while true do pcall(table.sort, { 3, 2, 1 }, function() while true do end end) end]],
  loops_in_gsub = [[("x"):gsub("x", function() while true do end end)]],
  loops_in_tostring = [[
    tostring(setmetatable({}, { __tostring = function() while true do end end }))]],
  loops_in_index = [[
    return setmetatable({}, { __index = function(t, k) return t[k .. "x"] end }).x]],
  compares_texts = [[
    local a, b = ("a"):rep(5e7) .. "b", ("a"):rep(5e7) .. "c"
    while true do local _ = a < b end]],
  joins_texts = [[local s = ("x"):rep(2e7) while true do local _ = s .. s end]],
  repeats_texts = [[while true do local _ = ("x"):rep(5e7) end]],
  joins_tables = [[
    local t = {}
    for i = 1, 1000 do t[i] = ("x"):rep(1e4) end
    while true do table.concat(t) end]],
  raises_texts = [[local s = ("a"):rep(1e7) while true do local _ = s:upper() end]],
  reads_numbers = [[local s = ("1"):rep(1e7) while true do tonumber(s) end]],
  inserts_at_front = [[
    local t = {}
    for i = 1, 3e5 do t[i] = i end
    while true do table.insert(t, 1, 0) table.remove(t, 1) end]],
  moves_items = [[table.move({}, 1, 1e9, 2)]],
  counts_items = [[
    local t = {}
    for i = 1, 5e5 do t[i] = true end
    while true do table.maxn(t) end]],
  looks_for_items = [[
    local t = {}
    for i = 1, 5e5 do t[i] = true end
    for i = 1, 5e5 do t[i] = nil end
    while true do next(t) end]],
  requires = [[while true do pcall(require, "nope") end]],
  logs = [[while true do req:log("x") require("perilune").log("y") end]],
  ejects = [[while true do route.targets[1]:restore() end]],
  decodes = [[while true do req:json() end]],
}

local OTHERS = {
  sleeps_in_between = [[
    while true do
      for _ = 1, 1000 do end
      gw.sleep("0ms")
    end]],
  computes_in_between = [[
    while true do
      for _ = 1, 1e6 do end
      gw.sleep("0ms")
    end]],
  computes_a_little = [[
    for _ = 1, 20 do
      for _ = 1, 1e5 do end
      gw.sleep("1ms")
    end
    return req:respond(200, "done")]],
  logs_a_lot = [[
    for number = 1, 10 do
      req:log("line " .. number)
      gw.log("own " .. number)
    end
    return req:respond(200, "logged")]],

  encodes_without_end = [[
    local t = { 1 }
    for _ = 1, 60 do t = { t, t } end
    return req:respond(200, t)]],
  encodes_too_much = [[
    local s, t = ("x"):rep(1e6), {}
    for i = 1, 3000 do t[i] = s end
    return req:respond(200, t)]],
  sets_too_much = [[
    local s, codes = ("x"):rep(2e6), {}
    for i = 1, 10 do
      local _, code = req:set("k" .. i, s)
      codes[i] = code or "ok"
      gw.sleep("0ms")
    end
    return req:respond(200, codes)]],
  has_long_headers = [[
    return req:respond(200, "x", { ["x-a"] = ("y"):rep(1e5) })]],

  inserts_into_shared = [[
    local said = {}
    for _, shared in ipairs { route, route.retry, route.balance, string, math, gw } do
      local ok, why = pcall(table.insert, shared, "leak")
      said[#said + 1] = tostring(ok) .. tostring(shared[1])
      assert(why:find("read%-only"))
    end
    return req:respond(200, table.concat(said, " "))]],
  sets_metatables = [[
    local said = {}
    for _, shared in ipairs { route, route.retry, route.balance, string, gw, req, req.headers,
      route.targets[1], "" } do
      said[#said + 1] = tostring(pcall(setmetatable, shared, {})) .. type(getmetatable(shared))
    end
    return req:respond(200, table.concat(said, " "))]],
  walks_views = [[
    return req:respond(200, tostring(next(route)) .. tostring(next(gw)) .. tostring(next(string))
      .. tostring(#string))]],
  sets_the_balance = [[route.balance.by = "p2c"]],
  asks_for_huge_things = [[
    local said = {}
    for _, call in ipairs {
      function() return unpack({}, 1, 1e7) end, function() return unpack({}, -2 ^ 31, 2 ^ 31) end,
      function() return select(-1e9) end, function() return ("x"):rep(1e9) end,
      function() return ("%.99999f"):format(1) end, function() return ("%99999d"):format(1) end,
      function() return (("x"):rep(1e6)):byte(1, -1) end,
      function() return string.char(unpack({ -1 })) end,
    } do
      said[#said + 1] = tostring(pcall(call))
    end
    return req:respond(200, table.concat(said, " "))]],
  finds_no_way_out = [[
    local said = {}
    for _, name in ipairs { "dump", "__index", "rawset", "newproxy" } do
      said[#said + 1] = tostring(("x")[name]) .. tostring(string[name]) .. tostring(math[name])
    end
    said[#said + 1] = tostring(math.randomseed) .. tostring(getmetatable(""))
    return req:respond(200, table.concat(said, " "))]],
  waits_in_metamethods = [[
    local function waits(value) return function() gw.sleep("1ms") return value end end
    local meta = { __index = waits "i", __newindex = waits(), __concat = waits "c", __lt = waits(true),
      __eq = waits(true), __call = waits "l", __unm = waits "u" }
    local a, b = setmetatable({}, meta), setmetatable({}, meta)
    a.x = 1
    return req:respond(200, table.concat({ a.y, a .. "", tostring(a < b), tostring(a == b), a(), -a },
      " "))]],
  waits_where_it_cannot = [[
    local said = {}
    for _, call in ipairs {
      function() table.sort({ 2, 1 }, function() gw.sleep("1ms") end) end,
      function() table.sort(setmetatable({}, {}), function() gw.sleep("1ms") end)
        table.sort({ setmetatable({}, { __lt = function() gw.sleep("1ms") end }),
          setmetatable({}, { __lt = function() gw.sleep("1ms") end }) }) end,
      function() ("x"):gsub("x", function() gw.sleep("1ms") end) end,
    } do
      said[#said + 1] = tostring((pcall(call)))
    end
    return req:respond(200, table.concat(said, " "))]],
  breaks_the_walk = [[
    local walk = gw.candidates(route)
    walk.route, walk.req, walk.state = {}, 5, { 1 }
    local first = pcall(walk)
    local second = pcall(gw.candidates, { targets = 5, retry = {} })
    local third = pcall(function()
      for _ in gw.candidates { targets = { {} }, retry = { attempts = "x" } } do break end
    end)
    return req:respond(200, tostring(first) .. tostring(second) .. tostring(third))]],
  recurses_in_c = [[
    local depth = 0
    local function sort() depth = depth + 1 table.sort({ 2, 1 }, function() sort() end) end
    local function gsub() return (("x"):gsub("x", gsub)) end
    return req:respond(200, tostring(pcall(sort)) .. tostring(pcall(gsub)))]],
}

local BURST_MS = 50
local NOISE_MS = 60 -- what the rest of the gateway adds to a time

local up, gw

local function start()
  local routes, policies = {}, {}
  for _, group in ipairs { RUNAWAYS, OTHERS } do
    for name, body in pairs(group) do
      policies[name] = ('local gw = require "perilune" return function(req, route) %s end'):format(
        body)
      routes[#routes + 1] = ('{ match = { model = "%s" }, policy = "%s", deadline = "20s", '
        .. 'balance = { by = "hash", header = "x" }, targets = { { provider = "one" } } },')
        :format(name, name)
    end
  end
  up = support.answering(function() return 200, { from = "upstream" } end)
  gw = support.gateway({ workers = 1, policies = policies, config = ([[
return {
  budgets = { burst = "%dms", log_lines = 5 },
  on_policy_error = "fail",
  providers = { one = { url = "%s/v1" } },
  routes = {
    %s
    { match = { model = "*" }, targets = { { provider = "one" } } },
  },
}
]]):format(BURST_MS, up.url, table.concat(routes, "\n    ")) })
end

--- CPU of all threads so far.
local function cpu_ms()
  local sum = 0
  for tid in io.popen(("ls /proc/%d/task"):format(gw.pid)):lines() do
    local text = support.read_file(("/proc/%d/task/%s/schedstat"):format(gw.pid, tid)) or "0"
    sum = sum + tonumber(text:match("^%d+")) / 1e6
  end
  return sum
end

--- Runs a policy; the answer, what the log says of its failure, and the CPU it took.
local function run(name)
  local before = cpu_ms()
  local answer = gw:chat({ model = name })
  local took = cpu_ms() - before
  if answer.status == 200 then return answer, nil, took end
  local id = answer.headers["x-request-id"]:gsub("%p", "%%%0")
  return answer, gw:wait_log(id .. ": policy [%w_]+ failed (%([%w_]+%): [^\n]*)\n"), took
end

local function body_of(name)
  local answer, problem = run(name)
  assert.is_nil(problem)
  assert.equal(200, answer.status)
  return answer.body
end

local function sanitized(by)
  return (os.getenv("PERILUNE_BIN") or ""):find(by or "san", 1, true) ~= nil
end

--- Those that a hook reaches by itself: the thread sanitizer holds signals back while Lua runs.
local REACHED_BY_HOOKS = { "ejects", "logs", "loops", "loops_in_gsub", "loops_in_index",
  "loops_in_pcall", "loops_in_sort", "loops_in_tostring", "requires" }

local function runaway_names()
  if sanitized("tsan") then return REACHED_BY_HOOKS end
  local names = {}
  for name in pairs(RUNAWAYS) do names[#names + 1] = name end
  table.sort(names)
  return names
end

describe("a runaway policy", function()
  setup(start)
  teardown(support.finish)

  it("is stopped within twice its burst, wherever it spends its time", function()
    for _, name in ipairs(runaway_names()) do
      local least_ms, problem = math.huge, nil
      for _ = 1, 3 do -- time of the kernel's, for fresh memory, comes and goes
        local answer, said, took_ms = run(name)
        assert.equal(500, answer.status, name)
        least_ms, problem = math.min(least_ms, took_ms), said
        if least_ms <= 2 * BURST_MS then break end
      end
      local stopped = problem:find("^%(cpu_burst%): " .. name .. ".lua:%d+: used more than 50 ms")
        or problem:find("^%(memory%): " .. name .. ".lua:%d+: ")
        or problem:find("^%(error%): .*stack overflow")
      assert.truthy(stopped, problem)
      if not sanitized() then
        assert.is_true(least_ms <= 2 * BURST_MS + 10, ("%s: %d ms"):format(name, least_ms))
      end
    end
  end)

  it("delays others by no more than that", function()
    local least_ms = math.huge
    for _ = 1, 5 do
      local worst_ms, is_done = 0, false -- of CPU: what else the machine does is not counted
      support.spawn("the runaway", function()
        run("loops_in_pcall")
        is_done = true
      end)
      repeat
        local before = cpu_ms()
        assert.equal(200, gw:chat().status)
        worst_ms = math.max(worst_ms, cpu_ms() - before)
      until is_done
      least_ms = math.min(least_ms, worst_ms)
    end
    if not sanitized() then
      assert.is_true(least_ms <= 2 * BURST_MS + NOISE_MS, ("%d ms"):format(least_ms))
    end
  end)

  it("is stopped when its bursts are too much together, however short they are", function()
    local names = { "computes_in_between", not sanitized("tsan") and "sleeps_in_between" or nil }
    for _, name in ipairs(names) do
      local answer, problem, took_ms = run(name)
      assert.equal(500, answer.status)
      assert.matches("^%(cpu_total%): " .. name .. ".lua:%d+: used more than 500 ms of CPU in all",
        problem)
      if not sanitized() then assert.is_true(took_ms < 3000, ("%d ms"):format(took_ms)) end
    end
    assert.equal("done", body_of("computes_a_little"))
  end)

  it("does not flood the log", function()
    assert.equal("logged", body_of("logs_a_lot"))
    gw:wait_log("more than 5 log lines, the rest is dropped")
    assert.equal("logged", body_of("logs_a_lot"))
    local _, count = gw:stderr():gsub(": line %d", "")
    assert.equal(6, count)
    _, count = gw:stderr():gsub("own %d", "")
    assert.equal(4, count)
  end)

  it("cannot take memory that nobody counts", function()
    for name, said in pairs { encodes_without_end = "longer than 16 MiB",
      encodes_too_much = "longer than 16 MiB", has_long_headers = "more than 64 KiB in all" } do
      local answer, problem = run(name)
      assert.equal(500, answer.status)
      assert.truthy(problem:find(said, 1, true)
        or sanitized() and problem:find("^%(cpu_burst%)"), problem)
    end
    assert.equal('["' .. ('ok","'):rep(8) .. 'too_large","too_large"]', body_of("sets_too_much"))
  end)

  it("cannot change what all requests share", function()
    assert.equal("falsenil falsenil falsenil falsenil falsenil falsenil",
      body_of("inserts_into_shared"))
    assert.equal(("falsestring "):rep(9):sub(1, -2), body_of("sets_metatables"))
    assert.equal("nilnilnil0", body_of("walks_views"))
    local _, problem = run("sets_the_balance")
    assert.matches('perilune.route.balance is read%-only: cannot set "by"', problem)
  end)

  it("finds no way out", function()
    assert.matches("^false %a+ false false", body_of("asks_for_huge_things"))
    assert.equal("nilnilnil nilnilnil nilnilnil nilnilnil nillocked", body_of("finds_no_way_out"))
    assert.equal("falsefalse", body_of("recurses_in_c"))
    assert.equal("falsefalsefalse", body_of("breaks_the_walk"))
  end)

  it("waits in metamethods, and nowhere in C", function()
    assert.equal("i c true true l u", body_of("waits_in_metamethods"))
    assert.equal("false false false", body_of("waits_where_it_cannot"))
  end)

  it("leaves the others served", function()
    for _ = 1, 20 do
      local answer = gw:chat()
      assert.equal(200, answer.status)
      assert.equal("upstream", answer:json().from)
    end
  end)
end)
