--- What upstreams answer in a simulation, by description.

local scenario = require "perilune.simulate.scenario"
local upstreams = require "perilune.simulate.upstreams"

local function new(text, seed)
  local loaded, _, problems = scenario.load("return {" .. text .. "}", "s.lua", false)
  if not loaded then error(problems, 2) end
  return upstreams.new(loaded.upstreams, loaded.outages, seed or 1)
end

local function call(fields)
  local result = {
    target = "p/m", provider = "p", at_ms = 0, nth = 1,
    request = { number = 1, input_tokens = 100, output_tokens = 50 },
  }
  for key, value in pairs(fields or {}) do result[key] = value end
  return result
end

local function of_number(number, fields)
  local made = call(fields)
  made.request = { number = number, input_tokens = 100, output_tokens = 50 }
  return made
end

describe("upstreams of a scenario", function()
  it("take usual times where nothing is said", function()
    assert.same({ status = 200, after_ms = 100, first_ms = 200, every_ms = 20, tokens = 50 },
      new(""):answer(call()))
  end)

  it("follow the target's own entry, then its provider's", function()
    local made = new [[upstreams = {
      p = { head = "1ms", first_token = "2ms", price = { input = 1, output = 2 } },
      ["p/m"] = { first_token = "3ms" } }]]
    local plan = made:answer(call())
    assert.same({ 1, 3, 20 }, { plan.after_ms, plan.first_ms, plan.every_ms })
    assert.same({ input = 1, output = 2 }, made:price("p/m", "p"))
    assert.same({ true, true, false },
      { made:knows("p/m", "p"), made:knows("p/x", "p"), made:knows("q/m", "q") })
  end)

  it("fail as often as they are said to, whatever the order of the calls", function()
    local made, counts, again = new "upstreams = { p = { errors = { [503] = 0.2, reset = 0.1 } } }",
      {}, new "upstreams = { p = { errors = { [503] = 0.2, reset = 0.1 } } }"
    for number = 10000, 1, -1 do
      local plan = made:answer(of_number(number))
      local what = plan.failure or plan.status
      counts[what] = (counts[what] or 0) + 1
    end
    assert.is_true(math.abs(counts[503] - 2000) < 120)
    assert.is_true(math.abs(counts.reset - 1000) < 100)
    assert.is_true(math.abs(counts[200] - 7000) < 150)
    made = new "upstreams = { p = { errors = { [503] = 0.2, reset = 0.1 } } }"
    for number = 1, 100 do
      assert.same(made:answer(of_number(number)), again:answer(of_number(number)))
    end
  end)

  it("give another try of the same request its own luck", function()
    local made, changed = new "upstreams = { p = { errors = { [503] = 0.5 } } }", 0
    for number = 1, 1000 do
      local first = made:answer(of_number(number))
      local second = made:answer(of_number(number, { nth = 2 }))
      if first.status ~= second.status then changed = changed + 1 end
    end
    assert.is_true(math.abs(changed - 500) < 60)
  end)

  it("answer 429 above their concurrency, with a Retry-After", function()
    local made = new 'upstreams = { p = { concurrent = 2, retry_after = "1500ms" } }'
    made:start(call())
    assert.equal(200, made:answer(call()).status)
    made:start(call { target = "p/other" })
    local plan = made:answer(call())
    assert.same({ 429, "2" }, { plan.status, plan.headers["retry-after"] })
    made:finish(call { target = "p/other" })
    assert.equal(200, made:answer(call()).status)
  end)

  it("have a concurrency for each target where it says so", function()
    local made = new 'upstreams = { ["p/m"] = { concurrent = 1 } }'
    made:start(call())
    assert.equal(429, made:answer(call()).status)
    assert.equal(200, made:answer(call { target = "p/other" }).status)
  end)

  it("are out while an outage lasts; of two, the one written last counts", function()
    local made = new [[outages = {
      { upstream = "p", from = "10s", to = "20s", answer = 503 },
      { upstream = "p/m", from = "15s", to = "20s", answer = "hang" } }]]
    local function at(ms, target)
      target = target or "p/m"
      local plan = made:answer(call { at_ms = ms, target = target, provider = target:sub(1, 1) })
      return plan.failure or plan.status
    end
    assert.same({ 200, 503, 503, "hang", "hang", 200 },
      { at(9999), at(10000), at(14999), at(15000), at(19999), at(20000) })
    assert.same({ 503, 200 }, { at(15000, "p/other"), at(15000, "q/other") })
  end)

  it("are out for a share of the calls", function()
    local made, failed = new 'outages = { { upstream = "p", answer = 500, share = 0.3 } }', 0
    for number = 1, 10000 do
      if made:answer(of_number(number)).status == 500 then failed = failed + 1 end
    end
    assert.is_true(math.abs(failed - 3000) < 150)
  end)

  it("answer in an outage as it says", function()
    local plan = new([[outages = { { upstream = "p", answer = { status = 200, after = "1s",
      words = 8, first = "2s", every = "3s", stall_after = 4, done = false,
      headers = { ["X-A"] = "b" } } } }]]):answer(call())
    assert.same({ status = 200, after_ms = 1000, first_ms = 2000, every_ms = 3000, tokens = 8,
      stall_after = 4, done = false, headers = { ["X-A"] = "b" } }, plan)
    local cut = new('outages = { { upstream = "p", answer = "truncated" } }'):answer(call())
    assert.same({ 200, 25 }, { cut.status, cut.cut_after })
  end)

  it("make no more tokens than the call allows", function()
    assert.equal(10, new(""):answer(call { max_tokens = 10 }).tokens)
    assert.equal(50, new(""):answer(call { max_tokens = 1000 }).tokens)
  end)

  it("are as lucky with an outage as without, as far as their times go", function()
    local TIMES = 'upstreams = { p = { head = { p50 = "100ms", p99 = "2s" } } }'
    local calm = new(TIMES)
    local struck = new(TIMES .. ', outages = { { upstream = "p", answer = 200 } }')
    for number = 1, 50 do
      assert.equal(calm:answer(of_number(number)).after_ms,
        struck:answer(of_number(number)).after_ms)
    end
  end)
end)
