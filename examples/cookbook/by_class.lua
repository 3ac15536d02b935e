--- Each kind of failure has its own way out: what is too long goes to the large model, what was
-- filtered to one that is less strict, and for the rest the next target takes over.

local gw = require "perilune"

-- Outcome class -> the target that takes over. These targets get no other requests.
local INSTEAD = {
  context_length = "hosted/large",
  content_filter = "hosted/lenient",
}

local IS_SPECIAL = {}
for _, name in pairs(INSTEAD) do IS_SPECIAL[name] = true end

local function usual(target)
  return not IS_SPECIAL[target.name] and target.priority
end

-- Asks one target alone; what it answers is final. The earlier answer stays when it is out.
local function ask_instead(req, route, name, res, err)
  local only = gw.ranked(route, function(target) return target.name == name and 0 end)
  local next_target = gw.candidates(only)
  local target = next_target()
  if not target then return res, err end
  return req:send(target)
end

return function(req, route)
  local res, err
  for target in gw.candidates(gw.ranked(route, usual)) do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if INSTEAD[class] then
      res, err = ask_instead(req, route, INSTEAD[class], res, err)
      break
    end
    if not route.retry:wants(class, status) then break end
  end
  return req:relay(res, err)
end
