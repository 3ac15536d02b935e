--- What the request's metadata says decides which target comes first; the others stand in for it.

local gw = require "perilune"

-- The first rule that holds decides: `field` of the body's "metadata" is `is`.
local RULES = {
  { field = "plan", is = "enterprise", target = "hosted/large" },
  { field = "plan", is = "trial", target = "own/small" },
  { field = "region", is = "eu", target = "own/small" },
}
local OTHERWISE = "own/small"

local function choose(req)
  local body = req:json()
  local metadata = body and body.metadata
  if type(metadata) ~= "table" then return OTHERWISE end
  for _, rule in ipairs(RULES) do
    if metadata[rule.field] == rule.is then return rule.target end
  end
  return OTHERWISE
end

return function(req, route)
  local chosen = choose(req)
  req:unset("metadata") -- it was for us; take this line out when the provider is to see it, too
  local ordered = gw.ranked(route, function(target)
    return target.name == chosen and -1 or target.priority
  end)

  local targets = gw.candidates(ordered)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
