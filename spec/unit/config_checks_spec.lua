local config = require "perilune.config"
local support = require "spec.unit.config_support"

local check_accepted, check_refused = support.check_accepted, support.check_refused
local gateway, problems_of = support.gateway, support.problems_of

describe("config.load, refusing", function()
  it("refuses unknown keys and says what was meant", function()
    check_refused {
      { "top", "liste = {},", '2: liste: unknown key: did you mean "listen"?' },
      { "top", "health = {},", "2: health: unknown key: known here: listen, admin, workers, drain, "
        .. "reload, log_level, access_log, response_headers, limits, budgets, on_policy_error, "
        .. "deadline_header, tracing, providers, routes" },
      { "top", 'listen = { adress = "x" },',
        '2: listen.adress: unknown key: did you mean "address"?' },
      { "primary", "quota = {}", "4: providers.primary.quota: unknown key: known here: api, url, "
        .. "key, keys, auth, headers, tls, connections, stream_usage, timeouts, prefix, health" },
      { "primary", 'timeouts = { first_tokn = "1s" }',
        '4: providers.primary.timeouts.first_tokn: unknown key: did you mean "first_token"?' },
      { "route", "retry = { attemps = 2 },",
        '9: routes[1].retry.attemps: unknown key: did you mean "attempts"?' },
      { "first", "wieght = 5",
        '11: routes[1].targets[1].wieght: unknown key: did you mean "weight"?' },
      { "first", '["strange key"] = 5', '11: routes[1].targets[1]["strange key"]: unknown key: '
        .. "known here: provider, model, priority, weight, context_tokens, headers, body, "
        .. "timeouts, prefix, limits" },
      { "first", '"m"', "11: routes[1].targets[1][1]: unknown key: known here: provider, model, "
        .. "priority, weight, context_tokens, headers, body, timeouts, prefix, limits" },
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
      { "top", 'budgets = { burst = "1s" },',
        "2: budgets.burst: must not be more than budgets.request" },
      { "top", 'budgets = { burst = "0ms" },',
        '2: budgets.burst: must be a duration from 1ms to 10s, got "0ms"' },
      { "top", "budgets = { request = 500 },",
        '2: budgets.request: is ambiguous: write "500s" or "500ms"' },
      { "top", 'budgets = { memory = "1MiB" },',
        '2: budgets.memory: must be a size from 8MiB to 1GiB, got "1MiB"' },
      { "top", "budgets = { log_lines = -1 },",
        "2: budgets.log_lines: must be a whole number from 0 to 10000, got -1" },
      { "top", 'on_policy_error = "flor",', '2: on_policy_error: must be "floor", "fail", got '
        .. '"flor": did you mean "floor"?' },
      { "route", "on_policy_error = false,",
        '9: routes[1].on_policy_error: must be "floor", "fail", got false' },
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
        "4: providers.primary.headers.Authorization: cannot be set together with key, keys or "
        .. "auth" },
      { "primary", 'key = "sk", keys = { "a" }', "4: providers.primary.keys: cannot be given "
        .. "together with key: write all of them here" },
      { "primary", 'keys = { "a" }, auth = "passthrough"', '4: providers.primary.auth: cannot be '
        .. '"passthrough" together with keys: upstreams get one credential or the other' },
      { "primary", 'keys = { "sk-1", "sk-1" }',
        "4: providers.primary.keys[2]: is in the list already" },
      { "primary", "keys = {}", "4: providers.primary.keys: must not be empty" },
      { "primary", 'keys = { "" }', "4: providers.primary.keys[1]: must not be empty" },
      { "primary", 'auth = "passthrough", headers = { authorization = "x" }',
        "4: providers.primary.headers.authorization: cannot be set together with key, keys or "
        .. "auth" },
      { "primary", 'api = "anthropic", key = "sk", headers = { ["X-API-Key"] = "x" }',
        "4: providers.primary.headers[\"X-API-Key\"]: cannot be set together with key, keys or "
        .. "auth" },
      { "primary", 'api = "gemini"', '4: providers.primary.api: must be "openai", "anthropic", '
        .. 'got "gemini"' },
    }
    check_accepted("primary",
      { 'api = "anthropic", key = "sk", headers = { Authorization = "x" }' })
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
      { "route", 'retry = { reactions = { overlaoded = "next" } },',
        '9: routes[1].retry.reactions.overlaoded: "overlaoded" is neither an outcome class nor a '
        .. "group" },
      { "route", 'retry = { reactions = { [200] = "next" } },',
        "9: routes[1].retry.reactions[200]: status 200 is not within 300 to 599" },
      { "route", 'retry = { reactions = { [503] = "gve_up" } },',
        '9: routes[1].retry.reactions[503]: must be "again", "next", "give_up", got "gve_up": did '
        .. 'you mean "give_up"?' },
      { "route", 'retry = { uncertain = "no" },',
        '9: routes[1].retry.uncertain: must be true or false, got "no"' },
      { "first", "context_tokens = 0",
        "11: routes[1].targets[1].context_tokens: must be a whole number from 1 to 1000000000, got "
        .. "0" },
      { "route", "retry = { per_priority = 4 },",
        "9: routes[1].retry.per_priority: must not be more than attempts (3), got 4" },
      { "route", 'retry = { backoff = { base = "20s" } },',
        "9: routes[1].retry.backoff.base: must not be more than max (10s), got 20s" },
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
