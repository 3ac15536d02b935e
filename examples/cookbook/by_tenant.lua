--- Each tenant has its own targets in its own order: see tenants.lua.

local gw = require "perilune"
local tenants = require "tenants"

-- The header that says who asks. Let the proxy set it that authenticates your clients, and take it
-- off what they send: whoever can choose it is whoever they want to be.
local HEADER = "x-tenant"

return function(req, route)
  local ranks = tenants[req.headers[HEADER] or ""]
  if not ranks then return req:fail(403, "unknown_tenant", "No such tenant in " .. HEADER) end

  local own = gw.ranked(route, function(target) return ranks[target.name] end)
  local targets = gw.candidates(own)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
