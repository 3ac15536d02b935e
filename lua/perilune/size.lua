--- Sizes: whole bytes, written as a plain number or with a binary unit, such as "64KiB". Pure.

local size = {}

local UNIT_BYTES = { B = 1, KiB = 1024, MiB = 1024 * 1024, GiB = 1024 * 1024 * 1024 }
local UNITS_DOWN = { "GiB", "MiB", "KiB" }
local MAX_DIGITS = 15 -- so that every number is exact
local MAX_BYTES = 2 ^ 53
local EXPECTED = 'must be a size such as "64KiB" or a whole number of bytes'

local function whole_bytes(number)
  if number >= 0 and number <= MAX_BYTES and number % 1 == 0 then return number end
  return nil, "invalid", EXPECTED
end

--- Read a size.
-- @param value what the operator wrote: a number of bytes, or a string with a unit
-- @treturn[1] number bytes, whole, >= 0
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function size.parse(value)
  if type(value) == "number" then return whole_bytes(value) end
  if type(value) ~= "string" then return nil, "invalid", EXPECTED end

  local whole, fraction, unit = value:match("^(%d+)(%.?%d*)([%a]*)$")
  if not whole or fraction == "." or #whole + #fraction > MAX_DIGITS then
    return nil, "invalid", EXPECTED
  end
  if not UNIT_BYTES[unit] then
    return nil, "invalid",
      ('has %s: write B, KiB, MiB or GiB'):format(
        unit == "" and "no unit" or ('an unknown unit "%.20s"'):format(unit))
  end
  return whole_bytes(tonumber(whole .. fraction) * UNIT_BYTES[unit])
end

--- Write bytes the way `parse` reads them: the largest unit that needs no fraction.
-- @tparam number bytes whole, >= 0
-- @treturn string such as "50MiB" or "8000B"
function size.format(bytes)
  for _, unit in ipairs(UNITS_DOWN) do
    if bytes > 0 and bytes % UNIT_BYTES[unit] == 0 then
      return ("%.0f%s"):format(bytes / UNIT_BYTES[unit], unit)
    end
  end
  return ("%.0fB"):format(bytes)
end

return size
