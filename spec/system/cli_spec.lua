--- The command line: what it says, its exit status, what happens at the end of a run.

local support = require "support"

local CONFIG = [[
return {
  drain = "%s",
  providers = { one = { url = "%s/v1" } },
  routes = { { match = { model = "*" }, targets = { { provider = "one" } } } },
}
]]

--- On line 6 the second route names its policy.
local WITH_POLICY = [[
return {
  providers = { one = { url = "http://127.0.0.1:1/v1" } },
  routes = {
    { match = { model = "x" }, targets = { { provider = "one" } } },
    { match = { model = "*" }, targets = { { provider = "one" } },
      policy = "mine" },
  },
}
]]

local USAGE = { "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1" }

local function folder_of(files)
  local folder = support.make_folder()
  for name, text in pairs(files) do support.write_file(folder .. "/" .. name, text) end
  if not files["fallback.lua"] then
    support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
  end
  return folder
end

local function thread_count(process)
  local status = support.read_file(("/proc/%d/status"):format(process.pid))
  return tonumber(status:match("Threads:%s+(%d+)"))
end

--- `check` and `run` refuse a directory, both with exactly this text, and the directory before the
-- name of the file in each line.
local function assert_problems(files, text, env)
  local folder = folder_of(files)
  local checked = support.perilune({ "check", folder }, { env = env })
  local expected = folder .. "/" .. text:gsub("\n", "%0" .. folder .. "/") .. "\n"
  assert.same({ status = 1, stdout = "", stderr = expected }, checked)
  local ran = support.perilune({ "run", folder, unpack(USAGE) }, { env = env })
  assert.same(checked, ran)
end

describe("perilune", function()
  after_each(support.finish)

  local function assert_usage(arguments, words)
    local result = support.perilune(arguments)
    assert.equal(2, result.status)
    assert.equal("", result.stdout)
    assert.truthy(result.stderr:find(words, 1, true), result.stderr)
    assert.truthy(result.stderr:find("(see: perilune help)\n", 1, true), result.stderr)
  end

  it("help says what there is", function()
    local help = support.perilune({ "help" })
    assert.equal(0, help.status)
    assert.equal("", help.stderr)
    for _, word in ipairs({ "run [DIR]", "check [DIR]", "sim [FLAGS]", "version", "--listen",
      "--admin", "--workers", "SIGTERM" }) do
      assert.truthy(help.stdout:find(word, 1, true), word)
    end
    for _, words in ipairs({ { "--help" }, { "-h" }, { "run", "--help" }, { "run", "-h" },
      { "check", "-h" }, { "test", "--help" }, { "help", "run" }, { "help", "check" },
      { "help", "help" } }) do
      assert.same(help, support.perilune(words), table.concat(words, " "))
    end
    assert.truthy(support.perilune({ "check", "-x" }).stderr:find("unknown option -x", 1, true))
    for _, command in ipairs({ "sim", "simulate" }) do
      assert.same(support.perilune({ command, "--help" }), support.perilune({ "help", command }))
    end
    local nothing = support.perilune({})
    assert.equal(2, nothing.status)
    assert.equal(help.stdout, nothing.stdout)
  end)

  it("version is a line", function()
    local version = support.perilune({ "version" })
    assert.equal(0, version.status)
    assert.matches("^perilune %d+%.%d+%.%d+[%w.-]*\n$", version.stdout)
    for _, word in ipairs({ "--version", "-v", "-V" }) do
      assert.same(version, support.perilune({ word }), word)
    end
  end)

  it("refuses what it does not know", function()
    assert_usage({ "serve" }, "unknown command 'serve'")
    assert_usage({ "help", "serve" }, "unknown command 'serve'")
    assert_usage({ "" }, "unknown command ''")
    assert_usage({ "run", "--port", "1" }, "unknown option --port")
    assert_usage({ "run", "--listen" }, "--listen needs a value")
    assert_usage({ "run", "a", "b" }, "only one directory")
    assert_usage({ "check", "--listen", "127.0.0.1:0" }, "unknown option --listen")
    assert_usage({ "check", "a", "b" }, "only one directory")
  end)

  it("refuses addresses and numbers that are none", function()
    for _, address in ipairs({ "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http",
      "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:000080", "::1:80", "[]:80", "[::1:80", "" }) do
      assert_usage({ "run", "--listen", address }, "ADDR:PORT is expected")
    end
    assert_usage({ "run", "--admin=:1" }, "ADDR:PORT is expected")
    for _, number in ipairs({ "-1", "257", "two", "", "99999999999999999999" }) do
      assert_usage({ "run", "--workers", number }, "--workers: a number within 0..256")
    end
    local folder = folder_of({ ["gateway.lua"] = CONFIG:format("1s", "http://127.0.0.1:1") })
    for _, address in ipairs({ "example.com:80", "256.0.0.1:80", "127.1.:80" }) do
      local result = support.perilune({ "run", folder, "--listen", address, "--admin",
        "127.0.0.1:0" })
      assert.equal(1, result.status)
      assert.truthy(result.stderr:find("is not a numeric address", 1, true), result.stderr)
    end
  end)

  it("refuses an admin address that others can reach, unless there is a token", function()
    local text = CONFIG:format("1s", "http://127.0.0.1:1")
    local folder = folder_of({ ["gateway.lua"] = text })
    assert_usage({ "run", folder, "--admin", "0.0.0.0:0" }, "needs admin.token")
    assert_problems({ ["gateway.lua"] = text:gsub("return {", 'return { admin = { address = '
      .. '"0.0.0.0:9901" },') }, 'gateway.lua:1: admin.token: is required, because admin.address '
      .. 'can be reached from other machines')
    folder = folder_of({ ["gateway.lua"] = text:gsub("return {",
      'return { admin = { token = "secret" },') })
    local gw = support.gateway({ folder = folder, args = { "--admin=0.0.0.0:0" } })
    assert.equal(200, gw:admin({ path = "/healthz" }).status)
  end)

  it("cannot listen where somebody else does", function()
    local taken = support.upstream(function() end)
    local folder = folder_of({ ["gateway.lua"] = CONFIG:format("1s", "http://127.0.0.1:1") })
    local address = "127.0.0.1:" .. taken.port
    for _, workers in ipairs({ 1, 2 }) do
      local result = support.perilune({ "run", folder, "--listen", address, "--admin",
        "127.0.0.1:0", "--workers", workers })
      assert.equal(1, result.status)
      assert.equal(("perilune: cannot listen on 127.0.0.1 port %d: Address already in use\n")
        :format(taken.port), result.stderr)
    end
    local result = support.perilune({ "run", folder, "--admin", address, "--listen",
      "127.0.0.1:0" })
    assert.equal(1, result.status)
    assert.truthy(result.stderr:find("perilune: admin: cannot listen on", 1, true), result.stderr)
  end)

  it("says where it serves, and listens where it is told to", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local port = support.free_port()
    local folder = folder_of({ ["gateway.lua"] = CONFIG:format("1s", up.url):gsub("return {",
      'return { listen = { address = "127.0.0.1:1" }, workers = 1, admin = { address = '
      .. '"127.0.0.1:2" },') })
    local gw = support.gateway({ folder = folder, args = { "--listen=127.0.0.1:" .. port,
      "--workers=4" } })
    assert.equal(port, gw.port)
    assert.equal(("perilune: listening on 127.0.0.1:%d, admin on 127.0.0.1:%d\n"):format(port,
      gw.admin_port), gw:stdout())
    assert.equal(200, gw:chat().status)
    assert.equal(200, gw:admin({ path = "/readyz" }).status)
    local one = support.gateway({ folder = folder, args = { "--workers=1" } })
    support.wait_until("three threads more", function() -- they start behind the first line
      return thread_count(gw) - thread_count(one) == 3
    end)
  end)

  it("runs as many workers as the configuration may ask for", function()
    local folder = folder_of({ ["gateway.lua"] = CONFIG:format("1s", "http://127.0.0.1:1"):gsub(
      "return {", 'return { workers = 80, listen = { address = "127.0.0.1:0" }, admin = { '
      .. 'address = "127.0.0.1:0" },') })
    local run = support.start({ command = { support.BINARY, "run", folder } })
    local port = tonumber((run:wait_output("stdout", "listening on %S-:(%d+)")))
    for _ = 1, 20 do
      assert.equal(200, support.request({ to = port, path = "/v1/models" }).status)
    end
  end)
end)

describe("perilune check", function()
  after_each(support.finish)

  it("finds the shipped policies well", function()
    local checked = support.perilune({ "check", "policies" })
    assert.equal("", checked.stderr)
    assert.equal(0, checked.status)
    assert.matches("^policies: ok %(%d+ providers, %d+ targets%)\n$", checked.stdout)
    assert.same(checked, support.perilune({ "check" }))
  end)

  it("and run name a directory that is not there", function()
    for _, command in ipairs({ "check", "run" }) do
      assert.same({ status = 1, stdout = "",
        stderr = "/nowhere/policies: No such file or directory\n" },
        support.perilune({ command, "/nowhere/policies" }))
      local file = folder_of({ ["gateway.lua"] = "" }) .. "/gateway.lua"
      assert.same({ status = 1, stdout = "", stderr = file .. ": Not a directory\n" },
        support.perilune({ command, file }))
      local empty = folder_of({})
      assert.same({ status = 1, stdout = "",
        stderr = empty .. "/gateway.lua: there is no such file in the directory\n" },
        support.perilune({ command, empty .. "//" }))
    end
  end)

  it("and run name the line of a syntax error", function()
    assert_problems({ ["gateway.lua"] = 'return {\n  providers = {}\n  routes = {},\n}\n' },
      "gateway.lua:3: '}' expected (to close '{' at line 1) near 'routes'")
  end)

  it("and run suggest what a key may have meant, for all at once", function()
    assert_problems({ ["gateway.lua"] = 'return {\n  provider = {},\n  routes = {\n'
      .. '    { match = { modle = "x" }, targets = { { provider = "one" } } },\n  },\n'
      .. '  providers = { on = { url = "http://127.0.0.1:1", timeouts = { connect = 5 } } },\n'
      .. '}\n' },
      'gateway.lua:2: provider: unknown key: did you mean "providers"?\n'
      .. 'gateway.lua:4: routes[1].match.modle: unknown key: did you mean "model"?\n'
      .. 'gateway.lua:4: routes[1].targets[1].provider: there is no provider "one": did you mean '
      .. '"on"?\n'
      .. 'gateway.lua:6: providers.on.timeouts.connect: is ambiguous: write "5s" or "5ms"')
  end)

  it("and run refuse what is no configuration", function()
    assert_problems({ ["gateway.lua"] = "return 5" },
      "gateway.lua: must end with return { ... }, one table; got 5")
    assert_problems({ ["gateway.lua"] = "\27LJ\2" },
      "gateway.lua: is compiled code; only the text of a script is read")
    assert_problems({ ["gateway.lua"] = 'return { listen = os.getenv("X") }' },
      'gateway.lua:1: unknown name "os": only env, secret and file exist here')
    assert_problems({ ["gateway.lua"] = 'local t = ("x"):rep(1e6)\nwhile true do t = t .. t end' },
      "gateway.lua: not enough memory")
    assert_problems({ ["gateway.lua"] = ("x"):rep(1024 * 1024 + 1) },
      "gateway.lua: is larger than 1048576 bytes")
  end)

  it("and run name the line that wants a policy that is not there", function()
    assert_problems({ ["gateway.lua"] = WITH_POLICY },
      "gateway.lua:6: routes[2].policy: there is no file mine.lua in the directory")
  end)

  it("and run name the line of a policy that does not load", function()
    local function assert_refused(source, text)
      assert_problems({ ["gateway.lua"] = WITH_POLICY, ["mine.lua"] = source }, text)
    end
    assert_refused("local x =\nreturn function( end", "mine.lua:2: unexpected symbol near 'return'")
    assert_refused("local x = {}\nx.y.z = 1",
      "mine.lua:2: attempt to index field 'y' (a nil value)")
    assert_refused("x = 1", "mine.lua:1: global 'x' cannot be set: declare it with 'local'")
    assert_refused("\nlocal io = require 'io'",
      "mine.lua:2: module 'io': there is no file io.lua in the directory")
    assert_refused("error {}", "mine.lua: raises an error without a message")
    assert_refused("\27LJ\2", "mine.lua: is compiled code; only the text of a script is read")
  end)

  it("and run refuse a policy file that returns no function", function()
    for source, got in pairs({ ["local x = 1"] = "nil", ["return {}"] = "table",
      ["return 'fallback'"] = "string" }) do
      assert_problems({ ["gateway.lua"] = WITH_POLICY, ["mine.lua"] = source },
        "mine.lua: must return a function(req, route), got " .. got)
    end
  end)

  it("and run warn of what looks like a mistake, and go on", function()
    local folder = folder_of({ ["gateway.lua"] = WITH_POLICY:gsub('url = "[^"]*"',
      '%0, key = env "ONE_KEYY"'),
      ["mine.lua"] = 'local lib = require "lib"\n\nreturn function(req) return lib(stirng) end',
      ["lib.lua"] = "return function(text)\n  count = #text\nend" })
    local function lines(...)
      return (folder .. "/" .. table.concat({ ... }, "\n" .. folder .. "/") .. "\n")
    end
    local expected = lines("gateway.lua:2: warning: providers.one.key: the variable ONE_KEYY is "
      .. 'not set, so it is as if this were not written (secret "ONE_KEYY" would refuse that; env '
      .. '"ONE_KEYY" or nil says that it may be missing)',
      "mine.lua:3: warning: there is no global 'stirng', it is nil here: did you mean \"string\"?",
      "lib.lua:2: warning: assigns the global 'count', which is an error when it runs: declare it "
      .. "with 'local'")
    assert.same({ status = 0, stderr = expected,
      stdout = folder .. ": ok (1 providers, 2 targets)\n" }, support.perilune({ "check", folder }))
    local gw = support.gateway({ folder = folder })
    gw:wait_log(" warn +gateway.lua:2: warning: providers%.one%.key: ")
    gw:wait_log(" warn +lib.lua:2: warning: assigns the global 'count'")
    gw:write_policy("lib", "return function(text) return coutn end")
    assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    gw:wait_log(" warn +lib.lua:1: warning: there is no global 'coutn'")
  end)

  it("and run stop a policy file that waits, or computes without end", function()
    for call, said in pairs({
      ['gw.sleep("1s")'] = "this can be called only while a request is handled",
      ["for _ in gw.candidates({}) do end"] = "perilune.candidates: a route is expected",
    }) do
      local folder = folder_of({ ["gateway.lua"] = WITH_POLICY,
        ["mine.lua"] = 'local gw = require "perilune"\n' .. call })
      for _, command in ipairs({ "check", "run" }) do
        local result = support.perilune({ command, folder })
        assert.equal(1, result.status)
        assert.equal(("%s/mine.lua:2: %s\n"):format(folder, said), result.stderr)
      end
    end
    local folder = folder_of({ ["gateway.lua"] = WITH_POLICY,
      ["mine.lua"] = "while true do\n  pcall(function() while true do end end)\nend" })
    assert.same({ status = 1, stdout = "",
      stderr = folder .. "/mine.lua:2: the CPU budget of 2000 ms is used up\n" },
      support.perilune({ "check", folder }))
  end)
end)

describe("env, secret and file", function()
  after_each(support.finish)

  local function config(key, up)
    return ('return {\n  providers = {\n    one = { url = "%s/v1",\n      key = %s },\n  },\n'
      .. '  routes = { { match = { model = "*" }, targets = { { provider = "one" } } } },\n}\n'
      ):format(up and up.url or "http://127.0.0.1:1", key)
  end

  it("give the credential that is sent", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local outside = support.make_folder() .. "/key"
    support.write_file(outside, "sk-of-file\n")
    for _, case in ipairs({
      { 'env "ONE_KEY"', { ONE_KEY = "sk-of-env" }, "sk-of-env" },
      { 'env("ONE_KEY", "sk-default")', {}, "sk-default" },
      { 'secret "ONE_KEY"', { ONE_KEY = "sk-of-env" }, "sk-of-env" },
      { 'secret "ONE_KEY"', { ONE_KEY_FILE = outside }, "sk-of-file" },
      { 'secret "ONE_KEY"', { ONE_KEY_FILE = "inside.key" }, "sk-inside" },
      { 'file "inside.key"', {}, "sk-inside" },
      { ('file "%s"'):format(outside), {}, "sk-of-file" },
    }) do
      local gw = support.gateway({ config = config(case[1], up), env = case[2], workers = 2,
        files = { ["inside.key"] = "sk-inside\n" } })
      assert.equal(200, gw:chat().status)
      assert.equal("Bearer " .. case[3], up.requests[#up.requests].headers.authorization)
      assert.falsy((gw:stdout() .. gw:stderr()):find("sk-", 1, true))
      gw:stop()
    end
  end)

  it("say on which line what is missing", function()
    assert_problems({ ["gateway.lua"] = config('secret "ONE_KEY"') },
      "gateway.lua:4: secret ONE_KEY: neither the variable nor its _FILE form is set")
    assert_problems({ ["gateway.lua"] = config('secret "ONE_KEY"') },
      "gateway.lua:4: secret ONE_KEY: No such file or directory", { ONE_KEY_FILE = "/nowhere" })
    assert_problems({ ["gateway.lua"] = config('secret "ONE_KEY"') },
      "gateway.lua:4: secret ONE_KEY: is not a regular file", { ONE_KEY_FILE = "/" })
    assert_problems({ ["gateway.lua"] = config('file "none.key"') },
      "gateway.lua:4: file none.key: No such file or directory")
    assert_problems({ ["gateway.lua"] = config("env()") },
      'gateway.lua:4: env: needs a name, such as env "NAME"')
  end)

  it("never show a secret", function()
    local folder = folder_of({ ["gateway.lua"] = config('secret "ONE_KEY"') })
    for _, value in ipairs({ "sk-with\nline", "sk-" .. ("x"):rep(9000), "sk-\1" }) do
      local result = support.perilune({ "check", folder }, { env = { ONE_KEY = value } })
      assert.equal(1, result.status)
      assert.matches("/gateway.lua:4: providers.one.key: ", result.stderr)
      assert.falsy(result.stderr:find("sk-", 1, true), result.stderr)
    end
  end)
end)

describe("a secret in the wrong place", function()
  after_each(support.finish)

  it("is not told by what refuses it", function()
    local values = { "sk-0123456789abcdef", "short", 'sk-"quoted"\\back',
      "https://me:pass@host/path", "https://h/" .. ("k"):rep(300), "sk 5p4c3s are there" }
    local places = { "url = secret 'K'", "api = secret 'K'", "timeouts = { connect = secret 'K' }",
      "health = secret 'K'", "weird = secret 'K'", "url = 'ftp://' .. secret 'K'",
      "url = 'http://h/v1', headers = { [secret 'K'] = 'x y' }",
      "tls = { ca = 5, x = secret 'K' }" }
    local file = folder_of({ ["gateway.lua"] = "" })
    for _, value in ipairs(values) do
      for _, place in ipairs(places) do
        support.write_file(file .. "/gateway.lua", WITH_POLICY:gsub('url = "[^"]*"', function()
          return place
        end))
        local result = support.perilune({ "check", file }, { env = { K = value } })
        for first = value:match("^https://()") or 1, #value - 5 do
          local piece = value:sub(first, first + 5)
          assert.falsy(result.stderr:find(piece, 1, true), place .. ": " .. result.stderr)
        end
        assert.falsy(result.stderr:find('"' .. value .. '"', 1, true), result.stderr)
      end
    end
  end)

  it("is not told as a policy's name either", function()
    local folder = folder_of({ ["gateway.lua"] = WITH_POLICY:gsub('"mine"', 'secret "K"') })
    local result = support.perilune({ "check", folder }, { env = { K = "sk0123456789abcdef" } })
    assert.equal(1, result.status)
    assert.matches("gateway.lua:6: routes%[2%].policy: ", result.stderr)
    assert.falsy(result.stderr:find("23456789", 1, true), result.stderr)
  end)
end)

describe("SIGTERM", function()
  after_each(support.finish)

  --- An upstream that sends one event, and the rest when it is told to.
  local function start_streaming()
    local up
    up = support.upstream(function(connection)
      connection:read_request()
      connection:start_chunked()
      connection:event({ n = 1 })
      support.wait_until("the word to go on", function()
        return up.may_end or connection.stream.sock == nil
      end, 20)
      connection:event("[DONE]")
      connection:finish_chunked()
    end)
    return up
  end

  --- A client with one event of a stream.
  local function open_stream(gw)
    local response = gw:chat({ stream = true, streamed = true })
    assert.equal(200, response.status)
    assert.equal('{"n":1}', response:next_event().data)
    return response
  end

  local function is_refused(port)
    local ok, connection = pcall(support.connect, port)
    if ok then connection:close() end
    return not ok
  end

  it("lets a stream in progress end, and refuses new connections meanwhile", function()
    local up = start_streaming()
    local gw = support.gateway({ config = CONFIG:format("20s", up.url) })
    local idle = support.connect(gw)
    assert.equal(404, idle:request({ path = "/" }).status)
    local response = open_stream(gw)
    gw:signal("TERM")
    gw:wait_log("draining, at most 20000 ms")
    assert.equal("closed", idle:wait_closed(5))
    support.wait_until("connections to be refused", function() return is_refused(gw.port) end)
    assert.is_nil(gw:exit_status())
    up.may_end = true
    assert.equal("[DONE]", response:next_event().data)
    assert.same({ nil, "complete" }, { response:next_event() })
    assert.equal(0, gw:wait_exit(5))
  end)

  it("lets a request that is being sent be answered, and says that it is the last", function()
    local up = support.answering(function() return 200, { ok = true } end)
    local gw = support.gateway({ config = CONFIG:format("20s", up.url) })
    local connection = support.connect(gw)
    connection:write("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n")
    support.wait_until("the head to be read", function()
      gw:request({ path = "/" })
      return true
    end)
    gw:signal("TERM")
    gw:wait_log("draining")
    support.wait_until("connections to be refused", function() return is_refused(gw.port) end)
    connection:write('{"model":"m"}')
    local answer = connection:read_response()
    assert.equal(200, answer.status)
    assert.equal("close", answer.headers.connection)
    assert.equal("closed", connection:wait_closed())
    assert.equal(0, gw:wait_exit(5))
  end)

  it("ends at once when nothing is in flight, as SIGINT does", function()
    for _, signal in ipairs({ "TERM", "INT" }) do
      local gw = support.gateway({ config = CONFIG:format("20s", "http://127.0.0.1:1") })
      local since = support.now()
      gw:signal(signal)
      assert.equal(0, gw:wait_exit())
      assert.is_true(support.now() - since < 10)
    end
  end)

  it("ends at once when it comes again", function()
    local up = start_streaming()
    local gw = support.gateway({ config = CONFIG:format("20s", up.url), workers = 4 })
    local responses = { open_stream(gw), open_stream(gw) }
    local before = thread_count(gw)
    gw:signal("TERM")
    gw:wait_log("draining")
    support.wait_until("idle workers to end", function() return thread_count(gw) <= before - 2 end)
    gw:signal("INT")
    assert.equal(0, gw:wait_exit(5))
    for _, response in ipairs(responses) do
      response:read_body()
      assert.not_equal("complete", response.ended)
    end
  end)

  it("cuts off what is not done when the drain time is over", function()
    local up = start_streaming()
    local gw = support.gateway({ config = CONFIG:format("300ms", up.url) })
    local response = open_stream(gw)
    local since = support.now()
    gw:signal("TERM")
    response:read_body()
    assert.not_equal("complete", response.ended)
    assert.equal(0, gw:wait_exit(5))
    assert.is_true(support.now() - since >= 0.2)
    assert.truthy(gw:stderr():find("1 requests cut off", 1, true))
    support.wait_until("the upstream to be left", function()
      return up.connections[1].stream:wait_closed(0.01)
    end)
  end)
end)
