--- perilune.candidates with targets that are out, busy or limited.

local support = require "spec.unit.support"

local HALF = function() return 0.5 end
local FOREVER_MS = 1e9

local run = support.run_until_good

local function failing(...)
  local answers = {}
  for _, name in ipairs { ... } do answers[name] = { rest = 500 } end
  return answers
end

local function good(...)
  local answers = {}
  for _, name in ipairs { ... } do answers[name] = { rest = 200 } end
  return answers
end

--- Targets of ascending priority.
local function ladder(...)
  local targets = {}
  for position, name in ipairs { ... } do
    targets[position] = { name = name, priority = position - 1 }
  end
  return targets
end

local function siblings(...)
  local targets = {}
  for position, name in ipairs { ... } do targets[position] = { name = name } end
  return targets
end

local function out(ms) return { out_until_ms = 1000 + (ms or FOREVER_MS) } end
local function busy(ms, fields)
  fields = fields or {}
  fields.busy_until_ms = 1000 + (ms or FOREVER_MS)
  return fields
end

describe("perilune.candidates in health", function()
  describe("fitness", function()
    it("passes over targets that are out", function()
      local result = run { targets = ladder("a", "b", "c"), answers = good("b"),
        health = { a = out() } }
      assert.same({ "b" }, result:called())
      assert.same({}, result.clock.slept)
    end)

    it("goes to a lower priority only when all of the higher ones are out", function()
      for seed = 1, 40 do
        local targets = siblings("a", "b", "c")
        targets[4] = { name = "low", priority = 1 }
        local health = { a = out(), b = out() }
        assert.same({ "c" }, run { seed = seed, targets = targets, answers = good "c",
          health = health }:called())
        health.c = out()
        assert.same({ "low" }, run { seed = seed, targets = targets, answers = good "low",
          health = health }:called())
      end
    end)

    it("believes admit when it says otherwise: another has the probe", function()
      local result = run { targets = ladder("a", "b"), answers = good "b",
        health = { a = { probe_taken = true } } }
      assert.same({ "b" }, result:called())
    end)

    it("keeps the shares of those that are fit", function()
      local random, counts, total = support.random(4), {}, 6000
      for _ = 1, total do
        local result = run { random = random, answers = good("a", "c"), health = { b = out() },
          targets = { { name = "a", weight = 1 }, { name = "b", weight = 6 },
            { name = "c", weight = 3 } } }
        local name = result:called()[1]
        counts[name] = (counts[name] or 0) + 1
      end
      local chi = (counts.a - total / 4) ^ 2 / (total / 4)
        + (counts.c - total * 3 / 4) ^ 2 / (total * 3 / 4)
      assert.is_true(chi < 10.8, "chi-square " .. chi) -- 1 degree of freedom, p = 0.001
    end)

    it("reserves each target as it is given", function()
      local result = run { targets = ladder("a", "b"), answers = { a = { 503 }, b = { 200 } } }
      assert.same({ { name = "a", forced = false, at_ms = 1000 },
        { name = "b", forced = false, at_ms = 1000 } }, result.health.admitted)
      assert.equal(0, result.health:slot("a").in_flight)
      assert.equal(1, result.health:slot("b").in_flight)
    end)

    it("comes back to a single fit target, after a back-off, and not to one that is out", function()
      local result = run { random = HALF, targets = ladder("a", "b"), health = { b = out() },
        answers = { a = { 500, 500, 200 } }, retry = { base_ms = 100, floor_ms = 0 } }
      assert.same({ 0, 50, 150 }, result:times_ms())
      assert.same({ "a", "a", "a" }, result:called())
    end)

    it("gives a target that has come back at once, rather than one tried before", function()
      local result = run { random = HALF, targets = ladder("a", "b"),
        health = { b = out(200) }, retry = { base_ms = 100, floor_ms = 0 },
        answers = { a = { { 500, took_ms = 201 } }, b = { 200 } } }
      assert.same({ "a", "b" }, result:called())
      assert.same({ 0, 201 }, result:times_ms())
    end)

    it("looks again after each back-off", function()
      local result = run { random = HALF, targets = ladder("a", "b"), health = { b = out(40) },
        answers = { a = { 500 }, b = { 200 } }, retry = { base_ms = 100, floor_ms = 0 } }
      assert.same({ "a", "b" }, result:called())
      assert.same({ 0, 50 }, result:times_ms())
    end)

    it("does not go back to the target that just failed while another can be had", function()
      for seed = 1, 60 do
        local targets = siblings("a", "b", "c")
        local result = run { seed = seed, targets = targets, answers = failing("a", "b", "c"),
          retry = { attempts = 12 } }
        local names = result:called()
        for position = 2, #names do assert.is_true(names[position] ~= names[position - 1]) end
      end
    end)

    it("prefers another priority to the target that just failed", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.health = support.health(world.clock)
      local iterator = support.public_module(support.native(world)).candidates(
        support.route { targets = ladder("a", "b"), retry = { attempts = 9 } })
      assert.equal("a", iterator().name)
      assert.equal("b", iterator().name)
      world.health:slot("b").out_until_ms = FOREVER_MS
      assert.equal("a", iterator().name)
      world.health:slot("b").out_until_ms = 0
      assert.equal("b", iterator().name)
    end)
  end)

  describe("panic", function()
    it("uses them all, highest priority first", function()
      local result = run { targets = ladder("a", "b"), health = { a = out(), b = out() },
        answers = { a = { 500 }, b = { 200 } } }
      assert.same({ "a", "b" }, result:called())
      assert.is_true(result.health.admitted[1].forced)
      assert.is_true(result.health.admitted[2].forced)
      assert.same({}, result.clock.slept)
    end)

    it("ends as soon as one is fit", function()
      local result = run { targets = ladder("a", "b"), health = { a = out(), b = out(50) },
        answers = { a = { { 500, took_ms = 60 } }, b = { 200 } } }
      assert.same({ "a", "b" }, result:called())
      assert.is_false(result.health.admitted[2].forced)
    end)

    it("has back-offs", function()
      local result = run { random = HALF, targets = ladder "a", health = { a = out() },
        answers = { a = { 500, 500, 200 } }, retry = { base_ms = 100, floor_ms = 0 } }
      assert.same({ 0, 50, 150 }, result:times_ms())
    end)

    it("respects what targets have asked of this request", function()
      local result = run { targets = ladder("a", "b"), health = { a = out(), b = out() },
        answers = { a = { { 429, headers = { ["retry-after"] = "9" } } },
          b = { { 429, headers = { ["retry-after"] = "5" } }, 200 } } }
      assert.same({ "a", "b", "b" }, result:called())
      assert.same({ 0, 0, 5000 }, result:times_ms())
    end)

    it("begins when the last probe is taken", function()
      local result = run { targets = ladder("a", "b"), answers = good "a",
        health = { a = { probe_taken = true }, b = out() } }
      assert.same({ "a" }, result:called())
      assert.is_true(result.health.admitted[1].forced)
    end)

    it("may be to fail, which says when to come again", function()
      local result = run { panic = "fail", targets = ladder("a", "b"),
        health = { a = out(9000), b = out(4000) } }
      assert.same({}, result:called())
      assert.same({ "all_ejected", 4001 }, result.health.gave_up)
      assert.is_nil(result.answer.res)
    end)

    it("may be to fail in the middle, too", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.health = support.health(world.clock, { b = out(700) })
      local iterator = support.public_module(support.native(world)).candidates(support.route {
        panic = "fail", targets = ladder("a", "b") })
      assert.equal("a", iterator().name)
      world.health:slot("a").out_until_ms = FOREVER_MS
      assert.is_nil(iterator())
      assert.same({ "all_ejected", 701 }, world.health.gave_up)
      assert.same({}, world.clock.slept)
    end)
  end)

  describe("max_ejection_ratio", function()
    local HEALTH = { a = out(1000), b = out(3000), c = out(2000), d = {} }

    it("gives those that would be back soonest", function()
      local seen = {}
      for seed = 1, 80 do
        local result = run { seed = seed, targets = siblings("a", "b", "c", "d"), health = HEALTH,
          max_ejection_ratio = 0.5, answers = good("a", "d") }
        local name = result:called()[1]
        seen[name] = true
        assert.equal(name == "a", result.health.admitted[1].forced)
      end
      assert.same({ a = true, d = true }, seen)
    end)

    it("rounds down", function()
      local seen = {}
      for seed = 1, 120 do
        local result = run { seed = seed, targets = siblings("a", "b", "c", "d"), health = HEALTH,
          max_ejection_ratio = 0.49, answers = good("a", "c", "d") }
        seen[result:called()[1]] = true
      end
      assert.same({ a = true, c = true, d = true }, seen)
    end)

    it("of 0 ignores health", function()
      local result = run { targets = ladder("a", "b"), health = { a = out() }, answers = good "a",
        max_ejection_ratio = 0 }
      assert.same({ "a" }, result:called())
    end)

    it("counts all targets of the route", function()
      local result = run { targets = ladder("a", "b", "c"), max_ejection_ratio = 0.34,
        health = { a = out(10), b = out(20) }, answers = good("a") }
      assert.same({ "a" }, result:called()) -- b alone counts as out
    end)

    it("changes nothing while not too many are out", function()
      local result = run { targets = ladder("a", "b"), max_ejection_ratio = 0.5,
        health = { a = out() }, answers = good "b" }
      assert.same({ "b" }, result:called())
    end)
  end)

  describe("busy targets", function()
    it("are passed over, within a priority and across", function()
      for seed = 1, 30 do
        local targets = siblings("a", "b")
        targets[3] = { name = "low", priority = 1 }
        assert.same({ "b" }, run { seed = seed, targets = targets, answers = good "b",
          health = { a = busy() } }:called())
        local result = run { seed = seed, targets = targets, answers = good "low",
          health = { a = busy(), b = busy(1e9, { queue_count = 9 }) } }
        assert.same({ "low" }, result:called())
        assert.same({}, result.clock.slept)
      end
    end)

    it("are waited for in the queue of the best", function()
      local result = run { targets = ladder("a", "b"), answers = good "a", health = {
        a = busy(200, { queue_count = 1, queue_ms = 1000 }), b = busy(500, { queue_count = 1 }) } }
      assert.same({ "a" }, result:called())
      local at_ms = result:times_ms()[1]
      assert.is_true(at_ms >= 200 and at_ms <= 206, at_ms)
      for _, ms in ipairs(result.clock.slept) do assert.is_true(ms > 0 and ms <= 6) end
      assert.equal(0, result.health:slot("a").waiting)
      assert.is_nil(result.health.gave_up)
    end)

    it("are left for another that comes free first", function()
      local result = run { targets = ladder("a", "b"), answers = good "b",
        health = { a = busy(200, { queue_count = 1 }), b = busy(50) } }
      assert.same({ "b" }, result:called())
      assert.is_true(result:times_ms()[1] <= 56)
      assert.equal(0, result.health:slot("a").waiting)
    end)

    it("end the loop when there is no queue, or it is full", function()
      for _, slot in ipairs { busy(), busy(1e9, { queue_count = 2, waiting = 2 }) } do
        local result = run { targets = ladder("a", "b"), health = { a = slot, b = out() } }
        assert.same({}, result:called())
        assert.same({}, result.clock.slept)
        assert.same({ "queue_full" }, result.health.gave_up)
      end
    end)

    it("end the loop when the time in the queue is up", function()
      local result = run { targets = ladder("a"),
        health = { a = busy(1e9, { queue_count = 1, queue_ms = 300 }) } }
      assert.same({ "queue_timeout" }, result.health.gave_up)
      assert.equal(1300, result.clock.ms)
      assert.equal(0, result.health:slot("a").waiting)
    end)

    it("are not waited for past the deadline", function()
      local result = run { deadline_ms = 250, targets = ladder("a"),
        health = { a = busy(1e9, { queue_count = 1, queue_ms = 5000 }) } }
      assert.same({ "queue_timeout" }, result.health.gave_up)
      assert.equal(1150, result.clock.ms)
    end)

    it("are left for another when they go out meanwhile", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.health = support.health(world.clock, {
        a = busy(1e9, { queue_count = 1 }), b = busy(60, { queue_count = 1, queue_ms = 1000 }) })
      local native = support.native(world)
      function native.sleep_ms(ms)
        world.clock.sleep_ms(ms)
        if world.clock.ms >= 1020 then world.health:slot("a").out_until_ms = FOREVER_MS end
      end
      local iterator = support.public_module(native).candidates(support.route {
        targets = ladder("a", "b") })
      assert.equal("b", iterator().name)
      assert.is_true(world.clock.ms >= 1060 and world.clock.ms <= 1066)
      assert.equal(0, world.health:slot("a").waiting)
    end)

    it("are kept to a limit of their own", function()
      local result = run { targets = ladder("a", "b"), answers = good "b",
        health = { a = { concurrent = 3, in_flight = 3 } } }
      assert.same({ "b" }, result:called())
    end)

    it("are queued for rather than the one that just failed", function()
      local result = run { random = HALF, targets = ladder("a", "b"),
        health = { b = busy(80, { queue_count = 1 }) }, answers = { a = { 500 }, b = { 200 } } }
      assert.same({ "a", "b" }, result:called())
      assert.is_true(result:times_ms()[2] >= 80)
    end)

    it("stay busy in panic", function()
      local result = run { targets = ladder("a", "b"), answers = good "b",
        health = { a = { out_until_ms = 1e9, busy_until_ms = 1e9 }, b = out() } }
      assert.same({ "b" }, result:called())
      assert.is_true(result.health.admitted[1].forced)
    end)
  end)

  describe("retry.budget", function()
    local BUDGET = { ratio = 0.2, min_count = 3 }

    it("is not asked for the first target", function()
      local result = run { targets = ladder("a", "b"), retry = { budget = BUDGET },
        answers = good "a" }
      assert.is_nil(result.health.budget)
    end)

    it("is asked before each further one", function()
      local result = run { targets = ladder("a", "b", "c"), retry = { budget = BUDGET },
        answers = { a = { 500 }, b = { 500 }, c = { 200 } } }
      assert.same({ 0.2, 3 }, result.health.budget)
      assert.equal(1, result.health.retrying_count)
      assert.equal(3, #result:called())
    end)

    it("ends the loop when it is used up, and the last answer is relayed", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.health = support.health(world.clock)
      world.health.retry_limit = 0
      local iterator = support.public_module(support.native(world)).candidates(support.route {
        targets = ladder("a", "b"), retry = { budget = BUDGET } })
      assert.equal("a", iterator().name)
      assert.is_nil(iterator())
      assert.is_nil(iterator())
      assert.is_nil(world.health.gave_up)
      assert.same({}, world.clock.slept)
    end)
  end)

  describe("slow start", function()
    it("takes its share of the weight", function()
      local random, counts, total = support.random(9), { a = 0, b = 0 }, 8000
      for _ = 1, total do
        local result = run { random = random, answers = good("a", "b"),
          targets = { { name = "a", weight = 2 }, { name = "b", weight = 1 } },
          health = { a = { ramp = 0.25 } } }
        local name = result:called()[1]
        counts[name] = counts[name] + 1
      end
      local chi = (counts.a - total / 3) ^ 2 / (total / 3)
        + (counts.b - total * 2 / 3) ^ 2 / (total * 2 / 3)
      assert.is_true(chi < 10.8, "chi-square " .. chi) -- 1 degree of freedom, p = 0.001
    end)

    it("leaves a single target alone", function()
      local result = run { targets = ladder("a", "b"), answers = good "a",
        health = { a = { ramp = 0 } } }
      assert.same({ "a" }, result:called())
    end)
  end)

  describe("balance", function()
    it("is the route's", function()
      local world = { clock = support.clock(), random = support.random(2), log = {} }
      world.req = support.req { clock = world.clock }
      local gw = support.public_module(support.native(world))
      local route = support.route { balance = { by = "round_robin" },
        targets = siblings("a", "b", "c") }
      local names = {}
      for number = 1, 6 do names[number] = gw.candidates(route)().name end
      assert.same({ names[1], names[2], names[3] }, { names[4], names[5], names[6] })
      assert.is_true(names[1] ~= names[2] and names[2] ~= names[3] and names[1] ~= names[3])
    end)

    it("orders all tries of a request", function()
      local result = run { balance = { by = "least_latency" }, random = function() return 0.99 end,
        targets = siblings("a", "b", "c"), answers = failing("a", "b", "c"),
        retry = { attempts = 3 }, health = { a = { first_token_ms = 300 },
          b = { first_token_ms = 100 }, c = { first_token_ms = 200 } } }
      assert.same({ "b", "c", "a" }, result:called())
    end)

    it("by hash asks for the key once per request", function()
      local reads = 0
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.req.headers = setmetatable({}, { __index = function()
        reads = reads + 1
        return "me"
      end })
      local gw = support.public_module(support.native(world))
      local iterator = gw.candidates(support.route { retry = { attempts = 8 },
        balance = { by = "hash", header = "x-user" }, targets = siblings("a", "b", "c", "d") })
      local seen = {}
      for _ = 1, 4 do seen[iterator().name] = true end
      assert.same({ a = true, b = true, c = true, d = true }, seen)
      assert.is_true(reads <= 2, reads) -- the first step keeps nothing
    end)

    it("that does not exist is named", function()
      local gw = support.public_module(support.native { clock = support.clock(), log = {} })
      assert.has_error(function() gw.candidates(support.route { balance = "luck" }) end,
        "perilune.balance: there is no \"luck\"")
    end)
  end)
end)
