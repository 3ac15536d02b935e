local candidates = require "perilune.candidates"
local support = require "spec.unit.support"

local HALF = function() return 0.5 end

--- Adds what a core in perfect health says.
local function fit(deps)
  deps.is_fit = function() return true end
  deps.admit = deps.is_fit
  deps.load = function() return 0, 0, 1, 1 end
  return deps
end

local run = support.run_until_good

local function failing(...)
  local answers = {}
  for _, name in ipairs { ... } do answers[name] = { rest = 500 } end
  return answers
end

--- Names that an iterator gives, without any request being sent.
local function names_of(options, limit)
  local world = { clock = support.clock(), random = support.random(options.seed), log = {} }
  world.req = support.req { clock = world.clock, deadline_ms = options.deadline_ms }
  local gw = support.public_module(support.native(world))
  local names = {}
  for target in gw.candidates(options.route or support.route(options)) do
    names[#names + 1] = target.name
    if #names == limit then break end
  end
  return names, world
end

describe("perilune.candidates", function()
  describe("order", function()
    it("goes by priority, whatever the order of the configuration", function()
      local result = run {
        targets = { { name = "c", priority = 7 }, { name = "a", priority = 0 },
          { name = "b", priority = 1 } },
        answers = { a = { 500 }, b = { 500 }, c = { 200 } },
      }
      assert.same({ "a", "b", "c" }, result:called())
      assert.same({ 0, 0, 0 }, result:times_ms())
      assert.equal(200, result.answer.status)
    end)

    it("follows a chain of single targets without a look at the others", function()
      local world = { clock = support.clock(), random = support.random(1), log = {} }
      world.req = support.req { clock = world.clock }
      local native, admitted = support.native(world), {}
      native.is_fit = function() error("nobody needs to know") end
      native.admit = function(target, forced)
        table.insert(admitted, target.name .. (forced and ", forced" or ""))
        return true
      end
      local route = support.route { targets = { { name = "a" }, { name = "b", priority = 1 },
        { name = "c", priority = 2 } }, retry = { attempts = 3 } }
      for _ in support.public_module(native).candidates(route) do end
      assert.same({ "a", "b", "c" }, admitted)
    end)

    it("stops where the policy breaks", function()
      local result = run { targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { 200 } } }
      assert.same({ "a" }, result:called())
    end)

    it("tries all of a priority before the next one", function()
      for seed = 1, 50 do
        local names = names_of({ seed = seed, retry = { attempts = 5 }, targets = {
          { name = "x", priority = 1 }, { name = "a" }, { name = "b" }, { name = "c" },
          { name = "y", priority = 1 },
        } })
        local first = { [names[1]] = true, [names[2]] = true, [names[3]] = true }
        assert.same({ a = true, b = true, c = true }, first)
        assert.is_true(names[4] .. names[5] == "xy" or names[4] .. names[5] == "yx")
      end
    end)

    it("draws the first by weight, and the second by the weights that are left", function()
      local route = support.route { targets = { { name = "a", weight = 50 },
        { name = "b", weight = 30 }, { name = "c", weight = 20 } } }
      local counts, total = {}, 20000
      local world = { clock = support.clock(), random = support.random(3), log = {} }
      world.req = support.req { clock = world.clock }
      local gw = support.public_module(support.native(world))
      for _ = 1, total do
        local iterator = gw.candidates(route)
        local pair = iterator().name .. iterator().name
        counts[pair] = (counts[pair] or 0) + 1
      end
      local shares = {
        ab = 0.5 * 0.3 / 0.5, ac = 0.5 * 0.2 / 0.5, ba = 0.3 * 0.5 / 0.7, bc = 0.3 * 0.2 / 0.7,
        ca = 0.2 * 0.5 / 0.8, cb = 0.2 * 0.3 / 0.8,
      }
      local chi = 0
      for pair, share in pairs(shares) do
        chi = chi + (counts[pair] - total * share) ^ 2 / (total * share)
      end
      assert.is_true(chi < 20.5, "chi-square " .. chi) -- 5 degrees of freedom, p = 0.001
    end)

    it("takes weight 0 last within its priority, before lower ones", function()
      for seed = 1, 30 do
        local names = names_of { seed = seed, retry = { attempts = 4 }, targets = {
          { name = "spare", weight = 0 }, { name = "a" }, { name = "b", weight = 3 },
          { name = "low", priority = 1 } } }
        assert.equal("spare", names[3])
        assert.equal("low", names[4])
      end
    end)

    it("serves a route whose weights are all 0", function()
      local seen = {}
      for seed = 1, 60 do
        local names = names_of({ seed = seed, targets = { { name = "a", weight = 0 },
          { name = "b", weight = 0 } } }, 2)
        seen[names[1] .. names[2]] = true
      end
      assert.same({ ab = true, ba = true }, seen)
    end)

    it("gives nothing when there are no targets", function()
      assert.same({}, names_of { targets = {}, retry = { attempts = 3 } })
    end)

    it("bounds the tries by attempts, and stays ended", function()
      assert.equal(1, #names_of { targets = { { name = "a" }, { name = "b" } },
        retry = { attempts = 1 } })
      assert.equal(7, #names_of { targets = { { name = "a" }, { name = "b" } },
        retry = { attempts = 7 } })
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      local iterator = support.public_module(support.native(world)).candidates(
        support.route { retry = { attempts = 2 } })
      assert.truthy(iterator())
      assert.truthy(iterator())
      assert.is_nil(iterator())
      assert.is_nil(iterator())
    end)
  end)

  describe("waits", function()
    it("not at all while a target is new to the request", function()
      local _, world = names_of { targets = { { name = "a" }, { name = "b" },
        { name = "c", priority = 1 } }, retry = { attempts = 3 } }
      assert.same({}, world.clock.slept)
    end)

    it("once per round, exponentially, for a single target", function()
      local result = run { random = HALF, answers = failing "a", targets = { { name = "a" } },
        retry = { attempts = 5, base_ms = 100, max_ms = 400, floor_ms = 0 } }
      assert.same({ "a", "a", "a", "a", "a" }, result:called())
      assert.same({ 50, 100, 200, 200 }, result.clock.slept)
      assert.same({ 0, 50, 150, 350, 550 }, result:times_ms())
    end)

    it("once per round for several", function()
      local result = run { random = HALF, answers = failing("a", "b", "c"),
        targets = { { name = "a" }, { name = "b", priority = 1 }, { name = "c", priority = 2 } },
        retry = { attempts = 8, base_ms = 100, max_ms = 10000, floor_ms = 0 } }
      assert.same({ "a", "b", "c", "a", "b", "c", "a", "b" }, result:called())
      assert.same({ 50, 100 }, result.clock.slept)
    end)

    it("at least the floor", function()
      local result = run { random = function() return 0 end, answers = failing "a",
        targets = { { name = "a" } }, retry = { attempts = 3, floor_ms = 25 } }
      assert.same({ 25, 25 }, result.clock.slept)
    end)

    it("is jittered", function()
      local distinct = {}
      for seed = 1, 200 do
        local result = run { seed = seed, answers = failing "a", targets = { { name = "a" } },
          retry = { attempts = 2, base_ms = 100, floor_ms = 25 } }
        local ms = result.clock.slept[1]
        assert.is_true(ms >= 25 and ms <= 100)
        distinct[math.floor(ms / 15)] = true
      end
      assert.is_true(distinct[1] and distinct[3] and distinct[5] and distinct[6])
    end)

    it("only when enough of the deadline is left afterwards", function()
      local result = run { random = HALF, deadline_ms = 399, answers = failing "a",
        targets = { { name = "a" } },
        retry = { attempts = 5, base_ms = 200, max_ms = 200, floor_ms = 0 } }
      assert.same({ 0, 100, 200 }, result:times_ms()) -- a wait to 300 would leave 99 ms
      assert.equal(500, result.answer.status)
    end)

    it("not for what is left of a deadline that has nearly passed", function()
      local result = run { deadline_ms = 1000, targets = { { name = "a" }, { name = "b" } },
        answers = { a = { { 500, took_ms = 950 } }, b = { { 500, took_ms = 950 } } } }
      assert.equal(1, #result:called())
      assert.equal(500, result.answer.status)
    end)

    it("gives the first target whatever the deadline says", function()
      assert.equal(1, #names_of { deadline_ms = 1 })
    end)

    it("copes with a request that has no deadline", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock }
      world.req.remaining_ms = function() return nil end
      local iterator = support.public_module(support.native(world)).candidates(support.route {})
      assert.truthy(iterator())
      assert.truthy(iterator())
    end)
  end)

  describe("per_priority", function()
    it("limits the tries at a priority in one round", function()
      for seed = 1, 30 do
        local names = names_of { seed = seed, retry = { attempts = 2, per_priority = 1 },
          targets = { { name = "a" }, { name = "b" }, { name = "low", priority = 1 } } }
        assert.is_true(names[1] ~= "low")
        assert.equal("low", names[2])
      end
    end)

    it("goes on with those that had no turn, without a wait for them", function()
      for seed = 1, 30 do
        local result = run { seed = seed, retry = { attempts = 4, per_priority = 1 },
          answers = failing("a", "b", "low"),
          targets = { { name = "a" }, { name = "b" }, { name = "low", priority = 1 } } }
        local names, times = result:called(), result:times_ms()
        assert.is_true(names[1] .. names[3] == "ab" or names[1] .. names[3] == "ba")
        assert.equal("low", names[4])
        assert.equal(0, times[3])
        assert.is_true(times[4] > 0)
      end
    end)

    it("repeats targets when it is larger than their number, with back-offs between", function()
      local result = run { random = HALF, answers = failing("a", "low"),
        targets = { { name = "a" }, { name = "low", priority = 1 } },
        retry = { attempts = 6, per_priority = 3, base_ms = 100, max_ms = 10000, floor_ms = 0 } }
      assert.same({ "a", "a", "a", "low", "low", "low" }, result:called())
      assert.same({ 0, 50, 150, 150, 350, 750 }, result:times_ms())
    end)

    it("never gives a target twice within one pass", function()
      for seed = 1, 30 do
        local names = names_of { seed = seed, retry = { attempts = 7, per_priority = 5 },
          targets = { { name = "a" }, { name = "b" }, { name = "low", priority = 1 } } }
        for first = 1, 3, 2 do
          local pair = names[first] .. names[first + 1]
          assert.is_true(pair == "ab" or pair == "ba")
        end
        assert.is_true(names[5] ~= "low")
        assert.same({ "low", "low" }, { names[6], names[7] })
      end
    end)

    it("of 0 counts as 1", function()
      assert.same({ "a", "b" }, names_of { retry = { attempts = 2, per_priority = 0 },
        targets = { { name = "a" }, { name = "b", priority = 1 } } })
    end)
  end)

  describe("Retry-After", function()
    local function asking(seconds)
      return { 429, headers = { ["Retry-After"] = tostring(seconds) } }
    end

    it("is waited for when there is nothing else", function()
      local result = run { targets = { { name = "a" } }, answers = { a = { asking(2), 200 } } }
      assert.same({ 0, 2000 }, result:times_ms())
      assert.equal(200, result.answer.status)
    end)

    it("is not shorter than the back-off", function()
      local result = run { random = HALF, targets = { { name = "a" } },
        answers = { a = { asking(0), 200 } }, retry = { base_ms = 100, floor_ms = 0 } }
      assert.same({ 0, 50 }, result:times_ms())
    end)

    it("counts from 503 too, in every header form", function()
      local result = run { targets = { { name = "a" } }, answers = { a = {
        { 503, headers = { ["x-ratelimit-reset-tokens"] = "1.5s" } }, 200 } } }
      assert.same({ 0, 1500 }, result:times_ms())
    end)

    it("does not count from other statuses", function()
      local result = run { random = HALF, targets = { { name = "a" } },
        answers = { a = { { 500, headers = { ["retry-after"] = "60" } }, 200 } },
        retry = { base_ms = 100, floor_ms = 0 } }
      assert.same({ 0, 50 }, result:times_ms())
    end)

    it("keeps its target out while another is free", function()
      local result = run { random = HALF, retry = { attempts = 5, base_ms = 100, floor_ms = 0 },
        targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { asking(60) }, b = { 500, 500, 500, 200 } } }
      assert.same({ "a", "b", "b", "b", "b" }, result:called())
      assert.same({ 0, 0, 50, 150, 350 }, result:times_ms())
    end)

    it("keeps it out of repetitions by per_priority, too", function()
      local result = run { retry = { attempts = 3, per_priority = 2 },
        targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { asking(60) }, b = { 500, 200 } } }
      assert.same({ "a", "b", "b" }, result:called())
    end)

    it("lets it in again when its time has come", function()
      local result = run { random = HALF,
        retry = { attempts = 6, base_ms = 1000, max_ms = 1000, floor_ms = 0 },
        targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { asking(1), rest = 500 }, b = { rest = 500 } } }
      assert.same({ "a", "b", "b", "a", "b", "a" }, result:called())
      assert.same({ 0, 0, 500, 1000, 1000, 1500 }, result:times_ms())
    end)

    it("waits for the earliest when all ask for time", function()
      local result = run { targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { asking(5) }, b = { asking(3), 200 } } }
      assert.same({ "a", "b", "b" }, result:called())
      assert.same({ 0, 0, 3000 }, result:times_ms())
    end)

    it("ends the loop when the wait does not fit the deadline", function()
      local result = run { deadline_ms = 10000, targets = { { name = "a" } },
        answers = { a = { asking(60) } } }
      assert.same({ "a" }, result:called())
      assert.same({}, result.clock.slept)
      assert.equal(429, result.answer.status)
    end)

    it("is forgotten when the target's next 429 does not ask for it", function()
      local result = run { random = HALF, retry = { base_ms = 100, floor_ms = 0 },
        targets = { { name = "a" } }, answers = { a = { asking(1), 429, 200 } } }
      assert.same({ 0, 1000, 1100 }, result:times_ms())
    end)

    it("is read only once from the same answer", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock, answers = { a = { asking(60) } } }
      local gw = support.public_module(support.native(world))
      local iterator = gw.candidates(support.route { retry = { attempts = 9, floor_ms = 0 },
        targets = { { name = "a" }, { name = "b", priority = 1 } } })
      world.req:send(iterator())
      iterator() -- b; the policy does not send to it, req.last stays a's answer
      world.clock.advance(61000)
      assert.equal("a", iterator().name)
    end)

    it("does not end a little early when timers do", function()
      local world = { clock = support.clock(), random = HALF, log = {} }
      world.req = support.req { clock = world.clock, answers = { a = { asking(60) } } }
      local native = support.native(world)
      local sleeps = 0
      function native.sleep_ms(ms)
        sleeps = sleeps + 1
        world.clock.advance(ms - 0.5)
      end
      local iterator = support.public_module(native).candidates(support.route {
        targets = { { name = "a" } } })
      world.req:send(iterator())
      assert.equal("a", iterator().name)
      assert.equal(1, sleeps)
    end)
  end)

  describe("with policies of their own mind", function()
    it("minds Retry-After of a try that the policy made before", function()
      local result = support.run(function(gw)
        return function(req, route)
          req:send(route.targets[1])
          for target in gw.candidates(route) do
            local res = req:send(target)
            if res.status == 200 then return req:relay(res) end
          end
        end
      end, { targets = { { name = "a" }, { name = "b", priority = 1 } },
        answers = { a = { { 429, headers = { ["retry-after"] = "9" } } }, b = { 200 } } })
      assert.same({ "a", "b" }, result:called())
    end)

    it("waits when all it could give asked for time before", function()
      local result = support.run(function(gw)
        return function(req, route)
          req:send(route.targets[1])
          req:relay(req:send((gw.candidates(route)())))
        end
      end, { targets = { { name = "a" } },
        answers = { a = { { 429, headers = { ["retry-after"] = "9" } }, 200 } } })
      assert.same({ 0, 9000 }, result:times_ms())
    end)

    it("is not confused by sends to targets that are not the route's", function()
      local other = support.target(99, { name = "other" })
      local result = support.run(function(gw)
        return function(req, route)
          local res
          for target in gw.candidates(route) do
            req:send(target)
            res = req:send(other)
          end
          return req:relay(res)
        end
      end, { targets = { { name = "a" }, { name = "b" } }, retry = { attempts = 2 },
        answers = { a = { rest = 500 }, b = { rest = 500 },
          other = { rest = { 429, headers = { ["retry-after"] = "60" } } } } })
      assert.equal(4, #result:called())
      assert.equal("other", result.answer.target)
    end)

    it("takes a table with targets of the policy's choice", function()
      local result = support.run(function(gw)
        return function(req, route)
          local targets = route.targets
          local own = { targets = { targets[2] }, retry = route.retry }
          return req:relay(req:send((gw.candidates(own)())))
        end
      end, { targets = { { name = "a" }, { name = "b" } }, answers = { b = { 200 } } })
      assert.same({ "b" }, result:called())
    end)

    it("keeps loops of one request apart", function()
      local names = {}
      support.run(function(gw)
        return function(req, route)
          for outer in gw.candidates(route) do
            for inner in gw.candidates(route) do names[#names + 1] = outer.name .. inner.name end
          end
          return req:fail(503, "x", "x")
        end
      end, { targets = { { name = "a" }, { name = "b", priority = 1 } }, retry = { attempts = 2 } })
      assert.same({ "aa", "ab", "ba", "bb" }, names)
    end)

    it("names the mistake when it is not given a route", function()
      for _, mistake in ipairs { false, 7, {}, { targets = {} } } do
        local world = { clock = support.clock(), random = HALF, log = {} }
        local gw = support.public_module(support.native(world))
        assert.has_error(function() gw.candidates(mistake) end,
          "perilune.candidates: a route is expected")
      end
    end)
  end)

  describe("whatever happens", function()
    local OUTCOMES = { 500, 503, 429, 400 }

    --- Random targets, retry rules, answers and deadline.
    local function random_case(random)
      local targets, answers, count = {}, {}, random(5)
      for position = 1, count do
        local name = "t" .. position
        targets[position] = { name = name, priority = random(3) - 1, weight = random(4) - 1 }
        answers[name] = setmetatable({}, { __index = function()
          local seconds = random(4) == 1 and tostring(random(20) - 1) or nil
          return { OUTCOMES[random(#OUTCOMES)], took_ms = random(300),
            headers = { ["retry-after"] = seconds } }
        end })
      end
      local per_priority = random(2) == 1 and random(4) or nil
      return { targets = targets, answers = answers, deadline_ms = random(60000),
        retry = { attempts = random(20), per_priority = per_priority, base_ms = random(500),
          max_ms = 2000, floor_ms = random(25) - 1 } }
    end

    --- Runs a case; the request notes until when each target asked to be left alone.
    local function run_case(options, random)
      options.random = random
      local asked_ms, early = {}, nil
      local result = support.run(function(gw)
        return function(req, route)
          local res, err
          for target in gw.candidates(route) do
            if (asked_ms[target.name] or 0) > req.clock.ms then early = target.name end
            res, err = req:send(target)
            local status = res and res.status
            local seconds = (status == 429 or status == 503) and res.headers["retry-after"] or 0
            asked_ms[target.name] = req.clock.ms + seconds * 1000
          end
          return req:relay(res, err)
        end
      end, options)
      return result, early
    end

    it("keeps its promises", function()
      local random = support.random(20)
      for number = 1, 2000 do
        local options = random_case(random)
        local result, early = run_case(options, random)
        local calls, slept = result:called(), result.clock.slept
        assert.is_true(#calls >= 1 and #calls <= options.retry.attempts, number)
        assert.is_nil(early, number)
        local slept_ms = 0
        for _, ms in ipairs(slept) do
          slept_ms = slept_ms + ms
          assert.is_true(ms >= math.min(options.retry.floor_ms, 2000), number)
        end
        assert.is_true(slept_ms <= math.max(options.deadline_ms - 100, 0), number)
        assert.is_true(#slept < #calls, number)
      end
    end)

    it("gives every target once before any again, by default, without a wait", function()
      local random = support.random(21)
      for number = 1, 500 do
        local options = random_case(random)
        options.retry.per_priority, options.deadline_ms = nil, 600000
        options.retry.attempts = #options.targets
        local result = run_case(options, random)
        local seen = {}
        for _, name in ipairs(result:called()) do
          assert.is_nil(seen[name], number)
          seen[name] = true
        end
        assert.same({}, result.clock.slept)
      end
    end)
  end)

  describe("costs", function()
    it("one small table for the first target", function()
      local route = support.route { targets = { { name = "a", weight = 3 }, { name = "b" } } }
      local req = support.req {}
      local new = candidates.new(fit { current = function() return req end, random = HALF })
      new(route)()
      collectgarbage()
      collectgarbage("stop")
      local before = collectgarbage("count")
      for _ = 1, 1000 do new(route)() end
      local bytes = (collectgarbage("count") - before) * 1024 / 1000
      collectgarbage("restart")
      assert.is_true(bytes <= 200, bytes .. " bytes")
    end)

    it("nothing for routes that are gone", function()
      local req = support.req {}
      local new = candidates.new(fit { current = function() return req end, random = HALF })
      local seen = setmetatable({}, { __mode = "k" })
      for _ = 1, 20 do
        local route = support.route {}
        seen[route] = true
        new(route)()
      end
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(seen))
    end)
  end)
end)
