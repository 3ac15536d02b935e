--- Points in time as RFC 3339 writes them, such as "2026-01-05T12:00:00.25Z". Pure.

local date = require "perilune.date"

local rfc3339 = {}

local FORM = "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(%.?%d*)(.*)$"
local EXPECTED = 'must be a time such as "2026-01-05T12:00:00Z"'

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
  local ms = date.wall_ms(tonumber(year), tonumber(month), tonumber(day), tonumber(hour),
    tonumber(minute), tonumber(second))
  if not ms then return nil, "invalid", EXPECTED end
  local part_ms = fraction == "" and 0 or math.floor(tonumber("0" .. fraction) * 1e6 + 0.5) / 1000
  return ms - offset * 60 * 1000 + part_ms
end

--- Write a time to the second, in UTC.
-- @tparam number ms since the epoch
-- @treturn string
function rfc3339.format(ms)
  local fields = date.fields(ms)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(fields.year, fields.month, fields.day,
    fields.hour, fields.minute, fields.second)
end

return rfc3339
