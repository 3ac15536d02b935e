--- Reproducible random numbers, in plain Lua: the same seed gives the same sequence anywhere.
-- L'Ecuyer's combination of two linear generators ("Efficient and portable combined random number
-- generators", CACM 1988): every product stays below 2^53, the period is about 2.3e18.
local cos, floor, log, pi, sqrt = math.cos, math.floor, math.log, math.pi, math.sqrt
local format = string.format

local random = {}
random.__index = random

local M1, A1 = 2147483563, 40014
local M2, A2 = 2147483399, 40692
local WARM_UP = 16

local function from_state(first, second)
  return setmetatable({ first = first, second = second }, random)
end

--- A generator.
-- @tparam number seed any whole number within ±2^53
function random.new(seed)
  local self = from_state(seed % (M1 - 1) + 1, seed % M2 * 48271 % (M2 - 1) + 1)
  for _ = 1, WARM_UP do self:unit() end
  return self
end

--- The next number in (0, 1).
function random:unit()
  local first, second = self.first * A1 % M1, self.second * A2 % M2
  self.first, self.second = first, second
  local mixed = first - second
  if mixed < 1 then mixed = mixed + M1 - 1 end
  return mixed / M1
end

--- A whole number from `low` to `high`, both included.
function random:integer(low, high)
  return low + floor(self:unit() * (high - low + 1))
end

--- Normally distributed around `mean`, never further from it than 70 % of it.
function random:normal(mean, deviation)
  if deviation == 0 then return mean end
  local value = mean + deviation * sqrt(-2 * log(self:unit())) * cos(2 * pi * self:unit())
  if value < 0.3 * mean then return 0.3 * mean end
  if value > 1.7 * mean then return 1.7 * mean end
  return value
end

--- A generator of its own for one request, so that what a request gets depends on its place in
-- the order of arrival and not on what runs beside it.
function random:fork()
  return from_state(self:integer(1, M1 - 1), self:integer(1, M2 - 1))
end

--- A random UUID (version 4).
function random:uuid()
  local function word() return self:integer(0, 65535) end
  return format("%04x%04x-%04x-4%03x-%04x-%04x%04x%04x", word(), word(), word(),
    self:integer(0, 4095), self:integer(0x8000, 0xbfff), word(), word(), word())
end

return random
