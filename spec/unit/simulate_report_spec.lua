--- What a simulation counts, and how it tells it.

local cjson = require "cjson.safe"
local report = require "perilune.simulate.report"
local tally = require "perilune.simulate.tally"

local function outcome(number, fields)
  local result = {
    number = number, at_ms = number * 1000, stream = false, status = 200, ended = "complete",
    duration_ms = 100, attempts = { { target = "p/m", input_tokens = 10, output_tokens = 5,
      cost = 0.25 } }, served_by = "p/m",
  }
  for key, value in pairs(fields or {}) do result[key] = value end
  return result
end

local FAILED = { status = 503, why = "all_ejected", served_by = false }

local function summary_of(list, outages)
  local made = tally.new()
  for number, fields in ipairs(list) do made:add(outcome(number, fields)) end
  return made:summary(outages or {})
end

describe("perilune.simulate.tally", function()
  it("counts requests, attempts, tokens and spend", function()
    local twice = { attempts = { { target = "p/m", input_tokens = 10, cost = 0.1 },
      { target = "q/m", input_tokens = 10, output_tokens = 20, cost = 1 } }, served_by = "q/m" }
    local summary = summary_of { {}, twice, { attempts = {}, status = 404, served_by = false,
      why = "model_not_found" } }
    assert.same({ 3, 2, 1 }, { summary.requests, summary.succeeded, summary.failed })
    assert.equal(2 / 3, summary.success_rate)
    assert.same({ ["404 model_not_found"] = 1 }, summary.failures)
    assert.same({ total = 3, max = 2, mean = 1 }, summary.attempts)
    assert.equal(1, summary.retries)
    assert.equal(1.35, summary.spend)
    assert.same({ attempts = 2, served = 1, share = 1 / 3, input_tokens = 20, output_tokens = 5,
      spend = 0.35, ejections = 0 }, summary.targets["p/m"])
    assert.same({ 1, 20 }, { summary.targets["q/m"].served, summary.targets["q/m"].output_tokens })
  end)

  it("takes an answer for good only when it was whole and below 400", function()
    local summary = summary_of {
      { status = 204 }, { status = 302 }, { status = 400 }, { ended = "cut", why = "truncated" },
      { ended = "reset", status = 0 }, { ended = "left", status = 0 }, { ended = "left" },
      { ended = "cut" }, { status = 503, why = "overloaded" },
    }
    assert.equal(2, summary.succeeded)
    assert.same({
      ["400"] = 1, ["200 cut: truncated"] = 1, reset = 1, ["client left"] = 1,
      ["200 client left"] = 1, ["200 cut"] = 1, ["503 overloaded"] = 1,
    }, summary.failures)
  end)

  it("gives exact percentiles, of first tokens only for streams", function()
    local list = {}
    for number = 1, 100 do
      list[number] = { duration_ms = 101 - number, stream = number <= 50, first_token_ms = number }
    end
    local summary = summary_of(list)
    assert.same({ p50 = 50, p90 = 90, p99 = 99, max = 100 }, summary.latency_ms)
    assert.same({ p50 = 25, p99 = 50 }, summary.first_token_ms)
  end)

  it("tells when requests began to fail in an outage, and since when they do no more", function()
    local OUTAGES = { { upstream = "p", from_ms = 3000, to_ms = 6000 },
      { upstream = "q", from_ms = 9000 } }
    local summary = summary_of(
      { {}, FAILED, {}, FAILED, FAILED, FAILED, FAILED, {}, FAILED, {} }, OUTAGES)
    assert.same({ upstream = "p", from_ms = 3000, to_ms = 6000, failed = 4, first_failed_ms = 4000,
      recovered_ms = 8000 }, summary.outages[1])
    assert.same({ upstream = "q", from_ms = 9000, failed = 1, first_failed_ms = 9000,
      recovered_ms = 10000 }, summary.outages[2])
    assert.same({ 2000, 10000 }, { summary.first_failed_ms, summary.recovered_ms })
  end)

  it("has no time of recovery while it lasts, and none of failure without one", function()
    local summary = summary_of({ {}, FAILED }, { { upstream = "p", from_ms = 0, to_ms = 1500 } })
    assert.same({ 2000, nil }, { summary.first_failed_ms, summary.recovered_ms })
    assert.same({ 0, nil, nil }, { summary.outages[1].failed, summary.outages[1].first_failed_ms,
      summary.outages[1].recovered_ms })
  end)

  it("counts the same in whatever order the requests end", function()
    local first, second = tally.new(), tally.new()
    local list = { {}, FAILED, { duration_ms = 7 }, FAILED, {} }
    for number = 1, 5 do first:add(outcome(number, list[number])) end
    for number = 5, 1, -1 do second:add(outcome(number, list[number])) end
    local OUTAGES = { { upstream = "p", from_ms = 0, to_ms = 9000 } }
    assert.same(first:summary(OUTAGES), second:summary(OUTAGES))
  end)

  it("counts ejections where there were any", function()
    local made = tally.new()
    made:add(outcome(1))
    made:add_ejections("p/m", 2)
    made:add_ejections("p", 1)
    made:add_ejections("q", 0)
    local summary = made:summary {}
    assert.same({ 3, 2, 1, nil }, { summary.ejections, summary.targets["p/m"].ejections,
      summary.targets.p.ejections, summary.targets.q })
  end)
end)

describe("perilune.simulate.report", function()
  local OUTAGES = { { upstream = "p", from_ms = 1000, to_ms = 61000 } }

  local function columns()
    return {
      { name = "policies", summary = summary_of({ {}, FAILED, {}, {} }, OUTAGES) },
      { name = "policies-new",
        summary = summary_of({ {}, { duration_ms = 350 }, {}, {} }, OUTAGES) },
    }
  end

  it("shows two directories side by side, with the difference", function()
    local text = report.text(columns())
    for _, line in ipairs {
      "                         policies   policies-new   difference",
      "requests                        4              4            0",
      "succeeded                 75.00 %       100.00 %     +25.00 %",
      "failed                          1              0           -1",
      "  503 all_ejected               1              0           -1",
      "first failure at            2.0 s              -            -",
      "latency max                100 ms         350 ms      +250 ms",
      "first token p50                 -              -            -",
      "attempts per request        1.000          1.000        0.000",
      "outage of p, from 1.0 s to 61.0 s",
      "  requests failed               1              0           -1",
      "  no failure since          3.0 s              -            -",
      "p/m",
      "  served                        3              4           +1",
      "  spend                    1.0000         1.0000       0.0000",
    } do
      assert.truthy(("\n" .. text):find("\n" .. line .. "\n", 1, true), line .. "\n\n" .. text)
    end
  end)

  it("does not speak of money where nothing has a price", function()
    local one = { columns()[1] }
    one[1].summary.spend = 0
    assert.is_nil(report.text(one):find("spend", 1, true))
  end)

  it("is plain ASCII without trailing spaces, and has no difference for one directory", function()
    local text = report.text { columns()[1] }
    assert.is_nil(text:find("[^\n -~]"))
    assert.is_nil(text:find(" \n", 1, true))
    assert.is_nil(text:find("difference", 1, true))
  end)

  it("gives rows for what only one of them has", function()
    local two = columns()
    two[2].summary.targets["q/m"] = { served = 2, share = 0.5, attempts = 2, ejections = 0,
      spend = 1 }
    local text = report.text(two)
    assert.truthy(text:find("\nq/m\n  served +%- +2 +%-\n"))
  end)

  it("says where a replay's answers are from", function()
    local one = { columns()[1] }
    one[1].summary.answers = { own = 3, guessed = 1 }
    local text = report.text(one)
    assert.truthy(text:find("\nanswers\n  of the request itself +3\n  guessed +1\n"))
    one[1].summary.answers = { near = 3 }
    assert.truthy(report.text(one):find("\nanswers\n  of others at that time +3\n  guessed +0\n"))
  end)

  it("is JSON for programs, its members in order", function()
    local text = report.json({ seed = 7 }, columns())
    assert.equal(text, report.json({ seed = 7 }, columns()))
    local decoded = cjson.decode(text)
    assert.same({ 7, 2 }, { decoded.about.seed, #decoded.columns })
    assert.equal("policies-new", decoded.columns[2].name)
    assert.equal(0.75, decoded.columns[1].result.success_rate)
    assert.equal(1, decoded.columns[1].result.failures["503 all_ejected"])
    assert.equal(2000, decoded.columns[1].result.outages[1].first_failed_ms)
  end)
end)
