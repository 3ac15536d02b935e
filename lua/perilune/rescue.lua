--- Goes on with an answer that broke off.
--
-- What is relayed may break off when the client has a part of it already: a connection is cut, an
-- upstream falls silent or sends an error in the middle of its words. Where the route allows it
-- (`rescue`) the client's stream then stays open, and the next target of the same walk is asked:
-- for what follows, the words so far being the assistant's, or afresh, and what matches them is
-- dropped. The core joins the parts (core/rescue.h) and knows when that cannot be: within a tool
-- call, with a grammar, and so on.
--
-- A route that forbids to repeat what was partly generated is not rescued.
--
-- A target that refuses to continue (any error that is the request's fault) is asked afresh, once.
-- When nobody goes on, the client's stream ends in an error, never as if it were whole.

local rescue = {}

local RESTART = { resume = "restart" }

-- Whatever breaks off for these is no better elsewhere.
local FINAL = { content_filter = true, client_fault = true, timeout_deadline = true }

--- Makes the `rescue` function of the public module.
-- @tparam table deps classify(res, err) -> class, candidates(route) -> iterator,
-- resumes(req) -> "continue" | "restart" | nil
-- @treturn function
function rescue.new(deps)
  local classify = deps.classify

  --- Asks one target to go on.
  -- @treturn ?answer
  -- @treturn string class
  local function ask(req, target)
    local res, err = req:send(target)
    local class = classify(res, err)
    if class == "client_fault" and deps.resumes(req) == "continue" then
      res, err = req:send(target, RESTART)
      class = classify(res, err)
    end
    return class == "ok" and res or nil, class
  end

  --- Relays an answer as `req:relay` does. When it breaks off where the route's `rescue` allows it,
  -- the next targets are asked to go on.
  -- @param req
  -- @tparam table route with `rescue`
  -- @tparam[opt] function targets the iterator that the policy has used; nil: a new one
  -- @param res
  -- @param err
  -- @treturn[1] boolean true: the client has a whole answer
  -- @treturn[2] nil
  -- @treturn[2] string why it broke off, the last time
  return function(req, route, targets, res, err)
    local options = route.rescue
    local whole, class, is_open = req:relay(res, err, options or nil)
    if not is_open then return whole, class end
    targets = targets or deps.candidates(route)
    for _ = 1, options.attempts do
      local target = not FINAL[class] and route.retry:allows() and targets()
      if not target then break end
      local again, why = ask(req, target)
      if again then
        whole, class, is_open = req:relay(again)
      elseif FINAL[why] then
        class = why
      end
      if not is_open then return whole, class end
    end
    req:relay(nil, { class = class })
    return nil, class
  end
end

return rescue
