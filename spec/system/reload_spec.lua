--- Reloads: what is in force changes for all workers at once, or not at all; requests end on what
-- they began with.

local support = require "support"

local CONFIG = [[
return {
  %s
  providers = { one = { url = "%s/v1" } },
  routes = { { match = { model = "*" }, targets = { { provider = "one" } }, policy = "word" } },
}
]]

--- A policy that answers with a word, no upstream asked.
local function saying(word)
  return ("return function(req) return req:respond(200, { word = %q }) end"):format(word)
end

local RELAYING = [[
local gw = require "perilune"
return function(req, route)
  local target = gw.candidates(route)()
  return req:relay(req:send(target))
end
]]

local RELAYING_OR_FAILING = [[
local gw = require "perilune"
return function(req, route)
  local res, err
  for target in gw.candidates(route) do
    res, err = req:send(target)
    break
  end
  return req:relay(res, err)
end
]]

local function config(options, url)
  return CONFIG:format(options or "", url or "http://127.0.0.1:1")
end

local function start(options)
  options = options or {}
  options.config = options.config or config(options.settings, options.url)
  options.policies = options.policies or { word = saying("one") }
  return support.gateway(options)
end

local function post(gw, what, fields)
  local request = { path = "/admin/" .. what, method = "POST" }
  for key, value in pairs(fields or {}) do request[key] = value end
  return gw:admin(request)
end

local function reload(gw, query)
  return post(gw, "reload" .. (query and "?" .. query or ""))
end

local function generations(gw)
  local answer = gw:admin({ path = "/admin/generations" })
  assert.equal(200, answer.status)
  return answer:json()
end

local function generation(gw, number)
  for _, entry in ipairs(generations(gw).generations) do
    if entry.number == number then return entry end
  end
  return nil
end

local function word_of(gw)
  local answer = gw:chat()
  return answer.status == 200 and answer:json().word or answer.status
end

--- Every worker says it: as many connections as make it sure.
local function assert_word(gw, word)
  for _ = 1, 12 do assert.equal(word, word_of(gw)) end
end

local function assert_good(answer)
  assert.equal(200, answer.status, answer.body)
  return answer:json()
end

describe("a reload", function()
  after_each(support.finish)

  it("puts what has changed in force for all workers, and says what that was", function()
    local gw = start()
    assert_word(gw, "one")
    gw:write_policy("word", saying("two"))
    gw:write_policy("spare", saying("spare"))
    gw:write_policy("gateway", config('drain = "3s",', "http://127.0.0.1:2"))
    local result = assert_good(reload(gw))
    assert.equal(2, result.generation)
    assert.equal("current", result.state)
    assert.same({ added = { "spare.lua" }, changed = { "gateway.lua", "word.lua" }, removed = {} },
      result.changes.files)
    assert.same({ added = {}, changed = { "one" }, removed = {} }, result.changes.providers)
    assert.same({ added = {}, changed = { "drain_ms" }, removed = {} }, result.changes.settings)
    assert.same({ added = {}, changed = {}, removed = {} }, result.changes.targets)
    assert.same({}, result.needs_restart)
    assert_word(gw, "two")
    assert.equal(2, generations(gw).current)
    gw:wait_log("generation 2 is in force, by operator")
  end)

  it("names targets and routes that come and go", function()
    local gw = start()
    gw:write_policy("gateway", [[return {
      providers = { one = { url = "http://127.0.0.1:1/v1" }, two = { url = "http://127.0.0.1:2" } },
      routes = {
        { match = { model = "small" }, targets = { { provider = "two", model = "s" } },
          policy = "word" },
        { match = { model = "*" }, targets = { { provider = "one" } }, policy = "word" },
      } }]])
    local changes = assert_good(reload(gw)).changes
    assert.same({ added = { "two" }, changed = {}, removed = {} }, changes.providers)
    assert.same({ added = { "two/s" }, changed = {}, removed = {} }, changes.targets)
    assert.same({ added = { "small" }, changed = {}, removed = {} }, changes.routes)
    gw:write_policy("gateway", config())
    changes = assert_good(reload(gw)).changes
    assert.same({ added = {}, changed = {}, removed = { "two" } }, changes.providers)
    assert.same({ added = {}, changed = {}, removed = { "small" } }, changes.routes)
    local shown = gw:admin({ path = "/admin/targets" }):json()
    assert.equal(1, #shown.targets)
    assert.equal(1, #shown.providers)
  end)

  it("is what SIGHUP asks for", function()
    local gw = start()
    gw:write_policy("word", saying("two"))
    gw:signal("HUP")
    gw:wait_log("generation 2 is in force, by SIGHUP")
    assert_word(gw, "two")
    gw:write_policy("word", "return {")
    gw:signal("HUP")
    gw:wait_log("reload by SIGHUP refused: generation 2 stays in force")
    assert_word(gw, "two")
    assert.is_nil(gw:exit_status())
  end)

  it("changes nothing when nothing has changed", function()
    local gw = start()
    local result = assert_good(reload(gw))
    assert.equal(0, result.change_count)
    assert.equal(generation(gw, 1).digest, generation(gw, 2).digest)
  end)

  it("takes secrets and files anew", function()
    local seen = {}
    local up = support.answering(function(request)
      seen[#seen + 1] = request.headers["authorization"]
      return 200, { ok = true }
    end)
    local folder = support.make_folder()
    support.write_file(folder .. "/key", "sk-one\n")
    local text = ([[return {
      providers = { one = { url = "%s/v1", key = secret "TEST_KEY",
        headers = { ["x-team"] = file "team.txt" } } },
      routes = { { match = { model = "*" }, targets = { { provider = "one" } } } } }]]):format(
      up.url)
    local gw = support.gateway({ config = text, files = { ["team.txt"] = "blue" },
      env = { TEST_KEY_FILE = folder .. "/key" } })
    assert.equal(200, gw:chat().status)
    support.write_file(folder .. "/key", "sk-two\n")
    support.write_file(gw.folder_of_policies .. "/team.txt", "red")
    assert_good(reload(gw))
    assert.equal(200, gw:chat().status)
    assert.same({ "Bearer sk-one", "Bearer sk-two" }, seen)
    assert.equal("red", up.requests[2].headers["x-team"])
    assert.is_nil(gw:stderr():find("sk-", 1, true))
  end)

  it("says what waits for a restart, and does the rest", function()
    local gw = start()
    gw:write_policy("gateway", config([[listen = { address = "127.0.0.1:1" }, workers = 7,
      admin = { address = "127.0.0.1:2", token = "t0ken" },]]))
    gw:write_policy("word", saying("two"))
    local result = assert_good(reload(gw))
    -- the command line has the last word on addresses and workers here
    assert.same({}, result.needs_restart)
    assert_word(gw, "two")
    local files = support.certificates()
    gw:write_policy("gateway", config(([[listen = { tls = { cert = %q, key = %q } },
      admin = { token = "t0ken" },]]):format(files.cert, files.key)))
    result = assert_good(post(gw, "reload", { headers = { Authorization = "Bearer t0ken" } }))
    assert.same({ "listen.tls" }, result.needs_restart)
    gw:wait_log("reload: listen.tls has changed, which takes a restart")
    assert_word(gw, "two") -- plain HTTP, as before
    -- the token is in force at once
    assert.equal(401, gw:admin({ path = "/admin/generations" }).status)
    assert.equal(401, reload(gw).status)
    assert.equal(401, post(gw, "rollback").status)
    assert.equal(401, post(gw, "promote").status)
    gw:write_policy("gateway", config())
    assert_good(post(gw, "reload", { headers = { Authorization = "Bearer t0ken" } }))
    assert.equal(200, gw:admin({ path = "/admin/generations" }).status)
  end)

  it("is refused over GET", function()
    local gw = start()
    for _, path in ipairs({ "reload", "rollback", "promote" }) do
      local answer = gw:admin({ path = "/admin/" .. path })
      assert.equal(405, answer.status)
      assert.equal("POST", answer.headers["allow"])
    end
    assert.equal(1, generations(gw).current)
  end)

  it("keeps health, and gives it up with its target", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local gw = start({ url = up.url })
    assert.equal(200, post(gw, "targets/eject?target=one").status)
    gw:write_policy("gateway", config('drain = "3s",', up.url))
    assert_good(reload(gw))
    local shown = gw:admin({ path = "/admin/targets" }):json()
    assert.is_false(shown.targets[1].fit)
    assert.equal("operator", shown.targets[1].why)
    gw:write_policy("gateway", config(nil, up.url .. "/other"))
    assert_good(reload(gw))
    assert.is_true(gw:admin({ path = "/admin/targets" }):json().targets[1].fit)
  end)

  it("has active checks follow, and lets those that stay go on", function()
    local counts = {}
    local function checked(name)
      counts[name] = 0
      return support.answering(function(request)
        if request.method == "GET" then counts[name] = counts[name] + 1 end
        return 200, { ok = true }
      end)
    end
    local one, two = checked("one"), checked("two")
    local function with(up, interval)
      return (config(nil, up.url):gsub('/v1"', ([[/v1", health = { active = { path = "/up",
        interval = "%s", timeout = "%s" } }]]):format(interval, interval)))
    end
    local gw = start({ config = with(one, "100ms") })
    support.wait_until("checks", function() return counts.one >= 2 end)
    -- more often than it is due: it is not begun anew each time
    local until_count = counts.one + 3
    support.wait_until("checks between reloads", function()
      assert_good(reload(gw))
      return counts.one >= until_count
    end, 20)
    gw:write_policy("gateway", with(two, "20ms"))
    assert_good(reload(gw))
    local before = counts.one
    support.wait_until("checks of the new one", function() return counts.two >= 5 end)
    assert.equal(before, counts.one)
    gw:write_policy("gateway", config(nil, two.url))
    assert_good(reload(gw))
    assert.is_true(gw:admin({ path = "/admin/targets" }):json().providers[1].fit)
  end)

  it("counts requests of two generations together where a target takes so many", function()
    local up
    up = support.upstream(function(connection)
      while connection:read_request() do
        connection:start_chunked(200)
        connection:event({ n = 1 })
        support.wait_until("the word to end", function() return up.over end, 60)
        connection:event("[DONE]")
        connection:finish_chunked()
      end
    end)
    local text = (config(nil, up.url):gsub('provider = "one" }',
      'provider = "one", limits = { concurrent = 1, queue = 1, queue_timeout = "30s" } }'))
    local gw = start({ config = text, policies = { word = RELAYING_OR_FAILING } })
    local first = gw:chat({ stream = true, streamed = true })
    assert_good(reload(gw))
    local second
    support.spawn("the one that waits", function() second = gw:chat({ stream = true }) end)
    support.wait_until("a place in the queue", function()
      return gw:admin({ path = "/admin/targets" }):json().targets[1].queued == 1
    end)
    assert_good(reload(gw))
    assert.equal(1, gw:admin({ path = "/admin/targets" }):json().targets[1].queued)
    assert.equal(503, gw:chat().status) -- the queue is full, for this generation too
    up.over = true
    first:read_body()
    assert.equal("complete", first.ended)
    support.wait_until("the answer of the one that waited", function() return second end)
    assert.equal("complete", second.ended)
    assert.equal(0, gw:admin({ path = "/admin/targets" }):json().targets[1].queued)
  end)

  it("keeps warm connections to what has not changed", function()
    local connections = 0
    local up = support.upstream(function(connection)
      connections = connections + 1
      while connection:read_request() do connection:respond_json(200, { ok = true }) end
    end)
    local gw = start({ url = up.url, policies = { word = RELAYING }, workers = 1 })
    for _ = 1, 5 do
      assert.equal(200, gw:chat().status)
      assert_good(reload(gw))
    end
    assert.equal(1, connections)
    gw:write_policy("gateway", (config(nil, up.url):gsub("one = { url", 'one = { key = "k", url')))
    assert_good(reload(gw))
    assert.equal(200, gw:chat().status)
    assert.equal(2, connections)
  end)
end)

describe("a reload of what is not sound", function()
  after_each(support.finish)

  --- The running generation stays, the answer says what and where.
  local function assert_refused(gw, expected)
    local answer = reload(gw)
    assert.equal(422, answer.status, answer.body)
    local problem = answer:json().error
    assert.equal("reload_failed", problem.code)
    local first = problem.problems[1]
    for key, value in pairs(expected) do
      if key == "reason" then
        assert.truthy(first.reason:find(value, 1, true), answer.body)
      else
        assert.equal(value, first[key], answer.body)
      end
    end
    assert_word(gw, "one")
    local seen = generations(gw)
    assert.equal(1, seen.current)
    assert.equal(problem.message, seen.reloads.last_failed)
    gw:wait_log("reload by operator refused: generation 1 stays in force")
    return seen.reloads.failed
  end

  it("leaves what is in force, and names file, line, key and reason", function()
    local gw = start()
    local good = config()
    local cases = {
      { "word", "return {\n  1,\n  oops oops\n}",
        { file = "word.lua", line = 3, reason = "near 'oops'" } },
      { "word", "\nlocal x = nil\nreturn x.y", { file = "word.lua", line = 3, reason = "nil" } },
      { "word", "while true do end", { file = "word.lua", line = 1, reason = "CPU budget" } },
      { "word", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e5) .. i end",
        { file = "word.lua", reason = "not enough memory" } },
      { "word", "return 12", { file = "word.lua", reason = "must return a function" } },
      { "word", "return { handle = error,\nselftest = function() error('on purpose') end }",
        { file = "word.lua", line = 2, reason = "on purpose" } },
      { "word", "return { handle = function() end, selftest = function() return nil, 'why' end }",
        { file = "word.lua", reason = "selftest failed: why" } },
      { "word", "\27LJ\2\10", { file = "word.lua", reason = "compiled code" } },
      { "gateway", good:sub(1, 60), { file = "gateway.lua" } },
      { "gateway", "return {", { file = "gateway.lua", line = 1 } },
      { "gateway", (good:gsub("policy", "polcy")),
        { file = "gateway.lua", line = 4, key = "routes[1].polcy", reason = "did you mean" } },
      { "gateway", (good:gsub('policy = "word"', 'policy = "none"')),
        { file = "gateway.lua", line = 4, key = "routes[1].policy", reason = "no file none.lua" } },
      { "gateway", (good:gsub('url = "', 'key = secret "NOT_SET_AT_ALL", url = "')),
        { file = "gateway.lua", line = 3, reason = "NOT_SET_AT_ALL" } },
    }
    for number, case in ipairs(cases) do
      gw:write_policy(case[1], case[2])
      assert.equal(number, assert_refused(gw, case[3]))
      gw:write_policy("gateway", good)
      gw:write_policy("word", saying("one"))
    end
    assert_good(reload(gw))
  end)

  it("does so for files and directories that are not there", function()
    local gw = start()
    local folder = gw.folder_of_policies
    os.rename(folder .. "/word.lua", folder .. "/kept")
    assert_refused(gw, { file = "gateway.lua", key = "routes[1].policy" })
    os.execute(("mkdir %s/word.lua"):format(folder))
    assert_refused(gw, { file = "word.lua", reason = "is not a regular file" })
    os.execute(("rmdir %s/word.lua; ln -s /nowhere/else %s/word.lua"):format(folder, folder))
    assert_refused(gw, { file = "word.lua", reason = "No such file" })
    os.execute(("rm %s/word.lua; mkfifo %s/word.lua"):format(folder, folder))
    assert_refused(gw, { file = "word.lua", reason = "is not a regular file" })
    os.remove(folder .. "/word.lua")
    os.rename(folder .. "/kept", folder .. "/word.lua")
    os.rename(folder, folder .. ".gone")
    local answer = reload(gw)
    assert.equal(422, answer.status)
    assert.truthy(answer.body:find("No such file or directory", 1, true))
    assert_word(gw, "one")
    os.rename(folder .. ".gone", folder)
    assert_good(reload(gw))
  end)

  it("does not leave an admin listener that others reach without its token", function()
    local gw = start({ settings = 'admin = { token = "t0ken" },',
      args = { "--admin", "0.0.0.0:0" } })
    gw:write_policy("gateway", config())
    local authorized = { headers = { Authorization = "Bearer t0ken" } }
    local answer = post(gw, "reload", authorized)
    assert.equal(422, answer.status)
    assert.truthy(answer.body:find("admin.token", 1, true))
    assert.equal(401, gw:admin({ path = "/admin/generations" }).status)
  end)

  it("refuses more targets than there is room for, and goes on", function()
    local gw = start()
    local many = [[
      local routes = {}
      for r = 1, 250 do
        local targets = {}
        for t = 1, 16 do targets[t] = { provider = "one", model = "%s" .. r .. "-" .. t } end
        routes[r] = { match = { model = "r" .. r }, targets = targets, policy = "word" }
      end
      return { providers = { one = { url = "http://127.0.0.1:1/v1" } }, routes = routes }]]
    local answer
    for number = 1, 6 do -- those that could be restored keep their places
      gw:write_policy("gateway", many:format(("abcdef"):sub(number, number)))
      answer = reload(gw)
      if answer.status ~= 200 then break end
    end
    assert.equal(422, answer.status)
    assert.truthy(answer.body:find("than the 16384 that this process has room for", 1, true))
    gw:write_policy("gateway", config())
    assert_good(reload(gw))
    assert_word(gw, "one")
  end)

  it("answers a health probe while a policy computes at load", function()
    local gw = start()
    gw:write_policy("word", "while true do end")
    local answer
    support.spawn("reload", function() answer = reload(gw) end)
    local probes = 0
    support.wait_until("the reload", function()
      assert.equal(200, gw:admin({ path = "/healthz" }).status)
      probes = probes + 1
      return answer
    end, 60)
    assert.equal(422, answer.status)
    assert.is_true(probes > 3)
  end)
end)

describe("requests in flight", function()
  after_each(support.finish)

  --- An upstream whose streams go on until they are told to end.
  local function patient()
    local up
    up = support.upstream(function(connection)
      while connection:read_request() do
        connection:start_chunked(200)
        connection:event({ n = 1 })
        local mine = up.may_end
        support.wait_until("the word to end", function() return up.may_end ~= mine or up.over end,
          60)
        connection:event({ n = 2 })
        connection:event("[DONE]")
        connection:finish_chunked()
      end
    end)
    return up
  end

  it("end whole on the generation they began with, streams over many reloads too", function()
    local up = patient()
    local gw = start({ url = up.url, policies = { word = RELAYING } })
    local streams = {}
    for number = 1, 6 do
      streams[number] = gw:chat({ stream = true, streamed = true })
      gw:write_policy("word", RELAYING .. "-- " .. number)
      assert_good(reload(gw))
    end
    local first = generation(gw, 1)
    assert.equal("draining", first.state)
    assert.equal(1, first.in_flight)
    up.over = true
    for _, response in ipairs(streams) do
      response:read_body()
      assert.equal("complete", response.ended)
      assert.truthy(response.body:find("[DONE]", 1, true))
    end
    support.wait_until("the old generations to be freed", function()
      for number = 1, 6 do
        if generation(gw, number).state ~= "retired" then return false end
      end
      return true
    end)
    assert.equal(0, generation(gw, 1).in_flight)
    assert.equal(1, generation(gw, 1).figures.succeeded)
  end)

  it("are ended when the time for the old generation is over", function()
    local up = patient()
    local settings = 'reload = { drain = "300ms" },'
    local gw = start({ url = up.url, settings = settings, policies = { word = RELAYING } })
    local response = gw:chat({ stream = true, streamed = true })
    gw:write_policy("word", RELAYING .. "--")
    assert_good(reload(gw))
    gw:wait_log("generation 1: 1 requests cut off, its time to finish them is over")
    response:read_body()
    assert.not_equal("complete", response.ended)
    support.wait_until("the old generation to be freed", function()
      return generation(gw, 1).state == "retired"
    end)
    up.over = true
  end)

  it("survive a removed target", function()
    local up, other = patient(), support.answering(function() return 200, { other = true } end)
    local gw = start({ url = up.url, policies = { word = RELAYING } })
    local response = gw:chat({ stream = true, streamed = true })
    gw:write_policy("gateway", (config(nil, other.url):gsub("one", "two")))
    assert_good(reload(gw))
    assert.is_true(gw:chat():json().other)
    up.over = true
    response:read_body()
    assert.equal("complete", response.ended)
  end)

  it("do not keep the process when it drains; nothing is reloaded then", function()
    local up = patient()
    local gw = start({ url = up.url, policies = { word = RELAYING }, settings = 'drain = "20s",' })
    local response = gw:chat({ stream = true, streamed = true })
    gw:signal("TERM")
    gw:wait_log("draining")
    local answer = reload(gw)
    assert.equal(503, answer.status)
    assert.equal("draining", answer:json().error.code)
    up.over = true
    response:read_body()
    assert.equal("complete", response.ended)
    assert.equal(0, gw:wait_exit(5))
  end)
end)

describe("reloads at the same time", function()
  after_each(support.finish)

  it("are done one after the other, and all are answered", function()
    local gw = start()
    local tasks = {}
    for number = 1, 12 do
      tasks[number] = function()
        if number % 4 == 0 then gw:signal("HUP") end
        return reload(gw)
      end
    end
    local seen = {}
    for _, answer in ipairs(support.together(tasks)) do
      local result = assert_good(answer)
      assert.is_nil(seen[result.generation])
      seen[result.generation] = true
    end
    assert_word(gw, "one")
    support.wait_until("the old generations to be freed", function()
      local current = generations(gw)
      for _, entry in ipairs(current.generations) do
        if entry.number ~= current.current and entry.state ~= "retired" then return false end
      end
      return true
    end)
  end)

  it("do not wait in a line without end, whether or not those who asked have left", function()
    local gw = start()
    gw:write_policy("word", "while true do end")
    for _ = 1, 40 do
      local connection = support.connect(gw.admin_port)
      connection:send({ path = "/admin/reload", method = "POST",
        headers = { Host = "127.0.0.1" } })
      assert.equal(200, gw:admin({ path = "/healthz" }).status)
      connection:close()
    end
    local answer = reload(gw)
    assert.equal(503, answer.status)
    assert.equal("too_many_changes", answer:json().error.code)
    assert.equal(200, gw:admin({ path = "/healthz" }).status)
  end)

  it("go on when the operator leaves", function()
    local gw = start()
    gw:write_policy("word", saying("two"))
    local connection = support.connect(gw.admin_port)
    connection:send({ path = "/admin/reload", method = "POST",
      headers = { Host = "127.0.0.1" } })
    connection:close()
    gw:wait_log("generation 2 is in force")
    assert_word(gw, "two")
    assert.equal(200, gw:admin({ path = "/healthz" }).status)
  end)
end)

describe("ten reloads a second", function()
  after_each(support.finish)

  local ENOUGH = { reloads = 30, streams = 8, chats = 100 }
  local GROWTH_MAX_KIB = 6 * 1024

  --- What the process holds in memory; nil under a sanitizer, which keeps what was freed.
  local function resident_kib(gw)
    if support.BINARY:find("san", 1, true) then return nil end
    return tonumber(support.read_file(("/proc/%d/status"):format(gw.pid)):match("VmRSS:%s*(%d+)"))
  end

  --- An upstream that streams ten events in a second, or answers whole.
  local function mixed()
    return support.upstream(function(connection)
      while true do
        local request = connection:read_request()
        if not request then return end
        if not request:json().stream then
          connection:respond_json(200, { ok = true })
        else
          connection:start_chunked(200)
          for number = 1, 10 do
            connection:event({ n = number })
            local until_s = support.now() + 0.1
            support.wait_until("the next event", function() return support.now() > until_s end)
          end
          connection:event("[DONE]")
          connection:finish_chunked()
        end
      end
    end)
  end

  it("fail no request, cut no stream, and keep nothing", function()
    local up = mixed()
    local gw = start({ url = up.url, policies = { word = RELAYING } })
    local counts = { chats = 0, streams = 0, reloads = 0 }
    local wrong = {}
    local function note(what, fine, detail)
      if fine then counts[what] = counts[what] + 1 else wrong[#wrong + 1] = what .. detail end
    end
    local function is_enough()
      for what, count in pairs(ENOUGH) do
        if counts[what] < count and #wrong == 0 then return false end
      end
      return true
    end
    local function chatting()
      local connection = support.connect(gw.port)
      while not is_enough() do
        local answer = connection:request({ path = "/v1/chat/completions", method = "POST",
          body = '{"model":"m","messages":[]}', headers = { Host = "x",
            ["Content-Type"] = "application/json" } })
        note("chats", answer.status == 200, tostring(answer.status))
      end
    end
    local function streaming()
      while not is_enough() do
        local answer = gw:chat({ stream = true })
        note("streams", answer.ended == "complete" and answer.body:find("[DONE]", 1, true),
          tostring(answer.ended))
      end
    end
    local first_kib
    local function reloading()
      while not is_enough() do
        gw:write_policy("word", RELAYING .. "-- " .. counts.reloads)
        local answer = reload(gw)
        note("reloads", answer.status == 200, answer.body)
        if counts.reloads == 10 then first_kib = resident_kib(gw) end
        local until_s = support.now() + 0.1
        support.wait_until("the next reload", function() return support.now() > until_s end)
      end
    end
    support.together({ chatting, chatting, chatting, streaming, streaming, streaming, streaming,
      reloading }, 120)
    assert.same({}, wrong)
    support.wait_until("the old generations to be freed", function()
      local seen = generations(gw)
      for _, entry in ipairs(seen.generations) do
        if entry.number ~= seen.current and entry.state ~= "retired" then return false end
      end
      return true
    end)
    if first_kib then
      assert.is_true(resident_kib(gw) - first_kib < GROWTH_MAX_KIB)
    end
  end)
end)

describe("run --watch", function()
  after_each(support.finish)

  it("reloads what was edited, also what a link is moved to", function()
    local root = support.make_folder()
    for number, word in ipairs({ "one", "two" }) do
      local folder = ("%s/v%d"):format(root, number)
      os.execute("mkdir " .. folder)
      support.write_file(folder .. "/gateway.lua", config())
      support.write_file(folder .. "/word.lua", saying(word))
    end
    local folder = support.make_folder()
    os.execute(("ln -s %s/v1 %s/..data"):format(root, folder))
    for _, name in ipairs({ "gateway.lua", "word.lua" }) do
      os.execute(("ln -s ..data/%s %s/%s"):format(name, folder, name))
    end
    local gw = support.gateway({ folder = folder, args = { "--watch" } })
    gw:wait_log("watching")
    assert_word(gw, "one")
    os.execute(("ln -s %s/v2 %s/..new && mv -T %s/..new %s/..data"):format(root, folder, folder,
      folder))
    gw:wait_log("generation 2 is in force, by watch")
    assert_word(gw, "two")
    support.write_file(root .. "/v2/word.lua", saying("three"))
    gw:wait_log("generation 3 is in force, by watch")
    assert_word(gw, "three")
  end)

  it("tries a broken file once, and goes on when it is mended", function()
    local gw = start({ args = { "--watch" } })
    gw:write_policy("word", "return {")
    gw:wait_log("reload by watch refused")
    assert.equal(1, generations(gw).reloads.failed)
    gw:write_policy("word", saying("two"))
    gw:wait_log("generation 2 is in force, by watch")
    assert_word(gw, "two")
    assert.equal(1, generations(gw).reloads.failed)
  end)

  it("sees the files that helpers read", function()
    local text = config():gsub('url = "', 'headers = { ["x-a"] = file "a.txt" }, url = "')
    local gw = start({ config = text, files = { ["a.txt"] = "1" }, args = { "--watch" } })
    support.write_file(gw.folder_of_policies .. "/a.txt", "22")
    gw:wait_log("generation 2 is in force, by watch")
    assert.same({ "one" }, { word_of(gw) })
  end)
end)

local FAILING = "return function() error('wrong by design') end"

describe("a rollback", function()
  after_each(support.finish)

  it("comes by itself when policies fail too often", function()
    local gw = start({ settings = 'reload = { strikes = { count = 3, window = "60s" } },' })
    local good = generation(gw, 1).digest
    gw:write_policy("word", FAILING)
    gw:write_policy("gateway", config(
      'reload = { strikes = { count = 3, window = "60s" } }, log_level = "info",'))
    assert_good(reload(gw))
    for _ = 1, 3 do gw:chat() end
    gw:wait_log("generation 2 is taken back, by strikes: its policies failed 3 times within 60 s")
    gw:wait_log("generation 3 is in force")
    assert_word(gw, "one")
    local seen = generations(gw)
    assert.equal(3, seen.current)
    assert.equal(1, seen.reloads.rolled_back.strikes)
    local failed, restored = generation(gw, 2), generation(gw, 3)
    assert.equal("failed", failed.state)
    assert.truthy(failed.reason:find("wrong by design", 1, true))
    assert.equal(3, failed.figures.policy_faults.error)
    assert.truthy(failed.last_policy_error.text:find("word.lua:1", 1, true))
    assert.equal(1, restored.restored_from)
    assert.equal(good, restored.digest)
  end)

  it("does not come for fewer failures, nor when it is switched off", function()
    local gw = start({ settings = "reload = { strikes = { count = 0 } }," })
    gw:write_policy("word", FAILING)
    assert_good(reload(gw))
    for _ = 1, 12 do gw:chat() end
    support.wait_until("the figures", function()
      return generation(gw, 2).figures.policy_faults.error == 12
    end)
    assert.equal(2, generations(gw).current)
  end)

  it("has nothing to go back to at first, and says so once", function()
    local gw = start({ policies = { word = FAILING },
      settings = "reload = { strikes = { count = 2 } }," })
    for _ = 1, 9 do gw:chat() end
    gw:wait_log("generation 1 stays in force, there is no earlier one to go back to")
    support.wait_until("the figures", function()
      return generation(gw, 1).figures.policy_faults.error == 9
    end)
    local _, count = gw:stderr():gsub("no earlier one to go back to", "")
    assert.equal(1, count)
    local answer = post(gw, "rollback")
    assert.equal(409, answer.status)
    assert.equal("nothing_to_restore", answer:json().error.code)
  end)

  it("is the operator's to ask for, again and again as far as there is one before", function()
    local gw = start()
    for _, word in ipairs({ "two", "three" }) do
      gw:write_policy("word", saying(word))
      assert_good(reload(gw))
    end
    local result = assert_good(post(gw, "rollback"))
    assert.equal(4, result.generation)
    assert.equal(2, result.restored_from)
    assert.same({ "word.lua" }, result.changes.files.changed)
    assert_word(gw, "two")
    assert.equal(1, assert_good(post(gw, "rollback")).restored_from)
    assert_word(gw, "one")
    assert.equal(409, post(gw, "rollback").status)
    assert.equal(2, generations(gw).reloads.rolled_back.operator)
    assert.equal("failed", generation(gw, 3).state)
    assert_good(reload(gw))
    assert_word(gw, "three")
  end)

  it("is not undone by the files that are still there, watched or not", function()
    local gw = start({ args = { "--watch" },
      settings = "reload = { strikes = { count = 2 } }," })
    gw:write_policy("word", FAILING)
    gw:wait_log("generation 2 is in force, by watch")
    for _ = 1, 2 do gw:chat() end
    gw:wait_log("generation 3 is in force, by strikes")
    -- a change that has nothing to do with it is seen: the watch goes on
    gw:write_policy("word", saying("mended"))
    gw:wait_log("generation 4 is in force, by watch")
    assert_word(gw, "mended")
  end)
end)

describe("a canary", function()
  after_each(support.finish)

  --- Chats until the answer to `done` is true.
  local function keep_asking(gw, what, done)
    support.wait_until(what, function()
      for _ = 1, 4 do gw:chat() end
      return done()
    end, 30)
  end

  local function is_over(gw)
    return function() return type(generations(gw).canary) ~= "table" end
  end

  it("gets its share, and is promoted when it does well", function()
    local gw = start()
    gw:write_policy("word", saying("two"))
    local result = assert_good(reload(gw, "canary=50%25&for=3s"))
    assert.equal("canary", result.state)
    local words = { one = 0, two = 0 }
    support.wait_until("the promotion", function()
      local word = word_of(gw)
      words[word] = words[word] + 1
      return is_over(gw)()
    end, 30)
    assert.is_true(words.one > 0 and words.two > 0)
    assert_word(gw, "two")
    local seen = generations(gw)
    assert.equal(2, seen.current)
    assert.equal(1, seen.reloads.promoted)
    assert.truthy(generation(gw, 2).reason:find("promoted", 1, true))
    assert.equal("retired", generation(gw, 1).state)
  end)

  it("is taken back for its policies' errors", function()
    local gw = start({ settings = "reload = { strikes = { count = 0 } }," })
    gw:write_policy("word", FAILING)
    assert_good(reload(gw, "canary=50%&for=60s"))
    keep_asking(gw, "the rollback", is_over(gw))
    assert_word(gw, "one")
    local failed = generation(gw, 2)
    assert.equal("failed", failed.state)
    assert.truthy(failed.reason:find("policy error", 1, true), failed.reason)
    assert.equal(1, generations(gw).reloads.rolled_back.trial)
    gw:wait_log("generation 2, on trial, is taken back, by trial")
  end)

  it("is taken back for answers that fail", function()
    local gw = start()
    gw:write_policy("word", "return function(req) return req:respond(502, { word = 502 }) end")
    assert_good(reload(gw, "canary=50%&for=60s"))
    keep_asking(gw, "the rollback", is_over(gw))
    assert_word(gw, "one")
    local failed = generation(gw, 2)
    assert.truthy(failed.reason:find("fail", 1, true), failed.reason)
    assert.is_true(failed.figures.failed >= 3)
  end)

  it("is taken back for its time to the first token", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local gw = start({ url = up.url, policies = { word = RELAYING },
      settings = 'reload = { canary = { first_token_margin = "20ms", unfinished = 100 } },' })
    gw:write_policy("word", (RELAYING:gsub("local target", 'gw.sleep("60ms") local target')))
    assert_good(reload(gw, "canary=50%&for=60s"))
    keep_asking(gw, "the rollback", is_over(gw))
    local failed = generation(gw, 2)
    assert.equal("failed", failed.state)
    assert.truthy(failed.reason:find("first token", 1, true), failed.reason)
    assert.is_true(failed.figures.first_token_p50_ms >= 40)
  end)

  it("is in the way of another reload, unless that replaces it", function()
    local gw = start()
    gw:write_policy("word", saying("two"))
    assert_good(reload(gw, "canary=10%&for=60s"))
    local trial = generations(gw).canary
    assert.equal(2, trial.number)
    assert.is_true(math.abs(trial.share_ratio - 0.1) < 1e-6)
    assert.is_true(trial.left_ms > 50000)
    local answer = reload(gw)
    assert.equal(409, answer.status)
    assert.equal("canary_running", answer:json().error.code)
    assert.equal(3, assert_good(reload(gw, "replace=true")).generation)
    assert_word(gw, "two")
    assert.equal(3, generations(gw).current)
  end)

  it("is the operator's to promote or to take back", function()
    local gw = start()
    gw:write_policy("word", saying("two"))
    assert_good(reload(gw, "canary=10%&for=60s"))
    assert.equal(1, assert_good(post(gw, "rollback")).generation)
    assert.equal(0, #(type(generations(gw).canary) == "table" and { 1 } or {}))
    assert_word(gw, "one")
    assert_good(reload(gw, "canary=10%&for=60s"))
    assert.equal(3, assert_good(post(gw, "promote")).generation)
    assert_word(gw, "two")
    local answer = post(gw, "promote")
    assert.equal(409, answer.status)
    assert.equal("no_canary", answer:json().error.code)
  end)

  it("is asked for in the right form", function()
    local gw = start()
    for _, query in ipairs({ "canary=10", "canary=0%", "canary=100%", "canary=x%", "canary=-1%",
      "canary=10%&for=5", "canary=10%&for=1ms", "canary=10%&for=99h", "for=60s", "canary=nan%",
      "canary=0x1p3%", "canari=10%", "canary", "canary=10%&canary=20%", "replace=yes" }) do
      local answer = reload(gw, query)
      assert.equal(400, answer.status, query)
      assert.equal("bad_request", answer:json().error.code)
    end
    assert.equal(1, generations(gw).current)
  end)
end)
