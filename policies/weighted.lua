--- A virtual model: one name for several models, which share its requests by weight.
--
-- `gw.candidates` draws the first target by the weights of the first priority. When it fails, its
-- siblings of that priority come next, again by weight, and then the lower priorities. The models
-- differ, so what one cannot do (a long prompt, a filtered topic) may be no trouble for another.

local gw = require "perilune"

-- What sends a request on to a sibling, unless the route has its own `retry.on`.
local MOVE_ON = {
  401, 402, 403, 404, 408, 429, 500, 502, 503, 504, 529,
  "auth", "billing", "model_not_found", "context_length", "content_filter",
  "connect", "reset", "timeout", "malformed", "empty",
}

return function(req, route)
  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = gw.hedge(req, route, target, targets)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status, MOVE_ON) then break end
    req:log(target.name .. " left: " .. class)
  end
  return gw.rescue(req, route, targets, res, err)
end
