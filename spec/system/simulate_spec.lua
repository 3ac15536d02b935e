--- `perilune simulate`: what is printed for scenarios and logs whose results can be worked out.

local cjson = require "cjson.safe"
local support = require "support"

--- Two targets, the second for what the first does not serve; nothing is ever taken out.
local FALLBACK = [[
local NEVER = { consecutive_5xx = 0, consecutive_connection = 0 }
return {
  providers = {
    primary = { url = "http://127.0.0.1:1/v1", health = NEVER, timeouts = { head = "5s" } },
    fallback = { url = "http://127.0.0.1:1/v1", health = NEVER, timeouts = { head = "5s" } },
  },
  routes = { { match = { model = "m" }, targets = {
    { provider = "primary", model = "m" }, { provider = "fallback", model = "m", priority = 1 },
  }, retry = { attempts = %d } } },
}
]]

local function folder_of(files)
  local folder = support.make_folder()
  for name, text in pairs(files) do support.write_file(folder .. "/" .. name, text) end
  return folder
end

local function policies(attempts, text)
  return folder_of {
    ["gateway.lua"] = text or FALLBACK:format(attempts or 3),
    ["fallback.lua"] = support.read_file("policies/fallback.lua"),
  }
end

--- A scenario: 1000 requests, ten a second; `parts` are further keys, `mix` of its only entry.
local function scenario_of(parts, mix)
  return ([[return {
    requests = { count = 1000, rate = 10, arrival = "even", mix = { { model = "m",
      input_tokens = 100, output_tokens = 11, %s } } },
    %s
  }]]):format(mix or "", parts or "")
end

local TIMES = [[upstreams = {
  primary = { head = "100ms", first_token = "200ms", per_token = "10ms", %s },
  fallback = { head = "50ms", first_token = "50ms", per_token = "20ms", %s } }, ]]

local function times(primary, fallback) return TIMES:format(primary or "", fallback or "") end

local function write(name, text)
  local path = support.make_folder() .. "/" .. name
  support.write_file(path, text)
  return path
end

local function simulate(...)
  return support.perilune({ "simulate", ... })
end

--- The results of a simulation, one a column.
local function results_of(...)
  local result = simulate("--json", ...)
  assert.equal("", result.stderr)
  assert.equal(0, result.status)
  local decoded, list = assert(cjson.decode(result.stdout)), {}
  for position, column in ipairs(decoded.columns) do list[position] = column.result end
  return list, decoded
end

local function of_scenario(text, directory)
  return results_of(directory or policies(), "--scenario", write("s.lua", text))[1]
end

local function near(wanted, tolerance, value)
  assert.is_true(math.abs(value - wanted) <= tolerance, ("%s is not near %s"):format(value, wanted))
end

describe("perilune simulate, for a scenario", function()
  after_each(support.finish)

  it("serves everything when nothing is wrong", function()
    local result = of_scenario(scenario_of(times()))
    assert.same({ 1000, 1000, 1, {}, 0 }, { result.requests, result.succeeded,
      result.success_rate, result.failures, result.retries })
    assert.same({ mean = 1, max = 1, total = 1000 }, result.attempts)
    -- the head, the first token and ten more
    assert.same({ p50 = 400, p90 = 400, p99 = 400, max = 400 }, result.latency_ms)
    assert.equal(1000, result.targets["primary/m"].served)
    assert.is_nil(result.targets["fallback/m"])
    assert.is_nil(result.first_failed_ms)
  end)

  it("shows what hedging does to the slow tail", function()
    local text = scenario_of([[upstreams = {
      primary = { head = "50ms", first_token = { p50 = "200ms", p99 = "8s" }, per_token = "10ms" },
      fallback = { head = "50ms", first_token = "200ms", per_token = "10ms" } }, ]], "stream = 1")
    local hedged = FALLBACK:format(3):gsub("routes = { { ",
      'routes = { { hedge = { after = "p90", until_known = "1s", budget_percent = 15 }, ')
    local plain, better = unpack((results_of(policies(), policies(3, hedged), "--scenario",
      write("s.lua", text))))
    assert.same({ 1, 1 }, { plain.success_rate, better.success_rate })
    assert.equal(1, plain.attempts.mean)
    assert.is_true(plain.first_token_ms.p99 > 5000, plain.first_token_ms.p99)
    assert.is_true(better.first_token_ms.p99 < 2500, better.first_token_ms.p99)
    assert.equal(plain.first_token_ms.p50, better.first_token_ms.p50)
    -- within its budget, the burst of ten included
    assert.is_true(better.attempts.mean > 1.03 and better.attempts.mean <= 1.16,
      better.attempts.mean)
  end)

  it("times streams to their first token", function()
    local result = of_scenario(scenario_of(times(), "stream = 1"))
    assert.same({ p50 = 300, p99 = 300 }, result.first_token_ms)
    assert.equal(400, result.latency_ms.p50)
  end)

  it("plays no heartbeats, which would look like answers", function()
    local config = FALLBACK:format(1):gsub("retry =", 'gate = { heartbeat = "100ms" }, %0')
    local directory = policies(nil, config)
    local result = of_scenario(scenario_of(times(), "stream = 1"), directory)
    assert.same({ p50 = 300, p99 = 300 }, result.first_token_ms)
    result = of_scenario(scenario_of([[outages = { { upstream = "primary", answer = "hang" } }]],
      "stream = 1"), directory)
    assert.same({ 0, { ["504 timeout_head"] = 1000 } }, { result.success_rate, result.failures })
  end)

  it("serves nothing when everything fails, and says with what", function()
    local result = of_scenario(scenario_of([[outages = {
      { upstream = "primary", answer = 500 }, { upstream = "fallback", answer = "reset" } }]]))
    assert.same({ 0, 0, 1000 }, { result.success_rate, result.succeeded, result.failed })
    assert.same({ total = 3000, mean = 3, max = 3 }, result.attempts)
    assert.equal(2000, result.retries)
    assert.same({ ["500 server_error"] = 1000 }, result.failures)
    assert.equal(0, result.first_failed_ms)
    assert.is_nil(result.recovered_ms)
    assert.equal(0, result.outages[1].first_failed_ms)
  end)

  it("serves everything from two targets, one of which fails half of the time", function()
    local result = of_scenario(scenario_of(times("errors = { [503] = 0.5 }")))
    assert.equal(1, result.success_rate)
    near(1.5, 0.05, result.attempts.mean)
    assert.equal(2, result.attempts.max)
    near(0.5, 0.05, result.targets["fallback/m"].share)
    assert.equal(result.retries, result.targets["fallback/m"].served)
  end)

  it("fails exactly the requests of an outage that nobody takes over", function()
    local result = of_scenario(scenario_of(times() .. [[outages = {
      { upstream = "primary", from = "20s", to = "50s", answer = 503 } }]]), policies(1))
    assert.equal(300, result.failed)
    assert.same({ ["503 overloaded"] = 300 }, result.failures)
    local outage = result.outages[1]
    assert.same({ 300, 20000, 50000, "primary" }, { outage.failed, outage.first_failed_ms,
      outage.recovered_ms, outage.upstream })
    assert.same({ 20000, 50000 }, { result.first_failed_ms, result.recovered_ms })
  end)

  it("counts tokens and spend, also of tries that failed after they had begun to speak", function()
    local prices = times("price = { input = 10, output = 1000 }",
      "price = { input = 1, output = 100 }")
    local result = of_scenario(scenario_of(prices, "stream = 1"))
    near(1000 * (100 * 10 + 11 * 1000) / 1e6, 1e-9, result.spend)
    assert.equal(11000, result.targets["primary/m"].output_tokens)
    -- says six words, then nothing; the client gets what it got
    result = of_scenario(scenario_of(prices .. [[outages = { { upstream = "primary",
      answer = { cut_after = 6 } } }]], "stream = 1"))
    assert.same({ ["200 cut: truncated"] = 1000 }, result.failures)
    assert.same({ 100000, 6000 }, { result.targets["primary/m"].input_tokens,
      result.targets["primary/m"].output_tokens })
    -- too late for the limit of 5 s, and another one answers: both are paid for
    result = of_scenario(scenario_of(prices .. [[outages = { { upstream = "primary",
      answer = { after = "1s", first = "1s", every = "1s" } } }]]))
    assert.equal(1, result.success_rate)
    assert.same({ 4000, 11000 }, { result.targets["primary/m"].output_tokens,
      result.targets["fallback/m"].output_tokens })
    near(1000 * (100 * 10 + 4 * 1000 + 100 * 1 + 11 * 100) / 1e6, 1e-9, result.spend)
  end)

  it("ejects as the gateway does", function()
    local text = FALLBACK:format(3):gsub("consecutive_5xx = 0", "consecutive_5xx = 5", 1)
    local result = of_scenario(scenario_of(times() .. [[outages = {
      { upstream = "primary", from = "20s", to = "50s", answer = 503 } }]]), policies(3, text))
    assert.equal(1, result.success_rate)
    assert.is_true(result.ejections >= 1)
    assert.equal(result.ejections, result.targets["primary/m"].ejections)
    assert.is_true(result.retries <= 2 * 5, result.retries) -- not 300
  end)

  it("makes the active checks that the directory asks for", function()
    local text = FALLBACK:format(3):gsub("consecutive_connection = 0", [[%0, active = {
      path = "/v1/models", interval = "1s", timeout = "500ms", unhealthy_after = 2,
      healthy_after = 3 }]])
    local OUTAGE = [[outages = { { upstream = "primary", from = "20s", to = "50s",
      answer = %s } }]]
    for _, answer in ipairs { '"connect"', "503", '"hang"' } do
      local result = of_scenario(scenario_of(times() .. OUTAGE:format(answer)), policies(3, text))
      assert.equal(1, result.success_rate)
      assert.equal(1, result.targets.primary.ejections)
      assert.equal(1, result.ejections)
      -- out from 1 to 3 s after the outage began till 2 to 5 s after it was over
      local served = result.targets["fallback/m"].served
      assert.is_true(served >= 290 and served <= 350, served)
      assert.is_true(result.retries <= 35, result.retries)
    end
    local result = of_scenario(scenario_of(times() .. [[outages = { { upstream = "primary/m",
      from = "20s", to = "50s", answer = 503 } }]]), policies(3, text))
    assert.same({ 0, 300 }, { result.ejections, result.retries }) -- only a model is out
  end)

  it("has upstreams that refuse what is too much at once", function()
    local result = of_scenario(scenario_of(times('concurrent = 2, retry_after = "1s"')))
    -- ten a second, 400 ms each: four at once, and after a 429 a second's rest
    assert.equal(1, result.success_rate)
    assert.is_true(result.targets["fallback/m"].served > 300)
    assert.is_true(result.targets["primary/m"].served > 100)
  end)

  it("has clients that leave", function()
    local result = of_scenario(scenario_of(times(), 'patience = "250ms", stream = 1'))
    assert.same({ ["client left"] = 1000 }, result.failures)
    assert.equal(250, result.latency_ms.max)
    result = of_scenario(scenario_of(times(), 'patience = "350ms", stream = 1'))
    assert.same({ ["200 client left"] = 1000 }, result.failures)
    assert.equal(6000, result.targets["primary/m"].output_tokens)
  end)

  it("ends requests at their limits", function()
    local result = of_scenario(scenario_of
      'outages = { { upstream = "primary", answer = "hang" } }')
    assert.equal(1, result.success_rate)
    assert.equal(5000 + 100 + 200 + 200, result.latency_ms.p50)
  end)

  it("obeys what a policy changes in the body", function()
    local directory = policies()
    support.write_file(directory .. "/fallback.lua", [[
      local gw = require "perilune"
      return function(req, route)
        req:set("max_tokens", 4)
        return req:relay(req:send(route.targets[1]))
      end]])
    local result = of_scenario(scenario_of(times()), directory)
    assert.equal(330, result.latency_ms.p50)
    assert.equal(4000, result.targets["primary/m"].output_tokens)
  end)

  it("counts what policies answer themselves, at no time at all", function()
    local directory = policies()
    support.write_file(directory .. "/fallback.lua",
      "return function(req) return req:respond(200, 'me') end")
    local text = scenario_of():gsub('"even"', '"poisson"')
    local result = of_scenario(text, directory)
    assert.same({ 1000, 0, 0 }, { result.succeeded, result.attempts.mean, result.attempts.max })
    assert.same({ p50 = 0, p90 = 0, p99 = 0, max = 0 }, result.latency_ms)
    assert.same({}, result.targets)
  end)

  it("tells what a broken policy says, and who served its requests", function()
    local directory, scenario = policies(), write("s.lua", scenario_of())
    support.write_file(directory .. "/fallback.lua", "return function(req) error('too bad') end")
    local text = simulate(directory, "--scenario", scenario).stdout
    for _, wanted in ipairs { "\nsucceeded +100.00 %%\n", "\npolicy failed: error +1000\n",
      "\n  served by the floor +1000\n", "too bad" } do
      assert.truthy(text:find(wanted), text)
    end
    local strict = FALLBACK:format(3):gsub("return {", 'return { on_policy_error = "fail",', 1)
    support.write_file(directory .. "/gateway.lua", strict)
    text = simulate(directory, "--scenario", scenario).stdout
    for _, wanted in ipairs { "\n  500 policy_error +1000\n", "\npolicy failed: error +1000\n",
      "too bad" } do
      assert.truthy(text:find(wanted), text)
    end
    assert.is_nil(text:find("floor", 1, true))
  end)
end)

describe("perilune simulate", function()
  after_each(support.finish)

  local RICH = [[return {
    seed = 3,
    requests = { count = 2000, rate = 20, mix = {
      { model = "m", share = 3, stream = 0.5, input_tokens = { p50 = 300, p99 = 3000 },
        output_tokens = { p50 = 50, p99 = 300 }, patience = "20s" },
      { model = "other" } } },
    upstreams = {
      primary = { head = { p50 = "100ms", p99 = "1s" }, errors = { [429] = 0.05, reset = 0.02,
        timeout_idle = 0.01 }, price = { input = 1, output = 2 } },
      fallback = { errors = { [500] = 0.2 } },
    },
    outages = { { upstream = "primary", from = "30s", to = "60s", answer = "connect",
      share = 0.8 } },
  }]]

  it("gives the same bytes for the same seed, and others for another", function()
    local scenario, directory = write("s.lua", RICH), policies()
    local function output(...) return simulate(directory, "--scenario", scenario, ...).stdout end
    local first, json = output(), output("--json")
    assert.equal(first, output())
    assert.equal(json, output("--json"))
    assert.equal(first, output("--seed", "3"))
    assert.not_equal(first, output("--seed", "4"))
  end)

  it("compares two directories, which meet the same luck", function()
    local scenario, once, thrice = write("s.lua", RICH), policies(1), policies(3)
    local results = results_of(once, thrice, "--scenario", scenario)
    assert.equal(2, #results)
    assert.is_true(results[1].success_rate + 0.1 < results[2].success_rate)
    assert.equal(1, results[1].attempts.max)
    assert.equal(results[1].failures["404 model_not_found"],
      results[2].failures["404 model_not_found"])
    -- what the first try meets is the same for both, alone or side by side
    assert.same(results[1], results_of(once, "--scenario", scenario)[1])
    assert.same(results[2], results_of(thrice, "--scenario", scenario)[1])
    local same = results_of(once, once, "--scenario", scenario)
    assert.same(same[1], same[2])
    local text = simulate(once, thrice, "--scenario", scenario).stdout
    assert.truthy(text:find("difference\n", 1, true))
    assert.truthy(text:find("\nsucceeded +[%d.]+ %% +[%d.]+ %% +%+[%d.]+ %%\n"), text)
  end)

  it("plays as many requests as asked", function()
    local results, decoded = results_of(policies(), "--scenario", write("s.lua", RICH),
      "--requests", "50")
    assert.equal(50, results[1].requests)
    assert.equal(2500, decoded.about.span_ms)
  end)

  it("plays ten thousand requests in a few seconds", function()
    local started = support.now()
    local results = results_of(policies(), "--scenario", write("s.lua", RICH), "--requests",
      "10000")
    assert.equal(10000, results[1].requests)
    assert.is_true(support.now() - started < 20)
  end)

  local function assert_refused(status, wanted, ...)
    local result = simulate(...)
    assert.same({ status, "" }, { result.status, result.stdout })
    assert.truthy(result.stderr:find(wanted, 1, true), result.stderr)
  end

  it("refuses a command line that it does not understand", function()
    local help = "(see: perilune simulate --help)\n"
    assert_refused(2, "a policy directory is needed " .. help)
    assert_refused(2, "--scenario FILE.lua or --log FILE.jsonl is needed " .. help, "policies")
    assert_refused(2, "unknown option --scenari (did you mean --scenario?) " .. help, "policies",
      "--scenari", "x")
    assert_refused(2, "--seed: a whole number", "policies", "--scenario", "x", "--seed", "many")
    local help_text = simulate("--help")
    assert.same({ 0, "" }, { help_text.status, help_text.stderr })
    assert.truthy(help_text.stdout:find("usage: perilune simulate DIR", 1, true))
  end)

  it("names what is wrong with a file", function()
    local directory, good = policies(), write("good.lua", scenario_of())
    assert_refused(1, "/none.lua: No such file or directory", directory, "--scenario",
      directory .. "/none.lua")
    assert_refused(1, "/none.jsonl: No such file or directory", directory, "--log",
      directory .. "/none.jsonl")
    assert_refused(1, "no-such-directory", "no-such-directory", "--scenario", good)
    assert_refused(1, directory .. "/bad.lua:1: requests: is required", directory, "--scenario",
      directory .. "/bad.lua", support.write_file(directory .. "/bad.lua", "return {}"))
    local broken = policies(3, "return {}")
    assert_refused(1, broken .. "/gateway.lua", directory, broken, "--scenario", good)
  end)

  it("knows the names of providers and targets in either directory", function()
    local other = policies(3, (FALLBACK:format(3):gsub("fallback", "reserve")))
    local text = scenario_of("upstreams = { primary = {}, reserve = {}, fallbak = {} }")
    assert_refused(1, 's.lua:4: upstreams.fallbak: there is no provider and no target "fallbak": '
      .. 'did you mean "fallback"? the names are fallback, fallback/m, primary, primary/m, reserve,'
      .. " reserve/m\n", policies(), other, "--scenario", write("s.lua", text))
  end)

  it("stops a scenario that computes without end, or takes all memory", function()
    assert_refused(1, "the CPU budget of 2000 ms is used up", policies(), "--scenario",
      write("s.lua", "while true do end"))
    assert_refused(1, "s.lua", policies(), "--scenario",
      write("s.lua", 'local s = "x" while true do s = s .. s end'))
    assert_refused(1, 'unknown name "os"', policies(), "--scenario",
      write("s.lua", "return { seed = os.time() }"))
  end)
end)

describe("perilune simulate, for a log", function()
  after_each(support.finish)

  --- A log as a gateway with FALLBACK would write it: of each four tries the primary fails one,
  -- with a 503 after 40 ms; its good answers take 300 ms, the fallback's 500.
  local function line(number, failed, more)
    local attempts = {}
    attempts[1] = failed and { target = "primary/m", status = 503, class = "overloaded",
        head_ms = 40, total_ms = 40 }
      or { target = "primary/m", status = 200, class = "ok", head_ms = 300, total_ms = 300 }
    if failed then
      attempts[2] = { target = "fallback/m", status = 200, class = "ok", head_ms = 500,
        total_ms = 500, wait_ms = 0 }
    end
    local ended_ms = number * 100 + (failed and 540 or 300)
    local record = {
      time = ("2026-01-05T12:%02d:%02d.%03dZ"):format(math.floor(ended_ms / 60000),
        math.floor(ended_ms / 1000) % 60, ended_ms % 1000),
      ["gen_ai.request.model"] = "m", ["gen_ai.usage.input_tokens"] = 100,
      ["gen_ai.usage.output_tokens"] = 10, stream = false, ["http.response.status_code"] = 200,
      duration_ms = failed and 540 or 300, attempts = attempts, route = "m", unknown = { 1 },
    }
    for key, value in pairs(more or {}) do record[key] = value end
    return cjson.encode(record)
  end

  local function log_of(count, change)
    local list = {}
    for number = 1, count do list[number] = line(number, number % 4 == 0) end
    if change then change(list) end
    return write("access.jsonl", table.concat(list, "\n") .. "\n")
  end

  it("gives what the log says when nothing has changed", function()
    local results, decoded = results_of(policies(), "--log", log_of(1000))
    local log, played = results[1], results[2]
    assert.equal("log", decoded.columns[1].name)
    assert.same({ 1000, 1, 250 }, { log.requests, log.success_rate, log.retries })
    for _, key in ipairs { "requests", "succeeded", "failed", "success_rate", "failures",
      "attempts", "retries" } do
      assert.same(log[key], played[key], key)
    end
    for _, key in ipairs { "p50", "p90", "p99", "max" } do
      near(log.latency_ms[key], 1, played.latency_ms[key])
    end
    assert.same({ p50 = 300, p90 = 540, p99 = 540, max = 540 }, log.latency_ms)
    assert.same({ own = 1250 }, played.answers)
    assert.equal(log.targets["fallback/m"].served, played.targets["fallback/m"].served)
  end)

  --- What the real gateway says of a request, as a line of its log.
  local function line_of_answer(answer, started, ended)
    local attempts, trail = {}, answer.headers["x-perilune-trail"]
    for target, what, ms in trail:gmatch("([^;, ]+);([^;]+);(%d+)ms") do
      local status = tonumber(what)
      local classes = { [200] = "ok", [503] = "overloaded", [400] = "client_fault" }
      attempts[#attempts + 1] = { target = target, status = status, class = classes[status] or what,
        head_ms = tonumber(ms), total_ms = tonumber(ms) }
    end
    return cjson.encode {
      time = os.date("!%Y-%m-%dT%H:%M:%S", math.floor(ended)) .. (".%06dZ"):format(ended % 1 * 1e6),
      ["gen_ai.request.model"] = "m", ["http.response.status_code"] = answer.status,
      duration_ms = (ended - started) * 1000, attempts = attempts,
    }
  end

  it("does what the real gateway with that directory has done", function()
    local calls = { primary = 0, fallback = 0 }
    local primary = support.answering(function(_, connection)
      calls.primary = calls.primary + 1
      if calls.primary % 7 == 0 then connection:reset() return end
      return calls.primary % 3 == 0 and 503 or 200, { choices = {} }
    end)
    local fallback = support.answering(function()
      calls.fallback = calls.fallback + 1
      return calls.fallback % 5 == 0 and 400 or 200, { error = { message = "no" } }
    end)
    local urls = { primary = primary.url, fallback = fallback.url }
    local config = FALLBACK:format(3):gsub("(%w+) = { url = \"http://127.0.0.1:1", function(name)
      return ("%s = { url = \"%s"):format(name, urls[name])
    end)
    local gw = support.gateway { config = config }
    local list, wall = {}, require("socket").gettime
    for number = 1, 100 do
      local started = wall()
      local answer = gw:chat { model = "m" }
      list[number] = line_of_answer(answer, started, wall())
    end
    local results = results_of(gw.folder_of_policies, "--log",
      write("access.jsonl", table.concat(list, "\n")))
    local log, played = results[1], results[2]
    assert.equal(100 + calls.fallback, log.attempts.total)
    assert.is_true(log.failed >= 1)
    assert.equal(math.floor(calls.fallback / 5), log.failed)
    for _, key in ipairs { "success_rate", "failures", "attempts", "retries" } do
      assert.same(log[key], played[key], key)
    end
    for name, counts in pairs(log.targets) do
      assert.same({ counts.attempts, counts.served },
        { played.targets[name].attempts, played.targets[name].served })
    end
    assert.same({ own = log.attempts.total }, played.answers)
    near(log.latency_ms.p50, 20, played.latency_ms.p50)
  end)

  it("tells what another directory would have done", function()
    local turned = FALLBACK:format(3):gsub('"fallback", model = "m", priority = 1',
      '"fallback", model = "m", priority = 0'):gsub('"primary", model = "m"',
      '"primary", model = "m", priority = 1')
    local results = results_of(policies(1), policies(3, turned), "--log", log_of(1000))
    assert.same({ 0.75, { ["503 overloaded"] = 250 } },
      { results[2].success_rate, results[2].failures })
    assert.same({ 1, 1000 }, { results[3].success_rate, results[3].targets["fallback/m"].served })
    assert.same({ own = 250, near = 750 }, results[3].answers)
    assert.equal(500, results[3].latency_ms.p50)
  end)

  it("says what was guessed, and what it does not know", function()
    local renamed = FALLBACK:format(3):gsub("fallback", "reserve")
    local log = log_of(1000)
    local text = simulate(policies(3, renamed), "--log", log).stdout
    assert.truthy(text:find("\n  guessed +%- +250 +%-\n"), text)
    assert.truthy(text:find("250 answers were guessed: the log has no attempt of that target near",
      1, true), text)
    assert.truthy(text:find("targets of the log that no directory has: fallback/m\n", 1, true))
    local scenario = write("s.lua", [[return { upstreams = { reserve = { head = "70ms",
      first_token = "0ms", per_token = "0ms" } } }]])
    local results = results_of(policies(3, renamed), "--log", log, "--scenario", scenario)
    assert.same({ own = 1000, described = 250 }, results[2].answers)
    assert.same({ p50 = 300, p90 = 300, p99 = 300, max = 300 }, results[2].latency_ms) -- or 110
  end)

  it("adds outages and prices of a scenario", function()
    local scenario = write("s.lua", [[return {
      upstreams = { primary = { price = { input = 1, output = 10 } } },
      outages = { { upstream = "primary", from = "10s", to = "20s", answer = "connect" },
        { upstream = "fallback", from = "10s", to = "21s", answer = 500 } } }]])
    local results = results_of(policies(2), "--log", log_of(1000), "--scenario", scenario)
    assert.equal(100, results[2].outages[1].failed)
    near(750 * 200 / 1e6, 1e-9, results[1].spend)
    near(675 * 200 / 1e6, 1e-9, results[2].spend)
  end)

  it("reads on where a line is broken, and names it", function()
    local log = log_of(100, function(list)
      list[7], list[9] = "{ broken", line(9, false, { time = "noon" })
    end)
    local result = simulate(policies(), "--log", log)
    assert.equal(0, result.status)
    for _, wanted in ipairs {
      "broken lines of the log, left out: 2\n", "  line 7: is not a JSON object\n",
      '  line 9: time must be a time such as "2026-01-05T12:00:00Z"\n', "98 requests within 10s",
    } do
      assert.truthy(result.stdout:find(wanted, 1, true), result.stdout)
    end
  end)

  it("reads as many requests as asked", function()
    local results = results_of(policies(), "--log", log_of(100), "--requests", "40")
    assert.same({ 40, 40 }, { results[1].requests, results[2].requests })
  end)

  it("refuses a log that says nothing", function()
    local empty = write("empty.jsonl", "")
    assert.same({ status = 1, stdout = "", stderr = empty .. ": is empty\n" },
      simulate(policies(), "--log", empty))
    local useless = write("useless.jsonl", "{}\nno\n")
    local result = simulate(policies(), "--log", useless)
    assert.equal(1, result.status)
    assert.equal(useless .. ": has no request with a model in 2 lines, 2 of them broken; line 1: "
      .. 'time must be a time such as "2026-01-05T12:00:00Z"\n', result.stderr)
  end)
end)
