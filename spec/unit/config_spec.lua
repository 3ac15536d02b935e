local config = require "perilune.config"
local schema = require "perilune.schema"

local REFERENCE = "policies/gateway.lua"

local function describe_all(problems)
  local lines = {}
  for position, problem in ipairs(problems) do
    lines[position] = config.describe(problem)
  end
  return lines
end

--- Every problem of a text, as lines.
local function problems_of(source, helpers)
  local loaded, code, problems = config.load(source, "gateway.lua", helpers)
  assert.is_nil(loaded)
  assert.are.equal("invalid", code)
  return describe_all(problems)
end

local function load(source, helpers)
  local loaded, _, problems = config.load(source, "gateway.lua", helpers)
  if not loaded then error(table.concat(describe_all(problems), "\n"), 2) end
  return loaded
end

--- A small configuration with additions, each on a line of its own: `top` on 2, `primary` on 4,
-- `providers` on 5, `route` on 9, `first` (of two targets) on 11, `targets` on 13, `routes` on 15.
local function gateway(parts)
  local text = [[
return {
  $top
  providers = {
    primary = { url = "$url", $primary },
    $providers
  },
  routes = {
    {
      $route
      targets = {
        { provider = "primary", $first },
        { provider = "primary", model = "m" },
        $targets
      } },
      $routes
  } }]]
  return (text:gsub("%$(%w+)", function(name)
    return parts[name] or (name == "url" and "http://127.0.0.1:8000/v1" or "")
  end))
end

local function check_refused(cases)
  for _, case in ipairs(cases) do
    local parts = { [case[1]] = case[2], url = case.url }
    assert.are.same({ "gateway.lua:" .. case[3] }, problems_of(gateway(parts)))
  end
end

local function check_accepted(where, texts)
  for _, text in ipairs(texts) do
    load(gateway { [where] = text })
  end
end

describe("config.load, evaluating", function()
  it("gives syntax errors with their line", function()
    assert.are.same({ "gateway.lua:3: '}' expected (to close '{' at line 1) near '<eof>'" },
      problems_of("return {\na = 1\n"))
    assert.are.same({ "gateway.lua:3: unexpected symbol near '='" }, problems_of("\n\n= 1"))
  end)

  it("gives runtime errors with their line", function()
    local line = problems_of("local t = nil\nreturn {\n  listen = t.x,\n}")[1]
    assert.are.equal("gateway.lua:3: attempt to index local 't' (a nil value)", line)
    assert.are.same({ "gateway.lua:1: stack overflow" },
      problems_of("local function f() return 1 + f() end return f()"))
  end)

  it("takes text only", function()
    local bytecode = string.dump(function() return {} end)
    assert.are.same({ "gateway.lua: is compiled code; only the text of a script is read" },
      problems_of(bytecode))
    assert.has_error(function() config.load(nil, "gateway.lua") end,
      "perilune.config: source must be a string")
  end)

  it("offers no library and no globals", function()
    for _, name in ipairs { "os", "io", "require", "load", "string", "pcall", "_G", "math" } do
      assert.are.same(
        { 'gateway.lua:2: unknown name "' .. name .. '": only env, secret and file exist here' },
        problems_of("\nlocal x = " .. name .. "\nreturn {}"))
    end
    assert.are.same({ "gateway.lua:1: write local x = ...: there are no globals here" },
      problems_of("x = 1 return {}"))
  end)

  it("wants one table", function()
    for got, source in pairs {
      ["nil"] = "", ["5"] = "return 5", ['"x"'] = 'return "x"',
      ["a function"] = "return function() end",
    } do
      assert.are.same({ "gateway.lua: must end with return { ... }, one table; got " .. got },
        problems_of(source))
    end
  end)

  it("names the file as it was given, without the at sign", function()
    local _, _, problems = config.load("return 5", "@policies/gateway.lua")
    assert.are.equal("policies/gateway.lua", problems[1].file)
    assert.are.equal("", problems[1].key)
    assert.is_nil(problems[1].line)
  end)

  it("keeps a long file name out of the way of line numbers", function()
    local name = ("very-long-directory/"):rep(10) .. "gateway.lua"
    local _, _, problems = config.load("\nreturn {", name)
    assert.are.equal(name, problems[1].file)
    assert.are.equal(2, problems[1].line)
  end)
end)

describe("config.load, helpers", function()
  local helpers = {
    env = function(name) return ({ TOKEN = "t0k", WORKERS = "4" })[name] end,
    secret = function(name)
      if name == "KEY" then return "sk-1\n" end
      return nil, "neither " .. name .. " nor " .. name .. "_FILE is set"
    end,
    file = function(path)
      if path == "key.txt" then return "sk-2 \n" end
      error("cannot open " .. path, 0)
    end,
  }

  it("gives variables, defaults, secrets and files", function()
    local loaded = load(gateway {
      top = 'admin = { token = env "TOKEN" }, workers = env("WORKERS", "1") + 0,'
        .. 'log_level = env("LEVEL", "debug"),',
      primary = 'key = secret "KEY", tls = env "NOTHING",',
      providers = 'other = { url = "http://h", key = file "key.txt" },',
    }, helpers)
    assert.are.equal("t0k", loaded.admin.token)
    assert.are.equal(4, loaded.workers)
    assert.are.equal("debug", loaded.log_level)
    assert.are.equal("sk-2", loaded.providers[1].key)
    assert.are.equal("sk-1", loaded.providers[2].key)
  end)

  it("gives their failures with the line of the call", function()
    for message, text in pairs {
      ["secret X: neither X nor X_FILE is set"] = 'key = secret "X"',
      ["file x: cannot open x"] = 'key = file "x"',
      ['env: needs a name, such as env "NAME"'] = "key = env()",
      ['secret: needs a name, such as secret "NAME"'] = 'key = secret ""',
      ['file: needs a name, such as file "NAME"'] = "key = file {}",
    } do
      assert.are.same({ "gateway.lua:4: " .. message },
        problems_of(gateway { primary = text }, helpers))
    end
  end)

  it("copes with helpers that are missing or broken", function()
    assert.are.same({ "gateway.lua:4: env: is not available here" },
      problems_of(gateway { primary = 'key = env "X"' }))
    assert.are.same({ "gateway.lua:4: env X: gave a number instead of a string" },
      problems_of(gateway { primary = 'key = env "X"' }, { env = function() return 5 end }))
    assert.are.same({ "gateway.lua:4: env X: broken" },
      problems_of(gateway { primary = 'key = env "X"' },
        { env = function() error("broken", 0) end }))
    assert.are.same({ "gateway.lua:4: secret X: neither the variable nor its _FILE form is set" },
      problems_of(gateway { primary = 'key = secret "X"' }, { secret = function() end }))
  end)
end)

describe("config.load, refusing", function()
  it("refuses unknown keys and says what was meant", function()
    check_refused {
      { "top", "liste = {},", '2: liste: unknown key: did you mean "listen"?' },
      { "top", "health = {},", "2: health: unknown key: known here: listen, admin, workers, drain, "
        .. "log_level, response_headers, limits, providers, routes" },
      { "top", 'listen = { adress = "x" },',
        '2: listen.adress: unknown key: did you mean "address"?' },
      { "primary", "health = {}", "4: providers.primary.health: unknown key: known here: api, url, "
        .. "key, auth, headers, tls, connections, timeouts" },
      { "primary", 'timeouts = { first_tokn = "1s" }',
        '4: providers.primary.timeouts.first_tokn: unknown key: did you mean "first_token"?' },
      { "route", "retry = { attemps = 2 },",
        '9: routes[1].retry.attemps: unknown key: did you mean "attempts"?' },
      { "first", "wieght = 5",
        '11: routes[1].targets[1].wieght: unknown key: did you mean "weight"?' },
      { "first", '["strange key"] = 5', '11: routes[1].targets[1]["strange key"]: unknown key: '
        .. "known here: provider, model, priority, weight, headers, body, timeouts" },
      { "first", '"m"', "11: routes[1].targets[1][1]: unknown key: known here: provider, model, "
        .. "priority, weight, headers, body, timeouts" },
    }
  end)

  it("refuses wrong types", function()
    check_refused {
      { "top", 'listen = "0.0.0.0:80",', '2: listen: must be a table, got "0.0.0.0:80"' },
      { "top", 'workers = "4",', '2: workers: must be a whole number from 0 to 256, got "4"' },
      { "top", "response_headers = 1,", "2: response_headers: must be true or false, got 1" },
      { "top", "log_level = true,",
        '2: log_level: must be "error", "warn", "info", "debug", got true' },
      { "primary", "headers = 5", "4: providers.primary.headers: must be a table, got 5" },
      { "primary", "key = {}", "4: providers.primary.key: must be a string, got a table" },
      { "first", 'weight = "x"',
        '11: routes[1].targets[1].weight: must be a number >= 0, got "x"' },
      { "route", "match = { model = 5 },",
        "9: routes[1].match.model: must be a string or a list of strings, got 5" },
      { "route", "models = { a = 1 },",
        "9: routes[1].models.a: is not a position: this is a list" },
      { "targets", '"primary",', '13: routes[1].targets[3]: must be a table, got "primary"' },
      { "routes", "5,", "15: routes[2]: must be a table, got 5" },
    }
  end)

  it("names the bounds of numbers", function()
    check_refused {
      { "top", "workers = 257,", "2: workers: must be a whole number from 0 to 256, got 257" },
      { "top", "workers = 1.5,", "2: workers: must be a whole number from 0 to 256, got 1.5" },
      { "top", "limits = { header_count = 0 },",
        "2: limits.header_count: must be a whole number from 1 to 1000, got 0" },
      { "top", "limits = { connections = 1000001 },",
        "2: limits.connections: must be a whole number from 1 to 1000000, got 1000001" },
      { "primary", "connections = { idle = -1 }",
        "4: providers.primary.connections.idle: must be a whole number from 0 to 4096, got -1" },
      { "first", "weight = -1", "11: routes[1].targets[1].weight: must be a number >= 0, got -1" },
      { "first", "weight = 1 / 0",
        "11: routes[1].targets[1].weight: must be a number >= 0, got inf" },
      { "first", "priority = -1",
        "11: routes[1].targets[1].priority: must be a whole number from 0 to 1000, got -1" },
      { "first", "priority = 0.5",
        "11: routes[1].targets[1].priority: must be a whole number from 0 to 1000, got 0.5" },
      { "route", "retry = { attempts = 0 },",
        "9: routes[1].retry.attempts: must be a whole number from 1 to 64, got 0" },
    }
  end)

  it("names what is wrong with durations", function()
    check_refused {
      { "top", "drain = 30,", '2: drain: is ambiguous: write "30s" or "30ms"' },
      { "top", 'drain = "2h",', '2: drain: must be a duration from 0ms to 1h, got "2h"' },
      { "top", 'drain = "soon",',
        '2: drain: must be a duration such as "10s" or "100ms", got "soon"' },
      { "top", 'limits = { body_idle = "1ms" },',
        '2: limits.body_idle: must be a duration from 10ms to 1h, got "1ms"' },
      { "primary", "timeouts = { connect = 5 }",
        '4: providers.primary.timeouts.connect: is ambiguous: write "5s" or "5ms"' },
      { "primary", 'timeouts = { connect = "0s" }',
        '4: providers.primary.timeouts.connect: must be a duration from 1ms to 10m, got "0s"' },
      { "primary", 'timeouts = { idle = "1 s" }', "4: providers.primary.timeouts.idle: "
        .. 'must be a duration such as "10s" or "100ms", got "1 s"' },
      { "first", 'timeouts = { try = "25h" }',
        '11: routes[1].targets[1].timeouts.try: must be a duration from 0ms to 24h, got "25h"' },
      { "route", 'deadline = "0s",',
        '9: routes[1].deadline: must be a duration from 1ms to 24h, got "0s"' },
      { "route", 'deadline = "10sec",',
        '9: routes[1].deadline: has an unknown unit "sec": write ms, s, m or h, got "10sec"' },
    }
  end)

  it("names what is wrong with sizes", function()
    check_refused {
      { "top", 'limits = { body = "1GiB" },',
        '2: limits.body: must be a size from 1KiB to 256MiB, got "1GiB"' },
      { "top", 'limits = { head = "64KB" },',
        '2: limits.head: has an unknown unit "KB": write B, KiB, MiB or GiB, got "64KB"' },
      { "top", "limits = { request_line = 1.5 },", "2: limits.request_line: must be a size such as "
        .. '"64KiB" or a whole number of bytes, got 1.5' },
      { "top", 'limits = { request_line = "64KiB", head = "32KiB" },',
        "2: limits.request_line: must not be more than limits.head" },
    }
  end)

  it("refuses listeners that cannot work", function()
    local form = 'must be "address:port", such as "127.0.0.1:8080" or "[::1]:8080"'
    check_refused {
      { "top", 'listen = { address = "8080" },', '2: listen.address: ' .. form .. ', got "8080"' },
      { "top", 'listen = { tls = { cert = "c.pem" } },',
        "2: listen.tls.key: is required: the private key of the certificate, PEM" },
      { "top", 'listen = { tls = { key = "k.pem" } },',
        "2: listen.tls.cert: is required: the certificate chain, PEM" },
      { "top", 'listen = { tls = { cert = "c\\n", key = "k" } },',
        '2: listen.tls.cert: must not hold control characters, got "c\\010"' },
      { "top", 'admin = { address = "0.0.0.0:9901" },',
        "2: admin.token: is required, because admin.address can be reached from other machines" },
      { "top", 'admin = { address = "[::]:9901", token = nil },',
        "2: admin.token: is required, because admin.address can be reached from other machines" },
      { "top", 'admin = { token = "" },', "2: admin.token: must not be empty" },
      { "top", 'admin = { address = "0.0.0.0:9901", token = "" },',
        "2: admin.token: must not be empty" },
      { "top", 'admin = { token = "a\\nb" },',
        "2: admin.token: must not hold CR, LF or other control characters" },
      { "top", 'admin = { address = "127.0.0.1:8080" },',
        "2: admin.address: is the same as listen.address" },
    }
    check_accepted("top", {
      'admin = { address = "0.0.0.0:9901", token = "t" },', 'admin = { address = "[::1]:9901" },',
      'listen = { address = "127.0.0.1:0" }, admin = { address = "127.0.0.1:0" },',
    })
  end)

  it("refuses URLs, each with its reason", function()
    for url, reason in pairs {
      ["ftp://h"] = "must start with http:// or https://",
      ["http://"] = "has no host",
      ["http://u:hunter2@h"] =
        "must not hold a user name or password: use key or headers for credentials",
      ["http://h/v1?key=1"] = 'must not have a query ("?")',
      ["http://h/v1#x"] = 'must not have a fragment ("#")',
      ["http://::1/v1"] = 'has an IPv6 address without brackets: write "http://[::1]:8000"',
      ["http://h:0"] = "has a port that is not a number from 1 to 65535",
      [""] = "must not be empty",
    } do
      assert.are.same({ "gateway.lua:4: providers.primary.url: " .. reason },
        problems_of(gateway { url = url }))
    end
    check_refused { { "providers", "p = {},", "5: providers.p.url: is required" } }
  end)

  it("refuses credentials that contradict each other, and never shows one", function()
    check_refused {
      { "primary", 'key = "sk", auth = "passthrough"', '4: providers.primary.auth: cannot be '
        .. '"passthrough" together with key: upstreams get one credential or the other' },
      { "primary", 'auth = "none"',
        '4: providers.primary.auth: must be "passthrough", got "none"' },
      { "primary", 'key = "sk-\\r\\nx: y"',
        "4: providers.primary.key: must not hold CR, LF or other control characters" },
      { "primary", 'key = ""', "4: providers.primary.key: must not be empty" },
      { "primary", 'key = "sk", headers = { Authorization = "x" }',
        "4: providers.primary.headers.Authorization: cannot be set together with key or auth" },
      { "primary", 'auth = "passthrough", headers = { authorization = "x" }',
        "4: providers.primary.headers.authorization: cannot be set together with key or auth" },
      { "primary", 'api = "anthropic"', '4: providers.primary.api: must be "openai", '
        .. 'got "anthropic"' },
    }
    check_accepted("primary", { 'headers = { Authorization = "Basic x" }' })
  end)

  it("refuses TLS options that do nothing", function()
    check_refused {
      { "primary", "tls = { verify = false }",
        "4: providers.primary.tls: has no effect with an http:// url" },
      { "primary", 'tls = { server_name = "a b" }', url = "https://h",
        '4: providers.primary.tls.server_name: must be a host name or an IPv4 address, got "a b"' },
      { "primary", 'tls = { ca = "" }', url = "https://h",
        "4: providers.primary.tls.ca: must not be empty" },
    }
  end)

  it("refuses names that are not names", function()
    check_refused {
      { "providers", '["a b"] = { url = "http://h" },',
        '5: providers["a b"]: is a name with other than letters, digits, - _ .' },
      { "providers", '[""] = { url = "http://h" },', '5: providers[""]: is not a name' },
      { "providers", '{ url = "http://h" },', "5: providers[1]: is not a name" },
      { "route", 'name = "a b",', '9: routes[1].name: must not hold spaces, quotes, backslashes '
        .. 'or non-ASCII characters, got "a b"' },
      { "route", 'policy = "../secret",', "9: routes[1].policy: must be made of a-z, 0-9, _ and - "
        .. 'only, got "../secret"' },
      { "route", 'policy = "Fallback",', "9: routes[1].policy: must be made of a-z, 0-9, _ and - "
        .. 'only, got "Fallback"' },
      { "first", 'model = "a\\nb"',
        '11: routes[1].targets[1].model: must not hold control characters, got "a\\010b"' },
      { "first", 'model = ""', "11: routes[1].targets[1].model: must not be empty" },
    }
    local name = ("p"):rep(65)
    check_refused {
      { "providers", name .. ' = { url = "http://h" },',
        "5: providers." .. name .. ": is a name of more than 64 bytes" },
    }
  end)

  it("refuses headers that are invalid or the gateway's own", function()
    check_refused {
      { "primary", 'headers = { ["x y"] = "1" }',
        '4: providers.primary.headers["x y"]: is not a valid header name' },
      { "primary", 'headers = { ["x\ty"] = "1" }',
        '4: providers.primary.headers["x\\009y"]: is not a valid header name' },
      { "primary", 'headers = { [""] = "1" }',
        '4: providers.primary.headers[""]: is not a valid header name' },
      { "primary", 'headers = { "1" }',
        "4: providers.primary.headers[1]: is not a valid header name" },
      { "primary", 'headers = { Host = "h" }',
        "4: providers.primary.headers.Host: is a header that the gateway sets itself" },
      { "primary", 'headers = { x = "a\\r\\nb" }',
        "4: providers.primary.headers.x: must not hold CR, LF or other control characters" },
      { "primary", 'headers = { x = "a\\0b" }',
        "4: providers.primary.headers.x: must not hold CR, LF or other control characters" },
      { "primary", "headers = { x = 5 }",
        "4: providers.primary.headers.x: must be a string, got a number" },
      { "primary", 'headers = { ["X-A"] = "1", ["x-a"] = "2" }',
        '4: providers.primary.headers["x-a"]: is given twice: names are compared without case' },
      { "first", 'headers = { set = { ["transfer-encoding"] = "x" } }',
        '11: routes[1].targets[1].headers.set["transfer-encoding"]: is a header that the gateway '
        .. "sets itself" },
      { "first", 'headers = { remove = { "Content-Length" } }', "11: routes[1].targets[1].headers."
        .. 'remove[1]: is a header that the gateway sets itself, got "Content-Length"' },
      { "first", 'headers = { remove = { "x", "X" } }',
        '11: routes[1].targets[1].headers.remove[2]: is in the list already, got "X"' },
      { "first", 'headers = { set = { ["X-A"] = "1" }, remove = { "x-b", "x-a" } }',
        '11: routes[1].targets[1].headers.remove[2]: is also in set: "X-A"' },
      { "route", 'match = { headers = { ["x:"] = "1" } },',
        '9: routes[1].match.headers["x:"]: is not a valid header name' },
    }
    -- the locator reads no escapes, so there is no line
    assert.are.same(
      { 'gateway.lua: providers.primary.headers["x\\013\\010y"]: is not a valid header name' },
      problems_of(gateway { primary = 'headers = { ["x\\r\\ny"] = "1" }' }))
    check_accepted("primary", { 'headers = { ["x-a"] = "", ["x-b"] = "a\\tb \\195\\169" }' })
  end)

  it("refuses body edits without JSON form, that contradict each other, or of the model", function()
    check_refused {
      { "first", "body = { set = { stop = { 1, nil, 3 } } }",
        "11: routes[1].targets[1].body.set.stop: holds a list with a hole in it" },
      { "first", "body = { set = { f = function() end } }",
        "11: routes[1].targets[1].body.set.f: holds a function, which has no JSON form" },
      { "first", 'body = { set = { model = "x" } }', "11: routes[1].targets[1].body.set.model: "
        .. "cannot be changed here: write model = ... in the target" },
      { "first", 'body = { unset = { "model" } }', "11: routes[1].targets[1].body.unset[1]: "
        .. "cannot be changed here: write model = ... in the target" },
      { "first", 'body = { set = { n = 1 }, unset = { "user", "n" } }',
        '11: routes[1].targets[1].body.unset[2]: is also in set: "n"' },
      { "first", "body = { set = { 5 } }", "11: routes[1].targets[1].body.set[1]: is not a name" },
      { "first", "body = { unset = { 5 } }",
        "11: routes[1].targets[1].body.unset[1]: must be a string, got 5" },
    }
  end)

  it("refuses matches that cannot be meant", function()
    check_refused {
      { "route", 'match = { model = "gpt-*-mini" },', '9: routes[1].match.model: may hold a "*" '
        .. 'only at its start or its end, got "gpt-*-mini"' },
      { "route", 'match = { model = { "a", "*b*" } },',
        '9: routes[1].match.model[2]: may hold only one "*", got "*b*"' },
      { "route", 'match = { model = { "a", "a" } },',
        '9: routes[1].match.model[2]: is in the list already, got "a"' },
      { "route", "match = { model = {} },", "9: routes[1].match.model: must not be empty" },
      { "route", 'match = { path = "v1" },', "9: routes[1].match.path: must be a path: start with "
        .. '"/", without spaces, "?" or "#", got "v1"' },
      { "route", 'match = { path = "/v1?x" },', "9: routes[1].match.path: must be a path: start "
        .. 'with "/", without spaces, "?" or "#", got "/v1?x"' },
      { "route", 'match = { path = "/v1/*" },', '9: routes[1].match.path: must not hold "*": it '
        .. 'matches everything below it anyway, got "/v1/*"' },
      { "route", 'match = { method = "post" },',
        '9: routes[1].match.method: must be in capital letters, got "post"' },
    }
  end)

  it("refuses targets that cannot serve", function()
    check_refused {
      { "targets", '{ provider = "primry" },', '13: routes[1].targets[3].provider: there is no '
        .. 'provider "primry": did you mean "primary"?' },
      { "targets", '{ provider = "elsewhere" },', "13: routes[1].targets[3].provider: there is no "
        .. 'provider "elsewhere": known here: primary' },
      { "targets", "{},", "13: routes[1].targets[3].provider: is required" },
      { "targets", '{ provider = "primary", priority = 2, weight = 0 },',
        "10: routes[1].targets: all weights of priority 2 are 0: at least one must be more" },
      { "routes", "{ targets = {} },", "15: routes[2].targets: must not be empty" },
      { "routes", "{ match = {} },", "15: routes[2].targets: is required" },
    }
    check_accepted("first", { "weight = 0" })
  end)

  it("does not call a provider unknown that is only broken", function()
    assert.are.same({ "gateway.lua:4: providers.primary.url: has no host" },
      problems_of(gateway { url = "http://" }))
  end)

  it("refuses retries that contradict themselves", function()
    check_refused {
      { "route", "retry = { attempts = 2, per_priority = 3 },",
        "9: routes[1].retry.per_priority: must not be more than attempts (2), got 3" },
      { "route", "retry = { per_priority = 4 },",
        "9: routes[1].retry.per_priority: must not be more than attempts (3), got 4" },
      { "route", 'retry = { backoff = { base = "20s" } },',
        "9: routes[1].retry.backoff.base: must not be more than max (10000ms), got 20000ms" },
      { "route", 'retry = { backoff = { base = "1ms", max = "10ms" } },',
        "9: routes[1].retry.backoff.floor: must not be more than max (10ms), got 25ms" },
      { "route", "retry = { on = { 99 } },",
        "9: routes[1].retry.on[1]: must be a status from 300 to 599, got 99" },
      { "route", 'retry = { on = { 503, "timout" } },', "9: routes[1].retry.on[2]: must be a "
        .. 'status, such as 503, or a known word, got "timout": did you mean "timeout"?' },
      { "route", "retry = { on = 503 },", "9: routes[1].retry.on: must be a list, got 503" },
      { "route", "retry = { on = { 503, 503 } },",
        "9: routes[1].retry.on[2]: is in the list already, got 503" },
    }
    check_accepted("route", {
      "retry = { on = {} },", 'retry = { on = { 429, "4xx", "5xx", "connect", "timeout_head" } },',
      'retry = { attempts = 1, backoff = { base = "0ms", max = "0ms", floor = "0ms" } },',
    })
  end)

  it("refuses words that never call for another try", function()
    for _, word in ipairs { "ok", "timeout_deadline", "6xx", "503" } do
      local line = problems_of(gateway { route = ('retry = { on = { "%s" } },'):format(word) })[1]
      assert.is_truthy(line:find("^gateway.lua:9: routes%[1%]%.retry%.on%[1%]: must be a status"))
    end
  end)

  it("refuses two routes of one name", function()
    local source = gateway {
      route = 'name = "a",', routes = '{ name = "a", targets = { { provider = "primary" } } },',
    }
    assert.are.same({ 'gateway.lua:15: routes[2].name: is the name of routes[1] already, got "a"' },
      problems_of(source))
  end)

  it("refuses keys that are given twice, which Lua would not notice", function()
    assert.are.same({ "gateway.lua:5: providers.primary: is given twice, first on line 4" },
      problems_of(gateway { providers = 'primary = { url = "http://h" },' }))
    assert.are.same({ "gateway.lua:2: workers: is given twice, first on line 2" },
      problems_of(gateway { top = "workers = 1, workers = 2," }))
  end)

  it("limits how many there may be", function()
    local targets = ('{ provider = "primary" },'):rep(63)
    assert.are.same({ "gateway.lua:10: routes[1].targets: must have at most 64 items, got 65" },
      problems_of(gateway { targets = targets }))
    local routes = ('{ targets = { { provider = "primary" } } },'):rep(1024)
    assert.are.same({ "gateway.lua:7: routes: must have at most 1024 items, got 1025" },
      problems_of(gateway { routes = routes }))
    local providers = {}
    for number = 1, 256 do
      providers[number] = ('p%d = { url = "http://h" },'):format(number)
    end
    assert.are.same({ "gateway.lua:3: providers: must have at most 256 entries, got 257" },
      problems_of(gateway { providers = table.concat(providers) }))
  end)

  it("wants providers and routes", function()
    assert.are.same({
      "gateway.lua:1: providers: is required", "gateway.lua:1: routes: is required",
    }, problems_of("return {}"))
    assert.are.same({
      "gateway.lua:1: providers: must not be empty", "gateway.lua:2: routes: must not be empty",
    }, problems_of("return { providers = {},\nroutes = {} }"))
    assert.are.same({
      "gateway.lua:1: providers: must be a table, got 5",
      "gateway.lua:1: routes: must be a list, got 5",
    }, problems_of("return { providers = 5, routes = 5 }"))
  end)

  it("reports everything at once, in the order of the file", function()
    local source = [[
return {
  routes = {
    { targets = { { provider = "a", weight = "x" }, { provider = "b" } },
      deadline = 5 },
  },
  workers = -1,
  providers = {
    a = { url = "x", timeouts = { connect = 1, idle = "1s" } },
  },
  listen = { port = 8080 },
}]]
    assert.are.same({
      'gateway.lua:3: routes[1].targets[1].weight: must be a number >= 0, got "x"',
      'gateway.lua:3: routes[1].targets[2].provider: there is no provider "b": did you mean "a"?',
      'gateway.lua:4: routes[1].deadline: is ambiguous: write "5s" or "5ms"',
      "gateway.lua:6: workers: must be a whole number from 0 to 256, got -1",
      "gateway.lua:8: providers.a.url: must start with http:// or https://",
      'gateway.lua:8: providers.a.timeouts.connect: is ambiguous: write "1s" or "1ms"',
      "gateway.lua:10: listen.port: unknown key: known here: address, tls",
    }, problems_of(source))
  end)

  it("gives problems as data too", function()
    local _, _, problems = config.load(gateway { top = "workers = -1," }, "gateway.lua")
    assert.are.same({ {
      file = "gateway.lua", line = 2, key = "workers",
      message = "must be a whole number from 0 to 256, got -1",
    } }, problems)
  end)
end)

describe("config.load, finding lines", function()
  --- The line it gives for workers = -1 in a text that holds nothing else.
  local function line_of(source)
    local _, _, problems = config.load(source, "gateway.lua")
    for _, problem in ipairs(problems) do
      if problem.key == "workers" then return problem.line end
    end
    error("no such problem")
  end

  it("skips comments and strings of all kinds", function()
    assert.are.equal(9, line_of([==[
-- return { workers = -1 }
--[[ return {
workers = -1 } ]]
--[=[ ]] return { ]=] local a = "return { workers = -1,"
local b = 'it\'s \
{ { {' local c = [[
return {]]
return { -- }
  workers = -1, drain = a .. b .. c }]==]))
  end)

  it("skips functions, blocks and expressions", function()
    assert.are.equal(9, line_of([[
local function f(x)
  if x then return { workers = 5 } end
  repeat local y = { 1, 2 } until y
  for _ = 1, 2 do x = y end
  while x do x = nil end
  return { workers = 1 } end
return {
  drain = f { workers = 2 } and (function() return { 1, 2 } end)(),
  workers = -1 }]]))
  end)

  it("reads every form of key", function()
    assert.are.equal(2, line_of('return { ["drain"] = "1s",\n  ["workers"] = -1 }'))
    assert.are.equal(2, line_of("return { ['drain'] = \"1s\";\n  ['workers'] = -1; }"))
    assert.are.equal(3, line_of("return {\n  drain\n = \"1s\", workers\n=\n-1 }"))
  end)

  it("counts lines as Lua does", function()
    assert.are.equal(3, line_of("return {\r\n\r\nworkers = -1 }"))
    assert.are.equal(3, line_of("return {\r\rworkers = -1 }"))
    assert.are.equal(3, line_of("\239\187\191return {\n\nworkers = -1 }"))
    assert.are.equal(2, line_of("#!/usr/bin/lua\nreturn { workers = -1 }"))
  end)

  it("finds items of lists", function()
    assert.are.same({
      "gateway.lua:1: providers: is required",
      "gateway.lua:3: routes[1].targets: must be a list, got 6",
      "gateway.lua: routes[2].targets: must not be empty", -- an expression: not followed
      "gateway.lua:4: routes[3]: must be a table, got 5",
    }, problems_of("return { routes = {\n{\ntargets = 6 }, nil or { targets = {} },\n5 } }"))
  end)

  it("says no line rather than a wrong one", function()
    assert.is_nil(line_of("local c = { workers = -1 }\nreturn c"))
    assert.is_nil(line_of("local k = 'workers'\nreturn { drain = '1s',\n [k] = -1 }"))
    assert.is_nil(line_of("return { ['work\\101rs'] = -1 }"))
    assert.is_nil(line_of("do return { workers = -1 } end"))
    assert.is_nil(line_of("return { workers = 5 } and { workers = -1 }"))
    local source = "local p = { url = 5 }\nreturn { providers = { p = p } }"
    local _, _, problems = config.load(source, "gateway.lua")
    assert.are.equal("providers.p.url", problems[1].key)
    assert.is_nil(problems[1].line)
  end)

  it("gives the line of the table that lacks a key", function()
    assert.are.same({
      "gateway.lua:3: providers.p.url: is required",
      "gateway.lua:5: routes[1].targets[1].provider: is required",
    }, problems_of("return {\nproviders = {\np = {}\n},\nroutes = { { targets = { {} } } } }"))
  end)

  it("ends on any text that Lua accepts", function()
    for _, source in ipairs {
      "return {} ;", "return { [1] = {}, [ [[x]] ] = {}, [-1] = 1, [0x10] = 2 }",
      "return { a = 1 == 2, 3 ~= 4, ... }", "return { -- }\n}", "goto done ::done:: return {}",
      "return { a = function(...) return ... end, [function() end] = { { } } }", "return ({})",
      "return { 'a' .. 1 .. [==[ ]=] ]==], #{}, not {} }", "return {{{{{{}}}}}}", "return {}, 5",
      "return { 1e5, .5, 0x1p4, 1e-5, x = - - 1 }",
    } do
      assert.is_true(#problems_of(source) > 0)
    end
  end)
end)

describe("config.load, normalising", function()
  it("fills in every default", function()
    assert.are.same({
      listen = { address = "127.0.0.1", port = 8080 },
      admin = { address = "127.0.0.1", port = 9901 },
      workers = 0, drain_ms = 30000, log_level = "info", response_headers = true,
      limits = {
        request_line_bytes = 8192, head_bytes = 65536, header_count = 100, body_bytes = 52428800,
        connections = 10000, head_ms = 10000, body_idle_ms = 30000, keepalive_idle_ms = 75000,
        write_stall_ms = 30000,
      },
      providers = { {
        name = "p", api = "openai", url = "http://127.0.0.1:8000/v1", host = "127.0.0.1",
        port = 8000, tls = false, path = "/v1", auth = "none", headers = {}, tls_verify = true,
        idle_connections = 64, idle_ms = 60000,
        timeouts = {
          connect_ms = 5000, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
          idle_ms = 60000, try_ms = 0,
        },
      } },
      targets = { {
        name = "p", provider = 1, provider_name = "p", priority = 0, weight = 1,
        set_headers = {}, remove_headers = {}, set_body = {}, unset_body = {},
        timeouts = {
          connect_ms = 5000, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
          idle_ms = 60000, try_ms = 0,
        },
      } },
      routes = { {
        name = "*", match = {}, targets = { 1 }, policy = "fallback", deadline_ms = 600000,
        retry = { attempts = 3, base_ms = 100, max_ms = 10000, floor_ms = 25 }, models = {},
      } },
    }, load([[return {
      providers = { p = { url = "http://127.0.0.1:8000/v1/" } },
      routes = { { targets = { { provider = "p" } } } },
    }]]))
  end)

  it("takes everything that may be given", function()
    local loaded = load([[return {
      listen = { address = "[::]:8443", tls = { cert = "c.pem", key = "k.pem" } },
      admin = { address = "0.0.0.0:1", token = "t" },
      workers = 2, drain = "0s", log_level = "warn", response_headers = false,
      limits = { request_line = 4096, head = "16KiB", header_count = 50, body = "1MiB",
        connections = 5, head_timeout = "1s", body_idle = "2s", keepalive_idle = "3s",
        write_stall = "4s" },
      providers = {
        b = { api = "openai", url = "https://API.example.com:444/", auth = "passthrough",
              tls = { verify = false, ca = "ca.pem", server_name = "x.y" },
              headers = { ["X-B"] = "2", ["X-A"] = "1" },
              connections = { idle = 0, idle_timeout = "1s" },
              timeouts = { connect = "12.5ms", try = "1m" } },
        a = { url = "https://[::1]/v1", key = "sk" },
      },
      routes = {
        { name = "main", match = { model = { "m", "n-*" }, path = "/v1", method = "POST",
                                   headers = { ["x-t"] = "1" } },
          targets = {
            { provider = "b", model = "big", priority = 1, weight = 2.5,
              headers = { set = { b = "2", a = "1" }, remove = { "X-C" } },
              body = { set = { z = { 1, "2" }, a = { k = {} } }, unset = { "user" } },
              timeouts = { head = "1s" } },
          },
          policy = "weighted",
          retry = { attempts = 5, per_priority = 1, on = { 503, "timeout" },
                    backoff = { base = "0.5ms", max = "1s", floor = "0ms" } },
          deadline = "2m", models = { "extra", "m" } },
      },
    }]])
    assert.are.same(
      { address = "::", port = 8443, tls_cert = "c.pem", tls_key = "k.pem" }, loaded.listen)
    assert.are.same({ address = "0.0.0.0", port = 1, token = "t" }, loaded.admin)
    assert.are.same({
      request_line_bytes = 4096, head_bytes = 16384, header_count = 50, body_bytes = 1048576,
      connections = 5, head_ms = 1000, body_idle_ms = 2000, keepalive_idle_ms = 3000,
      write_stall_ms = 4000,
    }, loaded.limits)
    assert.are.same({ 2, 0, "warn", false },
      { loaded.workers, loaded.drain_ms, loaded.log_level, loaded.response_headers })

    local a, b = loaded.providers[1], loaded.providers[2]
    assert.are.same({ "a", "::1", 443, true, "/v1", "key", "sk" },
      { a.name, a.host, a.port, a.tls, a.path, a.auth, a.key })
    assert.are.same({
      name = "b", api = "openai", url = "https://API.example.com:444", host = "api.example.com",
      port = 444, tls = true, path = "", auth = "passthrough",
      headers = { { "X-A", "1" }, { "X-B", "2" } },
      tls_verify = false, tls_ca = "ca.pem", tls_server_name = "x.y",
      idle_connections = 0, idle_ms = 1000,
      timeouts = {
        connect_ms = 13, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
        idle_ms = 60000, try_ms = 60000,
      },
    }, b)
    assert.are.same({ {
      name = "b/big", provider = 2, provider_name = "b", model = "big", priority = 1, weight = 2.5,
      set_headers = { { "a", "1" }, { "b", "2" } }, remove_headers = { "x-c" },
      set_body = { { "a", '{"k":{}}' }, { "z", '[1,"2"]' } }, unset_body = { "user" },
      timeouts = {
        connect_ms = 13, tls_ms = 5000, head_ms = 1000, first_token_ms = 300000,
        idle_ms = 60000, try_ms = 60000,
      },
    } }, loaded.targets)
    assert.are.same({ {
      name = "main",
      match = {
        model = { "m", "n-*" }, path = "/v1", method = "POST", headers = { ["x-t"] = "1" },
      },
      targets = { 1 }, policy = "weighted", deadline_ms = 120000, models = { "m", "extra" },
      retry = {
        attempts = 5, per_priority = 1, on = { 503, "timeout" }, base_ms = 0.5, max_ms = 1000,
        floor_ms = 0,
      },
    } }, loaded.routes)
  end)

  it("makes the names of routes unique, and names targets after what they are", function()
    local loaded = load([[return {
      providers = { p = { url = "http://h" } },
      routes = {
        { match = { model = "a" },
          targets = { { provider = "p" }, { provider = "p", model = "m" } } },
        { match = { model = "a" },
          targets = { { provider = "p" }, { provider = "p", model = "m#2" } } },
        { name = "a#2", targets = { { provider = "p", model = "m" } } },
        { match = { model = { "x", "y", "z" } }, targets = { { provider = "p" } } },
        { match = { path = "/v1/x" }, targets = { { provider = "p" } } },
        { targets = { { provider = "p" } } },
      },
    }]])
    local targets, routes = {}, {}
    for position, target in ipairs(loaded.targets) do
      targets[position] = target.name
    end
    for position, entry in ipairs(loaded.routes) do
      routes[position] = entry.name
    end
    assert.are.same(
      { "p", "p/m", "p", "p/m#2", "p/m", "p", "p", "p" }, targets)
    assert.are.same({ "a", "a#3", "a#2", "x,+2", "/v1/x", "*" }, routes)
    assert.are.same({ 3, 4 }, loaded.routes[2].targets)
  end)

  it("lets routes share tables", function()
    local loaded = load([[
local pair = { { provider = "p", model = "m", headers = { set = { x = "1" } } } }
return {
  providers = { p = { url = "http://h" } },
  routes = { { match = { model = "a" }, targets = pair }, { targets = pair } },
}]])
    assert.are.equal("p/m", loaded.targets[1].name)
    assert.are.equal("p/m", loaded.targets[2].name)
    assert.are_not.equal(loaded.targets[1].set_headers, loaded.targets[2].set_headers)
  end)

  it("shares no default between configurations", function()
    local one = load(gateway {})
    table.insert(one.targets[1].remove_headers, "x")
    one.routes[1].match.model = "changed"
    local other = load(gateway {})
    assert.are.same({}, other.targets[1].remove_headers)
    assert.are.same({}, other.routes[1].match)
  end)
end)

describe("config.policies", function()
  it("names each policy once, sorted", function()
    assert.are.same({ "degrade", "fallback", "weighted" }, config.policies { routes = {
      { policy = "weighted" }, { policy = "fallback" }, { policy = "degrade" },
      { policy = "fallback" },
    } })
  end)
end)

describe("policies/gateway.lua", function()
  local function read_reference()
    local file = assert(io.open(REFERENCE))
    local text = file:read("*a")
    file:close()
    return text
  end

  --- The reference with every option in force.
  local function uncommented()
    return (("\n" .. read_reference()):gsub("\n( *)%-%-([%w%[{}])", "\n%1%2"):sub(2))
  end

  local helpers = {
    env = function() return "from-env" end, secret = function() return "from-secret" end,
  }

  local function lines_of(text)
    local lines = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do
      table.insert(lines, line)
    end
    return lines
  end

  --- Every place of the tree that a path of the schema stands for: "*" is any key, 1 any position.
  local function nodes_at(tree, path)
    if not path.parent then return { tree } end
    local found = {}
    for _, parent in ipairs(nodes_at(tree, path.parent)) do
      for key, node in pairs(parent.fields or {}) do
        local any = path.key == "*" or path.key == 1 and type(key) == "number"
        if any or key == path.key then table.insert(found, node) end
      end
    end
    return found
  end

  local function contains(lines, nodes, text)
    for _, node in ipairs(nodes) do
      if lines[node.line]:find(text, 1, true) then return true end
    end
    return false
  end

  it("is the configuration that make run starts", function()
    local loaded = load(read_reference())
    assert.are.same({ address = "127.0.0.1", port = 8080 }, loaded.listen)
    assert.are.same({ address = "127.0.0.1", port = 9901 }, loaded.admin)
    assert.are.same({ "fallback", "primary" },
      { loaded.providers[1].name, loaded.providers[2].name })
    assert.are.equal("http://127.0.0.1:8001/v1", loaded.providers[1].url)
    assert.are.equal("http://127.0.0.1:8000/v1", loaded.providers[2].url)
    assert.are.same({ "degrade", "fallback", "weighted" }, config.policies(loaded))
    assert.are.same({ "gpt-4", "virtual-qwen-model", "smart" },
      require("perilune.route").models(loaded))
  end)

  it("names policies that are there", function()
    for _, name in ipairs(config.policies(load(read_reference()))) do
      local file = assert(io.open("policies/" .. name .. ".lua"))
      file:close()
    end
  end)

  it("loads with every option in force", function()
    local loaded = load(uncommented(), helpers)
    assert.are.equal("from-secret", loaded.providers[2].key)
    assert.are.equal("tls/gateway.key", loaded.listen.tls_key)
    assert.are.equal(5, #loaded.routes)
  end)

  it("names every option with its bounds and its default", function()
    local text = uncommented()
    local lines, tree = lines_of(text), config.locate(text)
    local count = 0
    schema.each(schema.GATEWAY, function(path, type_of)
      local name = schema.path_text(path)
      local nodes = nodes_at(tree, path)
      assert.is_true(#nodes > 0, name .. " is missing")
      if type(path.key) ~= "string" or path.key == "*" then return end
      count = count + 1
      local bounds = schema.bounds(type_of)
      assert.is_true(contains(lines, nodes, bounds), name .. ": its bounds are missing")
      local default = type_of.default
      if type(default) == "string" then default = '"' .. default .. '"' end
      if default ~= nil and type(default) ~= "table" then
        local given = ("%s = %s"):format(path.key, tostring(default))
        assert.is_true(contains(lines, nodes, given), name .. ": its default is missing")
      end
    end)
    assert.is_true(count > 60)
  end)
end)
