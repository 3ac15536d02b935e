local support = require "spec.unit.config_support"

local check_accepted, check_refused = support.check_accepted, support.check_refused
local gateway, problems_of = support.gateway, support.problems_of

describe("config.load, refusing in health", function()
  it("refuses unknown keys and says what was meant", function()
    check_refused {
      { "primary", "health = { consecutive_5x = 5 }", "4: providers.primary.health.consecutive_5x: "
        .. 'unknown key: did you mean "consecutive_5xx"?' },
      { "primary", "health = { threshold = 5 }", "4: providers.primary.health.threshold: unknown "
        .. "key: known here: consecutive_5xx, consecutive_gateway, consecutive_connection, "
        .. "split_connection, failure_percent, failure_min_requests, window, success_ewma_below, "
        .. "retry_after, auth, unhealthy, base_ejection, max_ejection, jitter, decay, slow_start, "
        .. "probe_timeout, active" },
      { "primary", 'health = { active = { intervall = "1s" } }',
        '4: providers.primary.health.active.intervall: unknown key: did you mean "interval"?' },
      { "primary", 'health = { retry_after = { max = "1s" } }',
        "4: providers.primary.health.retry_after.max: unknown key: known here: statuses, cap" },
    }
  end)

  it("refuses wrong types", function()
    check_refused {
      { "primary", "health = true", "4: providers.primary.health: must be a table or false, "
        .. "got true" },
      { "primary", 'health = "off"', "4: providers.primary.health: must be a table or false, "
        .. 'got "off"' },
      { "primary", "health = { retry_after = 60 }",
        "4: providers.primary.health.retry_after: must be a table or false, got 60" },
      { "primary", "health = { active = false }",
        "4: providers.primary.health.active: must be a table, got false" },
      { "primary", 'health = { unhealthy = "res.status == 500" }',
        '4: providers.primary.health.unhealthy: must be a function(res), got "res.status == 500"' },
      { "primary", "health = { split_connection = 1 }",
        "4: providers.primary.health.split_connection: must be true or false, got 1" },
      { "primary", "health = { auth = 401 }",
        "4: providers.primary.health.auth: must be a table or false, got 401" },
      { "primary", "health = { jitter = \"10%\" }",
        '4: providers.primary.health.jitter: must be a number from 0 to 1, got "10%"' },
    }
  end)

  it("names bounds", function()
    check_refused {
      { "primary", "health = { consecutive_5xx = -1 }", "4: providers.primary.health."
        .. "consecutive_5xx: must be a whole number from 0 to 10000, got -1" },
      { "primary", "health = { consecutive_gateway = 0.5 }", "4: providers.primary.health."
        .. "consecutive_gateway: must be a whole number from 0 to 10000, got 0.5" },
      { "primary", "health = { consecutive_connection = 10001 }", "4: providers.primary.health."
        .. "consecutive_connection: must be a whole number from 0 to 10000, got 10001" },
      { "primary", "health = { failure_percent = 101 }",
        "4: providers.primary.health.failure_percent: must be a number from 0 to 100, got 101" },
      { "primary", "health = { failure_percent = 50, failure_min_requests = 0 }",
        "4: providers.primary.health.failure_min_requests: must be a whole number from 1 to "
        .. "1000000, got 0" },
      { "primary", 'health = { window = "99ms" }',
        '4: providers.primary.health.window: must be a duration from 100ms to 1h, got "99ms"' },
      { "primary", "health = { success_ewma_below = 1.1 }",
        "4: providers.primary.health.success_ewma_below: must be a number from 0 to 1, got 1.1" },
      { "primary", "health = { jitter = -0.1 }",
        "4: providers.primary.health.jitter: must be a number from 0 to 1, got -0.1" },
      { "primary", "health = { base_ejection = 30 }",
        '4: providers.primary.health.base_ejection: is ambiguous: write "30s" or "30ms"' },
      { "primary", 'health = { max_ejection = "0s", base_ejection = "1ms" }',
        '4: providers.primary.health.max_ejection: must be a duration from 1ms to 24h, got "0s"' },
      { "primary", 'health = { decay = "25h" }',
        '4: providers.primary.health.decay: must be a duration from 0ms to 24h, got "25h"' },
      { "primary", 'health = { slow_start = "2h" }',
        '4: providers.primary.health.slow_start: must be a duration from 0ms to 1h, got "2h"' },
      { "primary", 'health = { probe_timeout = "0s" }',
        '4: providers.primary.health.probe_timeout: must be a duration from 1ms to 1h, got "0s"' },
      { "primary", 'health = { retry_after = { cap = "0s" } }',
        '4: providers.primary.health.retry_after.cap: must be a duration from 1ms to 24h, '
        .. 'got "0s"' },
    }
  end)

  it("refuses statuses that cannot be meant", function()
    check_refused {
      { "primary", "health = { retry_after = { statuses = { 200 } } }", "4: providers.primary."
        .. "health.retry_after.statuses[1]: must be a whole number from 300 to 599, got 200" },
      { "primary", "health = { retry_after = { statuses = { 429, 429 } } }", "4: providers.primary."
        .. "health.retry_after.statuses[2]: is in the list already, got 429" },
      { "primary", "health = { retry_after = { statuses = {} } }", "4: providers.primary.health."
        .. "retry_after.statuses: must not be empty: to switch it off, write retry_after = false" },
      { "primary", 'key = "sk", health = { auth = { 401, 500 } }', "4: providers.primary.health."
        .. "auth[2]: must be a whole number from 400 to 499, got 500" },
      { "primary", "health = { active = { statuses = { 100 } } }", "4: providers.primary.health."
        .. "active.statuses[1]: must be a whole number from 200 to 599, got 100" },
      { "primary", "health = { active = { statuses = {} } }",
        "4: providers.primary.health.active.statuses: must not be empty" },
    }
  end)

  it("refuses thresholds that contradict each other", function()
    check_refused {
      { "primary", 'health = { base_ejection = "10m" }', "4: providers.primary.health."
        .. "base_ejection: must not be more than max_ejection (5m), got 10m" },
      { "primary", 'health = { max_ejection = "10s" }', "4: providers.primary.health."
        .. "base_ejection: must not be more than max_ejection (10s), got 30s" },
      { "primary", "health = { consecutive_gateway = 6 }", "4: providers.primary.health."
        .. "consecutive_gateway: has no effect when it is more than consecutive_5xx (5), got 6" },
    }
    check_accepted("primary", {
      'health = { base_ejection = "10m", max_ejection = "10m" }',
      "health = { consecutive_gateway = 5 }",
      "health = { consecutive_5xx = 0, consecutive_gateway = 50 }",
    })
  end)

  it("wants a credential of ours for the statuses that refuse it", function()
    check_refused {
      { "primary", "health = { auth = { 401 } }", "4: providers.primary.health.auth: has no use "
        .. "without key: there is no credential of ours to be refused" },
      { "primary", 'auth = "passthrough", health = { auth = { 401 } }', "4: providers.primary."
        .. 'health.auth: has no use with auth = "passthrough": the credential is each client\'s '
        .. "own" },
      -- a key that is refused itself is not missing as well
      { "primary", 'key = "", health = { auth = { 401 } }',
        "4: providers.primary.key: must not be empty" },
    }
    check_accepted("primary", {
      'key = "sk", health = { auth = { 401, 402, 403 } }',
      'auth = "passthrough", health = { auth = {} }',
    })
  end)

  it("refuses active checks that cannot work", function()
    local form = 'must be a path: start with "/", without spaces or "#"'
    check_refused {
      { "primary", 'health = { active = { path = "v1/models" } }',
        "4: providers.primary.health.active.path: " .. form .. ', got "v1/models"' },
      { "primary", 'health = { active = { path = "http://h/v1" } }',
        "4: providers.primary.health.active.path: " .. form .. ', got "http://h/v1"' },
      { "primary", 'health = { active = { path = "/a b" } }',
        "4: providers.primary.health.active.path: " .. form .. ', got "/a b"' },
      { "primary", 'health = { active = { path = "/a\\r\\nb" } }',
        "4: providers.primary.health.active.path: " .. form .. ', got "/a\\013\\010b"' },
      { "primary", 'health = { active = { path = "/\\195\\169" } }',
        "4: providers.primary.health.active.path: " .. form .. ', got "/\195\169"' },
      { "primary", 'health = { active = { method = "get" } }',
        '4: providers.primary.health.active.method: must be "GET", "HEAD", "OPTIONS", "POST", '
        .. 'got "get": did you mean "GET"?' },
      { "primary", 'health = { active = { headers = { Host = "h" } } }', "4: providers.primary."
        .. "health.active.headers.Host: is a header that the gateway sets itself" },
      { "primary", 'health = { active = { interval = "1s" } }',
        "4: providers.primary.health.active.timeout: must not be more than interval (1s), got 3s" },
      { "primary", "health = { active = { unhealthy_after = 0 } }", "4: providers.primary.health."
        .. "active.unhealthy_after: must be a whole number from 1 to 100, got 0" },
      { "primary", "health = { active = { healthy_after = 0 } }", "4: providers.primary.health."
        .. "active.healthy_after: must be a whole number from 1 to 100, got 0" },
      { "primary", 'health = { active = { interval = "0s" } }', "4: providers.primary.health."
        .. 'active.interval: must be a duration from 10ms to 1h, got "0s"' },
    }
  end)

  it("finds the lines of what stands below and behind a function", function()
    assert.are.same({
      "gateway.lua:9: providers.primary.health.jitter: must be a number from 0 to 1, got 2",
      "gateway.lua:11: providers.primary.health.active.jitter: must be a number from 0 to 1, got 3",
    }, problems_of(gateway { primary = [[health = {
      unhealthy = function(res)
        for _, status in pairs { 1, 2 } do if res.status == status then return true end end
        return false
      end,
      jitter = 2,
      active = {
        jitter = 3,
      } }]] }))
  end)
end)
