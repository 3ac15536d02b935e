--- The floor policy: serves a request when the operator's policy has failed before anything was
-- sent to the client. By priority, then by weight, one target after the other; the plainest loop.
--
-- It knows nothing of the operator's code, and leaves the route's `balance` aside. What the
-- configuration says of targets, tries, waits, limits and health holds as ever. The core has undone
-- what the failed policy did to the request, see core/request_policy.c.

local classify = require "perilune.classify"

local floor = {}

--- Makes the floor policy of a route, once per route.
-- @tparam table route the route object that policies get
-- @tparam function candidates as of perilune.candidates
-- @tparam[opt] function classify instead of perilune.classify's
-- @treturn function policy(req), which may yield
function floor.new(route, candidates, classify_outcome)
  classify_outcome = classify_outcome or classify.classify
  local plain -- with the plan that candidates keeps for it; most routes never need it

  return function(req)
    plain = plain or { targets = route.targets, retry = route.retry, balance = "weighted",
      panic = route.panic, max_ejection_ratio = route.max_ejection_ratio }
    local res, err
    for target in candidates(plain) do
      res, err = req:send(target)
      local class, status = classify_outcome(res, err)
      if not route.retry:wants(class, status) then break end
    end
    return req:relay(res, err)
  end
end

return floor
