--- What perilune.candidates does with a request's time: reserve and retry_within.

local reserve = require "perilune.candidates.reserve"
local support = require "spec.unit.support"

local HALF = function() return 0.5 end

local run = support.run_until_good

local function chain(...)
  local targets = {}
  for position, name in ipairs { ... } do
    targets[position] = { name = name, priority = position }
  end
  return targets
end

local HANGS = { rest = { 200, took_ms = 1e9 } }

describe("perilune.candidates.reserve", function()
  local function keep(left_ms, elapsed_ms, count, reserve_ms, within_ms)
    return reserve.keep_ms(left_ms, elapsed_ms, count,
      { reserve_ms = reserve_ms, within_ms = within_ms })
  end

  it("keeps the reserve of each of the others", function()
    assert.equal(0, keep(10000, 0, 0, 3000))
    assert.equal(3000, keep(10000, 0, 1, 3000))
    assert.equal(6000, keep(10000, 0, 2, 3000))
    assert.equal(5000, keep(math.huge, 0, 1, 5000))
  end)

  it("gives all an equal share when there is too little", function()
    assert.equal(5000, keep(10000, 0, 1, 8000))
    assert.equal(7500, keep(10000, 0, 3, 3000))
  end)

  it("leaves nobody less than a try is begun with", function()
    assert.equal(900, keep(1000, 0, 63, 3000)) -- nine others
    assert.equal(100, keep(299, 0, 63, 100))
    assert.equal(0, keep(199, 0, 63, 3000))
    assert.equal(0, keep(0, 0, 63, 3000))
  end)

  it("never keeps so much that the try itself gets less than the others", function()
    local random = support.random(5)
    for _ = 1, 2000 do
      local left_ms, count, reserve_ms = random(20000), random(64), random(10000)
      local kept_ms = keep(left_ms, 0, count, reserve_ms)
      local own_ms = left_ms - kept_ms
      assert.is_true(kept_ms >= 0 and own_ms >= math.min(left_ms, 100))
      assert.is_true(kept_ms <= count * reserve_ms)
      if kept_ms > 0 then assert.is_true(own_ms >= kept_ms / count - 1e-6) end
    end
  end)

  it("lets the last of the others begin before retry_within", function()
    assert.equal(5000, keep(30000, 0, 1, 5000, 25100))
    assert.equal(5001, keep(30000, 0, 1, 5000, 25099))
    assert.equal(20100, keep(30000, 0, 1, 5000, 10000)) -- it is cut at 9.9 s
    assert.equal(20100 + 3000, keep(30000, 0, 2, 3000, 10000)) -- at 6.9 s, the next at 9.9 s
    assert.equal(10100, keep(20000, 10000, 1, 5000, 20000))
    assert.equal(20000 - 450, keep(20000, 0, 2, 5000, 1000)) -- each has 450 ms
  end)

  it("keeps nothing for others that could not begin any more", function()
    assert.equal(0, keep(20000, 10000, 1, 5000, 10000))
    assert.equal(0, keep(20000, 10000, 1, 5000, 10199))
    assert.equal(20000 - 100, keep(20000, 10000, 1, 5000, 10200))
  end)
end)

describe("perilune.candidates, with a reserve,", function()
  it("cuts each try so that the others have a chance", function()
    local result = run { deadline_ms = 10000, targets = chain("a", "b", "c"),
      retry = { reserve_ms = 2000 }, answers = { a = HANGS, b = HANGS, c = { 200 } } }
    assert.same({ "a", "b", "c" }, result:called())
    assert.same({ 0, 6000, 8000 }, result:times_ms())
    assert.equal(200, result.answer.status)
  end)

  it("leaves all of the time to the last one", function()
    local result = run { deadline_ms = 10000, targets = chain("a", "b"),
      retry = { attempts = 2, reserve_ms = 2000 },
      answers = { a = { 500 }, b = { { 200, took_ms = 9999 } } } }
    assert.equal(200, result.answer.status)
  end)

  it("does not hold a quick failure against the next", function()
    local result = run { deadline_ms = 10000, targets = chain("a", "b", "c"),
      retry = { reserve_ms = 2000 },
      answers = { a = { { 500, took_ms = 1000 } }, b = HANGS, c = { 200 } } }
    assert.same({ 0, 1000, 8000 }, result:times_ms())
  end)

  it("counts no more others than there are attempts", function()
    local result = run { deadline_ms = 10000, targets = chain("a", "b", "c", "d"),
      retry = { attempts = 2, reserve_ms = 2000 }, answers = { a = HANGS, b = HANGS } }
    assert.same({ 0, 8000 }, result:times_ms())
    assert.equal("timeout_deadline", result.answer.err.class)
  end)

  it("counts no others that are out", function()
    local result = run { deadline_ms = 10000, targets = chain("a", "b", "c"),
      retry = { attempts = 3, reserve_ms = 2000 }, health = { b = { out_until_ms = 1e9 } },
      answers = { a = HANGS, c = { 200 } } }
    assert.same({ "a", "c" }, result:called())
    assert.same({ 0, 8000 }, result:times_ms())
  end)

  it("counts the others of the same priority, whatever the draw", function()
    for seed = 1, 20 do
      local targets = { { name = "a" }, { name = "b" }, { name = "c" } }
      local result = run { seed = seed, deadline_ms = 10000, targets = targets,
        retry = { attempts = 3, reserve_ms = 2000 }, answers = { a = HANGS, b = HANGS, c = HANGS } }
      assert.same({ 0, 6000, 8000 }, result:times_ms())
    end
  end)

  it("keeps nothing for a target that has had its chance", function()
    local result = run { random = HALF, deadline_ms = 10000, targets = { { name = "a" } },
      retry = { attempts = 3, reserve_ms = 2000, floor_ms = 0, base_ms = 100, max_ms = 100 },
      answers = { a = { { 500 }, { 200, took_ms = 9900 } } } }
    assert.same({ 0, 50 }, result:times_ms())
    assert.equal(200, result.answer.status)
  end)

  it("says so with each target, so that nothing is left over from another loop", function()
    local world = { clock = support.clock(), random = HALF, log = {} }
    world.req = support.req { clock = world.clock, deadline_ms = 10000 }
    local gw = support.public_module(support.native(world))
    local route = support.route { targets = chain("a", "b"),
      retry = { attempts = 2, reserve_ms = 2000 } }
    local kept = {}
    for _ in gw.candidates(route) do kept[#kept + 1] = world.req.kept_ms end
    assert.same({ 2000, 0 }, kept)
  end)
end)

describe("perilune.candidates, with retry_within,", function()
  it("begins no try later than that", function()
    local answers = { a = { { 500, took_ms = 3000 } }, b = { { 500, took_ms = 1000 } },
      c = { { 500, took_ms = 1 } } }
    for within_ms, count in pairs { [2999] = 1, [3000] = 2, [3999] = 2, [4000] = 3 } do
      local result = run { targets = chain("a", "b", "c"), answers = answers,
        retry = { attempts = 3, within_ms = within_ms } }
      assert.equal(count, #result:called(), within_ms)
      assert.equal(500, result.answer.status)
    end
  end)

  it("cuts a try in time for the next, with a reserve", function()
    local result = run { deadline_ms = 30000, targets = chain("a", "b"),
      retry = { attempts = 2, within_ms = 10000, reserve_ms = 3000 },
      answers = { a = HANGS, b = { { 200, took_ms = 20000 } } } }
    assert.same({ 0, 9900 }, result:times_ms())
    assert.equal(200, result.answer.status)
  end)

  it("waits for nothing that would be over later", function()
    local options = { random = HALF, targets = { { name = "a" } }, answers = { a = { rest = 500 } },
      retry = { attempts = 9, base_ms = 200, max_ms = 200, floor_ms = 0, within_ms = 300 } }
    assert.same({ 0, 100, 200, 300 }, run(options):times_ms())
    options.answers = { a = { { 429, headers = { ["retry-after"] = "1" } }, rest = 200 } }
    assert.equal(429, run(options).answer.status)
    options.retry.within_ms = 1000
    assert.equal(200, run(options).answer.status)
  end)

  it("does not keep the first try from a queue", function()
    local result = run { targets = { { name = "a" } }, answers = { a = { 200 } },
      retry = { attempts = 3, within_ms = 0 },
      health = { a = { busy_until_ms = 1500, queue_count = 1 } } }
    assert.equal(200, result.answer.status)
    assert.is_true(result:times_ms()[1] >= 500)
  end)

  it("is over for the second try in the queue of a busy one", function()
    local result = run { targets = chain("a", "b"), answers = { a = { { 500, took_ms = 10 } } },
      retry = { attempts = 2, within_ms = 200 },
      health = { b = { busy_until_ms = 5000, queue_count = 1, queue_ms = 9000 },
        a = { busy_until_ms = 0 } } }
    assert.same({ "a" }, result:called())
    assert.is_true(result.clock.ms - 1000 <= 201, result.clock.ms)
  end)
end)
