local support = require "spec.unit.support"

local HALF = function() return 0.5 end
local FALLBACK, WEIGHTED, DEGRADE = "policies/fallback.lua", "policies/weighted.lua",
  "policies/degrade.lua"

local function openai_error(status, code, message)
  return { status, body = { error = { message = message or "no", code = code } } }
end

-- Outcomes of the first target, and whether the request moves on to the second.
local MOVES = {
  { 401, true }, { 402, true }, { 403, true }, { 404, true }, { 408, true }, { 429, true },
  { 500, true }, { 502, true }, { 503, true }, { 504, true }, { 529, true },
  { openai_error(400, "context_length_exceeded"), true },
  { openai_error(400, nil, "Your credit balance is too low"), true },
  { openai_error(400, nil, "API key not valid."), true },
  { { 413 }, true },
  { 400, false }, { 409, false }, { 422, false }, { 200, false },
  { { err = "dns" }, true }, { { err = "connect" }, true }, { { err = "tls" }, true },
  { { err = "reset" }, true }, { { err = "truncated" }, true },
  { { err = "timeout_connect" }, true }, { { err = "timeout_head" }, true },
  { { err = "timeout_first_token" }, true }, { { err = "timeout_try" }, true },
  { { err = "malformed" }, true }, { { err = "empty" }, true },
  { { err = "timeout_deadline" }, false },
}

local function describe_outcome(outcome)
  if type(outcome) == "number" then return outcome end
  return outcome.err or outcome[1] .. " " .. tostring(outcome.body and outcome.body.error.message)
end

local function check_moves(policy, exceptions)
  for _, case in ipairs(MOVES) do
    local outcome, moves = case[1], case[2]
    local name = describe_outcome(outcome)
    if exceptions and exceptions[name] ~= nil then moves = exceptions[name] end
    local result = support.run(policy, {
      targets = { { name = "first" }, { name = "second", priority = 1 } },
      answers = { first = { outcome }, second = { 200 } },
    })
    assert.same(moves and { "first", "second" } or { "first" }, result:called(), name)
    assert.equal("relay", result.answer.how)
    assert.same({}, result.clock.slept)
  end
end

--- The Lua blocks of the README that are policies, in order.
local function documented_policies()
  local file = assert(io.open("policies/README.md"))
  local text = file:read("*a")
  file:close()
  local sources = {}
  for source in text:gmatch("```lua\n(.-)```") do
    if source:find("return function(req", 1, true) then sources[#sources + 1] = source end
  end
  return sources
end

describe("policies/README.md", function()
  local FILE = "README.md"

  local function run(number, options)
    local source = documented_policies()[number]
    return support.run(function(gw) return support.compile_policy(source, FILE, gw) end, options)
  end

  it("shows a loop that falls back", function()
    local result = run(1, { targets = { { name = "a" }, { name = "b", priority = 1 } },
      answers = { a = { 503 }, b = { 200 } } })
    assert.same({ "a", "b" }, result:called())
  end)

  it("shows a choice of targets", function()
    local result = run(2, { stream = true, answers = { b = { 200 } }, targets = {
      { name = "a", provider = "batch-1" }, { name = "b", provider = "live", priority = 1 } } })
    assert.same({ "b" }, result:called())
  end)

  it("shows answers of the gateway's own", function()
    assert.equal(403, run(3, {}).answer.status)
    assert.equal(200, run(3, { headers = { ["X-Team"] = "blue" } }).answer.status)
  end)

  it("shows a look into an error", function()
    local targets = { { name = "a" }, { name = "b", priority = 1 } }
    local result = run(4, { targets = targets, answers = { b = { 200 },
      a = { openai_error(400, nil, "unsupported parameter") } } })
    assert.same({ "a", "b" }, result:called())
    result = run(4, { targets = targets, answers = { a = { openai_error(400, nil, "bad") } } })
    assert.same({ "a" }, result:called())
  end)

  it("shows nothing that is not run here", function()
    assert.equal(4, #documented_policies())
  end)
end)

describe("policies/fallback.lua", function()
  it("streams the first good answer and asks no one else", function()
    local result = support.run(FALLBACK, { answers = { big = { 200 } },
      targets = { { name = "big" }, { name = "small", priority = 1 } } })
    assert.same({ "big" }, result:called())
    assert.same({ how = "relay", status = 200, target = "big", res = result.answer.res },
      result.answer)
    assert.same({ true }, result.returned)
  end)

  it("goes on for what it says, and for nothing else", function()
    check_moves(FALLBACK)
  end)

  it("gives filtered content back", function()
    local result = support.run(FALLBACK, { targets = { { name = "a" }, { name = "b" } },
      random = function() return 0 end, answers = { a = { openai_error(400, "content_filter") } } })
    assert.same({ "a" }, result:called())
  end)

  it("heeds the route's own list", function()
    local options = { retry = { on = { 429 } }, targets = { { name = "a" },
      { name = "b", priority = 1 } }, answers = { a = { 503 }, b = { 200 } } }
    assert.same({ "a" }, support.run(FALLBACK, options):called())
    options.answers.a = { 429 }
    assert.same({ "a", "b" }, support.run(FALLBACK, options):called())
  end)

  it("relays the last bad answer when all have failed", function()
    local result = support.run(FALLBACK, { retry = { attempts = 2 },
      targets = { { name = "a" }, { name = "b", priority = 1 } },
      answers = { a = { 503 }, b = { 404 } } })
    assert.equal(404, result.answer.status)
    assert.equal("b", result.answer.target)
  end)

  it("relays the last failure when none has answered", function()
    local result = support.run(FALLBACK, { retry = { attempts = 2 },
      targets = { { name = "a" }, { name = "b", priority = 1 } },
      answers = { a = { { err = "connect" } }, b = { { err = "dns" } } } })
    assert.is_nil(result.answer.res)
    assert.equal("dns", result.answer.err.class)
  end)

  it("has an answer for a route without targets", function()
    local result = support.run(FALLBACK, { targets = {} })
    assert.equal("relay", result.answer.how)
    assert.is_nil(result.answer.res)
    assert.is_nil(result.answer.err)
  end)

  it("comes back to a single target after a back-off", function()
    local result = support.run(FALLBACK, { random = HALF, targets = { { name = "a" } },
      answers = { a = { 503, { err = "reset" }, 200 } },
      retry = { attempts = 5, base_ms = 100, max_ms = 10000, floor_ms = 0 } })
    assert.same({ 0, 50, 150 }, result:times_ms())
    assert.equal(200, result.answer.status)
  end)

  it("does not wait past the deadline for a target that asks for time", function()
    local result = support.run(FALLBACK, { deadline_ms = 5000, targets = { { name = "a" } },
      answers = { a = { { 429, headers = { ["Retry-After"] = "60" } } } } })
    assert.equal(429, result.answer.status)
    assert.equal(0, result:times_ms()[1])
    assert.same({}, result.clock.slept)
  end)

  it("fails over within the request when the first target is rate limited", function()
    local result = support.run(FALLBACK, {
      targets = { { name = "a" }, { name = "b", priority = 1 } },
      answers = { a = { { 429, headers = { ["Retry-After"] = "60" } } }, b = { 503, 503, 200 } },
      retry = { attempts = 4 } })
    assert.same({ "a", "b", "b", "b" }, result:called())
    assert.equal(200, result.answer.status)
  end)

  it("ends with the deadline when targets are slow", function()
    local result = support.run(FALLBACK, { deadline_ms = 3000, targets = { { name = "a" } },
      answers = { a = { { 503, took_ms = 2000 }, { 200, took_ms = 2000 } } } })
    assert.equal("timeout_deadline", result.answer.err.class)
    assert.equal(2, #result:called())
  end)
end)

describe("policies/weighted.lua", function()
  local TARGETS = { { name = "a", weight = 50 }, { name = "b", weight = 30 },
    { name = "c", weight = 20 }, { name = "spare", priority = 1 } }

  it("shares requests by weight", function()
    local counts, total, random = {}, 3000, support.random(5)
    for _ = 1, total do
      local result = support.run(WEIGHTED, { random = random, targets = TARGETS,
        answers = { a = { 200 }, b = { 200 }, c = { 200 } } })
      local name = result:called()[1]
      counts[name] = (counts[name] or 0) + 1
    end
    local chi = 0
    for name, share in pairs { a = 0.5, b = 0.3, c = 0.2 } do
      chi = chi + (counts[name] - total * share) ^ 2 / (total * share)
    end
    assert.is_true(chi < 13.8, "chi-square " .. chi) -- 2 degrees of freedom, p = 0.001
    assert.is_nil(counts.spare)
  end)

  it("tries the siblings before the spare, and logs who was left", function()
    for seed = 1, 20 do
      local result = support.run(WEIGHTED, { seed = seed, targets = TARGETS,
        answers = { a = { 503 }, b = { 503 }, c = { { err = "connect" } }, spare = { 200 } } })
      assert.equal("spare", result:called()[4])
      assert.equal(3, #result.req.lines)
      assert.equal(200, result.answer.status)
    end
  end)

  it("goes on for what it says, and for nothing else", function()
    check_moves(WEIGHTED)
  end)

  it("gives filtered content to another model", function()
    local result = support.run(WEIGHTED, { targets = { { name = "a" }, { name = "b",
      priority = 1 } },
      answers = { a = { openai_error(400, "content_filter") }, b = { 200 } } })
    assert.same({ "a", "b" }, result:called())
  end)
end)

describe("policies/degrade.lua", function()
  local TARGETS = { { name = "big" }, { name = "small", priority = 1 } }

  local function degrade(body, options)
    options = options or {}
    options.targets = options.targets or TARGETS
    options.answers = options.answers or { big = { 429 }, small = { 200 } }
    options.body = body
    return support.run(DEGRADE, options)
  end

  it("leaves the request to the big model alone", function()
    local result = degrade({ max_tokens = 4000 }, { answers = { big = { 200 } } })
    assert.same({ "big" }, result:called())
    assert.same({}, result.req.calls[1].edits)
  end)

  it("caps what the small model may write", function()
    local cases = {
      { {}, { max_tokens = 512 } },
      { { max_tokens = 4000 }, { max_tokens = 512 } },
      { { max_tokens = 512 }, {} },
      { { max_tokens = 100 }, {} },
      { { max_completion_tokens = 4000 }, { max_completion_tokens = 512 } },
      { { max_completion_tokens = 7 }, {} },
      { { max_tokens = 9000, max_completion_tokens = 8000 },
        { max_tokens = 512, max_completion_tokens = 512 } },
      { { max_tokens = 9000, max_completion_tokens = 7 }, { max_tokens = 512 } },
      { { max_tokens = "many" }, { max_tokens = 512 } },
    }
    for _, case in ipairs(cases) do
      local result = degrade(case[1])
      assert.same({ "big", "small" }, result:called())
      assert.same({}, result.req.calls[1].edits)
      assert.same(case[2], result.req.calls[2].edits)
    end
  end)

  it("does so when the big model is slow, too", function()
    for _, class in ipairs { "timeout_head", "timeout_first_token", "timeout_connect", "reset" } do
      local result = degrade({}, { answers = { big = { { err = class, took_ms = 9000 } },
        small = { 200 } } })
      assert.same({ 0, 9000 }, result:times_ms())
      assert.equal(200, result.answer.status)
    end
  end)

  it("lifts the cap when a later round comes back to the big model", function()
    local answers = { big = { 503, 200 }, small = { 503 } }
    local result = degrade({ max_tokens = 4000 }, { answers = answers })
    assert.same({ "big", "small", "big" }, result:called())
    assert.same({ max_tokens = 4000 }, result.req.calls[3].edits)
    result = degrade({}, { answers = answers })
    assert.same({ max_tokens = support.UNSET }, result.req.calls[3].edits)
  end)

  it("sets no limit where the endpoint knows none", function()
    local result = degrade({}, { path = "/v1/embeddings" })
    assert.same({ "big", "small" }, result:called())
    assert.same({}, result.req.calls[2].edits)
  end)

  it("survives a body that is not JSON", function()
    assert.same({ max_tokens = 512 }, degrade("--boundary").req.calls[2].edits)
  end)

  it("goes on for what it says, and for nothing else", function()
    check_moves(DEGRADE, { [401] = false, [402] = false, [403] = false, [404] = false,
      ["400 no"] = false, ["400 Your credit balance is too low"] = false,
      ["400 API key not valid."] = false, ["413 nil"] = false })
  end)
end)
