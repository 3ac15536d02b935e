--- A ladder for requests in a hurry: the less time is left, the smaller the model. The first rung
-- is the best one that fits into the client's time, each is left in time for the next one, and
-- where little is left the answer is kept short.

local gw = require "perilune"

-- What each target usually needs for a whole answer. One that is not named here needs nothing.
local NEEDS_MS = {
  ["hosted/large"] = 12000,
  ["hosted/medium"] = 5000,
  ["own/small"] = 2000,
}

-- With less time than this the answer gets no more tokens than that.
local HURRY_MS = 4000
local SHORT_TOKENS = 150

local function needs_ms(target) return NEEDS_MS[target.name] or 0 end

--- The rungs for which there is time; the lowest one of all when there is none.
local function rungs_for(route, left_ms)
  local lowest = route.targets[1]
  for _, target in ipairs(route.targets) do
    if needs_ms(target) < needs_ms(lowest) then lowest = target end
  end
  return gw.ranked(route, function(target)
    return (needs_ms(target) <= left_ms or target == lowest) and target.priority
  end)
end

--- How soon a rung must begin to answer: so that the next one below it has what it needs, but never
-- before half of the time is over.
local function within_ms(rungs, target, left_ms)
  local below_ms = 0
  for _, other in ipairs(rungs.targets) do
    if other.priority > target.priority then below_ms = math.max(below_ms, needs_ms(other)) end
  end
  return math.max(left_ms - below_ms, left_ms / 2, 1)
end

return function(req, route)
  local rungs = rungs_for(route, req:remaining_ms())
  local res, err
  for target in gw.candidates(rungs) do
    local left_ms = req:remaining_ms()
    if left_ms < HURRY_MS then req:set("max_tokens", SHORT_TOKENS) end
    res, err = req:send(target, { within_ms = within_ms(rungs, target, left_ms) })
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return req:relay(res, err)
end
