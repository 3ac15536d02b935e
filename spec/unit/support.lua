--- Fakes to run library code with: scripted upstream answers, a virtual clock, no network, no
-- waiting. Whole policies are run by perilune.testing.
--
--     local run = support.run(function(gw) return policy_with(gw) end, {
--       targets = { { name = "big" }, { name = "small", priority = 1 } },
--       answers = { big = { 503 }, small = { 200 } },
--     })
--     assert.same({ "big", "small" }, run:called())
--     assert.equal(200, run.answer.status)
--
-- An answer is a status, or a table: { status, headers = {}, body = text or table, took_ms = n };
-- or a failure: { err = "timeout_head", detail = text, took_ms = n }. Each try takes the next one
-- of its target; a try past the last one is an error, unless the list has `rest = answer`.

local cjson = require "cjson.safe"
local classify = require "perilune.classify"
local frozen = require "perilune.frozen"
local retry = require "perilune.retry"

local support = {}

local START_WALL_MS = 1750000000000 -- 2025-06-15T15:06:40Z
local DEFAULT_RETRY = { attempts = 5, base_ms = 100, max_ms = 10000, floor_ms = 25 }
local DEFAULT_DEADLINE_MS = 600000

-- ---- random numbers and the clock ----------------------------------------------------------

--- A generator with the interface of native.random (Park and Miller), the same on every machine.
function support.random(seed)
  local state = (seed or 1) % 2147483646 + 1
  local function unit()
    state = state * 16807 % 2147483647
    return (state - 1) / 2147483646
  end
  for _ = 1, 8 do unit() end
  return function(n)
    if not n then return unit() end
    return math.floor(unit() * n) + 1
  end
end

--- A virtual clock: `now_ms`, `now_wall_ms`, and `sleep_ms`, which moves it on. `slept` keeps every
-- sleep in milliseconds.
function support.clock()
  local clock = { ms = 1000, slept = {} }
  function clock.now_ms() return clock.ms end
  function clock.now_wall_ms() return START_WALL_MS + clock.ms end
  function clock.advance(ms) clock.ms = clock.ms + ms end
  function clock.sleep_ms(ms)
    assert(type(ms) == "number" and ms >= 0, "sleep_ms: a number of milliseconds is expected")
    table.insert(clock.slept, ms)
    clock.advance(ms)
  end
  return clock
end

-- ---- targets and routes --------------------------------------------------------------------

--- A target as policies see it. `index` is the one in config.targets.
function support.target(index, fields)
  return frozen.view("target", {
    name = fields.name or "target-" .. index, model = fields.model,
    provider = fields.provider or "provider", priority = fields.priority or 0,
    weight = fields.weight or 1, index = index, context_tokens = fields.context_tokens,
  })
end

function support.targets(list)
  local targets = {}
  for index, fields in ipairs(list) do targets[index] = support.target(index, fields) end
  return targets
end

--- A route as policies see it.
-- @tparam table options targets (fields of each), retry (over the usual ones), deadline_ms,
-- balance, panic, max_ejection_ratio
function support.route(options)
  local retry_options = {}
  for key, value in pairs(DEFAULT_RETRY) do retry_options[key] = value end
  for key, value in pairs(options.retry or {}) do retry_options[key] = value end
  return frozen.view("perilune.route", {
    name = options.name or "test", policy = options.policy or "fallback",
    targets = support.targets(options.targets or { {} }), retry = retry.new(retry_options),
    deadline_ms = options.deadline_ms or DEFAULT_DEADLINE_MS,
    balance = options.balance, panic = options.panic,
    max_ejection_ratio = options.max_ejection_ratio,
  })
end

-- ---- answers -------------------------------------------------------------------------------

--- Headers that are found whatever the case of the name.
function support.headers(fields)
  local lower = {}
  for name, value in pairs(fields or {}) do lower[name:lower()] = value end
  return setmetatable({}, { __index = function(_, name) return lower[name:lower()] end })
end

--- An answer as policies see it.
-- @tparam number|table script a status, or { status, headers, body }
function support.res(script, target)
  if type(script) == "number" then script = { script } end
  local body = script.body or ""
  local text = type(body) == "string" and body or cjson.encode(body)
  local res = {
    status = script[1], headers = support.headers(script.headers), target = target,
    head_ms = script.took_ms or 0,
  }
  function res.body() return text end
  function res.json()
    local value = cjson.decode(text)
    if value == nil then return nil, "malformed" end
    return value
  end
  return res
end

-- ---- the request ---------------------------------------------------------------------------

local Request = {}
Request.__index = Request

function Request:json()
  local value = cjson.decode(self.text)
  if type(value) ~= "table" then return nil, "malformed" end
  return value
end

function Request:body() return self.text end

function Request:set(key, value) self.edits[key] = value end

function Request:unset(key) self.edits[key] = support.UNSET end

--- Stands in `edits` for a field that was taken out.
support.UNSET = "(unset)"

function Request:remaining_ms() return self.deadline_at_ms - self.clock.ms end

function Request:elapsed_ms() return self.clock.ms - self.began_at_ms end

function Request:set_deadline_ms(ms)
  self.deadline_ms = ms
  self.deadline_at_ms = self.clock.ms + ms
end

function Request:set_route(name, policy, _, pattern)
  self.route_name, self.route, self.policy_name, self.pattern = name, name, policy, pattern
end

function Request:log(text) table.insert(self.lines, text) end

local function copy(fields)
  local out = {}
  for key, value in pairs(fields) do out[key] = value end
  return out
end

local function next_script(self, target)
  local list = self.answers[target.name]
  assert(list, "no answers are scripted for target " .. target.name)
  local number = (self.sent_count[target.name] or 0) + 1
  self.sent_count[target.name] = number
  return assert(list[number] or list.rest,
    "try number " .. number .. " of " .. target.name .. " is not scripted")
end

local function as_table(script)
  return type(script) == "table" and script or { script }
end

--- Until when the next try must have answered, and of which class it is if it has not.
local function end_of_try(self)
  local remaining_ms, kept_ms = math.max(self:remaining_ms(), 0), self.kept_ms or 0
  self.kept_ms = nil
  if kept_ms > 0 then return math.max(remaining_ms - kept_ms, 0), "timeout_try" end
  return remaining_ms, "timeout_deadline"
end

--- The scripted answer; the clock moves on by its `took_ms`, but not past the deadline, nor beyond
-- what is kept for others.
function Request:send(target)
  assert(not self.answer, "send after the request was answered")
  local script = as_table(next_script(self, target))
  local call = { target = target.name, at_ms = self.clock.ms - self.began_at_ms }
  call.edits = copy(self.edits)
  table.insert(self.calls, call)
  self.last, self.last_target, self.last_class = nil, target, script.err
  local took_ms = script.took_ms or 0
  local within_ms, late = end_of_try(self)
  self.clock.advance(math.min(took_ms, within_ms))
  if took_ms > within_ms then return nil, { class = late, target = target } end
  if script.err then
    assert(classify.CLASSES[script.err], "not an outcome class: " .. script.err)
    return nil, { class = script.err, detail = script.detail, target = target }
  end
  self.last = support.res(script, target)
  return self.last
end

local function settle(self, answer)
  assert(not self.answer, "the request was answered twice")
  self.answer = answer
end

function Request:relay(res, err)
  settle(self, { how = "relay", status = res and res.status, res = res, err = err,
    target = res and res.target and res.target.name })
  if res and res.status < 400 then return true end
  return nil, (classify.classify(res, err))
end

function Request:respond(status, body, headers)
  settle(self, { how = "respond", status = status, body = body, headers = headers })
end

function Request:fail(status, code, message, options)
  options = options or {}
  settle(self, { how = "fail", status = status, code = code, message = message,
    param = options.param, headers = options.headers })
end

--- A request as policies see it, with what it has done in `calls`, `edits`, `lines` and `answer`.
-- @tparam table options method, path, model, stream, headers, body (text or table), answers
-- (target name -> list), clock, deadline_ms
function support.req(options)
  local clock = options.clock or support.clock()
  local body = options.body or { model = options.model }
  local self = setmetatable({
    id = "req-1", method = options.method or "POST", path = options.path or "/v1/chat/completions",
    query = options.query, model = options.model, stream = options.stream or false,
    peer = "127.0.0.1", headers = support.headers(options.headers),
    text = type(body) == "string" and body or cjson.encode(body),
    answers = options.answers or {}, sent_count = {}, calls = {}, edits = {}, lines = {},
    clock = clock, began_at_ms = clock.ms,
  }, Request)
  self:set_deadline_ms(options.deadline_ms or DEFAULT_DEADLINE_MS)
  return self
end

-- ---- health --------------------------------------------------------------------------------

local Health = {}
Health.__index = Health

--- A stand-in for the core's health: a slot per target, by its name, in `slots`, with
--
--   out_until_ms   ejected until then; `reason`, `ejections`
--   probe_taken    fit by the look of it, but not admitted
--   busy_until_ms  as many under way as may be, until then; and always when `concurrent` are
--   in_flight, first_token_ms, success, ramp   what the balance looks at
--   queue_count, queue_ms, waiting             its queue
--
-- `gave_up` is { code, retry_after_ms }; `admitted`, `retrying_count` and `retry_limit` count.
-- @tparam table clock
-- @tparam[opt] table slots target's name -> fields
function support.health(clock, slots)
  local self = setmetatable({ clock = clock, slots = {}, admitted = {}, retrying_count = 0,
    retry_limit = math.huge }, Health)
  for name, fields in pairs(slots or {}) do
    local slot = self:slot(name)
    for key, value in pairs(fields) do slot[key] = value end
  end
  return self
end

function Health:slot(name)
  local slot = self.slots[name]
  if not slot then
    slot = { out_until_ms = 0, ejections = 0, busy_until_ms = 0, concurrent = 0, in_flight = 0,
      first_token_ms = 0, success = 1, ramp = 1, queue_count = 0, queue_ms = 1000, waiting = 0 }
    self.slots[name] = slot
  end
  return slot
end

function Health:is_fit(target)
  return self:slot(target.name).out_until_ms <= self.clock.ms
end

function Health:leave()
  if self.place then self.place.in_flight = self.place.in_flight - 1 end
  self.place = nil
end

function Health:admit(target, forced)
  local slot = self:slot(target.name)
  self:leave()
  if not forced and (slot.probe_taken or not self:is_fit(target)) then return nil, "out" end
  if slot.busy_until_ms > self.clock.ms then return nil, "busy" end
  if slot.concurrent > 0 and slot.in_flight >= slot.concurrent then return nil, "busy" end
  slot.in_flight, self.place = slot.in_flight + 1, slot
  table.insert(self.admitted, { name = target.name, forced = forced, at_ms = self.clock.ms })
  return true
end

function Health:load(target)
  local slot = self:slot(target.name)
  return slot.in_flight, slot.first_token_ms, slot.success, slot.ramp
end

function Health:out_until_ms(target)
  if self:is_fit(target) then return nil end
  return self:slot(target.name).out_until_ms
end

function Health:eject(target, duration_ms, reason)
  local slot = self:slot(target.name)
  slot.out_until_ms = math.max(slot.out_until_ms, self.clock.ms + duration_ms)
  slot.reason, slot.ejections = reason, slot.ejections + 1
end

function Health:view(target) return self:slot(target.name) end

function Health:retry_allowed(ratio, min_count)
  self.budget = { ratio, min_count }
  if self.retrying then return true end
  if self.retrying_count >= self.retry_limit then return false end
  self.retrying, self.retrying_count = true, self.retrying_count + 1
  return true
end

function Health:queue_limits(target)
  local slot = self:slot(target.name)
  return slot.queue_count, slot.queue_ms
end

function Health:queue_enter(target, max_count)
  local slot = self:slot(target.name)
  assert(not self.queued, "a request has one place in queues")
  if slot.waiting >= max_count then return false end
  slot.waiting, self.queued = slot.waiting + 1, slot
  return true
end

function Health:queue_leave(target)
  assert(self.queued == self:slot(target.name), "not in this queue")
  self.queued.waiting, self.queued = self.queued.waiting - 1, nil
end

function Health:give_up(code, retry_after_ms) self.gave_up = { code, retry_after_ms } end

-- ---- the public module, and a run --------------------------------------------------------

--- A stand-in for perilune.native. `current` gives `world.req`; `world.health` is made when it is
-- not there.
function support.native(world)
  world.health = world.health or support.health(world.clock)
  local native = {
    now_ms = world.clock.now_ms, now_wall_ms = world.clock.now_wall_ms,
    sleep_ms = world.clock.sleep_ms, random = world.random,
    current = function() return world.req end,
    keep_ms = function(ms) world.req.kept_ms = ms end,
    log = function(level, text) table.insert(world.log, { level = level, text = text }) end,
    classed = function(class)
      if world.req then world.req.last_class = class end
    end,
    last_work = function() return world.req.work end,
  }
  function native.last_try()
    local req = world.req
    if not req or not req.last_target then return end
    return #req.calls, req.last_target.index, req.last_class, req.last and req.last.status,
      req.has_other_key
  end
  for name, method in pairs(Health) do
    if type(method) == "function" then
      native[name] = function(...) return method(world.health, ...) end
    end
  end
  return native
end

--- The public module, wired to fakes.
function support.public_module(native)
  return require("perilune").new(native)
end

local Run = {}
Run.__index = Run

--- Names of the targets that were called, in order.
function Run:called()
  local names = {}
  for number, call in ipairs(self.req.calls) do names[number] = call.target end
  return names
end

--- When they were called, in milliseconds from the request's start.
function Run:times_ms()
  local times = {}
  for number, call in ipairs(self.req.calls) do times[number] = call.at_ms end
  return times
end

--- Runs a policy on one request.
-- @tparam function policy function(gw) -> policy
-- @tparam table options those of support.req and support.route, `seed`, and `health`: target's name
-- -> fields of its slot (see support.health)
-- @treturn table { req, route, clock, health, log, answer, returned, called(), times_ms() }
function support.run(policy, options)
  local world = setmetatable({ clock = support.clock(), log = {} }, Run)
  world.random = options.random or support.random(options.seed)
  world.health = support.health(world.clock, options.health)
  world.route = options.route or support.route(options)
  local request = copy(options)
  request.clock = world.clock
  world.req = support.req(request)
  local gw = support.public_module(support.native(world))
  world.returned = { policy(gw)(world.req, world.route) }
  world.answer = world.req.answer
  return world
end

local function send_to_each(gw)
  return function(req, route)
    local res, err
    for target in gw.candidates(route) do
      res, err = req:send(target)
      if res and res.status < 400 then break end
    end
    return req:relay(res, err)
  end
end

--- Runs a loop that sends to every candidate until one is good.
function support.run_until_good(options)
  return support.run(send_to_each, options)
end

return support
