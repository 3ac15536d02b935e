local support = require "spec.unit.config_support"

local check_accepted, check_refused = support.check_accepted, support.check_refused
local gateway, load = support.gateway, support.load

describe("config.load, refusing in routes", function()
  it("refuses ways to choose a target that it does not know", function()
    local known = '"weighted", "round_robin", "least_busy", "least_latency", "p2c", '
      .. '"smooth_weighted"'
    check_refused {
      { "route", 'balance = "round-robin",', "9: routes[1].balance: must be " .. known
        .. ', got "round-robin": did you mean "round_robin"?' },
      { "route", 'balance = "best",', "9: routes[1].balance: must be " .. known .. ', got "best"' },
      { "route", 'balance = "hash",', "9: routes[1].balance: must be " .. known
        .. ', got "hash": write { by = "hash", header = "x-user" }' },
      { "route", "balance = 5,", "9: routes[1].balance: must be a name, or a table such as "
        .. '{ by = "hash", header = "x-user" }, got 5' },
      { "route", 'balance = { by = "p2c", header = "x" },',
        '9: routes[1].balance.by: must be "hash", got "p2c": write balance = "p2c"' },
      { "route", 'balance = { by = "hsh", header = "x" },',
        '9: routes[1].balance.by: must be "hash", got "hsh": did you mean "hash"?' },
      { "route", 'balance = { header = "x" },',
        '9: routes[1].balance.by: is required: write by = "hash"' },
      { "route", 'balance = { by = "hash", header = "x", cookie = "y" },',
        "9: routes[1].balance.cookie: unknown key: known here: by, header, field, client_key, "
        .. "load" },
    }
  end)

  it("wants exactly one thing to hash", function()
    local needs = "9: routes[1].balance: needs exactly one of header, field and client_key = true, "
    check_refused {
      { "route", 'balance = { by = "hash" },', needs .. "got none" },
      { "route", 'balance = { by = "hash", client_key = false },', needs .. "got none" },
      { "route", 'balance = { by = "hash", header = "x", field = "user" },', needs .. "got 2" },
      { "route", 'balance = { by = "hash", header = "x", field = "y", client_key = true },',
        needs .. "got 3" },
      { "route", 'balance = { by = "hash", header = "x y" },',
        '9: routes[1].balance.header: is not a valid header name, got "x y"' },
      { "route", 'balance = { by = "hash", field = "" },',
        "9: routes[1].balance.field: must not be empty" },
      { "route", 'balance = { by = "hash", client_key = true, load = 0.9 },',
        "9: routes[1].balance.load: must be a number from 1 to 100, got 0.9" },
    }
  end)

  it("refuses what cannot be meant when targets are out", function()
    check_refused {
      { "route", 'panic = "ignore",', '9: routes[1].panic: must be "use", "fail", got "ignore"' },
      { "route", 'panic = "fial",',
        '9: routes[1].panic: must be "use", "fail", got "fial": did you mean "fail"?' },
      { "route", "panic = true,", '9: routes[1].panic: must be "use", "fail", got true' },
      { "route", "max_ejection_percent = 100.5,",
        "9: routes[1].max_ejection_percent: must be a number from 0 to 100, got 100.5" },
      { "route", "max_ejection_percent = -1,",
        "9: routes[1].max_ejection_percent: must be a number from 0 to 100, got -1" },
    }
  end)

  it("refuses budgets out of bounds, and one that leaves nothing", function()
    check_refused {
      { "route", "retry = { budget = { percent = 101 } },",
        "9: routes[1].retry.budget.percent: must be a number from 0 to 100, got 101" },
      { "route", "retry = { budget = { min = -1 } },",
        "9: routes[1].retry.budget.min: must be a whole number from 0 to 10000, got -1" },
      { "route", "retry = { budget = 20 },", "9: routes[1].retry.budget: must be a table, got 20" },
      { "route", "retry = { budget = { percent = 0, min = 0 } },", "9: routes[1].retry.budget: "
        .. "leaves nothing: to try once only, write attempts = 1" },
    }
    check_accepted("route", {
      "retry = { budget = { percent = 0 } },", "retry = { budget = { min = 0 } },",
    })
  end)

  it("refuses limits of targets that cannot be meant", function()
    check_refused {
      { "first", "limits = { concurrent = -1 }", "11: routes[1].targets[1].limits.concurrent: must "
        .. "be a whole number from 0 to 1000000, got -1" },
      { "first", "limits = { concurrent = 1, queue = 1.5 }", "11: routes[1].targets[1].limits."
        .. "queue: must be a whole number from 0 to 1000000, got 1.5" },
      { "first", 'limits = { queue_timeout = "0s" }', "11: routes[1].targets[1].limits."
        .. 'queue_timeout: must be a duration from 1ms to 1h, got "0s"' },
      { "first", "limits = { queue = 5 }", "11: routes[1].targets[1].limits.queue: has no effect "
        .. "without concurrent: nothing is ever full" },
      { "first", "limits = { max = 5 }", "11: routes[1].targets[1].limits.max: unknown key: known "
        .. "here: concurrent, queue, queue_timeout" },
    }
    check_accepted("first", { "limits = { concurrent = 1, queue = 5 }" })
  end)

  it("refuses changes to answers that are invalid or contradict each other", function()
    check_refused {
      { "route", 'response = { headers = { set = { ["Transfer-Encoding"] = "x" } } },',
        '9: routes[1].response.headers.set["Transfer-Encoding"]: is a header that the gateway sets '
        .. "itself" },
      { "route", 'response = { headers = { add = { ["content-length"] = "5" } } },',
        '9: routes[1].response.headers.add["content-length"]: is a header that the gateway sets '
        .. "itself" },
      { "route", 'response = { headers = { remove = { "Connection" } } },', "9: routes[1].response."
        .. 'headers.remove[1]: is a header that the gateway sets itself, got "Connection"' },
      { "route", 'response = { headers = { set = { ["x y"] = "1" } } },',
        '9: routes[1].response.headers.set["x y"]: is not a valid header name' },
      { "route", 'response = { headers = { set = { x = "a\\nb" } } },', "9: routes[1].response."
        .. "headers.set.x: must not hold CR, LF or other control characters" },
      { "route", 'response = { headers = { set = { ["X-A"] = "1" }, add = { ["x-a"] = "2" } } },',
        '9: routes[1].response.headers.add["x-a"]: is also in set: "X-A"' },
      { "route", 'response = { headers = { set = { ["X-A"] = "1" }, remove = { "x-a" } } },',
        '9: routes[1].response.headers.remove[1]: is also in set: "X-A"' },
      { "route", 'response = { headers = { add = { ["X-A"] = "1" }, remove = { "x-b", "X-a" } } },',
        '9: routes[1].response.headers.remove[2]: is also in add: "X-A"' },
      { "route", "response = { status = 200 },",
        "9: routes[1].response.status: unknown key: known here: headers" },
    }
  end)

  it("refuses hedging where there is nobody to ask", function()
    local function problem_of(fields)
      return support.problems_of(([[return {
        providers = { p = { url = "http://127.0.0.1:1" } },
        routes = { { %s, hedge = {} } } }]]):format(fields))
    end
    local where = "gateway.lua:3: routes[1].hedge: has no effect"
    assert.are.same({ where .. ": the route has only one target" },
      problem_of('targets = { { provider = "p" } }'))
    assert.are.same({ where .. " with retry.attempts = 1: a second target is a second attempt" },
      problem_of(
      'targets = { { provider = "p" }, { provider = "p" } }, retry = { attempts = 1 }'))
    assert.are.same({ "gateway.lua:3: routes[1].hedge: asks two targets for the same, which "
      .. "retry.uncertain = false forbids" }, problem_of(
      'targets = { { provider = "p" }, { provider = "p" } }, retry = { uncertain = false }'))
  end)

  it("refuses hedging that cannot work, or means nothing", function()
    local delay = 'must be a duration such as "2s", or a share such as "p95", got '
    check_refused {
      { "route", 'hedge = { after = "p95th" },', "9: routes[1].hedge.after: " .. delay
        .. '"p95th"' },
      { "route", 'hedge = { after = "p49" },',
        '9: routes[1].hedge.after: must be within "p50" and "p99.9", got "p49"' },
      { "route", 'hedge = { after = "0ms" },',
        '9: routes[1].hedge.after: must be at least 1ms, got "0ms"' },
      { "route", 'hedge = { after = "5" },',
        '9: routes[1].hedge.after: is ambiguous: write "5s" or "5ms", got "5"' },
      { "route", 'hedge = { delay = "5s" },', "9: routes[1].hedge.delay: unknown key: known here: "
        .. "after, at_least, until_known, budget_percent, burst, paths" },
      { "route", "hedge = { budget_percent = 0 },",
        "9: routes[1].hedge.budget_percent: must be a number from 0.1 to 100, got 0" },
      { "route", "hedge = { burst = 0 },",
        "9: routes[1].hedge.burst: must be a whole number from 1 to 10000, got 0" },
      { "route", "hedge = { paths = {} },", "9: routes[1].hedge.paths: must not be empty" },
      { "route", 'hedge = { after = "2s", at_least = "1s" },',
        '9: routes[1].hedge.at_least: has no effect when after is a time, "2s"' },
      { "route", 'hedge = { after = "2s", until_known = "1s" },',
        '9: routes[1].hedge.until_known: has no effect when after is a time, "2s"' },
    }
  end)

  it("refuses times that leave nothing for what they are for", function()
    check_refused {
      { "route", 'deadline = "10s", reserve = "10s",',
        "9: routes[1].reserve: must be less than deadline (10s), got 10s" },
      { "route", 'deadline = "10s", retry_within = "11s",',
        "9: routes[1].retry_within: must be less than deadline (10s), got 11s" },
      { "route", 'reserve = "0ms",',
        '9: routes[1].reserve: must be a duration from 1ms to 24h, got "0ms"' },
      { "route", "retry_within = 20,",
        '9: routes[1].retry_within: is ambiguous: write "20s" or "20ms"' },
    }
    check_accepted("route", {
      'deadline = "10s", reserve = "9s", retry_within = "0ms",',
      'deadline = "1ms",', 'reserve = "5s",',
    })
  end)

  it("refuses headers for deadlines that cannot be meant", function()
    check_refused {
      { "route", 'deadline_header = "x-budget",', "9: routes[1].deadline_header: is ambiguous: "
        .. 'write { { name = "x-budget", unit = "ms" } }, got "x-budget"' },
      { "route", 'deadline_header = "Content-Length",', "9: routes[1].deadline_header: is a header "
        .. 'that the gateway sets itself, got "Content-Length"' },
      { "route", 'deadline_header = "x y",',
        '9: routes[1].deadline_header: is not a valid header name, got "x y"' },
      { "route", "deadline_header = true,", "9: routes[1].deadline_header: must be a header's name "
        .. "or a list of headers, got true" },
      { "route", 'deadline_header = { "x-a-ms", 5 },', "9: routes[1].deadline_header[2]: must be a "
        .. "name or { name = ..., unit = ... }, got 5" },
      { "route", 'deadline_header = { { name = "x" } },',
        "9: routes[1].deadline_header[1].unit: is required" },
      { "route", 'deadline_header = { { name = "x", unit = "m" } },',
        '9: routes[1].deadline_header[1].unit: must be "ms", "s", "grpc", got "m": did you mean '
        .. '"ms"?' },
      { "route", 'deadline_header = { "x-a-ms", { name = "X-A-ms", unit = "s" } },',
        '9: routes[1].deadline_header[2]: is in the list already: "x-a-ms"' },
      { "top", 'deadline_header = { "x-a-ms", "X-A-Ms" },',
        '2: deadline_header[2]: is in the list already: "x-a-ms"' },
    }
  end)

  it("gives a route its own headers for deadlines, or the ones of all", function()
    local function headers_of(top, route)
      return load(gateway { top = top, route = route }).routes[1].deadline_headers
    end
    local MS, S = { name = "x-a-ms", unit = "ms" }, { name = "x-b", unit = "s" }
    assert.is_nil(headers_of())
    assert.same({ MS }, headers_of('deadline_header = "X-A-ms",'))
    assert.same({ S }, headers_of('deadline_header = "x-a-ms",',
      'deadline_header = { { name = "X-B", unit = "s" } },'))
    assert.same({ MS, S }, headers_of(nil, 'deadline_header = { "x-a-ms", { name = "x-b", '
      .. 'unit = "s" } },'))
    assert.is_nil(headers_of('deadline_header = "x-a-ms",', "deadline_header = {},"))
  end)
end)
