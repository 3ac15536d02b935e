--- Decision logs: what is read of them, and what a replay answers.

local cjson = require "cjson.safe"
local log = require "perilune.simulate.log"
local replay = require "perilune.simulate.replay"
local scenario = require "perilune.simulate.scenario"
local upstreams = require "perilune.simulate.upstreams"

local function lines(list)
  local position = 0
  return function()
    position = position + 1
    return list[position]
  end
end

local function time(seconds)
  return ("2026-01-05T12:%02d:%02dZ"):format(math.floor(seconds / 60), seconds % 60)
end

--- A line of a log: attempts as { target, class, status, total_ms, ... }.
local function line(seconds, attempts, more)
  local record = {
    time = time(seconds), ["gen_ai.request.model"] = "m", ["gen_ai.usage.input_tokens"] = 100,
    ["gen_ai.usage.output_tokens"] = 10, stream = true, ["http.response.status_code"] = 200,
    duration_ms = 500, attempts = {},
  }
  for position, attempt in ipairs(attempts) do
    record.attempts[position] = {
      target = attempt[1], class = attempt[2], status = attempt[3], total_ms = attempt[4],
      head_ms = attempt.head_ms or 100, first_token_ms = attempt.first_token_ms,
      wait_ms = attempt.wait_ms, a_new_field = { 1 },
    }
  end
  for key, value in pairs(more or {}) do record[key] = value end
  return cjson.encode(record)
end

local function read(list, max_count)
  local made, code, detail = log.read(lines(list), max_count)
  assert.is_nil(code)
  assert.is_nil(detail)
  return made
end

local OK = { "p/m", "ok", 200, 300, first_token_ms = 120 }

describe("a decision log", function()
  it("gives the requests in the order of their arrival", function()
    local made = read {
      line(7, { OK }, { ["gen_ai.request.model"] = "late" }),
      "",
      line(5, {}, { ["gen_ai.request.model"] = "early", stream = cjson.null, unknown = {} }),
    }
    local list = {}
    for request in log.requests(made) do list[#list + 1] = request end
    assert.same({ { "early", 0, 1, false }, { "late", 2000, 2, true } }, {
      { list[1].model, list[1].at_ms, list[1].number, list[1].stream },
      { list[2].model, list[2].at_ms, list[2].number, list[2].stream },
    })
    assert.same({ 2, 1 }, { list[1].record, list[2].record })
    assert.same({ 100, 10 }, { list[2].input_tokens, list[2].output_tokens })
  end)

  it("has usual sizes for requests without", function()
    local none = { ["gen_ai.usage.input_tokens"] = cjson.null,
      ["gen_ai.usage.output_tokens"] = cjson.null }
    local sized = { ["gen_ai.usage.input_tokens"] = 7, ["gen_ai.usage.output_tokens"] = 3 }
    local request = log.requests(read { line(1, {}, none), line(2, {}, sized) })()
    assert.same({ 7, 3 }, { request.input_tokens, request.output_tokens })
  end)

  it("notes broken lines by their numbers, and goes on", function()
    local made = read {
      line(1, { OK }), "{", "[1", '"text"', "{}", line(2, {}, { stream = "yes" }),
      line(3, {}, { time = "noon" }), line(4, { { "p/m", 7 } }),
      line(5, {}, { attempts = { 1 } }), line(6, {}, { attempts = { { class = "ok" } } }),
      line(7, {}, { duration_ms = -1 }), false, line(9, { OK }),
      line(10, { { "p/\27[2J" } }), line(11, {}, { ["gen_ai.request.model"] = ("m"):rep(1101) }),
    }
    assert.equal(2, made.count)
    assert.equal(13, made.broken.count)
    assert.same({
      { 2, "is not a JSON object" }, { 3, "is not a JSON object" }, { 4, "is not a JSON object" },
      { 5, 'time must be a time such as "2026-01-05T12:00:00Z"' },
      { 6, "stream must be a boolean" },
      { 7, 'time must be a time such as "2026-01-05T12:00:00Z"' },
      { 8, "attempts[1]: class must be a string" },
      { 9, "attempts[1]: must be an object" }, { 10, "attempts[1]: target is missing" },
      { 11, "duration_ms must be a number >= 0" }, { 12, "is too long" },
      { 14, "attempts[1]: target must be at most 1100 bytes without control characters" },
      { 15, "gen_ai.request.model must be at most 1100 bytes without control characters" },
    }, { unpack(made.broken) })
  end)

  it("names no more than twenty broken lines, and counts the others", function()
    local list = { line(1, {}) }
    for position = 2, 101 do list[position] = "broken" end
    local made = read(list)
    assert.same({ 100, 20 }, { made.broken.count, #made.broken })
  end)

  it("leaves out requests without a model, and others than POST", function()
    local made = read { line(1, {}), line(2, {}, { ["gen_ai.request.model"] = cjson.null }),
      line(3, {}, { ["http.request.method"] = "GET" }),
      line(4, {}, { ["http.request.method"] = "POST", ["url.path"] = "/v1/embeddings" }),
      line(5, {}, { ["url.path"] = "/v1/\226\128\166" }) }
    assert.same({ 2, 3 }, { made.count, made.left_out_count })
    local next_request = log.requests(made)
    assert.is_nil(next_request().path)
    assert.equal("/v1/embeddings", next_request().path)
  end)

  it("passes over lines of other kinds", function()
    local made = read { line(1, {}, { scope = "request" }),
      '{"time":"2026-01-05T12:00:00Z","scope":"health","level":"warn"}' }
    assert.same({ 1, 0, 0 }, { made.count, made.left_out_count, made.broken.count })
  end)

  it("knows when requests came from when they ended, and attempts from their starts", function()
    local made = read {
      line(10, { { "p/m", "ok", 200, 300 } }, { duration_ms = 4000 }),
      line(8, { { "p/m", "reset", nil, 50, wait_ms = 20 },
        { "p/m", "ok", 200, 300, wait_ms = 100 } }, { duration_ms = 1000 }),
      line(9, {}, { duration_ms = 1000, attempts = {
        { target = "p/m", class = "ok", start_ms = 700, wait_ms = 3, total_ms = 300 } } }),
    }
    assert.same({ 1, 2, 3 }, made.order)
    assert.same({ 0, 1020, 1170, 2700 }, made.attempt.start_ms)
  end)

  it("has clients that leave again", function()
    local made = read { line(1, {}, { ["end"] = "client_gone", duration_ms = 700 }), line(9, {}) }
    local next_request = log.requests(made)
    assert.equal(700, next_request().patience_ms)
    assert.is_nil(next_request().patience_ms)
  end)

  it("tells itself what became of its requests", function()
    local tally = require "perilune.simulate.log_tally"
    local GAVE_UP = { { "p/m", "timeout_head", nil, 900 } }
    local made = read {
      line(1, { OK }, { ["end"] = "complete", first_token_ms = 130 }), line(2, { OK }),
      line(3, GAVE_UP, { ["end"] = "failed", ["http.response.status_code"] = 504,
        reason = "timeout_head" }),
      line(4, {}, { ["end"] = "failed", ["http.response.status_code"] = 503,
        reason = "all_ejected" }),
      line(5, { { "p/m", "overloaded", 503, 5 } }, { ["http.response.status_code"] = 503 }),
      line(6, { { "p/m", "truncated", 200, 5 } }, { ["end"] = "cut", reason = "truncated" }),
      line(7, { { "p/m", "truncated", 200, 5 } }),
      line(8, { { "p/m", "abandoned", 200, 5 } }, { ["end"] = "client_gone" }),
      line(9, {}, { ["end"] = "client_gone", ["http.response.status_code"] = cjson.null }),
      line(10, {}, { ["end"] = "killed", ["http.response.status_code"] = cjson.null }),
      line(11, {}, { ["http.response.status_code"] = 499 }),
    }
    local summary = tally.of(made, nil)
    assert.equal(2, summary.succeeded)
    assert.same({
      ["504 timeout_head"] = 1, ["503 all_ejected"] = 1, ["503 overloaded"] = 1,
      ["200 cut: truncated"] = 2, ["200 client left"] = 1, ["client left"] = 1, reset = 1,
      ["499 client left"] = 1,
    }, summary.failures)
    assert.same({ p50 = 120, p99 = 130 }, summary.first_token_ms)
    assert.is_nil(summary.ejections)
  end)

  it("is read as far as asked", function()
    local made = read({ line(1, {}), line(2, {}), line(3, {}) }, 2)
    assert.same({ 2, true }, { made.count, made.is_cut })
    assert.is_false(read({ line(1, {}), line(2, {}) }, 2).is_cut)
  end)

  it("is an error without a request", function()
    for _, list in ipairs { {}, { "", " " }, { "broken" } } do
      local made, code, rest = log.read(lines(list))
      assert.same({ nil, "empty" }, { made, code })
      assert.equal(#list, rest.line_count)
    end
  end)

  it("refuses lists of attempts that no gateway writes", function()
    local many = {}
    for position = 1, 65 do many[position] = OK end
    local _, problem = log.parse(line(1, many))
    assert.equal("has more than 64 attempts", problem)
  end)
end)

describe("a replay", function()
  local function new(list, text)
    local loaded = assert(scenario.load("return {" .. (text or "") .. "}", "s.lua", false))
    local made = read(list)
    local described = upstreams.new(loaded.upstreams, loaded.outages, 1)
    return replay.new(made, described, 1), made
  end

  --- The call of a target for the request of that line.
  local function call(made, record, target, fields)
    local result = {
      target = target, provider = target:match("^[^/]*"), nth = 1,
      at_ms = made.time_ms[record] - made.start_wall_ms,
      request = { number = record, record = record, stream = true, input_tokens = 100,
        output_tokens = 10 },
    }
    for key, value in pairs(fields or {}) do result[key] = value end
    return result
  end

  it("gives a request what it got itself, try by try", function()
    local player, made = new {
      line(1, { { "p/m", "overloaded", 503, 40 }, { "p/m", "reset", nil, 60 }, { "q/m", "ok", 200,
        300, first_token_ms = 120 } }),
      line(1, { OK }),
    }
    local first, source = player:answer(call(made, 1, "p/m"))
    assert.same({ 503, 40, "own" }, { first.status, first.after_ms, source })
    local second = player:answer(call(made, 1, "p/m", { nth = 2 }))
    assert.same({ "reset", 60 }, { second.failure, second.after_ms })
    local third = player:answer(call(made, 1, "q/m"))
    assert.same({ status = 200, after_ms = 100, first_ms = 20, every_ms = 20, tokens = 10 }, third)
  end)

  it("gives others what the target said about then", function()
    local list = {}
    for second = 1, 40 do
      local is_out = second > 20
      list[second] = line(second, { { "p/m", is_out and "overloaded" or "ok", is_out and 503 or 200,
        300 } })
    end
    list[41] = line(10, { { "q/m", "ok", 200, 1 } })
    list[42] = line(31, { { "q/m", "ok", 200, 1 } })
    local player, made = new(list)
    local before, source = player:answer(call(made, 41, "p/m"))
    assert.same({ 200, "near" }, { before.status, source })
    assert.equal(503, player:answer(call(made, 42, "p/m")).status)
  end)

  it("mixes what came about then", function()
    local list = {}
    for position = 1, 1000 do
      local is_out = position % 4 == 0
      list[position] = line(position, { { "p/m", is_out and "overloaded" or "ok",
        is_out and 503 or 200, 300 } })
    end
    for position = 1001, 2000 do list[position] = line(position - 1000, {}) end
    local player, made = new(list)
    local failed = 0
    for record = 1001, 2000 do
      if player:answer(call(made, record, "p/m")).status == 503 then failed = failed + 1 end
    end
    assert.is_true(math.abs(failed - 250) < 50, failed)
  end)

  it("says when it has to guess", function()
    local player, made = new {
      line(1, { { "p/m", "overloaded", 503, 40 } }), line(100, { OK }), line(300, {}),
    }
    local function source_of(target, at_ms)
      local plan, source = player:answer(call(made, 3, target, { at_ms = at_ms }))
      return { plan.status, source }
    end
    assert.same({ 503, "near" }, source_of("p/m", 29000))
    assert.same({ 503, "guessed" }, source_of("p/m", 31000))
    assert.same({ 200, "guessed" }, source_of("p/m", 299000))
    assert.same({ 503, "guessed" }, source_of("p/other", 1000)) -- of the same provider
    assert.same({ 200, "guessed" }, source_of("q/m", 1000)) -- no more is known: one that was good
  end)

  it("asks the scenario before it guesses", function()
    local player, made = new({ line(1, { OK }), line(90, {}) },
      'upstreams = { q = { head = "7ms" } }, outages = { { upstream = "p", from = "5s",'
      .. ' to = "6s", answer = 500 } }')
    local plan, source = player:answer(call(made, 2, "q/m"))
    assert.same({ 7, "described" }, { plan.after_ms, source })
    plan, source = player:answer(call(made, 1, "p/m", { at_ms = 5000 }))
    assert.same({ 500, "outage" }, { plan.status, source })
    plan, source = player:answer(call(made, 1, "p/m"))
    assert.same({ 200, "own" }, { plan.status, source })
  end)

  it("shares the time of an answer in one piece among its tokens", function()
    local player, made = new { line(1, { { "p/m", "ok", 200, 500, head_ms = 500 } },
      { stream = false }) }
    local plan = player:answer(call(made, 1, "p/m"))
    assert.equal(500, plan.after_ms + plan.first_ms + 9 * plan.every_ms)
    assert.equal(4, player:answer(call(made, 1, "p/m", { max_tokens = 4 })).tokens)
  end)

  it("repeats the Retry-After of an answer", function()
    local player, made = new { line(1, {}, { attempts = {
      { target = "p/m", class = "rate_limited", status = 429, total_ms = 5, retry_after_ms = 6500 },
      { target = "p/m", class = "rate_limited", status = 429, total_ms = 5 },
    } }) }
    local plan = player:answer(call(made, 1, "p/m"))
    assert.same({ 429, { ["retry-after"] = "7" } }, { plan.status, plan.headers })
    assert.is_nil(player:answer(call(made, 1, "p/m", { nth = 2 })).headers)
  end)

  it("does not take the speed of a long answer from a short one", function()
    local player, made = new { line(1, { { "p/m", "ok", 200, 500, first_token_ms = 190 } },
      { ["gen_ai.usage.output_tokens"] = 2 }), line(1, {}) }
    local function every_ms(record, tokens)
      local asked = call(made, record, "p/m")
      asked.request.output_tokens = tokens
      return player:answer(asked).every_ms
    end
    assert.equal(310, every_ms(1, 2))
    assert.equal(10, every_ms(2, 32))
    assert.equal(10, every_ms(2, 1000))
  end)

  it("takes a time limit of the gateway's for silence", function()
    local player, made = new {
      line(1, { { "p/m", "timeout_head", nil, 9000 } }),
      line(2, { { "p/m", "timeout_first_token", 200, 9000 } }),
      line(3, { { "p/m", "timeout_idle", 200, 9000, first_token_ms = 500 } }),
      line(4, { { "p/m", "truncated", 200, 1100, first_token_ms = 100 } }),
    }
    assert.equal("hang", player:answer(call(made, 1, "p/m")).failure)
    local second = player:answer(call(made, 2, "p/m"))
    assert.same({ 200, 100, 0 }, { second.status, second.after_ms, second.stall_after })
    assert.equal(5, player:answer(call(made, 3, "p/m")).stall_after)
    assert.equal(5, player:answer(call(made, 4, "p/m")).cut_after)
  end)

  it("has active checks find what tries of the provider found about then", function()
    local player = new({
      line(1, { { "p/m", "connect", nil, 5 }, { "q/m", "overloaded", 503, 5 } }), line(100, { OK }),
    }, 'outages = { { upstream = "q", from = "50s", to = "60s", answer = 503 } }')
    local function check(provider, at_ms)
      local plan = player:check { provider = provider, at_ms = at_ms, number = 1 }
      return plan and (plan.failure or plan.status)
    end
    assert.equal("connect", check("p", 2000))
    assert.is_nil(check("p", 40000)) -- nothing is known
    assert.is_nil(check("p", 99000))
    assert.is_nil(check("q", 1000)) -- it answers
    assert.equal(503, check("q", 55000))
    assert.is_nil(check("r", 1000))
  end)

  it("takes nothing from tries that tell nothing", function()
    local player, made = new {
      line(1, { { "p/m", "client_gone", nil, 50 } }), line(2, { { "p/m", "ok", 200, 300 } }),
    }
    local plan, source = player:answer(call(made, 1, "p/m"))
    assert.same({ 200, "near" }, { plan.status, source })
  end)
end)
