--- Scenarios of `perilune simulate`: what may be written, what is said of mistakes, the requests
-- that come of it.

local arrivals = require "perilune.simulate.arrivals"
local scenario = require "perilune.simulate.scenario"

local function load(text)
  local loaded, _, problems = scenario.load(text, "outage.lua", true)
  if not loaded then error(problems, 2) end
  return loaded
end

local function problems_of(text, needs_requests)
  local loaded, code, problems = scenario.load(text, "outage.lua", needs_requests ~= false)
  assert.is_nil(loaded)
  assert.equal("invalid", code)
  return problems
end

--- A scenario with additions: `requests` on line 2, `upstreams` on 4, `outages` on 6.
local function text_of(parts)
  return ([[return {
    requests = { count = 10, rate = 5, mix = { { model = "m", $mix } }, $requests },
    upstreams = {
      $upstreams
    },
    outages = { $outages },
    $top
  }]]):gsub("%$(%w+)", function(name) return parts[name] or "" end)
end

describe("a scenario", function()
  it("has defaults for all but the requests", function()
    local loaded = load [[
      return { requests = { count = 10, rate = 5, mix = { { model = "m" } } } }]]
    assert.equal(1, loaded.seed)
    assert.equal(1767614400000, loaded.start_wall_ms)
    assert.same({ {}, {} }, { loaded.upstreams, loaded.outages })
    local mix = loaded.requests.mix[1]
    assert.same({ "m", 1, 0, 500, 200 },
      { mix.model, mix.share, mix.stream_share, mix.input_tokens.p50, mix.output_tokens.p50 })
    assert.equal("poisson", loaded.requests.arrival)
  end)

  it("reads every option", function()
    local loaded = load [[
      return {
        seed = 9, start = "2026-02-03T04:05:06Z",
        requests = {
          rate = 20, duration = "10m", arrival = "even",
          mix = { { model = "a", share = 3, stream = 0.5, input_tokens = { p50 = 100, p99 = 900 },
            output_tokens = 50, headers = { ["X-Team"] = "blue" }, body = { user = "u1" },
            patience = "30s" }, { model = "b" } },
        },
        upstreams = {
          primary = {
            head = "50ms", first_token = { p50 = "200ms", p99 = "2s" }, per_token = "12.5ms",
            errors = { [429] = 0.1, reset = 0.05 }, price = { input = 2.5, output = 10 },
            concurrent = 40, retry_after = "20s",
          },
        },
        outages = {
          { upstream = "primary", from = "1m", to = "3m", answer = 503, share = 0.5 },
          { upstream = "primary", answer = "hang" },
          { upstream = "primary", from = "1m", to = "3m", answer = { status = 200, after = "1s",
            words = 5, every = { p50 = "10ms", p99 = "20ms" }, cut_after = 3,
            body = { x = 1 }, headers = { ["Retry-After"] = "7" } } },
        },
      }]]
    local requests, upstream = loaded.requests, loaded.upstreams.primary
    assert.same({ 12000, 20, "even" }, { requests.count, requests.rate, requests.arrival })
    assert.same({ user = '"u1"' }, requests.mix[1].body)
    assert.equal("blue", requests.mix[1].headers["X-Team"])
    assert.equal(30000, requests.mix[1].patience_ms)
    assert.same({ p50 = 12.5, sigma = 0 }, upstream.per_token)
    assert.equal(200, upstream.first_token.p50)
    assert.same({ { what = 429, share = 0.1 }, { what = "reset", share = 0.05 } }, upstream.errors)
    assert.same({ 40, 20000 }, { upstream.concurrent_count, upstream.retry_after_ms })
    local first, second, third = unpack(loaded.outages)
    assert.same({ 60000, 180000, { status = 503 }, 0.5 },
      { first.from_ms, first.to_ms, first.answer, first.share })
    assert.same({ 0, nil, "hang" }, { second.from_ms, second.to_ms, second.answer.failure })
    assert.same({ 3, '{"x":1}', 1000 },
      { third.answer.cut_after, third.answer.body, third.answer.after.p50 })
  end)

  it("takes a count and a duration for a rate, too", function()
    local loaded = load [[return {
      requests = { count = 600, duration = "1m", mix = { { model = "m" } } } }]]
    assert.equal(10, loaded.requests.rate)
  end)

  it("is refused with file, line and key, all mistakes at once", function()
    assert.equal(table.concat({
      'outage.lua:2: requests.arrival: must be "poisson", "even", got "random"',
      'outage.lua:2: requests.mix[1].streem: unknown key: did you mean "stream"?',
      'outage.lua:4: upstreams.p.per_token: must be a duration such as "200ms", or { p50 = "200ms",'
        .. ' p99 = "2s" }, got 20',
      "outage.lua:4: upstreams.p.errors: must not be more than all answers: the shares add up to "
        .. "1.2",
      'outage.lua:6: outages[1].to: must be later than from',
      'outage.lua:7: seed: must be a whole number >= 0, got -1',
    }, "\n"), problems_of(text_of {
      mix = "streem = 1", requests = 'arrival = "random"',
      upstreams = "p = { per_token = 20, errors = { [500] = 0.6, reset = 0.6 } },",
      outages = '{ upstream = "p", from = "2s", to = "1s", answer = 503 }', top = "seed = -1",
    }))
  end)

  it("is refused for each of these", function()
    local CASES = {
      { "upstreams", "p = { errors = { [200] = 0.1 } }", "upstreams.p.errors[200]: is neither a" },
      { "upstreams", "p = { errors = { resett = 0.1 } }", "upstreams.p.errors.resett: is neither" },
      { "upstreams", 'p = { head = { p50 = "2s", p99 = "1s" } }',
        "upstreams.p.head.p99: must not be less than p50" },
      { "upstreams", 'p = { head = { p50 = "2s" } }', "upstreams.p.head.p99: is required" },
      { "upstreams", 'p = { head = { p50 = "0ms", p99 = "1s" } }',
        "upstreams.p.head.p50: must be a duration from 0.001ms to 1h" },
      { "upstreams", "p = { concurrent = 0 }", "upstreams.p.concurrent: must be a whole number" },
      { "upstreams", "p = { price = { input = -1 } }", "p.price.input: must be a number" },
      { "upstreams", "p = {}, p = {}", "upstreams.p: is given twice, first on line 4" },
      { "outages", '{ upstream = "p", answer = "rset" }', 'did you mean "reset"?' },
      { "outages", '{ upstream = "p", answer = true }',
        "outages[1].answer: must be a status, the name of a failure, or a table, got true" },
      { "outages", '{ upstream = "p", answer = 99 }', "must be a whole number from 200 to 599" },
      { "outages", '{ upstream = "p" }', "outages[1].answer: is required" },
      { "outages", '{ upstream = "p", answer = { cut_after = 1, stall_after = 1 } }',
        "outages[1].answer.stall_after: cannot be given together with cut_after" },
      { "outages", "{ answer = 503 }", "outages[1].upstream: is required" },
      { "mix", "share = 0", "requests.mix: must have an entry whose share is more than 0" },
      { "mix", "input_tokens = { p50 = 10, p99 = 1 }", "input_tokens.p99: must not be less" },
      { "mix", "output_tokens = 1.5", "output_tokens: must be a whole number from 1 to" },
      { "mix", 'patience = 3', 'patience: is ambiguous: write "3s" or "3ms"' },
      { "requests", 'duration = "1m"', "requests: needs two of count, rate (a second) and dura" },
      { "top", 'start = "now"', "start: must be a time such as" },
    }
    for _, case in ipairs(CASES) do
      local problems = problems_of(text_of { [case[1]] = case[2] })
      assert.truthy(problems:find(case[3], 1, true), problems)
    end
  end)

  it("must be one table, made of nothing but itself", function()
    assert.equal("outage.lua: must end with return { ... }, one table; got nil", problems_of "")
    assert.equal(
      "outage.lua:1: unknown name \"math\": only what the file itself declares exists here",
      problems_of "return { seed = math.random(9) }")
    assert.truthy(problems_of("return {"):find("^outage.lua:1: "))
    assert.equal("outage.lua: is compiled code; only the text of a script is read",
      problems_of(string.dump(function() return {} end)))
    assert.equal("outage.lua:1: requests: is required: how many requests come, and which",
      problems_of "return {}")
  end)

  it("leaves the requests to a log, where there is one", function()
    assert.equal("outage.lua:2: requests: must be left out: the requests come from the log",
      problems_of(text_of {}, false))
    assert.is_table(scenario.load("return { upstreams = {} }", "outage.lua", false))
  end)

  it("bounds how many requests there can be", function()
    local function problems(rate, duration)
      return problems_of(([[return { requests = { rate = %s, duration = "%s",
        mix = { { model = "m" } } } }]]):format(rate, duration))
    end
    assert.truthy(problems("1000", "1h"):find("must not make more than 1000000 requests", 1, true))
    assert.truthy(problems("0.001", "1s"):find("must make at least one request", 1, true))
    assert.truthy(problems_of([[return { requests = { rate = 0.001, count = 1000,
      mix = { { model = "m" } } } }]]):find("must not make more than 240 hours", 1, true))
  end)

  it("knows the names that there are", function()
    local text = text_of {
      upstreams = "primery = {}, fallback = {},",
      outages = '{ upstream = "fallback/gpt-5", answer = 503 }',
    }
    local names = { "fallback", "fallback/gpt-4", "primary" }
    local ok, code, problems = scenario.check_names(load(text), text, "outage.lua", names)
    assert.same({ nil, "invalid" }, { ok, code })
    assert.equal(table.concat({
      'outage.lua:4: upstreams.primery: there is no provider and no target "primery": did you mean '
        .. '"primary"? the names are fallback, fallback/gpt-4, primary',
      'outage.lua:6: outages[1].upstream: there is no provider and no target "fallback/gpt-5": did '
        .. 'you mean "fallback/gpt-4"? the names are fallback, fallback/gpt-4, primary',
    }, "\n"), problems)
    table.insert(names, "primery")
    table.insert(names, "fallback/gpt-5")
    assert.is_true(scenario.check_names(load(text), text, "outage.lua", names))
  end)
end)

describe("the requests of a scenario", function()
  local function all(parts, seed)
    local list, next_request = {}, arrivals.new(load(text_of(parts)).requests, seed or 1)
    for request in next_request do list[#list + 1] = request end
    return list
  end

  local MANY = "count = 20000, rate = 100"

  local function many(mix, seed, arrival)
    local text = ("return { requests = { %s, arrival = %q, mix = { %s } } }"):format(MANY,
      arrival or "poisson", mix)
    local list = {}
    for request in arrivals.new(load(text).requests, seed or 1) do list[#list + 1] = request end
    return list
  end

  it("come evenly, if asked", function()
    local list = all { requests = 'arrival = "even"' }
    assert.equal(10, #list)
    for position, request in ipairs(list) do
      assert.equal(position, request.number)
      assert.equal((position - 1) * 200, request.at_ms)
    end
  end)

  it("come at random otherwise, as many a second, and in order", function()
    local list, singles = many '{ model = "m" }', 0
    for position = 2, #list do
      local gap_ms = list[position].at_ms - list[position - 1].at_ms
      assert.is_true(gap_ms >= 0)
      if gap_ms > 10 then singles = singles + 1 end
    end
    assert.is_true(math.abs(list[#list].at_ms - 200000) < 5000)
    assert.is_true(math.abs(singles / #list - math.exp(-1)) < 0.02) -- of an exponential gap
  end)

  it("are the same for the same seed, and others for another", function()
    local mix = '{ model = "m", stream = 0.5, input_tokens = { p50 = 100, p99 = 900 } }'
    assert.same(many(mix, 3), many(mix, 3))
    assert.not_same(many(mix, 3), many(mix, 4))
  end)

  it("are of so many users, who are named in headers and body", function()
    local counts = {}
    for _, request in ipairs(many [[{ model = "m", users = 4,
      headers = { ["X-User"] = "u-{user}", ["X-Team"] = "blue" }, body = { user = "{user}" } }]]) do
      local user = request.headers["X-User"]
      assert.equal("blue", request.headers["X-Team"])
      assert.equal(('"%s"'):format(user:sub(3)), request.body.user)
      counts[user] = (counts[user] or 0) + 1
    end
    for _, user in ipairs { "u-1", "u-2", "u-3", "u-4" } do
      assert.is_true(math.abs(counts[user] - 5000) < 250)
    end
  end)

  it("are mixed by share, with streams and sizes as asked", function()
    local models, streams, sum = { a = 0, b = 0 }, 0, 0
    for _, request in ipairs(many [[
      { model = "a", share = 3, stream = 0.25, input_tokens = { p50 = 100, p99 = 500 } },
      { model = "b", stream = 1, output_tokens = 7 }]]) do
      models[request.model] = models[request.model] + 1
      if request.model == "a" then
        if request.stream then streams = streams + 1 end
        if request.input_tokens > 100 then sum = sum + 1 end
      else
        assert.is_true(request.stream)
        assert.equal(7, request.output_tokens)
      end
    end
    assert.is_true(math.abs(models.a - 15000) < 300)
    assert.is_true(math.abs(streams / models.a - 0.25) < 0.02)
    assert.is_true(math.abs(sum / models.a - 0.5) < 0.02)
  end)
end)

describe("the description of scenarios in policies/README.md", function()
  it("names every option", function()
    local schema = require "perilune.schema"
    local file = assert(io.open("policies/README.md"))
    local text = file:read("*a"):match("\n### Scenarios\n(.-)\n### Logs\n")
    file:close()
    schema.each(require "perilune.simulate.schema", function(path)
      local key = path.key
      if type(key) ~= "string" or key == "*" then return end
      assert.truthy(text:find("%f[%w_]" .. key .. "%f[^%w_]"), schema.path_text(path))
    end)
  end)
end)
