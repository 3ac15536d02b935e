--- A played gateway: clock, upstreams, clients. See lua/README.md.

local answers = require "perilune.testing.answers"
local client = require "perilune.testing.client"
local cjson = require "cjson.safe"
local given = require "perilune.testing.given"
local requests = require "perilune.testing.requests"
local rfc3339 = require "perilune.rfc3339"
local sorted = require "perilune.sorted"
local source = require "perilune.testing.source"
local upstream = require "perilune.testing.upstream"
local wording = require "perilune.schema.wording"

local world = {}

local World = {}
World.__index = World

local KEYS = given.set("directory", "config", "files", "env", "seed", "start")
local DEFAULT_START = "2026-01-05T12:00:00Z"
local GATEWAY_FILE = "gateway.lua"

-- ---- options -------------------------------------------------------------------------------

local function start_wall_ms(text)
  given.type("world.start", text, "string")
  local ms = rfc3339.parse(text)
  if not ms then
    given.fail("world.start: a time such as %q is expected, not %q", DEFAULT_START, text)
  end
  return math.floor(ms)
end

local function texts(what, map)
  local copy = {}
  for name, text in pairs(given.type(what, map, "table", true) or {}) do
    given.type(what .. ": a name", name, "string")
    copy[name] = given.type(("%s[%q]"):format(what, name), text, "string")
  end
  return copy
end

local function files_of(options)
  local files, config = texts("world.files", options.files), options.config
  if type(config) == "table" then config = source.of(config) end
  if config ~= nil then files[GATEWAY_FILE] = given.type("world.config", config, "string") end
  return files
end

local function directory_of(options, stage)
  if options.directory == false then return nil end
  if options.directory ~= nil then
    return given.type("world.directory", options.directory, "string")
  end
  return stage.directory
end

local function seed_of(options)
  local seed = options.seed or 1
  if type(seed) ~= "number" or seed % 1 ~= 0 or math.abs(seed) > 2 ^ 53 then
    given.fail("world.seed: a whole number is expected, not %s", given.show(seed))
  end
  return seed
end

-- ---- calls ---------------------------------------------------------------------------------

local call_fields = {}

function call_fields.method(call) return call.head:match("^(%S+)") end
function call_fields.path(call) return call.head:match("^%S+ (%S+)") end
function call_fields.json(call) return (cjson.decode(call.body)) end

function call_fields.headers(call)
  local list = {}
  for name, value in call.head:gmatch("\r\n([^:\r\n]+): ?([^\r\n]*)") do
    list[#list + 1] = { name, value }
  end
  return client.header_table(list)
end

-- What most calls are never asked for is read when it is.
local Call = { __index = function(call, key)
  local read = call_fields[key]
  if not read then return nil end
  local value = read(call)
  rawset(call, key, value)
  return value
end }

local function on_call(self, call)
  setmetatable(call, Call)
  call.wall_ms, call.outcome = self.start_wall_ms + call.at_ms, "open"
  self.call_list[call.number] = call
  local script = self.scripts[call.target] or self.scripts[call.provider]
  local answer, number = 200, call.number
  if script then answer, number = script:next(call.at_ms) end
  local seen = setmetatable({ number = number }, { __index = call })
  return self.stage.answer(answers.plan(answer, seen))
end

local function on_call_end(self, number, at_ms, outcome)
  local call = self.call_list[number]
  call.ended_ms, call.outcome = at_ms, outcome
end

-- ---- names ---------------------------------------------------------------------------------

local function names_of(self)
  local known = {}
  for _, target in ipairs(self.handle:targets()) do known[target.name] = true end
  for _, provider in ipairs(self.handle:providers()) do known[provider] = true end
  return known
end

local function check_name(self, what, name)
  local known = names_of(self)
  if type(name) == "string" and known[name] then return name end
  local list = sorted.keys(known)
  local guess = wording.guess(name, list)
  return given.fail("%s: there is no target or provider %s; %sthere are: %s", what,
    given.show(name), guess and guess .. " " or "", table.concat(list, ", "))
end

-- ---- time ----------------------------------------------------------------------------------

local function seconds(ms)
  return ("%.3f s"):format(ms / 1000)
end

local function raise_hanging(self, answer, how)
  local waits_for = answer.handle:waits_for() or "nothing"
  given.fail("at %s: a request that began at %s does not end: its policy waits for %s, %s",
    seconds(self:now_ms()), seconds(answer.started_ms), waits_for, how)
end

local STUCK = "and more and more happens without time passing"

local function open_answer(self)
  for _, answer in ipairs(self.answers) do
    if answer.ended == "open" then return answer end
  end
end

-- Only what is open need be remembered.
local function forget_ended(self)
  local open = {}
  for _, answer in ipairs(self.answers) do
    if answer.ended == "open" then open[#open + 1] = answer end
  end
  self.answers = open
end

local function run(self, until_ms, handle)
  local how = self.handle:run(until_ms, handle)
  local stuck = how == "stuck" and open_answer(self)
  if stuck then raise_hanging(self, stuck, STUCK) end
  return how
end

--- Milliseconds since the world began.
function World:now_ms()
  return self.handle:now_ms()
end

--- Lets so much time pass: all that falls due meanwhile happens, in order.
function World:advance(text)
  run(self, self:now_ms() + given.ms("advance", text))
  forget_ended(self)
end

--- Lets time pass until no request is in flight.
function World:run()
  run(self)
  local open = open_answer(self)
  if open then raise_hanging(self, open, "and nothing will happen any more") end
  self.answers = {}
end

-- ---- clients -------------------------------------------------------------------------------

--- A request arrives; what its client gets fills while time passes.
-- @treturn table see perilune.testing.client
function World:start(options)
  local answer = client.new(self.handle:start(requests.of(options or {})))
  self.answers[#self.answers + 1] = answer
  return answer
end

--- A request arrives, and time passes until it has its answer.
function World:request(options)
  local answer = self:start(options)
  local how = run(self, nil, answer.handle)
  if how == "idle" and answer.ended == "open" then
    raise_hanging(self, answer, "and nothing will happen any more")
  end
  forget_ended(self)
  return answer
end

-- ---- upstreams and targets -----------------------------------------------------------------

--- What upstreams answer: those of a target, or of all targets of a provider that have no script of
-- their own. Without any they answer 200.
function World:upstream(name)
  check_name(self, "upstream", name)
  self.scripts[name] = self.scripts[name] or upstream.new(name)
  return self.scripts[name]
end

--- The calls that upstreams have seen, in order: number, target, provider, at_ms, ended_ms,
-- outcome ("ok", a failure's class, "cancelled", "open"), method, path, headers, body, json.
function World:calls()
  local list = {}
  for number, call in ipairs(self.call_list) do list[number] = call end
  return list
end

--- The names of the targets that were called, in order.
function World:called()
  local names = {}
  for number, call in ipairs(self.call_list) do names[number] = call.target end
  return names
end

--- A target's health, as target:health() gives it.
function World:health(name)
  local target = check_name(self, "health", name)
  for _, known in ipairs(self.handle:targets()) do
    if known.name == target then return self.handle:health(name) end
  end
  return given.fail("health: %q is a provider; targets are called \"provider/model\"", name)
end

--- Takes a target, or a provider, out as an operator does; without a time until it is restored.
function World:eject(name, text)
  check_name(self, "eject", name)
  self.handle:eject(name, text ~= nil and given.ms("eject", text) or nil)
end

--- Takes it in again.
function World:restore(name)
  self.handle:restore(check_name(self, "restore", name))
end

--- The lines of the gateway's log so far.
function World:log()
  return self.handle:log()
end

--- Frees what the world holds, ahead of the garbage collector; it cannot be used any more.
function World:close()
  self.handle:close()
end

-- ---- making --------------------------------------------------------------------------------

--- Loads and checks a configuration as `perilune run` does, and raises what is wrong with it.
-- @tparam table options see lua/README.md
-- @tparam table stage the module perilune.stage
function world.new(options, stage)
  options = options or {}
  given.keys("world", given.type("world", options, "table"), KEYS)
  local self = setmetatable({ stage = stage, scripts = {}, call_list = {}, answers = {},
    start_wall_ms = start_wall_ms(options.start or DEFAULT_START) }, World)
  local handle, problems = stage.new {
    directory = directory_of(options, stage), files = files_of(options),
    env = texts("world.env", options.env), seed = seed_of(options),
    start_wall_ms = self.start_wall_ms,
    on_call = function(call) return on_call(self, call) end,
    on_call_end = function(...) return on_call_end(self, ...) end,
  }
  if not handle then given.fail("world: %s", problems) end
  self.handle = handle
  return self
end

return world
