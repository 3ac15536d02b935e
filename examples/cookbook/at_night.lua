--- Outside working hours the cheap target comes first; the others stand in for it.

local gw = require "perilune"

local CHEAP = "own/small"

-- Working hours: from the first hour up to, not including, the second, Monday (1) to Friday (5).
local FROM_HOUR, TO_HOUR = 8, 20
local FROM_WEEKDAY, TO_WEEKDAY = 1, 5

-- What to add to UTC for your clock. There is no summer time here: change it, or let it be.
local UTC_OFFSET_HOURS = 1

local function is_working_time()
  local now = gw.date(gw.now_wall_ms() + UTC_OFFSET_HOURS * 3600 * 1000)
  return now.hour >= FROM_HOUR and now.hour < TO_HOUR
    and now.weekday >= FROM_WEEKDAY and now.weekday <= TO_WEEKDAY
end

local function cheap_first(target)
  return target.name == CHEAP and -1 or target.priority
end

return function(req, route)
  local ordered = is_working_time() and route or gw.ranked(route, cheap_first)
  local targets = gw.candidates(ordered)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
