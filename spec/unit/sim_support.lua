--- A simulator in a world of its own: fake requests, a virtual clock, no network, no waiting.
--
--     local world = sim.start { "--mode", "echo", "--time-to-first-token", "100ms" }
--     local answer = world:post("/v1/chat/completions", sim.chat("hello there"))
--     assert.equal(200, answer.status)
--
-- An answer has status, headers, body, json() and events(), writes ({ ms, bytes } each), start_ms
-- and end_ms (from the request's arrival), and `ended`: "whole" (one call), "finished" (a stream's
-- clean end), "reset" (at once), "cut" (after what was written), or nil while it lasts.

local cjson = require "cjson.safe"
local perilune_sim = require "perilune.sim"

local support = {}

local WALL_START_MS = 1750000000000
local PATIENCE_MS = 3600000 -- virtual; whoever sleeps longer is left asleep

-- ---- answers -------------------------------------------------------------------------------

local Answer = {}
Answer.__index = Answer

function Answer:json()
  return assert(cjson.decode(self.body))
end

--- The events of a stream: { event, data, json } each, in order.
function Answer:events()
  local events = {}
  assert(self.body == "" or self.body:sub(-2) == "\n\n", "the stream ends in mid-event")
  for block in self.body:gmatch("(.-)\n\n") do
    local event = {}
    for line in block:gmatch("[^\n]+") do
      local name, value = line:match("^(%a+): (.*)$")
      assert(name == "event" or name == "data", "an odd line in a stream: " .. line)
      event[name] = value
    end
    event.json = cjson.decode(event.data)
    events[#events + 1] = event
  end
  return events
end

--- The data of all events.
function Answer:datas()
  local datas = {}
  for index, event in ipairs(self:events()) do datas[index] = event.data end
  return datas
end

--- The text that a chat stream's deltas make.
function Answer:streamed_text()
  local texts = {}
  for _, event in ipairs(self:events()) do
    local choice = event.json and event.json.choices and event.json.choices[1]
    if choice and choice.delta then texts[#texts + 1] = choice.delta.content end
  end
  return table.concat(texts)
end

-- ---- requests ------------------------------------------------------------------------------

local Request = {}

local function header_reader(headers)
  local lower = {}
  for name, value in pairs(headers or {}) do lower[name:lower()] = value end
  return setmetatable({}, {
    __index = function(_, name) return lower[name:lower()] end,
  })
end

local function check_headers(headers)
  for name, value in pairs(headers or {}) do
    assert(type(name) == "string" and type(value) == "string", "headers are name = value")
    assert(not value:find("[\r\n%z]"), "a header value with a line end")
  end
  return headers or {}
end

local function end_answer(self, how)
  local state = rawget(self, "state")
  state.answer.ended = how
  state.answer.end_ms = state.world.ms - state.arrived_ms
end

local function open_answer(self)
  local answer = rawget(self, "state").answer
  assert(not answer.ended, "this request has been answered")
  return answer
end

local methods = {}

function methods:body() return rawget(self, "state").body end

function methods:respond(status, body, headers)
  local answer = open_answer(self)
  assert(not answer.status, "an answer has been begun already")
  assert(status == math.floor(status) and status >= 200 and status <= 599)
  answer.status, answer.headers, answer.body = status, check_headers(headers), body
  end_answer(self, "whole")
  return true
end

function methods:start(status, headers)
  local answer, state = open_answer(self), rawget(self, "state")
  assert(not answer.status, "an answer has been begun already")
  answer.status, answer.headers = status, check_headers(headers)
  answer.start_ms = state.world.ms - state.arrived_ms
end

function methods:write(bytes)
  local answer, state = open_answer(self), rawget(self, "state")
  assert(answer.status, "start an answer first")
  assert(type(bytes) == "string" and bytes ~= "", "nothing to write")
  table.insert(answer.writes, { ms = state.world.ms - state.arrived_ms, bytes = bytes })
  answer.body = answer.body .. bytes
end

function methods:finish()
  assert(open_answer(self).status, "start an answer first")
  end_answer(self, "finished")
end

function methods:abort(flush)
  open_answer(self)
  end_answer(self, flush and "cut" or "reset")
end

function Request.__index(self, key)
  if methods[key] then return methods[key] end
  local state = rawget(self, "state")
  if state.is_over then error("this request has ended", 2) end
  local value = state.fields[key]
  assert(value ~= nil, "a request has no field " .. key)
  return value
end

function Request.__newindex()
  error("a request's fields cannot be set", 2)
end

-- ---- the world -----------------------------------------------------------------------------

local World = {}
World.__index = World

-- Runs a request until it sleeps or ends. A Lua error in the simulator fails the spec.
local function resume(world, state)
  local ok, sleep_ms = coroutine.resume(state.thread, state.request)
  assert(ok, sleep_ms)
  if coroutine.status(state.thread) == "dead" then
    assert(state.answer.ended, "returned without an answer")
    state.is_over = true
    return
  end
  world.sleep_count = world.sleep_count + 1
  table.insert(world.sleepers,
    { state = state, wake_ms = world.ms + sleep_ms, order = world.sleep_count })
end

local function take_next(world, until_ms)
  local best
  for index, sleeper in ipairs(world.sleepers) do
    local other = best and world.sleepers[best]
    if sleeper.wake_ms <= until_ms and (not other or sleeper.wake_ms < other.wake_ms
      or sleeper.wake_ms == other.wake_ms and sleeper.order < other.order) then
      best = index
    end
  end
  return best and table.remove(world.sleepers, best)
end

--- Let time pass.
function World:advance(ms)
  local until_ms = self.ms + ms
  local sleeper = take_next(self, until_ms)
  while sleeper do
    self.ms = math.max(self.ms, sleeper.wake_ms)
    resume(self, sleeper.state)
    sleeper = take_next(self, until_ms)
  end
  self.ms = until_ms
end

--- Begin a request; gives its answer as it comes to be.
-- @param body text, or a table that is sent as JSON
function World:begin(method, path, body, headers)
  if type(body) == "table" then body = cjson.encode(body) end
  local state = {
    world = self, arrived_ms = self.ms, body = body or "", is_over = false,
    answer = setmetatable({ body = "", writes = {} }, Answer),
    fields = { id = "request", method = method, path = path, query = "", peer = "127.0.0.1",
      headers = header_reader(headers) },
    thread = coroutine.create(self.sim.handle),
  }
  state.request = setmetatable({ state = state }, Request)
  self.states[state.answer] = state
  resume(self, state)
  return state.answer
end

--- A request and its answer, however long it takes; the clock stops when it has ended.
function World:request(method, path, body, headers)
  local answer = self:begin(method, path, body, headers)
  local until_ms = self.ms + PATIENCE_MS
  while not answer.ended do
    local sleeper = take_next(self, until_ms)
    if not sleeper then break end
    self.ms = math.max(self.ms, sleeper.wake_ms)
    resume(self, sleeper.state)
  end
  return answer
end

function World:post(path, body, headers) return self:request("POST", path, body, headers) end
function World:get(path, headers) return self:request("GET", path, "", headers) end

--- The client of an answer leaves: its request is dropped where it stands.
function World:leave(answer)
  local state = self.states[answer]
  state.is_over = true
  for index = #self.sleepers, 1, -1 do
    if self.sleepers[index].state == state then table.remove(self.sleepers, index) end
  end
end

--- Start a simulator.
-- @tparam {string,...} arguments its command line; `--seed 1` is put before it
-- @tparam[opt] table environment
function support.start(arguments, environment)
  local world = setmetatable(
    { ms = 5000, sleepers = {}, sleep_count = 0, states = {}, logged = {} }, World)
  world.native = {
    now_ms = function() return world.ms end,
    now_wall_ms = function() return WALL_START_MS + world.ms end,
    sleep_ms = function(ms)
      assert(type(ms) == "number" and ms >= 0, "sleep_ms wants milliseconds")
      coroutine.yield(ms)
    end,
    random = function(n) return n end,
    log = function(level, text) table.insert(world.logged, level .. " " .. text) end,
    getenv = function(name) return (environment or {})[name] end,
  }
  local all = { "--seed", "1", unpack(arguments or {}) }
  local code, message
  world.sim, code, message = perilune_sim.new(all, world.native)
  assert(world.sim, tostring(code) .. ": " .. tostring(message))
  return world
end

--- A chat request's body.
-- @tparam string text of the one message
-- @tparam[opt] table more further members
function support.chat(text, more)
  local body = { model = "gpt-4", messages = { { role = "user", content = text } } }
  for key, value in pairs(more or {}) do body[key] = value end
  return body
end

return support
