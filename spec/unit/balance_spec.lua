local balance = require "perilune.balance"
local support = require "spec.unit.support"

local DRAWS = 20000

--- Deps with loads by position: { in_flight, first_token_ms, success, ramp }.
local function deps_of(random, group, loads)
  local load_of = {}
  for position, load in pairs(loads or {}) do load_of[group.targets[position]] = load end
  return { random = random, is_fit = function() return true end, load = function(target)
    local load = load_of[target] or {}
    return load[1] or 0, load[2] or 0, load[3] or 1, load[4] or 1
  end }
end

local function group_of(rule, ...)
  local targets = {}
  for position, weight in ipairs { ... } do
    targets[position] = { name = "t" .. position, weight = weight }
  end
  return balance.group(targets, rule)
end

local function all_of(group)
  local eligible = {}
  for position = 1, group.count do eligible[position] = position end
  return eligible
end

--- Chooses among the given positions, by default among all.
local function choose(group, deps, positions, req, memo)
  positions = positions or all_of(group)
  local eligible = {}
  for number, position in ipairs(positions) do eligible[number] = position end
  return balance.choose(group, eligible, #eligible, deps, req, memo)
end

local function fixed(value)
  return function() return value end
end

--- Pearson's statistic of counts against shares that add up to 1.
local function chi_square(counts, shares)
  local chi = 0
  for position, share in ipairs(shares) do
    local expected = DRAWS * share
    if share == 0 then assert.is_nil(counts[position]) else
      chi = chi + ((counts[position] or 0) - expected) ^ 2 / expected
    end
  end
  return chi
end

local function tally(draw)
  local counts = {}
  for _ = 1, DRAWS do
    local position = draw()
    counts[position] = (counts[position] or 0) + 1
  end
  return counts
end

-- The statistic's quantiles at p = 0.001 by degrees of freedom.
local P001 = { 10.8, 13.8, 16.3 }

describe("perilune.balance", function()
  local WAYS = { "weighted", "smooth_weighted", "round_robin", "least_busy", "least_latency", "p2c",
    { by = "hash", header = "x-user" } }

  it("keeps the targets in their order", function()
    local targets = { { weight = 2 }, { weight = 1 } }
    local group = balance.group(targets)
    assert.equal(2, group.count)
    assert.equal(targets[1], group.targets[1])
    assert.equal(targets[2], group.targets[2])
  end)

  it("takes a missing weight for 1 and a negative one for 0", function()
    assert.same({ 1, 0, 1 }, balance.group({ {}, { weight = -3 }, { weight = 1 } }).weights)
  end)

  it("names a way that it does not know", function()
    assert.has_error(function() balance.group({}, { by = "luck" }) end,
      "perilune.balance: there is no \"luck\"")
  end)

  describe("whatever the way", function()
    local req = support.req { headers = { ["x-user"] = "me" } }

    it("chooses one of those that may be chosen", function()
      local random = support.random(1)
      for _, way in ipairs(WAYS) do
        local group = group_of(way, 5, 0, 1, 3, 0)
        local deps = deps_of(random, group, { { 3, 200 }, { 1, 0 }, { 9, 900, 0.2, 0.5 } })
        for _ = 1, 500 do
          local positions, member = {}, {}
          for position = 1, 5 do
            if random(2) == 1 then
              positions[#positions + 1], member[position] = position, true
            end
          end
          if positions[1] then assert.is_true(member[choose(group, deps, positions, req)]) end
        end
      end
    end)

    it("comes to weight 0 only when nothing else is left", function()
      local random = support.random(2)
      for _, way in ipairs(WAYS) do
        local group = group_of(way, 0, 1, 0)
        local deps = deps_of(random, group, { {}, { 50, 5000, 0.01, 0.01 } })
        local seen = {}
        for number = 1, 200 do
          assert.equal(2, choose(group, deps, nil, req))
          assert.equal(2, choose(group, deps, { 3, 2 }, req))
          local other = support.req { headers = { ["x-user"] = "user " .. number } }
          seen[choose(group, deps, { 1, 3 }, other)] = true
        end
        assert.is_true(seen[1] or seen[3])
        assert.is_nil(seen[2])
      end
    end)

    it("takes the only one without a look", function()
      for _, way in ipairs(WAYS) do
        local group = group_of(way, 1, 1)
        assert.equal(2, choose(group, {}, { 2 }))
        assert.equal(1, balance.first(group_of(way, 1), {}))
      end
    end)

    it("needs no memory per choice", function()
      for _, way in ipairs(WAYS) do
        local group = group_of(way, 3, 2, 1)
        local deps, memo = deps_of(fixed(0.3), group), {}
        local eligible = all_of(group)
        balance.choose(group, eligible, 3, deps, req, memo)
        collectgarbage()
        collectgarbage("stop")
        local before = collectgarbage("count")
        for _ = 1, 1000 do balance.choose(group, eligible, 3, deps, req, memo) end
        local bytes = (collectgarbage("count") - before) * 1.024
        collectgarbage("restart")
        assert.is_true(bytes < 60 * 4, bytes) -- the fake load makes a table each time
      end
    end)

    it("spares a target in slow start", function()
      for number, way in ipairs(WAYS) do
        local group = group_of(way, 1, 1, 1)
        -- p2c and least_latency decide by load: make it equal
        local deps = deps_of(support.random(number), group,
          { { 0, 100, 1, 0.1 }, { 0, 100 }, { 0, 100 } })
        local counts = {}
        for user = 1, 3000 do
          local other = support.req { headers = { ["x-user"] = "user " .. user } }
          local position = choose(group, deps, nil, other)
          counts[position] = (counts[position] or 0) + 1
        end
        local name = type(way) == "table" and way.by or way
        if name == "least_busy" then
          -- idle is idle: the ramp shows once something is under way
          deps = deps_of(fixed(0.5), group, { { 1, 0, 1, 0.1 }, { 5 }, { 5 } })
          assert.is_true(choose(group, deps) ~= 1)
        else
          local share = (counts[1] or 0) / 3000
          assert.is_true(share > 0.01 and share < 0.12, name .. ": " .. share)
        end
      end
    end)
  end)

  describe("first", function()
    it("takes no random number for one target", function()
      local group = group_of(nil, 5)
      assert.equal(1, balance.first(group, { random = function() error("not to be called") end }))
    end)

    it("draws by weight", function()
      local group = group_of(nil, 50, 30, 20)
      local deps = deps_of(support.random(11), group)
      local counts = tally(function() return balance.first(group, deps) end)
      assert.is_true(chi_square(counts, { 0.5, 0.3, 0.2 }) < P001[2])
    end)

    it("never draws weight 0 while another is there", function()
      local group = group_of(nil, 0, 80, 0, 20, 0)
      local deps = deps_of(support.random(12), group)
      local counts = tally(function() return balance.first(group, deps) end)
      assert.is_true(chi_square(counts, { 0, 0.8, 0, 0.2, 0 }) < P001[1])
    end)

    it("keeps to weights at both ends of the scale", function()
      local group = group_of(nil, 0, 1, 1, 0)
      assert.equal(2, balance.first(group, deps_of(fixed(0), group)))
      group = group_of(nil, 0, 1, 2, 0)
      assert.equal(3, balance.first(group, deps_of(fixed(1 - 2 ^ -53), group)))
      assert.equal(3, balance.first(group, deps_of(fixed(1), group)))
    end)

    it("is fair among weights of 0", function()
      local group = group_of(nil, 0, 0, 0)
      local deps = deps_of(support.random(13), group)
      local counts = tally(function() return balance.first(group, deps) end)
      assert.is_true(chi_square(counts, { 1 / 3, 1 / 3, 1 / 3 }) < P001[2])
    end)

    it("with a closer look where it gives nil, is exact in slow start", function()
      local group = group_of(nil, 50, 30, 20)
      local deps = deps_of(support.random(14), group, { { 0, 0, 1, 0.2 }, {}, { 0, 0, 1, 0.5 } })
      local counts = tally(function()
        return balance.first(group, deps) or choose(group, deps)
      end)
      assert.is_true(chi_square(counts, { 10 / 50, 30 / 50, 10 / 50 }) < P001[2])
    end)

    it("of the other ways looks at those that are fit", function()
      local group = group_of("round_robin", 1, 1, 1)
      local deps = deps_of(fixed(0), group)
      local unfit = { [group.targets[1]] = true }
      function deps.is_fit(target) return not unfit[target] end
      assert.equal(2, balance.first(group, deps))
      assert.equal(3, balance.first(group, deps))
      assert.equal(2, balance.first(group, deps))
      unfit[group.targets[2]], unfit[group.targets[3]] = true, true
      assert.is_nil(balance.first(group, deps))
    end)
  end)

  describe("weighted", function()
    it("draws by weight among the allowed", function()
      local group = group_of("weighted", 50, 30, 20)
      local deps = deps_of(support.random(14), group)
      local counts = tally(function() return choose(group, deps, { 1, 3 }) end)
      assert.is_true(chi_square(counts, { 5 / 7, 0, 2 / 7 }) < P001[1])
    end)

    it("keeps to what is allowed at both ends of the scale", function()
      local group = group_of("weighted", 1, 1, 1, 1)
      assert.equal(2, choose(group, deps_of(fixed(0), group), { 2, 3 }))
      assert.equal(3, choose(group, deps_of(fixed(1), group), { 2, 3 }))
    end)

    it("is fair when all are at the very start of slow start", function()
      local group = group_of("weighted", 1, 9)
      local deps = deps_of(support.random(15), group, { { 0, 0, 1, 0 }, { 0, 0, 1, 0 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 0.5, 0.5 }) < P001[1])
    end)
  end)

  describe("smooth_weighted", function()
    it("goes as nginx does", function()
      local group = group_of("smooth_weighted", 5, 1, 1)
      local deps, letters = deps_of(nil, group), { "a", "b", "c" }
      local order = ""
      for _ = 1, 14 do order = order .. letters[choose(group, deps)] end
      assert.equal("aabacaaaabacaa", order)
    end)

    it("is exact over any whole number of turns, whatever is out in between", function()
      local group = group_of("smooth_weighted", 3, 2, 1)
      local deps = deps_of(nil, group)
      for _ = 1, 7 do choose(group, deps, { 1, 3 }) end
      local counts = { 0, 0, 0 }
      for _ = 1, 600 do
        local position = choose(group, deps)
        counts[position] = counts[position] + 1
      end
      for position, wanted in ipairs { 300, 200, 100 } do
        assert.is_true(math.abs(counts[position] - wanted) <= 4)
      end
    end)

    it("takes its share of the weight in slow start", function()
      local group = group_of("smooth_weighted", 2, 1)
      local deps = deps_of(nil, group, { { 0, 0, 1, 0.5 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.same({ DRAWS / 2, DRAWS / 2 }, counts)
    end)
  end)

  describe("round_robin", function()
    it("goes round, whatever the weights, and begins anywhere", function()
      local seen = {}
      for seed = 1, 40 do
        local group = group_of("round_robin", 9, 1, 5)
        local deps = deps_of(support.random(seed), group)
        local first = choose(group, deps)
        seen[first] = true
        for turn = 1, 6 do assert.equal((first - 1 + turn) % 3 + 1, choose(group, deps)) end
      end
      assert.same({ true, true, true }, seen)
    end)

    it("steps over those that may not be chosen", function()
      local group = group_of("round_robin", 1, 1, 1)
      local deps = deps_of(fixed(0), group)
      assert.equal(1, choose(group, deps))
      assert.equal(3, choose(group, deps, { 1, 3 }))
      assert.equal(1, choose(group, deps, { 1, 3 }))
      assert.equal(2, choose(group, deps))
    end)
  end)

  describe("least_busy", function()
    it("takes the one with the fewest under way for its weight", function()
      local group = group_of("least_busy", 1, 4, 2)
      assert.equal(2, choose(group, deps_of(fixed(0.5), group, { { 2 }, { 7 }, { 4 } })))
      assert.equal(1, choose(group, deps_of(fixed(0.5), group, { { 1 }, { 8 }, { 4 } })))
      assert.equal(3, choose(group, deps_of(fixed(0.5), group, { { 3 }, { 9 }, { 4 } })))
    end)

    it("draws lots for ties", function()
      local group = group_of("least_busy", 1, 1, 1, 1)
      local deps = deps_of(support.random(21), group, { { 2 }, { 5 }, { 2 }, { 2 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 1 / 3, 0, 1 / 3, 1 / 3 }) < P001[2])
    end)

    it("leaves one that is to get nothing for last", function()
      local group = group_of("least_busy", 1, 1)
      assert.equal(2, choose(group, deps_of(fixed(0.5), group, { { 0, 0, 1, 0 }, { 90 } })))
      assert.equal(2, choose(group, deps_of(fixed(0), group,
        { { 0, 0, 1, 0 }, { 0, 0, 1, 0 } })))
    end)
  end)

  describe("least_latency", function()
    it("takes the quickest", function()
      local group = group_of("least_latency", 1, 9, 1)
      local deps = deps_of(fixed(0.5), group, { { 0, 300 }, { 0, 120.5 }, { 0, 121 } })
      assert.equal(2, choose(group, deps))
      assert.equal(3, choose(group, deps, { 1, 3 }))
    end)

    it("takes the unknown first, by lot", function()
      local group = group_of("least_latency", 1, 1, 1)
      local deps = deps_of(support.random(22), group, { { 0, 1 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 0.05 / 3, 0.5 - 0.025 / 3, 0.5 - 0.025 / 3 }) < P001[2])
    end)

    it("explores with one request in twenty", function()
      local group = group_of("least_latency", 1, 1, 1)
      local deps = deps_of(support.random(23), group, { { 0, 50 }, { 0, 900 }, { 0, 100 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 0.95 + 0.05 / 3, 0.05 / 3, 0.05 / 3 }) < P001[2])
    end)
  end)

  describe("p2c", function()
    local p2c = require "perilune.balance.p2c"

    it("scores as agentgateway does", function()
      assert.equal(1, p2c.score(0, 0, 1))
      assert.equal(1, p2c.score(50, 0, 1))
      assert.equal(0.5, p2c.score(0, 1000, 1))
      assert.equal(0.7 / (1 + 0.2 * 1.5), p2c.score(5, 200, 0.7))
    end)

    it("draws two with replacement and takes the better", function()
      local group = group_of("p2c", 1, 1, 9)
      local deps = deps_of(support.random(24), group, { { 0, 100 }, { 0, 200 }, { 0, 300 } })
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 5 / 9, 3 / 9, 1 / 9 }) < P001[2])
    end)

    it("shares evenly among equals", function()
      local group = group_of("p2c", 1, 1, 1)
      local deps = deps_of(support.random(25), group)
      local counts = tally(function() return choose(group, deps) end)
      assert.is_true(chi_square(counts, { 1 / 3, 1 / 3, 1 / 3 }) < P001[2])
    end)
  end)

  describe("hash", function()
    local RULE = { by = "hash", header = "x-user" }

    local function user(number)
      return support.req { headers = { ["X-User"] = "user-" .. number } }
    end

    it("sends the same key to the same target", function()
      local group, other = group_of(RULE, 1, 1, 1), group_of(RULE, 1, 1, 1)
      for number = 1, 200 do
        local position = choose(group, deps_of(nil, group), nil, user(number))
        assert.equal(position, choose(group, deps_of(nil, group), { 3, 2, 1 }, user(number)))
        assert.equal(position, choose(other, deps_of(nil, other), nil, user(number)))
        assert.equal(position, balance.first(group, deps_of(nil, group), user(number)))
      end
    end)

    it("shares the keys by weight", function()
      local group, number = group_of(RULE, 3, 2, 1), 0
      local deps = deps_of(nil, group)
      local counts = tally(function()
        number = number + 1
        return choose(group, deps, nil, user(number))
      end)
      assert.is_true(chi_square(counts, { 1 / 2, 1 / 3, 1 / 6 }) < P001[2])
    end)

    it("moves only the share of a target that is lost, and to all others", function()
      local group = group_of(RULE, 1, 1, 1, 1)
      local deps, moved = deps_of(nil, group), {}
      for number = 1, 4000 do
        local before = choose(group, deps, nil, user(number))
        local after = choose(group, deps, { 1, 3, 4 }, user(number))
        if before ~= 2 then assert.equal(before, after) else
          moved[after] = (moved[after] or 0) + 1
        end
      end
      for _, position in ipairs { 1, 3, 4 } do
        assert.is_true(moved[position] > 270 and moved[position] < 400, moved[position])
      end
    end)

    it("passes over a target that is too busy for its share", function()
      local group = group_of(RULE, 1, 1)
      local number = 1
      while choose(group, deps_of(nil, group), nil, user(number)) ~= 1 do number = number + 1 end
      -- 1.25 * (3 + 1) / 2 + 1 = 3.5, 1.25 * (5 + 1) / 2 + 1 = 4.75
      assert.equal(1, choose(group, deps_of(nil, group, { { 3 }, { 1 } }), nil, user(number)))
      assert.equal(2, choose(group, deps_of(nil, group, { { 5 }, { 1 } }), nil, user(number)))
      local loose = group_of({ by = "hash", header = "x-user", load_ratio = 2 }, 1, 1)
      assert.equal(1, choose(loose, deps_of(nil, loose, { { 5 }, { 1 } }), nil, user(number)))
      local heavy = group_of(RULE, 9, 1)
      assert.equal(1, choose(heavy, deps_of(nil, heavy, { { 9 }, { 1 } }), nil, user(number)))
    end)

    it("takes the key from a header, a field, or the client's credential", function()
      local function same(rule, one, other, differs)
        local group, distinct = group_of(rule, 1, 1, 1, 1, 1), {}
        local deps = deps_of(function() error("a key was there") end, group)
        assert.equal(choose(group, deps, nil, support.req(one)),
          choose(group, deps, nil, support.req(other)))
        for number = 1, 30 do
          distinct[choose(group, deps, nil, support.req(differs(number)))] = true
        end
        assert.is_true(distinct[1] and distinct[5])
      end
      same({ by = "hash", field = "user" }, { body = { user = "ann" } },
        { body = { user = "ann", x = 1 } },
        function(number) return { body = { user = number } } end)
      same({ by = "hash", client_key = true }, { headers = { Authorization = "Bearer 1" } },
        { headers = { authorization = "Bearer 1", ["x-api-key"] = "2" } },
        function(number) return { headers = { ["x-api-key"] = "key" .. number } } end)
      same(RULE, { headers = { ["x-user"] = "1" } }, { headers = { ["X-USER"] = "1" } },
        function(number) return { headers = { ["x-user"] = tostring(number) } } end)
    end)

    it("draws by weight where there is no key", function()
      local requests = { [RULE] = { {}, { headers = { ["x-user"] = "" } } },
        [{ by = "hash", field = "user" }] = { { body = {} }, { body = "no json" },
          { body = { user = {} } } } }
      for rule, list in pairs(requests) do
        local group = group_of(rule, 3, 1)
        local deps = deps_of(support.random(26), group)
        for _, options in ipairs(list) do
          local req = support.req(options)
          local counts = tally(function() return choose(group, deps, nil, req) end)
          assert.is_true(chi_square(counts, { 3 / 4, 1 / 4 }) < P001[1])
        end
      end
    end)

    it("finds the key once where it may remember it", function()
      local group = group_of(RULE, 1, 1)
      for _, options in ipairs { { headers = { ["x-user"] = "1" } }, {} } do
        local memo, reads = {}, 0
        local req = support.req(options)
        local headers = req.headers
        req.headers = setmetatable({}, { __index = function(_, name)
          reads = reads + 1
          return headers[name]
        end })
        for _ = 1, 3 do choose(group, deps_of(fixed(0.5), group), nil, req, memo) end
        assert.equal(1, reads)
      end
    end)

    it("tells targets of one name apart", function()
      local targets = { { name = "same" }, { name = "same" } }
      local group, seen = balance.group(targets, RULE), {}
      for number = 1, 50 do seen[choose(group, deps_of(nil, group), nil, user(number))] = true end
      assert.same({ true, true }, seen)
    end)

    it("hashes texts of every length to different numbers", function()
      local hash = require("perilune.balance.hash").text
      local seen = {}
      for length = 0, 300 do
        local value = hash(("a"):rep(length))
        assert.is_true(value >= 0 and value < 2147483647 and value % 1 == 0)
        assert.is_nil(seen[value])
        seen[value] = true
      end
      assert.is_true(hash("ab") ~= hash("ba") and hash("a\0") ~= hash("a"))
    end)
  end)
end)
