--- What would become of a request: its route, its targets in the order in which they would be
-- tried if each failed, who is left out, what the first would get. Nothing is sent, reserved or
-- counted; nothing of health changes.
--
-- The order is that of perilune.candidates, run dry: admission is a look, and waits only move a
-- clock. Where chance decides, by weight or back-off, it is one draw of many: `share_ratio` says
-- how often a target would be the first. A policy of the operator's own may do otherwise; which one
-- the route has is said, but it is not run.

local candidates = require "perilune.candidates"
local cjson = require "cjson.safe"
local deadline = require "perilune.deadline"
local retry = require "perilune.retry"
local route = require "perilune.route"

local explain = {}

local PREFIX = "/v1/"
local STEPS_MAX = 64 -- candidates in one answer

-- ---- routes ----------------------------------------------------------------------------------

local function wants_text(model)
  if type(model) == "table" then return table.concat(model, ", ") end
  return model
end

--- Why a route does not match, in words; nil when it does.
local function mismatch(entry, request)
  local match = entry.match or {}
  local function holds(conditions)
    local matcher = route.compile { { match = conditions } }
    return route.match(matcher, request.model, request.path, request.method, request.headers) ~= nil
  end
  if match.method and not holds { method = match.method } then
    return ("the method is %s, not %s"):format(request.method, match.method)
  end
  if match.model and not holds { model = match.model } then
    if request.model == nil then return "the request names no model" end
    return ("the model %q does not match %s"):format(request.model, wants_text(match.model))
  end
  if match.path and not holds { path = match.path } then
    return ("the path %s is not under %s"):format(request.path, match.path)
  end
  for name, value in pairs(match.headers or {}) do
    if not holds { headers = { [name] = value } } then
      return ("the header %s does not have the value that is asked for"):format(name:lower())
    end
  end
  return nil
end

local function describe_routes(config, request, chosen)
  local list = {}
  for position, entry in ipairs(config.routes) do
    local why = mismatch(entry, request)
    if position == chosen then
      why = "the first that matches"
    elseif not why then
      why = "matches, too; an earlier one comes first"
    end
    list[position] = { name = entry.name, chosen = position == chosen, why = why }
  end
  return list
end

-- ---- health ----------------------------------------------------------------------------------

--- Why a target cannot be had now: a code and, if known, for how long; nil when it can be.
local function why_out(seen)
  if not seen.fit then return seen.reason, seen.out_for_ms end
  if not seen.provider_fit then
    return "provider_" .. seen.provider_reason, seen.provider_out_for_ms
  end
  if seen.probe_in_flight and seen.state ~= "closed" then return "probe_taken" end
  if seen.max_in_flight > 0 and seen.in_flight >= seen.max_in_flight then return "busy" end
  return nil
end

local function describe_target(target, native)
  local seen = native.look(target)
  return {
    target = target.name, provider = target.provider, model = target.model,
    priority = target.priority, weight = target.weight, state = seen.state,
    provider_state = seen.provider_state, in_flight = seen.in_flight, queued = seen.queued,
    ramp_ratio = seen.ramp,
  }
end

-- ---- the dry run -----------------------------------------------------------------------------

--- What perilune.candidates needs, without any effect; `run` notes what happens.
local function dry_deps(native, request, run)
  local function now_ms() return run.start_ms + run.waited_ms end
  local req = { headers = request.headers, model = request.model, path = request.path,
    method = request.method, peer = "127.0.0.1" }
  function req.remaining_ms() return run.deadline_ms and run.deadline_ms - run.waited_ms end
  function req.elapsed_ms() return run.waited_ms end
  function req.json()
    local value = native.json_fits(request.body) and cjson.decode(request.body)
    return type(value) == "table" and value or nil
  end
  return {
    now_ms = now_ms, now_wall_ms = native.now_wall_ms, random = native.random,
    current = function() return req end,
    sleep_ms = function(ms) run.waited_ms = run.waited_ms + ms end,
    is_fit = native.is_fit, load = native.load, out_until_ms = native.out_until_ms,
    admit = function(target, forced)
      local why = why_out(native.look(target))
      if why == nil or (forced and why ~= "busy") then return true end
      return nil, why == "busy" and "busy" or "out"
    end,
    retry_allowed = function() return true end,
    queue_limits = function(target)
      local seen = native.look(target)
      return seen.queue_count, seen.queue_ms
    end,
    -- nobody gives a place back in a dry run
    queue_enter = function(target)
      run.ended = "would_queue"
      run.queue_target = target.name
      return false
    end,
    queue_leave = function() end,
    keep_ms = function() end,
    last_try = function() end,
    give_up = function(code, retry_after_ms)
      run.ended = run.ended or code
      run.retry_after_ms = retry_after_ms
    end,
  }
end

local function route_of(entry, all_targets)
  local targets = {}
  for position, index in ipairs(entry.targets) do targets[position] = all_targets[index] end
  return { targets = targets, retry = retry.new(entry.retry), balance = entry.balance,
    panic = entry.panic, max_ejection_ratio = entry.max_ejection_ratio }
end

--- The order, as { {target=, after_ms=, forced=}, ... }.
local function walk(object, deps, run, native)
  local list = {}
  for target in candidates.new(deps)(object) do
    local item = describe_target(target, native)
    item.order, item.after_ms = #list + 1, run.waited_ms
    item.in_spite_of = why_out(native.look(target))
    list[#list + 1] = item
    if #list >= STEPS_MAX then break end
  end
  return list
end

local function ended(run, count, attempts)
  if run.ended then return run.ended end
  return count >= attempts and "attempts" or "deadline"
end

-- ---- who is left out, and shares ---------------------------------------------------------------

local function had(list, target)
  for _, item in ipairs(list) do
    if item.target == target.name then return true end
  end
  return false
end

local function left_out(object, list, native)
  local out = {}
  for _, target in ipairs(object.targets) do
    local why, for_ms = why_out(native.look(target))
    if not why and not had(list, target) then
      why = target.weight == 0 and "weight_0" or "not_reached"
    end
    if why and not had(list, target) then
      local item = describe_target(target, native)
      item.why, item.out_for_ms = why, for_ms
      out[#out + 1] = item
    end
  end
  return out
end

--- How often each target of the best priority that has any would be the first, by weight alone.
local function add_shares(object, list, native)
  local level, sum, fit = math.huge, 0, {}
  for _, target in ipairs(object.targets) do
    if why_out(native.look(target)) == nil then
      fit[#fit + 1] = target
      level = math.min(level, target.priority)
    end
  end
  local share = {}
  for _, target in ipairs(fit) do
    if target.priority == level then
      share[target.name] = target.weight * native.look(target).ramp
      sum = sum + share[target.name]
    end
  end
  for _, item in ipairs(list) do
    if sum > 0 then item.share_ratio = (share[item.target] or 0) / sum end
  end
end

-- ---- all of it ---------------------------------------------------------------------------------

local function describe_route(entry)
  return {
    name = entry.name, policy = entry.policy, deadline_ms = entry.deadline_ms,
    balance = entry.balance, panic = entry.panic, max_ejection_ratio = entry.max_ejection_ratio,
    retry = entry.retry,
  }
end

local function describe_first(target, request, native)
  if not target then return nil end
  local url, body, problem = native.preview(target, request.path, request.body or "")
  return { target = target.name, method = request.method, url = url, body_json = body,
    problem = problem }
end

local function find(targets, name)
  for _, target in ipairs(targets) do
    if target.name == name then return target end
  end
end

--- The route's, or the client's, if that is earlier; nil and why when the client's is no time.
local function deadline_of(entry, request)
  local asked_ms, code = deadline.of(entry.deadline_headers or {}, request.headers)
  if not asked_ms then return nil, code end
  return math.min(asked_ms, entry.deadline_ms)
end

local function explain_route(deps, request, entry, answer)
  local native = deps.native
  local deadline_ms, code = deadline_of(entry, request)
  answer.refused, answer.deadline_ms = code, deadline_ms
  if code then return end
  local run = { start_ms = native.now_ms(), waited_ms = 0, deadline_ms = deadline_ms }
  local object = route_of(entry, deps.targets)
  local list = walk(object, dry_deps(native, request, run), run, native)
  add_shares(object, list, native)
  answer.route = describe_route(entry)
  answer.candidates, answer.left_out = list, left_out(object, list, native)
  answer.ends = ended(run, #list, object.retry.attempts)
  answer.retry_after_ms, answer.queue_target = run.retry_after_ms, run.queue_target
  answer.first = describe_first(list[1] and find(object.targets, list[1].target), request, native)
end

--- Explains a request.
-- @tparam table deps config (normalised), targets (objects by index), native (perilune.native)
-- @tparam table request method, path, headers (names in lower case), model, stream, body (text)
-- @treturn table for JSON
function explain.run(deps, request)
  local answer = { request = { method = request.method, path = request.path, model = request.model,
    stream = request.stream } }
  if request.path:sub(1, #PREFIX) ~= PREFIX then
    answer.refused = "unknown_url"
    return answer
  end
  local matcher = route.compile(deps.config.routes)
  local index = route.match(matcher, request.model, request.path, request.method, request.headers)
  answer.routes = describe_routes(deps.config, request, index)
  if index then
    explain_route(deps, request, deps.config.routes[index], answer)
  else
    answer.refused = "no_route"
  end
  return answer
end

return explain
