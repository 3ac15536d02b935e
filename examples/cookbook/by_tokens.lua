--- Long prompts go to the model with the large context, short ones to the small model first.

local gw = require "perilune"

-- How many tokens each target takes, prompt and answer together. One that is not named here takes
-- any number.
local CONTEXT = {
  ["own/small"] = 8192,
  ["hosted/large"] = 128000,
}

-- What to leave room for when the request does not limit its answer.
local USUAL_ANSWER = 1000

-- The estimate is rough: a target is used up to this share of its context.
local FILL = 0.8

return function(req, route)
  local prompt, answer = req:tokens_estimate()
  local needed = prompt + (answer > 0 and answer or USUAL_ANSWER)
  local fitting = gw.ranked(route, function(target)
    local context = CONTEXT[target.name]
    return (not context or needed <= context * FILL) and target.priority
  end)
  -- When none seems large enough all are tried: they know better than the estimate.
  if #fitting.targets == 0 then fitting = route end

  local targets = gw.candidates(fitting)
  local res, err
  for target in targets do
    res, err = req:send(target)
    local class, status = gw.classify(res, err)
    if not route.retry:wants(class, status) then break end
  end
  return gw.rescue(req, route, targets, res, err)
end
