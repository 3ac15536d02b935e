--- Sends answers in time and, when the request is to fail, with the failure in them.
-- Every function ends the request: it gives the request's place back, then sends the last bytes.
local latency = require "perilune.sim.latency"
local floor, max = math.floor, math.max

local answer = {}

local FOREVER_STEP_MS = 3600000
local FAIR_EVERY = 256 -- tokens sent without a pause before others get a turn
local EVENT_STREAM = { ["content-type"] = "text/event-stream", ["cache-control"] = "no-cache" }
local JSON = { ["content-type"] = "application/json" }
local BROKEN_JSON = '{"id":"garbage","object":'
local BROKEN_EVENT = "data: {garbage\n\n"

local function with_headers(base, more)
  local headers = {}
  for name, value in pairs(base) do headers[name] = value end
  for name, value in pairs(more) do headers[name] = value end
  return headers
end

local function pause(call, ms)
  if ms > 0 then call.sleep_ms(ms) end
end

--- Say nothing for --stall-duration; without one, until the client leaves.
function answer.stall(call)
  local silence_ms = call.config.stall_duration_ms
  while silence_ms == 0 do call.sleep_ms(FOREVER_STEP_MS) end
  call.sleep_ms(silence_ms)
end

local function first_token_ms(call, prompt_count)
  if call.failure == "slow_first_token" then return call.config.slow_first_token_ms end
  return latency.first_token_ms(call.config, call.random, prompt_count, call.running_count())
end

local function inter_token_ms(call)
  return latency.inter_token_ms(call.config, call.random, call.running_count())
end

-- Breaks the connection after what was written has left.
local function cut(call)
  call.finish()
  call.req:abort("flush")
end

--- A head, and nothing after it: the connection breaks.
function answer.head_only(call, is_stream)
  call.req:start(200, with_headers(is_stream and EVENT_STREAM or JSON, call.headers))
  cut(call)
end

--- 200 without anything: no body, or a stream without events.
function answer.empty(call, is_stream)
  call.finish()
  if not is_stream then return call.req:respond(200, "", with_headers(JSON, call.headers)) end
  call.req:start(200, with_headers(EVENT_STREAM, call.headers))
  call.req:finish()
end

-- The token count at which a failure strikes in mid-answer, and what it does. What it does gives
-- true when the request has ended.
local STRIKES = {
  cut = function(call)
    cut(call)
    return true
  end,
  stall = answer.stall,
  garbage = function(call) call.req:write(BROKEN_EVENT) end,
}

local function strike_at(call)
  if not STRIKES[call.failure] then return nil end
  return call.config[call.failure .. "_after"]
end

local function longest(choices)
  local count = 0
  for index = 1, #choices do count = max(count, #choices[index].tokens) end
  return count
end

-- Sends token after token, all choices side by side. True when a failure has ended the request.
local function send_tokens(call, plan, choices)
  local left = strike_at(call)
  for position = 1, longest(choices) do
    if left == 0 and STRIKES[call.failure](call) then return true end
    if left then left = left - 1 end
    if position > 1 then
      local wait_ms = inter_token_ms(call)
      if wait_ms > 0 then
        call.sleep_ms(wait_ms)
      elseif position % FAIR_EVERY == 0 then
        call.sleep_ms(0)
      end
    end
    for index = 1, #choices do
      local token = choices[index].tokens[position]
      if token then call.req:write(plan.token(index, token)) end
    end
  end
  return left ~= nil and left >= 0 and STRIKES[call.failure](call)
end

--- Stream an answer.
-- @tparam table call req, config, random, failure, headers, sleep_ms, running_count(), finish()
-- @tparam table plan opening, lead, token(choice, token), closing(), terminal()
-- @tparam table result choices and prompt_tokens
function answer.stream(call, plan, result)
  local req = call.req
  req:start(200, with_headers(EVENT_STREAM, call.headers))
  if plan.opening ~= "" then req:write(plan.opening) end
  local is_late = call.failure == "slow_first_token" -- says who speaks, then keeps silent
  if is_late and plan.lead ~= "" then req:write(plan.lead) end
  pause(call, first_token_ms(call, result.prompt_tokens))
  if not is_late and plan.lead ~= "" then req:write(plan.lead) end
  if send_tokens(call, plan, result.choices) then return end
  local last = plan.closing()
  if call.failure ~= "no_done" then last = last .. plan.terminal() end
  req:write(last)
  call.finish()
  req:finish()
end

-- Sends half of a body and then breaks or stalls.
local function send_half(call, headers, body)
  local half = floor(#body / 2)
  call.req:start(200, headers)
  call.req:write(body:sub(1, half))
  if STRIKES[call.failure](call) then return end
  call.req:write(body:sub(half + 1))
  call.finish()
  call.req:finish()
end

--- Send an answer in one piece, after the time that its tokens take.
-- @tparam table call as for `stream`
-- @tparam string body
-- @tparam table result prompt_tokens, and choices if it has tokens
-- @tparam[opt] string content_type when it is not JSON
function answer.whole(call, body, result, content_type)
  local wait_ms = first_token_ms(call, result.prompt_tokens)
  for _ = 2, result.choices and longest(result.choices) or 0 do
    wait_ms = wait_ms + inter_token_ms(call)
  end
  pause(call, wait_ms)
  local headers = with_headers(JSON, call.headers)
  if content_type then headers["content-type"] = content_type end
  if call.failure == "cut" or call.failure == "stall" then
    return send_half(call, headers, body)
  end
  call.finish()
  call.req:respond(200, call.failure == "garbage" and BROKEN_JSON or body, headers)
end

return answer
