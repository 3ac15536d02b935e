--- Points in time as RFC 3339 writes them, such as "2026-01-05T12:00:00.25Z". Pure.

local rfc3339 = {}

local FORM = "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(%.?%d*)(.*)$"
local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
local DAY_MS = 24 * 60 * 60 * 1000
local EXPECTED = 'must be a time such as "2026-01-05T12:00:00Z"'

local function days_of_month(year, month)
  local is_leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  return month == 2 and is_leap and 29 or MONTH_DAYS[month]
end

--- Days since 1970-01-01. The year is taken to begin in March, so that leap days come last.
local function days_since_epoch(year, month, day)
  if month <= 2 then year = year - 1 end
  local day_of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + day_of_year - 719468
end

--- Minutes east of Greenwich, nil when that is no offset.
local function offset_minutes(text)
  if text == "Z" or text == "z" then return 0 end
  local sign, hours, minutes = text:match("^([+-])(%d%d):(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  return (hours * 60 + minutes) * (sign == "-" and -1 or 1)
end

--- Read a time.
-- @param text
-- @treturn[1] number milliseconds since the epoch, exact to the microsecond
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is expected, to be put after the name of the option
function rfc3339.parse(text)
  if type(text) ~= "string" or #text > 64 then return nil, "invalid", EXPECTED end
  local year, month, day, hour, minute, second, fraction, zone = text:match(FORM)
  local offset = zone and offset_minutes(zone)
  if not offset or fraction == "." then return nil, "invalid", EXPECTED end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  local is_time = hour <= 23 and minute <= 59 and second <= 60 -- 60: a leap second
  if not is_time or month < 1 or month > 12 or day < 1 or day > days_of_month(year, month) then
    return nil, "invalid", EXPECTED
  end
  local seconds = ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
  local part_ms = fraction == "" and 0 or math.floor(tonumber("0" .. fraction) * 1e6 + 0.5) / 1000
  return (seconds - offset * 60) * 1000 + part_ms
end

--- The calendar's day of a count of days since the epoch; the reverse of `days_since_epoch`.
local function date_of_days(days)
  days = days + 719468
  local era = math.floor(days / 146097)
  local day_of_era = days - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460)
    + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era
    - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local month_index = math.floor((5 * day_of_year + 2) / 153)
  local month = month_index < 10 and month_index + 3 or month_index - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  return year, month, day_of_year - math.floor((153 * month_index + 2) / 5) + 1
end

--- Write a time to the second, in UTC.
-- @tparam number ms since the epoch
-- @treturn string
function rfc3339.format(ms)
  local days = math.floor(ms / DAY_MS)
  local second_of_day = math.floor((ms - days * DAY_MS) / 1000)
  local year, month, day = date_of_days(days)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(year, month, day,
    math.floor(second_of_day / 3600), math.floor(second_of_day / 60) % 60, second_of_day % 60)
end

return rfc3339
