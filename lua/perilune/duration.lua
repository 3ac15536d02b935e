--- Durations: a number and its unit in one string, such as "100ms", "12.5ms", "10s", "2m" or "1h".
-- A bare number is refused as ambiguous. Pure.

local duration = {}

local UNIT_MS = { ms = 1, s = 1000, m = 60 * 1000, h = 60 * 60 * 1000 }
local UNITS_DOWN = { "h", "m", "s" } -- for format: the largest that divides
local MAX_DIGITS = 15                -- so that every number is exact
local EXPECTED = 'must be a duration such as "10s" or "100ms"'

local function ambiguous(number_text)
  return nil, "ambiguous", ('is ambiguous: write "%ss" or "%sms"'):format(number_text, number_text)
end

--- Read a duration.
-- @param value what the operator wrote; anything but a string with a unit is refused
-- @treturn[1] number milliseconds, >= 0, exact to the microsecond
-- @treturn[2] nil
-- @treturn[2] string "ambiguous" (a number without unit) or "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function duration.parse(value)
  if type(value) == "number" then return ambiguous(("%.14g"):format(value)) end
  if type(value) ~= "string" then return nil, "invalid", EXPECTED end

  local whole, fraction, unit = value:match("^(%d+)(%.?%d*)([%a]*)$")
  if not whole or fraction == "." or #whole + #fraction > MAX_DIGITS then
    return nil, "invalid", EXPECTED
  end
  if unit == "" then return ambiguous(value) end
  if not UNIT_MS[unit] then
    return nil, "invalid", ('has an unknown unit "%.20s": write ms, s, m or h'):format(unit)
  end
  local exact_ms = tonumber(whole .. fraction) * UNIT_MS[unit]
  return math.floor(exact_ms * 1000 + 0.5) / 1000
end

--- Write milliseconds the way `parse` reads them: the largest unit that needs no fraction.
-- @tparam number ms >= 0
-- @treturn string such as "5m", "90s" or "12.5ms"
function duration.format(ms)
  for _, unit in ipairs(UNITS_DOWN) do
    local count = ms / UNIT_MS[unit]
    if count >= 1 and count % 1 == 0 then return ("%.0f%s"):format(count, unit) end
  end
  return ("%.14gms"):format(ms)
end

return duration
