--- When the big model (priority 0) fails, is too slow or is rate limited, a smaller one (the next
-- priorities) answers, at less length.

local gw = require "perilune"

-- What makes a request go to a smaller model, unless the route has its own `retry.on`. How slow is
-- too slow is set by the target's timeouts: `first_token` for streams, `head` for other answers.
local DEGRADE_ON = {
  408, 429, 500, 502, 503, 504, 529,
  "connect", "reset", "timeout", "malformed", "empty",
}

-- The most that a smaller model may write, in tokens, and the fields that say so.
local MAX_TOKENS = 512
local LIMIT_KEYS = { "max_tokens", "max_completion_tokens" }

-- The limits that the client has set.
local function limits_of(req)
  local body, limits = req:json() or {}, {}
  for _, key in ipairs(LIMIT_KEYS) do
    if type(body[key]) == "number" then limits[key] = body[key] end
  end
  return limits
end

local function cap(req, asked)
  for key, tokens in pairs(asked) do
    if tokens > MAX_TOKENS then req:set(key, MAX_TOKENS) end
  end
  if not next(asked) then req:set("max_tokens", MAX_TOKENS) end
end

local function uncap(req, asked)
  for key, tokens in pairs(asked) do req:set(key, tokens) end
  if not next(asked) then req:unset("max_tokens") end
end

return function(req, route)
  local has_limit = req.path:find("/completions$") ~= nil
  local capped = false
  local targets = gw.candidates(route)
  local asked, res, err
  for target in targets do
    local small = target.priority > 0
    if has_limit and small ~= capped then -- a later round may come back to the big model
      asked = asked or limits_of(req)
      if small then cap(req, asked) else uncap(req, asked) end
      capped = small
    end
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status, DEGRADE_ON) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
