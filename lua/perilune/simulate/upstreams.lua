--- What upstreams answer, as a scenario describes them: how long they take, how often they fail,
-- how much they take at once, and their outages. Pure; the calls come from the driver.
--
-- A call: target and provider (names), at_ms, request (see perilune.simulate.arrivals), nth (how
-- often this request has called this target, from 1 on), max_tokens (nil: no limit).
--
-- Whatever is decided by chance hangs on the request, the target and `nth` alone, so that two
-- policies meet the same answers wherever they call the same target for the same request.

local distribution = require "perilune.simulate.distribution"
local faults = require "perilune.simulate.faults"
local random = require "perilune.simulate.random"

local upstreams = {}
upstreams.__index = upstreams

local PURPOSE_ANSWER, PURPOSE_OUTAGE = 3, 4
local DEFAULTS = {
  head = distribution.fixed(100), first_token = distribution.fixed(200),
  per_token = distribution.fixed(20), errors = {}, price = { input = 0, output = 0 },
}
local FIELDS = {
  "head", "first_token", "per_token", "errors", "price", "retry_after_ms",
}
local sample = distribution.sample

--- Upstreams.
-- @tparam table described by name, see perilune.simulate.scenario
-- @tparam {table,...} outages likewise
-- @tparam number seed
function upstreams.new(described, outages, seed)
  return setmetatable({
    described = described, outages = outages, seed = seed,
    merged = {}, in_flight = {}, hashes = {},
  }, upstreams)
end

--- What is said of a target: by its own entry, else by its provider's, else by the defaults.
local function merge(own, providers)
  local result = {}
  for _, field in ipairs(FIELDS) do
    result[field] = own[field]
    if result[field] == nil then result[field] = providers[field] end
    if result[field] == nil then result[field] = DEFAULTS[field] end
  end
  return result
end

function upstreams:of(target, provider)
  local found = self.merged[target]
  if not found then
    local own, providers = self.described[target] or {}, self.described[provider] or {}
    if target == provider then own = providers end
    found = merge(own, providers)
    self.merged[target] = found
  end
  return found
end

--- Whether the scenario says anything of a target.
function upstreams:knows(target, provider)
  return self.described[target] ~= nil or self.described[provider] ~= nil
end

--- The price of a target: { input, output } for a million tokens each.
function upstreams:price(target, provider)
  return self:of(target, provider).price
end

function upstreams:hash(name)
  local hash = self.hashes[name]
  if not hash then
    hash = random.hash(name)
    self.hashes[name] = hash
  end
  return hash
end

-- In flight ---------------------------------------------------------------------------------------

local function count(self, name, change)
  self.in_flight[name] = (self.in_flight[name] or 0) + change
end

local function change_all(self, call, change)
  count(self, call.target, change)
  if call.provider ~= call.target then count(self, call.provider, change) end
end

--- A call has been taken; it is in flight until `finish`.
function upstreams:start(call) change_all(self, call, 1) end

function upstreams:finish(call) change_all(self, call, -1) end

local function is_full(self, name)
  local described = self.described[name]
  local limit = described and described.concurrent_count
  return limit and (self.in_flight[name] or 0) >= limit
end

-- Answers -----------------------------------------------------------------------------------------

--- The outage that strikes a call, if any: the last one that is written down counts.
local function outage_of(self, call)
  for position = #self.outages, 1, -1 do
    local outage = self.outages[position]
    local concerned = outage.upstream == call.target or outage.upstream == call.provider
    if concerned and call.at_ms >= outage.from_ms and call.at_ms < (outage.to_ms or math.huge)
    then
      local luck = random.stream(self.seed, PURPOSE_OUTAGE, position, call.request.number,
        self:hash(call.target), call.nth)
      if luck:unit() < outage.share then return outage.answer end
    end
  end
  return nil
end

local function error_of(errors, unit)
  for position = 1, #errors do
    unit = unit - errors[position].share
    if unit < 0 then return faults.plan(errors[position].what) end
  end
  return nil
end

local function headers_of(plan, upstream)
  local is_busy = plan.status == 429 or plan.status == 503
  if not upstream.retry_after_ms or not is_busy then return plan.headers end
  local headers = { ["retry-after"] = ("%.0f"):format(math.ceil(upstream.retry_after_ms / 1000)) }
  for name, value in pairs(plan.headers or {}) do headers[name] = value end
  return headers
end

--- Where an answer stops: a share of its tokens, or a number of them.
local function stop_at(where, tokens)
  if where and where > 0 and where < 1 then return math.floor(where * tokens) end
  return where
end

--- A plan with nothing left open: times drawn, tokens counted.
local function complete(plan, call, upstream, luck)
  local tokens = plan.tokens or call.request.output_tokens
  tokens = math.min(tokens, call.max_tokens or tokens)
  local head_ms = sample(upstream.head, luck)
  local first_ms, every_ms = sample(upstream.first_token, luck), sample(upstream.per_token, luck)
  return {
    failure = plan.failure, status = plan.status, code = plan.code, body = plan.body,
    headers = headers_of(plan, upstream), done = plan.done, tokens = tokens,
    after_ms = plan.after and sample(plan.after, luck) or head_ms,
    first_ms = plan.first and sample(plan.first, luck) or first_ms,
    every_ms = plan.every and sample(plan.every, luck) or every_ms,
    cut_after = stop_at(plan.cut_after, tokens), stall_after = stop_at(plan.stall_after, tokens),
  }
end

local OK = { status = 200 }
local TOO_MANY = { status = 429 }

--- The outage that a call meets, as a plan with nothing left open.
-- @tparam table call
-- @treturn ?table a plan, see perilune.simulate.faults; nil when no outage strikes
function upstreams:outage(call)
  local plan = outage_of(self, call)
  if not plan then return nil end
  local luck = random.stream(self.seed, PURPOSE_ANSWER, call.request.number,
    self:hash(call.target), call.nth)
  luck:unit() -- stands for the choice of an error, so that the times are the same as without outage
  return complete(plan, call, self:of(call.target, call.provider), luck)
end

--- What an active check meets.
-- @tparam table check provider, at_ms, number
-- @treturn ?table a plan with nothing left open; nil when no outage of the provider strikes
function upstreams:check(check)
  return self:outage {
    target = check.provider, provider = check.provider, at_ms = check.at_ms, nth = 1,
    request = { number = -check.number, output_tokens = 1 }, -- no request has such a number
  }
end

--- How a call is answered.
-- @tparam table call
-- @treturn table a plan, see perilune.simulate.faults, with nothing left open
function upstreams:answer(call)
  local struck = self:outage(call)
  if struck then return struck end
  local upstream = self:of(call.target, call.provider)
  local luck = random.stream(self.seed, PURPOSE_ANSWER, call.request.number,
    self:hash(call.target), call.nth)
  local plan = error_of(upstream.errors, luck:unit()) or OK
  if is_full(self, call.target) or is_full(self, call.provider) then plan = TOO_MANY end
  return complete(plan, call, upstream, luck)
end

return upstreams
