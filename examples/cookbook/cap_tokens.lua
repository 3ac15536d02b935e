--- No request costs more than so much: long prompts are refused, long answers are cut short.

local gw = require "perilune"

-- Prompts above this are refused. The estimate is rough, so be generous.
local MAX_PROMPT = 20000

-- The most that an answer may have; what asks for more gets this, what asks for less gets that.
local MAX_ANSWER = 1000

-- The fields that limit an answer, and the one to set when the client has set none. Reasoning
-- models want "max_completion_tokens".
local LIMIT_KEYS = { "max_tokens", "max_completion_tokens" }
local USUAL_KEY = "max_tokens"

local function cap(req)
  local body, has_limit = req:json() or {}, false
  for _, key in ipairs(LIMIT_KEYS) do
    local tokens = body[key]
    if type(tokens) == "number" then
      has_limit = true
      if tokens > MAX_ANSWER then req:set(key, MAX_ANSWER) end
    end
  end
  if not has_limit then req:set(USUAL_KEY, MAX_ANSWER) end
end

return function(req, route)
  local prompt = req:tokens_estimate()
  if prompt > MAX_PROMPT then
    return req:fail(400, "prompt_too_long",
      ("The prompt has about %d tokens; %d are allowed"):format(prompt, MAX_PROMPT))
  end
  cap(req)

  local targets = gw.candidates(route)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
