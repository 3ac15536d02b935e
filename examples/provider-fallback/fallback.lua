--- To the next target when one fails; the first good answer, or the last error, to the client.

local gw = require "perilune"

-- What counts as a failure. Anything else goes back to the client as it is.
local FALL_BACK_ON = {
  401, -- the key is refused
  404, -- the model is not there
  429, -- too many requests
  500, 502, 503, -- the provider is in trouble
  "context_length", -- a 400 which says that the prompt is too long for this model
  "connect", "reset", "timeout", -- no answer
}

return function(req, route)
  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status, FALL_BACK_ON) then break end
    req:log(("%s: %s, on to the next"):format(target.name, class))
  end
  return gw.rescue(req, route, targets, res, err)
end
