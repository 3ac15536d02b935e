--- One of the models behind a name answers; when it cannot, another one does.

local gw = require "perilune"

local MOVE_ON = {
  401, 403, 404, 500, 502, 503, 504,
  "connect", "timeout",
  "reset", -- taken away in the middle of a request
}

return function(req, route)
  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status, MOVE_ON) then break end
    req:log(("%s: %s, on to the next"):format(target.name, class))
  end
  return gw.rescue(req, route, targets, res, err)
end
