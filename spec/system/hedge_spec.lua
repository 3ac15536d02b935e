--- Hedging over real connections: who is let go and when, and what operators are told of it. Who is
-- asked and who wins is in spec/kit/spec/hedge_spec.lua, on a virtual clock.

local cjson = require "cjson.safe"
local exposition = require "support.exposition"
local support = require "support"

local CONFIG = [[
return {
  access_log = {},
  providers = { first = { url = "%s/v1" }, second = { url = "%s/v1" } },
  routes = { {
    name = "r", match = { model = "m" }, hedge = { after = "50ms", burst = 100 },
    targets = { { provider = "first" }, { provider = "second", priority = 1 } },
    retry = { attempts = 2 }, deadline = "20s",
  } },
}
]]

local ANSWER = { id = "x", object = "chat.completion", model = "m-1", choices = { { index = 0,
  finish_reason = "stop", message = { role = "assistant", content = "hi" } } },
  usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 } }

local function delta(text)
  return cjson.encode { choices = { { index = 0, delta = { content = text } } } }
end

--- An upstream that says nothing until it is let go; `closed` counts connections that were ended.
local function silent(before)
  local up
  up = support.upstream(function(connection)
    while connection:read_request() do
      if before then before(connection) end
      if connection:wait_closed(10) then
        up.closed = up.closed + 1
        return
      end
    end
  end)
  up.closed = 0
  return up
end

local function streaming(events)
  return support.upstream(function(connection)
    while connection:read_request() do
      connection:start_chunked(200, { ["content-type"] = "text/event-stream" })
      for number = 1, events do connection:event(delta("w" .. number .. " ")) end
      connection:event("[DONE]")
      connection:finish_chunked()
    end
  end)
end

local function start(first, second, options)
  return support.gateway { config = CONFIG:format(first.url, second.url),
    workers = options and options.workers or 1 }
end

local function wait_closed(up, count)
  support.wait_until("the loser to be let go", function() return up.closed == count end, 5)
end

local function metrics(gw)
  return exposition.parse(gw:admin({ path = "/metrics" }).body).families
end

local function wait_hedges(gw, result, count)
  local families
  support.wait_until("the hedge to be counted", function()
    families = metrics(gw)
    return families.perilune_hedges_total:sum { route = "r", result = result } == count
  end)
  return families
end

local function lines_of(gw)
  local lines = {}
  for line in gw:stdout():gmatch("[^\n]+") do
    local decoded = line:sub(1, 1) == "{" and cjson.decode(line)
    if decoded then lines[#lines + 1] = decoded end
  end
  return lines
end

describe("hedging", function()
  after_each(support.finish)

  it("lets the loser go at once, and tells operators of both", function()
    local first = silent()
    local second = support.answering(function() return 200, ANSWER end)
    local gw = start(first, second)
    local answer = gw:chat { model = "m" }
    assert.same({ 200, "second" }, { answer.status, answer.headers["x-perilune-target"] })
    assert.is_truthy(answer.headers["x-perilune-trail"]:find(
      "^first;hedge_lost;%d+ms, second;200;%d+ms$"), answer.headers["x-perilune-trail"])
    wait_closed(first, 1)
    local families = wait_hedges(gw, "second", 1)
    assert.equal(0, families.perilune_retries_total:sum())
    assert.equal(0, families.perilune_fallbacks_total:sum())
    assert.equal(1, families.perilune_attempts_total:sum { target = "first", class = "hedge_lost" })
    assert.equal(1, families.perilune_attempts_total:sum { target = "second", class = "ok" })
    assert.equal(3, families.perilune_tokens_total:sum { type = "input" })
    assert.equal(0, families.perilune_target_in_flight:sum())
    support.wait_until("the access log", function() return #lines_of(gw) == 1 end)
    for _, line in ipairs { lines_of(gw)[1],
      gw:admin({ path = "/admin/requests/recent" }):json().records[1] } do
      assert.equal("second", line.target)
      assert.same({ "first", "hedge_lost", "uncertain" },
        { line.attempts[1].target, line.attempts[1].class, line.attempts[1].work })
      assert.same({ "second", "ok", true },
        { line.attempts[2].target, line.attempts[2].class, line.attempts[2].hedge })
      assert.equal(0, line.attempts[2].wait_ms)
    end
  end)

  it("relays the winner's stream whole, and counts what the loser has told of its cost", function()
    local start_event = cjson.encode { type = "message_start", message = {
      usage = { input_tokens = 21, output_tokens = 1 }, content = {} } }
    local first = silent(function(connection)
      connection:start_chunked(200, { ["content-type"] = "text/event-stream" })
      connection:event(start_event)
    end)
    local gw = start(first, streaming(200))
    local answer = gw:chat { model = "m", stream = true }
    assert.equal("complete", answer.ended)
    assert.is_truthy(answer.body:find('"w200 "', 1, true))
    assert.is_nil(answer.body:find("message_start", 1, true))
    wait_closed(first, 1)
    local families = wait_hedges(gw, "second", 1)
    assert.equal(21, families.perilune_tokens_total:sum { target = "first", type = "input" })
    support.wait_until("the access log", function() return #lines_of(gw) == 1 end)
    assert.equal(21, lines_of(gw)[1].attempts[1].input_tokens)
  end)

  it("shows both while they run, and lets both go when the client leaves", function()
    local first, second = silent(), silent()
    local gw = start(first, second)
    local client = support.connect(gw)
    client:send { method = "POST", path = "/v1/chat/completions",
      body = cjson.encode { model = "m", messages = {} } }
    second:wait_requests(1)
    local seen = gw:admin({ path = "/admin/requests" }):json().requests[1]
    assert.same({ "first", "second" }, { seen.target, seen.second_target })
    assert.is_true(seen.target_for_ms >= seen.second_target_for_ms)
    client:close()
    wait_closed(first, 1)
    wait_closed(second, 1)
    local families = wait_hedges(gw, "ended", 1)
    assert.equal(2, families.perilune_attempts_total:sum { class = "abandoned" })
    assert.equal(0, families.perilune_target_in_flight:sum())
  end)

  it("outlives a reload while both run", function()
    local release
    local first = silent()
    local second = support.answering(function()
      support.wait_until("the word to answer", function() return release end)
      return 200, ANSWER
    end)
    local gw = start(first, second)
    local task = {}
    support.spawn("client", function() task.answer = gw:chat { model = "m" } end)
    second:wait_requests(1)
    assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    release = true
    support.wait_until("an answer", function() return task.answer end)
    assert.same({ 200, "second" },
      { task.answer.status, task.answer.headers["x-perilune-target"] })
    wait_closed(first, 1)
    wait_hedges(gw, "second", 1)
    support.wait_until("the old generation to be gone", function()
      return #gw:admin({ path = "/admin/generations" }):json().generations == 1
        or gw:admin({ path = "/admin/requests" }):json().in_flight == 0
    end)
  end)

  it("does not lose its way under load", function()
    local count = 0
    local function moody()
      count = count + 1
      local at_s = support.now() + (count % 3 == 0 and 0.12 or 0)
      support.wait_until("its time", function() return support.now() >= at_s end)
      if count % 7 == 0 then return 500, { error = { message = "no" } } end
      return 200, ANSWER
    end
    local gw = start(support.answering(moody), support.answering(moody), { workers = 2 })
    local done = 0
    for number = 1, 8 do
      support.spawn("client " .. number, function()
        for _ = 1, 25 do
          local answer = gw:chat { model = "m" }
          assert.is_true(answer.status == 200 or answer.status == 500)
          assert.equal("complete", answer.ended)
          done = done + 1
        end
      end)
    end
    support.wait_until("200 answers", function() return done == 200 end, 60)
    support.wait_until("nothing to be in flight", function()
      local families = metrics(gw)
      return families.perilune_requests_total:sum() == 200
        and families.perilune_target_in_flight:sum() == 0
        and families.perilune_requests_in_flight:sum() == 0
    end)
  end)
end)
