--- The default policy: try the route's targets by priority, relay the first good answer.

local gw = require "perilune"

-- What sends a request on to the next target, unless the route has its own `retry.on`. The rest
-- goes back to the client as it is: a plain 400 would be a 400 everywhere.
local FALL_BACK_ON = {
  401, 402, 403, -- the target refuses our credential, or the account is out of money
  404, -- the target does not have the model
  408, 429, 500, 502, 503, 504, 529, -- the target is in trouble, or has had enough of us
  "auth", "billing", "model_not_found", -- the same, told by the body of another status
  "context_length", -- too long for this model; the next one may have a larger window
  "connect", "reset", "timeout", "malformed", "empty", -- no answer, or none that makes sense
}

return function(req, route)
  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = gw.hedge(req, route, target, targets)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status, FALL_BACK_ON) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
