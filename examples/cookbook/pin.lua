--- A header picks the target, for those who compare or debug; without it all is as usual.

local gw = require "perilune"

-- The header names a target as gateway.lua does: provider/model. Nothing takes over for it.
local HEADER = "x-target"

return function(req, route)
  local wanted = req.headers[HEADER]
  local chosen = not wanted and route or gw.ranked(route, function(target)
    return target.name == wanted and 0
  end)
  if #chosen.targets == 0 then
    return req:fail(400, "unknown_target", "This route has no target of the name in " .. HEADER)
  end

  local targets = gw.candidates(chosen)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
