local config = require "perilune.config"
local support = require "spec.unit.config_support"

local gateway, load, problems_of = support.gateway, support.load, support.problems_of

--- The health of a provider that says nothing of it, with changes.
local function health(changes)
  local result = {
    consecutive_5xx_count = 5, consecutive_gateway_count = 0, consecutive_connection_count = 5,
    split_connection = false, failure_ratio = 0, failure_min_count = 20, window_ms = 30000,
    success_ewma_min_ratio = 0, retry_after = { statuses = { 429 }, cap_ms = 3600000 },
    auth_statuses = {}, base_ejection_ms = 30000, max_ejection_ms = 300000, jitter_ratio = 0.1,
    decay_ms = 30000, slow_start_ms = 0, probe_timeout_ms = 30000,
  }
  for key, value in pairs(changes or {}) do
    result[key] = value
  end
  return result
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

describe("config.load, normalising", function()
  it("fills in every default", function()
    assert.are.same({
      listen = { address = "127.0.0.1", port = 8080 },
      admin = { address = "127.0.0.1", port = 9901, recent_count = 200,
        metrics = true },
      reload = {
        drain_ms = 900000, strikes_count = 5, strikes_window_ms = 60000,
        policy_error_ratio = 0.005, failure_ratio = 0.02, unfinished_ratio = 0.25,
        client_fault_ratio = 0.1, first_token_ratio = 1.5, first_token_margin_ms = 100,
        min_request_count = 20,
      },
      workers = 0, drain_ms = 30000, log_level = "info", response_headers = true,
      access_log = {
        path = "-", is_plain = false, request_body_bytes = 0, response_body_bytes = 0, redact = {},
      },
      limits = {
        request_line_bytes = 8192, head_bytes = 65536, header_count = 100, body_bytes = 52428800,
        connections = 10000, head_ms = 10000, body_idle_ms = 30000, keepalive_idle_ms = 75000,
        write_stall_ms = 30000,
      },
      budgets = { burst_ms = 50, request_ms = 500, memory_bytes = 268435456, log_line_count = 100 },
      providers = { {
        name = "p", api = "openai", url = "http://127.0.0.1:8000/v1", host = "127.0.0.1",
        port = 8000, tls = false, path = "/v1", auth = "none", headers = {}, tls_verify = true,
        idle_connections = 64, idle_ms = 60000, stream_usage = false,
        timeouts = {
          connect_ms = 5000, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
          idle_ms = 60000, try_ms = 0,
        },
        health = health(),
      } },
      targets = { {
        name = "p", provider = 1, provider_name = "p", priority = 0, weight = 1,
        set_headers = {}, remove_headers = {}, set_body = {}, unset_body = {},
        prefix = { set_message = {}, set_body = {} },
        timeouts = {
          connect_ms = 5000, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
          idle_ms = 60000, try_ms = 0,
        },
        limits = { concurrent_count = 0, queue_count = 0, queue_ms = 1000 },
      } },
      routes = { {
        name = "*", match = {}, targets = { 1 }, policy = "fallback", deadline_ms = 600000,
        balance = { by = "weighted" }, panic = "use", max_ejection_ratio = 1,
        on_policy_error = "floor",
        retry = { attempts = 3, uncertain = true, partly_generated = true, base_ms = 100,
          max_ms = 10000, floor_ms = 25 }, models = {},
        gate = { on = "content", max_bytes = 65536 }, check_body = false,
        malformed_events = "relay",
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
      access_log = { path = "requests.log", format = "text", redact = { "ssn" },
        bodies = { request = "1KiB", response = "64KiB" } },
      limits = { request_line = 4096, head = "16KiB", header_count = 50, body = "1MiB",
        connections = 5, head_timeout = "1s", body_idle = "2s", keepalive_idle = "3s",
        write_stall = "4s" },
      budgets = { burst = "5ms", request = "1s", memory = "8MiB", log_lines = 0 },
      on_policy_error = "fail",
      providers = {
        b = { api = "openai", url = "https://API.example.com:444/", auth = "passthrough",
              tls = { verify = false, ca = "ca.pem", server_name = "x.y" },
              headers = { ["X-B"] = "2", ["X-A"] = "1" },
              connections = { idle = 0, idle_timeout = "1s" }, stream_usage = true,
              timeouts = { connect = "12.5ms", try = "1m" } },
        a = { url = "https://[::1]/v1", key = "sk" },
      },
      routes = {
        { name = "main", match = { model = { "m", "n-*" }, path = "/v1", method = "POST",
                                   headers = { ["x-t"] = "1" } },
          targets = {
            { provider = "b", model = "big", priority = 1, weight = 2.5, context_tokens = 8192,
              headers = { set = { b = "2", a = "1" }, remove = { "X-C" } },
              body = { set = { z = { 1, "2" }, a = { k = {} } }, unset = { "user" } },
              timeouts = { head = "1s" },
              prefix = { message = { prefix = true }, body = { b = {}, a = 1 } },
              limits = { concurrent = 8, queue = 100, queue_timeout = "2s" } },
          },
          policy = "weighted", balance = "p2c", panic = "fail", max_ejection_percent = 12.5,
          response = { headers = { set = { ["X-S"] = "1", a = "" }, add = { b = "2" },
                                   remove = { "Server", "x-d" } } },
          retry = { attempts = 5, per_priority = 1, on = { 503, "timeout" },
                    reactions = { [409] = "next", overloaded = "again" }, uncertain = false,
                    backoff = { base = "0.5ms", max = "1s", floor = "0ms" },
                    budget = { percent = 12.5 } },
          gate = { on = "event", bytes = "1KiB" }, check_body = true,
          malformed_events = "drop", rescue = { mode = "restart", attempts = 5, bytes = "1KiB" },
          deadline = "2m", models = { "extra", "m" } },
      },
    }]])
    assert.are.same(
      { address = "::", port = 8443, tls_cert = "c.pem", tls_key = "k.pem" }, loaded.listen)
    assert.are.same({ address = "0.0.0.0", port = 1, token = "t", recent_count = 200,
        metrics = true },
      loaded.admin)
    assert.are.same({
      request_line_bytes = 4096, head_bytes = 16384, header_count = 50, body_bytes = 1048576,
      connections = 5, head_ms = 1000, body_idle_ms = 2000, keepalive_idle_ms = 3000,
      write_stall_ms = 4000,
    }, loaded.limits)
    assert.are.same({ 2, 0, "warn", false },
      { loaded.workers, loaded.drain_ms, loaded.log_level, loaded.response_headers })

    assert.are.same({ path = "requests.log", is_plain = true, request_body_bytes = 1024,
      response_body_bytes = 65536, redact = { "ssn" } }, loaded.access_log)

    local a, b = loaded.providers[1], loaded.providers[2]
    assert.are.same({ "a", "::1", 443, true, "/v1", "key", "sk" },
      { a.name, a.host, a.port, a.tls, a.path, a.auth, a.key })
    assert.are.same({
      name = "b", api = "openai", url = "https://API.example.com:444", host = "api.example.com",
      port = 444, tls = true, path = "", auth = "passthrough",
      headers = { { "X-A", "1" }, { "X-B", "2" } },
      tls_verify = false, tls_ca = "ca.pem", tls_server_name = "x.y",
      idle_connections = 0, idle_ms = 1000, stream_usage = true,
      timeouts = {
        connect_ms = 13, tls_ms = 5000, head_ms = 300000, first_token_ms = 300000,
        idle_ms = 60000, try_ms = 60000,
      },
      health = health(),
    }, b)
    assert.are.same({ {
      name = "b/big", provider = 2, provider_name = "b", model = "big", priority = 1, weight = 2.5,
      context_tokens = 8192,
      set_headers = { { "a", "1" }, { "b", "2" } }, remove_headers = { "x-c" },
      set_body = { { "a", '{"k":{}}' }, { "z", '[1,"2"]' } }, unset_body = { "user" },
      prefix = { set_message = { { "prefix", "true" } },
        set_body = { { "a", "1" }, { "b", "{}" } } },
      timeouts = {
        connect_ms = 13, tls_ms = 5000, head_ms = 1000, first_token_ms = 300000,
        idle_ms = 60000, try_ms = 60000,
      },
      limits = { concurrent_count = 8, queue_count = 100, queue_ms = 2000 },
    } }, loaded.targets)
    assert.are.same({ {
      name = "main",
      match = {
        model = { "m", "n-*" }, path = "/v1", method = "POST", headers = { ["x-t"] = "1" },
      },
      targets = { 1 }, policy = "weighted", deadline_ms = 120000, models = { "m", "extra" },
      retry = {
        attempts = 5, per_priority = 1, on = { 503, "timeout" },
        reactions = { [409] = "next", overloaded = "again" }, uncertain = false,
        partly_generated = true, base_ms = 0.5, max_ms = 1000,
        floor_ms = 0, budget = { ratio = 0.125, min_count = 3 },
      },
      balance = { by = "p2c" }, panic = "fail", max_ejection_ratio = 0.125,
      on_policy_error = "fail",
      gate = { on = "event", max_bytes = 1024 }, check_body = true,
      malformed_events = "drop", rescue = { mode = "restart", attempts = 5, max_bytes = 1024 },
      response = {
        set = { { "X-S", "1" }, { "a", "" } }, add = { { "b", "2" } }, remove = { "server", "x-d" },
      },
    } }, loaded.routes)
  end)

  it("takes all of hedging, and has defaults for it", function()
    local loaded = load([[return {
      providers = { p = { url = "http://127.0.0.1:8000" } },
      routes = {
        { match = { model = "a" }, targets = { { provider = "p" }, { provider = "p" } },
          hedge = { after = "p99.5", at_least = "1s", until_known = "1m", budget_percent = 12.5,
            burst = 1, paths = { "/v1/x" } } },
        { match = { model = "b" }, targets = { { provider = "p" }, { provider = "p" } },
          hedge = {} },
      },
    }]])
    assert.are.same({ after = "p99.5", at_least_ms = 1000, until_known_ms = 60000,
      budget_ratio = 0.125, burst_count = 1, paths = { "/v1/x" } }, loaded.routes[1].hedge)
    assert.are.same(require("perilune.hedge").DEFAULTS, loaded.routes[2].hedge)
  end)

  it("takes all rules of health", function()
    local loaded = load(gateway { primary = [[key = "sk", health = {
      consecutive_5xx = 3, consecutive_gateway = 2, consecutive_connection = 1,
      split_connection = true, failure_percent = 62.5, failure_min_requests = 5, window = "10s",
      success_ewma_below = 0.5, retry_after = { statuses = { 429, 503 }, cap = "5m" },
      auth = { 403, 401 }, base_ejection = "1s", max_ejection = "1s", jitter = 0, decay = "0s",
      slow_start = "20s", probe_timeout = "2.5s",
      active = { path = "/healthz?deep=1", method = "HEAD", statuses = { 204, 200 },
                 headers = { ["X-B"] = "2", a = "1" }, interval = "2s", timeout = "2s", jitter = 1,
                 unhealthy_after = 1, healthy_after = 4, readmits = false },
    }]] })
    assert.are.same({
      consecutive_5xx_count = 3, consecutive_gateway_count = 2, consecutive_connection_count = 1,
      split_connection = true, failure_ratio = 0.625, failure_min_count = 5, window_ms = 10000,
      success_ewma_min_ratio = 0.5, retry_after = { statuses = { 429, 503 }, cap_ms = 300000 },
      auth_statuses = { 403, 401 }, base_ejection_ms = 1000, max_ejection_ms = 1000,
      jitter_ratio = 0, decay_ms = 0, slow_start_ms = 20000, probe_timeout_ms = 2500,
      active = {
        path = "/healthz?deep=1", method = "HEAD", statuses = { 204, 200 },
        headers = { { "X-B", "2" }, { "a", "1" } }, interval_ms = 2000, timeout_ms = 2000,
        jitter_ratio = 1, unhealthy_after = 1, healthy_after = 4, readmits = false,
      },
    }, loaded.providers[1].health)
  end)

  it("gives active checks their defaults", function()
    local loaded = load(gateway { primary = "health = { active = {} }" })
    assert.are.same(health { active = {
      path = "/v1/models", method = "GET", statuses = { 200 }, headers = {}, interval_ms = 10000,
      timeout_ms = 3000, jitter_ratio = 0.1, unhealthy_after = 3, healthy_after = 2,
      readmits = true,
    } }, loaded.providers[1].health)
  end)

  it("switches off all rules of health, or Retry-After alone", function()
    local off = load(gateway { primary = "health = false" }).providers[1].health
    local expected = health { consecutive_5xx_count = 0, consecutive_connection_count = 0 }
    expected.retry_after, expected.auth_statuses = nil, nil
    assert.are.same(expected, off)
    local deaf = load(gateway { primary = "health = { retry_after = false }" }).providers[1].health
    expected = health()
    expected.retry_after = nil
    assert.are.same(expected, deaf)
  end)

  it("keeps the function that judges health, in the environment of the file", function()
    local helpers = { env = function(name) return "value of " .. name end }
    local loaded = load(gateway {
      top = 'listen = { address = env "ADDRESS" and "127.0.0.1:1" },',
      primary = [[health = { unhealthy = function(res)
        if res.read then return "read " .. env(res.read) end
        if res.write then counter = 1 end
        if res.library then return os.time() end
        return res.status == 200 and res.headers["x-degraded"] == "true"
      end }]],
    }, helpers)
    local unhealthy = loaded.providers[1].health.unhealthy
    assert.is_true(unhealthy { status = 200, headers = { ["x-degraded"] = "true" } })
    assert.is_false(unhealthy { status = 200, headers = {} })
    for field, message in pairs {
      read = "gateway.lua:5: env: can only be used while the configuration is read, not in a "
        .. "function of it",
      write = "gateway.lua:6: write local counter = ...: there are no globals here",
      library = 'gateway.lua:7: unknown name "os": only env, secret and file exist here',
    } do
      assert.are.same({ false, message }, { pcall(unhealthy, { [field] = "X" }) })
    end
  end)

  it("takes each way of choosing a target", function()
    for _, name in ipairs {
      "weighted", "round_robin", "least_busy", "least_latency", "p2c", "smooth_weighted",
    } do
      local loaded = load(gateway { route = ('balance = "%s",'):format(name) })
      assert.are.same({ by = name }, loaded.routes[1].balance)
    end
    for text, expected in pairs {
      ['header = "X-User"'] = { by = "hash", header = "x-user", load_ratio = 1.25 },
      ['field = "user", load = 1'] = { by = "hash", field = "user", load_ratio = 1 },
      ["client_key = true"] = { by = "hash", client_key = true, load_ratio = 1.25 },
      ['header = "x", client_key = false'] = { by = "hash", header = "x", load_ratio = 1.25 },
    } do
      local loaded = load(gateway { route = ('balance = { by = "hash", %s },'):format(text) })
      assert.are.same(expected, loaded.routes[1].balance)
    end
  end)

  it("leaves out what a route does not say", function()
    local entry = load(gateway { route = "max_ejection_percent = 0," }).routes[1]
    assert.are.equal(0, entry.max_ejection_ratio)
    assert.is_nil(entry.response)
    assert.is_nil(entry.retry.budget)
    entry = load(gateway { route = "response = {}, retry = { budget = {} }," }).routes[1]
    assert.are.same({ set = {}, add = {}, remove = {} }, entry.response)
    assert.are.same({ ratio = 0.2, min_count = 3 }, entry.retry.budget)
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
    table.insert(one.providers[1].health.retry_after.statuses, 503)
    table.insert(one.providers[1].health.auth_statuses, 401)
    one.routes[1].match.model = "changed"
    local other = load(gateway {})
    assert.are.same({}, other.targets[1].remove_headers)
    assert.are.same({}, other.routes[1].match)
    assert.are.same(health(), other.providers[1].health)
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
