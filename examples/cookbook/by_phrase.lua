--- When an answer says that it will not answer, or an error says what its status does not, the next
-- target is asked.

local gw = require "perilune"

-- Phrases that send a request on, in small letters, looked for as they are: in the words of a
-- completion, and in the messages of errors.
local PHRASES = {
  "i'm sorry, i can't", "i'm sorry, but i can't", "i cannot help with that",
  "no healthy upstream", "model is still loading",
}

-- A refusal comes first: a phrase further back than this many bytes is part of a story.
local LOOK_AT = 200

-- To read a stream is to hold it back until its end. With false, streams pass unread.
local READ_STREAMS = false

local function has_phrase(text)
  local head = text:sub(1, LOOK_AT):lower()
  for _, phrase in ipairs(PHRASES) do
    if head:find(phrase, 1, true) then return true end
  end
  return false
end

-- Why the next target is to be asked, nil when it is not.
local function reason_to_leave(req, route, res, err)
  local class, status = gw.classify(res, err)
  if route.retry:wants(class, status) then return class end
  if not res or (status < 400 and req.stream and not READ_STREAMS) then return nil end
  local text, code = res:text()
  if text then return has_phrase(text) and "phrase" or nil end
  return code ~= "too_large" and code or nil -- it broke off; nobody has seen any of it yet
end

return function(req, route)
  local res, err
  for target in gw.candidates(route) do
    res, err = req:send(target)
    local reason = reason_to_leave(req, route, res, err)
    if not reason then break end
    req:log(target.name .. " left: " .. reason)
  end
  return req:relay(res, err)
end
