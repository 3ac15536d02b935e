local balance = require "perilune.balance"
local support = require "spec.unit.support"

local DRAWS = 20000

local function group_of(...)
  local targets = {}
  for position, weight in ipairs { ... } do targets[position] = { weight = weight } end
  return balance.group(targets)
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

describe("perilune.balance", function()
  it("keeps the targets in their order", function()
    local targets = { { weight = 2 }, { weight = 1 } }
    local group = balance.group(targets)
    assert.equal(2, group.count)
    assert.equal(targets[1], group.targets[1])
    assert.equal(targets[2], group.targets[2])
  end)

  it("takes a missing weight for 1 and a negative one for 0", function()
    assert.equal(2, balance.group({ {}, { weight = -3 }, { weight = 1 } }).total)
  end)

  describe("first", function()
    it("takes no random number for one target", function()
      assert.equal(1, balance.first(group_of(5), function() error("not to be called") end))
    end)

    it("draws by weight", function()
      local group, random = group_of(50, 30, 20), support.random(11)
      local counts = tally(function() return balance.first(group, random) end)
      assert.is_true(chi_square(counts, { 0.5, 0.3, 0.2 }) < 13.8) -- 2 degrees, p = 0.001
    end)

    it("never draws weight 0 while another is there", function()
      local group, random = group_of(0, 80, 0, 20, 0), support.random(12)
      local counts = tally(function() return balance.first(group, random) end)
      assert.is_true(chi_square(counts, { 0, 0.8, 0, 0.2, 0 }) < 10.8) -- 1 degree
    end)

    it("keeps to weights at both ends of the scale", function()
      assert.equal(2, balance.first(group_of(0, 1, 1, 0), fixed(0)))
      assert.equal(3, balance.first(group_of(0, 1, 2, 0), fixed(1 - 2 ^ -53)))
      assert.equal(3, balance.first(group_of(0, 1, 2, 0), fixed(1)))
    end)

    it("is fair among weights of 0", function()
      local group, random = group_of(0, 0, 0), support.random(13)
      local counts = tally(function() return balance.first(group, random) end)
      assert.is_true(chi_square(counts, { 1 / 3, 1 / 3, 1 / 3 }) < 13.8)
    end)
  end)

  describe("draw", function()
    it("draws by weight among the allowed", function()
      local group, random = group_of(50, 30, 20), support.random(14)
      local allowed = { [1] = true, [3] = true }
      local counts = tally(function() return balance.draw(group, allowed, random) end)
      assert.is_true(chi_square(counts, { 5 / 7, 0, 2 / 7 }) < 10.8)
    end)

    it("comes to weight 0 only when nothing else is allowed", function()
      local group, random = group_of(1, 0, 0), support.random(15)
      for _ = 1, 100 do
        assert.equal(1, balance.draw(group, { true, true, true }, random))
      end
      local counts = tally(function() return balance.draw(group, { [2] = true, [3] = true },
        random) end)
      assert.is_true(chi_square(counts, { 0, 0.5, 0.5 }) < 10.8)
    end)

    it("gives nil when nothing is allowed", function()
      assert.is_nil(balance.draw(group_of(1, 2), {}, fixed(0)))
    end)

    it("keeps to what is allowed at both ends of the scale", function()
      assert.equal(2, balance.draw(group_of(1, 1, 1, 1), { [2] = true, [3] = true }, fixed(0)))
      assert.equal(3, balance.draw(group_of(1, 1, 1, 1), { [2] = true, [3] = true }, fixed(1)))
    end)
  end)
end)
