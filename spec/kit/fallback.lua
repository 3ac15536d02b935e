--- What the worlds of these specs run.

local gw = require "perilune"

return function(req, route)
  local res, err
  for target in gw.candidates(route) do
    res, err = req:send(target)
    if not route.retry:wants(gw.classify(res, err)) then break end
  end
  return req:relay(res, err)
end
