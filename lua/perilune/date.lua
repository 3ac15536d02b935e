--- Calendar fields of a time, in UTC, and back. Pure arithmetic: no time zones, no leap seconds.

local date = {}

local DAY_MS = 24 * 60 * 60 * 1000
local DAYS_TO_1970 = 719468    -- from 1 March of the year 0, where a count with leap days is simple
local ERA_DAYS = 146097        -- 400 years, after which the calendar repeats
local LOWEST_MS = -62135596800000  -- 0001-01-01T00:00:00Z
local HIGHEST_MS = 253402300799999 -- 9999-12-31T23:59:59.999Z

local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local floor = math.floor

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

--- The reverse of `civil`.
local function days_since_epoch(year, month, day)
  if month <= 2 then year = year - 1 end
  local day_of_year = floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return year * 365 + floor(year / 4) - floor(year / 100) + floor(year / 400) + day_of_year
    - DAYS_TO_1970
end

--- The time that calendar fields stand for, in UTC.
-- @tparam number year 0 to 9999
-- @tparam number month
-- @tparam number day
-- @tparam number hour
-- @tparam number minute
-- @tparam number second 60, too: a leap second
-- @treturn ?number milliseconds since 1970-01-01T00:00:00Z, nil when there is no such time
function date.wall_ms(year, month, day, hour, minute, second)
  if hour > 23 or minute > 59 or second > 60 then return nil end
  if month < 1 or month > 12 or day < 1 then return nil end
  if day > (month == 2 and is_leap(year) and 29 or MONTH_DAYS[month]) then return nil end
  return (((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000
end

--- Year, month and day of a number of days since 1970-01-01. Years begin in March here, so that a
-- leap day is the last one of its year.
local function civil(days)
  local shifted = days + DAYS_TO_1970
  local era = floor(shifted / ERA_DAYS)
  local day = shifted - era * ERA_DAYS -- of the era, 0 to 146096
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100)) -- of the year, 0 to 365
  local month = floor((5 * day + 2) / 153)                       -- 0 is March
  local day_of_month = day - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  return year + era * 400 + (month <= 2 and 1 or 0), month, day_of_month
end

--- Splits a time into its fields.
-- @tparam number wall_ms milliseconds since 1970-01-01T00:00:00Z, of the years 1 to 9999
-- @treturn[1] table year, month (1 to 12), day (1 to 31), hour (0 to 23), minute, second (0 to 59),
-- weekday (1 is Monday, 7 is Sunday)
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong with the time
function date.fields(wall_ms)
  if type(wall_ms) ~= "number" then
    return nil, "invalid", "a number of milliseconds is expected, not a " .. type(wall_ms)
  end
  if not (wall_ms >= LOWEST_MS and wall_ms <= HIGHEST_MS) then -- not a number is neither
    return nil, "invalid", "the time must be within the years 1 to 9999"
  end
  local days = floor(wall_ms / DAY_MS)
  local seconds = floor((wall_ms - days * DAY_MS) / 1000)
  local year, month, day = civil(days)
  return {
    year = year, month = month, day = day,
    hour = floor(seconds / 3600), minute = floor(seconds / 60) % 60, second = seconds % 60,
    weekday = (days + 3) % 7 + 1, -- 1970-01-01 was a Thursday
  }
end

return date
