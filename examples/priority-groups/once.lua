--- One try: the client gets the answer as it is. What was learned from it is for the next request.

local gw = require "perilune"

return function(req, route)
  local next_target = gw.candidates(route)
  local target = next_target()
  if not target then return req:relay() end
  return req:relay(req:send(target))
end
