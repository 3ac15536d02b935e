--- Hedging: asks a second target when the first one is slow, and takes what comes first.
--
-- The first target gets the request as by `req:send`. When there is nothing of it to judge after
-- the delay (for streams: no first content), a second target is asked as well; from then on both
-- run. The first good answer is taken and the other try is cancelled; for the health of its target
-- that is neutral. One that fails while the other still runs is dropped, and the other waited for;
-- when both fail, the later failure is what the policy gets. When the first one fails before the
-- delay nothing was hedged, and the policy goes on as after any other try.
--
-- The second target comes from the policy's own iterator, as its next one: it counts among the
-- route's attempts and against its retry budget. It must be fit and free at this moment: nothing is
-- waited for, no queue is entered, no target is used that is out.
--
-- The delay is a time, or a share: "p95" is the time in which 95 in 100 of the target's last good
-- answers had their first token (streams), or their head (others); the core keeps both. While fewer
-- than 20 are known, `until_known` holds, or there is no hedging.
--
-- The budget is a bucket for each route and worker. It holds `burst` hedges at most, and that many
-- at first; each request adds `budget_ratio` of one, each hedge takes one out. So in the long run
-- no more than that share of requests is hedged, however slow the targets are.
--
-- Only some requests are: POST to the route's `paths`, by default those whose answers leave nothing
-- behind at the provider. What a path is listed for is hedged whatever its body is.

local duration = require "perilune.duration"

local hedge = {}

local EXPECTED = 'must be a duration such as "2s", or a share such as "p95"'

hedge.DEFAULTS = {
  after = "p95", at_least_ms = 50, budget_ratio = 0.1, burst_count = 10,
  paths = { "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/embeddings" },
}

--- Reads a delay.
-- @tparam string text "2s", or "p50" to "p99.9"
-- @treturn[1] table { delay_ms } or { ratio }
-- @treturn[2] nil
-- @treturn[2] string "invalid" or "ambiguous"
-- @treturn[2] string what is wrong with it
function hedge.parse_after(text)
  local percent = type(text) == "string" and tonumber(text:match("^p(%d%d?%.?%d?)$"))
  if percent then
    if percent < 50 or percent > 99.9 then
      return nil, "invalid", 'must be within "p50" and "p99.9"'
    end
    return { ratio = percent / 100 }
  end
  local ms, code, detail = duration.parse(text)
  if not ms then return nil, code, code == "ambiguous" and detail or EXPECTED end
  if ms < 1 then return nil, "invalid", "must be at least 1ms" end
  return { delay_ms = ms }
end

local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

--- Prepares what a route says of hedging.
-- @tparam table options after, at_least_ms, until_known_ms, budget_ratio, burst_count, paths; what
-- is missing is as in DEFAULTS
-- @treturn table ready for use: as long as it lives, so does its budget
function hedge.plan(options)
  local plan = {}
  for name, default in pairs(hedge.DEFAULTS) do
    plan[name] = options[name] == nil and default or options[name]
  end
  plan.until_known_ms = options.until_known_ms
  plan.delay = assert(hedge.parse_after(plan.after))
  plan.takes_path = set_of(plan.paths)
  plan.left = plan.burst_count
  return plan
end

--- Two at once are work that is done twice: not where the route forbids that.
local function is_taken(req, plan, route)
  if route.retry and route.retry.uncertain == false then return false end
  return plan.takes_path[req.path] and req.method == "POST"
end

local function delay_ms_of(delay, plan, target, req, native)
  if delay.delay_ms then return delay.delay_ms end
  local known_ms = native.wait_quantile_ms(target, delay.ratio, req.stream)
  if known_ms then return math.max(known_ms, plan.at_least_ms) end
  return plan.until_known_ms
end

--- Adds the share of a request to the budget, once per request.
local function earn(req, plan, native)
  if native.hedge_share(req) then
    plan.left = math.min(plan.left + plan.budget_ratio, plan.burst_count)
  end
end

local function is_good(res)
  return res ~= nil and res.status < 400
end

--- The next target, if one can be had at once.
local function next_target(targets, candidates)
  if candidates.is_walk(targets) then return candidates.at_once(targets) end
  return targets()
end

--- Asks the second one.
-- @treturn boolean whether it was asked; if not, the first one is to be waited for
local function ask_second(req, plan, target, targets, deps)
  local native = deps.native
  if plan.left < 1 then
    native.hedge_count(req, "no_budget")
    return false
  end
  local second = next_target(targets, deps.candidates)
  if not second or second == target or native.hedge_start(req, second) == false then
    if native.hedge_is_open(req) then native.hedge_count(req, "no_target") end
    native.hedge_decide(req) -- gives back the place that may have been reserved
    return false
  end
  plan.left = plan.left - 1
  return true
end

--- Of the two that run, the first good answer; else what the later one has brought.
local function better_of_two(req, target, targets, deps)
  local native = deps.native
  local res, err = native.take_answer(req)
  if not is_good(res) then
    deps.classify(res, err)
    if deps.candidates.is_walk(targets) then deps.candidates.note(targets) end
    if native.hedge_next(req) ~= false then res, err = native.take_answer(req) end
  end
  native.hedge_decide(req)
  local result = not is_good(res) and "none" or res.target == target and "first" or "second"
  native.hedge_count(req, result)
  return res, err
end

local function send(req, plan, delay_ms, target, targets, deps)
  local native = deps.native
  native.hedge_begin(req, target, delay_ms)
  if not native.hedge_is_open(req) then return native.take_answer(req) end
  if ask_second(req, plan, target, targets, deps) then
    return better_of_two(req, target, targets, deps)
  end
  native.hedge_wait(req)
  return native.take_answer(req)
end

local function check(route, targets, after)
  if type(route) ~= "table" then
    error("perilune.hedge: hedge(req, route, target, targets): a route is expected", 3)
  end
  if targets == nil or type(targets) ~= "function" and type(targets) ~= "table" then
    error("perilune.hedge: targets must be what gw.candidates has given", 3)
  end
  if after == nil then return end
  local delay, _, detail = hedge.parse_after(after)
  if not delay then error("perilune.hedge: after " .. detail, 3) end
  return delay
end

--- Makes the `hedge` function of the public module.
-- @tparam table deps
--
--  * native: take_answer(req) -> res or nil, err; hedge_begin(req, target, delay_ms),
--    hedge_is_open(req), hedge_start(req, target), hedge_wait(req), hedge_next(req),
--    hedge_decide(req), hedge_count(req, result), hedge_share(req), wait_quantile_ms(target, ratio,
--    streams), see core/bind_hedge.c
--  * candidates: is_walk(targets), at_once(walk), note(walk)
--  * classify(res, err): tells log and metrics of an answer that the policy will not see
--
-- @treturn function hedge(req, route, target, targets, after)
function hedge.new(deps)
  local plans, own_plans = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

  local function plan_of(kept, key, options)
    local plan = kept[key]
    if not plan then
      plan = hedge.plan(options)
      kept[key] = plan
    end
    return plan
  end

  --- Sends the request to a target, and to the next one of `targets` too when it is slow.
  -- Without `hedge` in the route, and without `after`, it is `req:send(target)`.
  -- @param req
  -- @tparam table route
  -- @tparam table target
  -- @tparam function targets gives the next target: what gw.candidates has given
  -- @tparam ?string after instead of what the route says: "2s", "p95"
  -- @treturn[1] table the answer
  -- @treturn[2] nil
  -- @treturn[2] table the failure
  return function(req, route, target, targets, after)
    local delay = check(route, targets, after)
    local options = route.hedge
    local plan = options and plan_of(plans, options, options)
      or delay and plan_of(own_plans, route, {}) -- only the policy speaks of hedging
    if not plan or not is_taken(req, plan, route) then return req:send(target) end
    earn(req, plan, deps.native)
    local delay_ms = delay_ms_of(delay or plan.delay, plan, target, req, deps.native)
    if not delay_ms then return req:send(target) end
    return send(req, plan, delay_ms, target, targets, deps)
  end
end

return hedge
