--- How a quantity varies: always the same, or lognormal, given by its median and its 99th
-- percentile. Times and sizes of LLM traffic are skewed like that. Pure.

local distribution = {}

local Z_99 = 2.3263478740408408 -- 99 % of a standard normal distribution lie below

--- A quantity that does not vary.
function distribution.fixed(value)
  return { p50 = value, sigma = 0 }
end

--- A lognormal one.
-- @tparam number p50 > 0
-- @tparam number p99 >= p50
function distribution.lognormal(p50, p99)
  return { p50 = p50, sigma = math.log(p99 / p50) / Z_99 }
end

--- One value.
-- @tparam table self
-- @tparam table random see perilune.simulate.random; asked only where the quantity varies
function distribution.sample(self, random)
  if self.sigma == 0 then return self.p50 end
  return self.p50 * math.exp(self.sigma * random:normal())
end

return distribution
