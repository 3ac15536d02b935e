--- Durations as Go writes them: "100ms", "1.5s", "1m30s", "750us".
-- Pure. Milliseconds inside, because that is what timers take.
-- (Policies use perilune.duration, which is stricter: one number, one unit.)
local floor = math.floor
local find, format = string.find, string.format

local go_duration = {}

local UNIT_MS = {
  ns = 1e-6, us = 1e-3, ["\194\181s"] = 1e-3, ["\206\188s"] = 1e-3, -- both letters mu
  ms = 1, s = 1000, m = 60000, h = 3600000,
}
local MAX_MS = 168 * 3600000

--- Read a duration.
-- @tparam string text such as "1m30s"; "0" needs no unit
-- @treturn[1] number milliseconds, 0 to one week
-- @treturn[2] nil
-- @treturn[2] string "bad_duration"
-- @treturn[2] string what is wrong
function go_duration.parse(text)
  if text == "0" then return 0 end
  local total_ms, position = 0, 1
  repeat
    local first, last, number, unit = find(text, "^(%d*%.?%d*)([a-z\194\181\206\188]+)", position)
    local value, unit_ms = first and tonumber(number), first and UNIT_MS[unit]
    if not value or not unit_ms then
      return nil, "bad_duration", "write a number with a unit, such as 100ms, 1.5s or 2m"
    end
    total_ms, position = total_ms + value * unit_ms, last + 1
  until position > #text
  if total_ms > MAX_MS then return nil, "bad_duration", "must be at most 168h" end
  return total_ms
end

-- A decimal without trailing zeros.
local function decimal(value)
  local text = format("%.6f", value):gsub("0+$", "")
  return (text:gsub("%.$", ""))
end

--- Write a duration as Go does.
-- @tparam number ms
-- @treturn string such as "1m30s", "250ms", "0s"
function go_duration.format(ms)
  if ms == 0 then return "0s" end
  if ms < 1e-3 then return decimal(ms * 1e6) .. "ns" end
  if ms < 1 then return decimal(ms * 1e3) .. "us" end
  if ms < 1000 then return decimal(ms) .. "ms" end
  local minutes = floor(ms / 60000)
  local text = decimal((ms - minutes * 60000) / 1000) .. "s"
  if minutes >= 60 then return floor(minutes / 60) .. "h" .. minutes % 60 .. "m" .. text end
  if minutes > 0 then return minutes .. "m" .. text end
  return text
end

--- Whether a text is a bare whole number, which older simulators took as milliseconds.
function go_duration.is_bare(text)
  return #text <= 15 and find(text, "^%d+$") ~= nil
end

return go_duration
