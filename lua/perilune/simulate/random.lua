--- Random numbers that hang on what they are for, not on when they are asked for: each purpose has
-- a sequence of its own, named by the seed and some more numbers.
--
-- That is what makes two policies comparable: request 17 meets the same luck at the same target,
-- whatever else has happened until then, and whichever policy is asked. Pure.

local bit = require "bit"

local band, bxor, lshift, rshift, tobit = bit.band, bit.bxor, bit.lshift, bit.rshift, bit.tobit
local cos, log, pi, sqrt = math.cos, math.log, math.pi, math.sqrt

local random = {}
random.__index = random

local GOLDEN = tobit(0x9e3779b9) -- 2^32 / golden ratio: steps that visit every number once
local WORD = 2 ^ 32

--- The low 32 bits of a product; in halves, so that every part of it is exact.
local function multiply(a, b)
  local low = band(a, 0xffff) * b
  return tobit(tobit(low) + lshift(tobit(rshift(a, 16) * b), 16))
end

--- Mixes 32 bits so that each depends on all (the finaliser of MurmurHash3, by Austin Appleby).
local function mix(word)
  word = multiply(bxor(word, rshift(word, 16)), 0x85ebca6b)
  word = multiply(bxor(word, rshift(word, 13)), 0xc2b2ae35)
  return bxor(word, rshift(word, 16))
end

--- A number for a text, to be used as a part of a name. FNV-1a, mixed.
-- @tparam string text
-- @treturn number
function random.hash(text)
  local word = tobit(0x811c9dc5)
  for index = 1, #text do
    word = multiply(bxor(word, text:byte(index)), 0x01000193)
  end
  return mix(word)
end

--- Adds a part of a name; of large numbers both halves count.
local function absorb(word, part)
  word = mix(bxor(word, tobit(part % WORD)) + GOLDEN)
  local high = math.floor(part / WORD)
  if high == 0 or high == -1 then return word end
  return mix(bxor(word, tobit(high % WORD)) - GOLDEN) -- unlike a part of its own
end

--- The sequence of that name.
-- @tparam number ... whole numbers within ±2^53: the seed, then what the sequence is for
-- @treturn table with `unit`, `normal` and `below`
function random.stream(...)
  local first, second = 1, 2
  for position = 1, select("#", ...) do
    local part = select(position, ...)
    first, second = absorb(first, part), absorb(second, part)
  end
  return setmetatable({ first = first, second = second }, random)
end

--- The next number in (0, 1).
function random:unit()
  self.first = tobit(self.first + GOLDEN)
  local word = mix(bxor(mix(self.first), self.second))
  return (word % WORD + 0.5) / WORD
end

--- The next whole number from 1 to `count`.
function random:below(count)
  return 1 + math.floor(self:unit() * count)
end

--- The next number of the standard normal distribution.
function random:normal()
  return sqrt(-2 * log(self:unit())) * cos(2 * pi * self:unit())
end

return random
