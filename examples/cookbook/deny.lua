--- Some models and some users get a 403, and are told why.

local gw = require "perilune"

-- Model as the client names it -> what to tell the client. The route must match these names.
local MODELS = {
  ["guarded-2023"] = "This model has been retired: use guarded",
  ["guarded-internal"] = "This model is not for general use",
}

-- The same for users: by the header that your proxy sets, or by the field "user" of the body.
local USER_HEADER = "x-user"
local USERS = {
  ["mallory@example.com"] = "This account is closed: write to support@example.com",
}

local function user_of(req)
  local body = req:json()
  return req.headers[USER_HEADER] or (body and body.user) or ""
end

return function(req, route)
  local reason = MODELS[req.model or ""]
  if reason then return req:fail(403, "model_denied", reason) end
  reason = USERS[user_of(req)]
  if reason then return req:fail(403, "user_denied", reason) end

  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
