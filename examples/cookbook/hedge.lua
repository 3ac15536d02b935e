--- The slow tail: when a target takes longer than it does for 95 requests in 100, the next one is
-- asked as well, and who says something first answers. The other is cancelled.
--
-- Both may bill what they have done, so only what a person waits for is hedged: streams, with
-- prompts that are not dear twice. How often is up to `hedge` in the route.

local gw = require "perilune"

local MAX_TOKENS = 4000 -- of the prompt, roughly

return function(req, route)
  local is_hedged = req.stream and req:tokens_estimate() <= MAX_TOKENS
  local res, err
  local targets = gw.candidates(route)
  for target in targets do
    if is_hedged then
      res, err = gw.hedge(req, route, target, targets)
    else
      res, err = req:send(target)
    end
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return req:relay(res, err)
end
