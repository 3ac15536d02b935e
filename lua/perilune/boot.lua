--- Joins the two halves when a VM is made: completes the classes that C began, with the methods
-- that wait or encode, and gives C what it calls: check, gateway, simulator, entry.
--
-- A method that waits is a pair of C functions, `..._begin`, which yields, and `..._result`, which
-- runs when the coroutine goes on.

local cjson = require "cjson.safe"
local classify = require("perilune.classify").classify
local classify_error = require("perilune.classify").classify_error
local classes = require "perilune.classes"
local completion = require "perilune.completion"
local config = require "perilune.config"
local config_parts = require "perilune.config.parts"
local config_show = require "perilune.config.show"
local duration = require "perilune.duration"
local errors = require "perilune.errors"
local estimate = require "perilune.estimate"
local explain = require "perilune.explain"
local gateway = require "perilune.gateway"
local health = require "perilune.health"
local heartbeat = require "perilune.heartbeat"
local modules = require "perilune.modules"
local native = require "perilune.native"
local sandbox = require "perilune.sandbox"

local boot = {}

local CONFIG_FILE = "gateway.lua"
local JSON_MAX_BYTES = 16 * 1024 * 1024
local JSON_HEADERS = { ["Content-Type"] = "application/json" }

local function decode(text)
  if not native.json_fits(text) then return nil, "too_large" end
  local value = cjson.decode(text)
  if type(value) ~= "table" then return nil, "malformed" end
  return value
end

-- Its buffer lies outside of the VM's memory: bounded, and given back.
cjson.encode_keep_buffer(false)

local function encode(value)
  if not native.json_is_within(value, JSON_MAX_BYTES) then
    return nil, "it would be longer than 16 MiB"
  end
  return cjson.encode(value)
end

-- ---- the request's methods -----------------------------------------------------------------

local request = native.request_methods

--- What the configuration says of answers before a policy sees them, see perilune.health; nil when
-- it says nothing.
local after_send
--- The classes that routes have of their own, see perilune.classes; nil when none has any.
local own_classes

--- Tells the core of which class an error is that came in place of an answer.
-- @param req
-- @tparam table err the failure, to which class, status and detail are added
-- @tparam string text what came
-- @treturn string the class, as the route has it
local function settle(req, err, text)
  local decoded = decode(text)
  local class, status, message = classify_error(decoded)
  err.class, err.status, err.detail = class, status, message or err.detail
  local judged = own_classes and own_classes.judge(req, nil, err, decoded) or class
  native.settle_error(req, judged)
  if after_send then after_send(req, nil, err) end
  return judged
end

--- Of which class the outcome is where the route has a word in it; the core waits for that.
local function settle_own_class(req, res, err)
  local class = own_classes.judge(req, res, err)
  if class then native.settle_class(req, class) end
end

local SEND_OPTIONS = { within_ms = true, resume = true }

--- Heeds the options of the try that comes next: how soon its answer must begin, how it goes on.
local function heed_send_options(options)
  if type(options) ~= "table" then error("send: options are a table", 3) end
  for key in pairs(options) do
    if not SEND_OPTIONS[key] then
      error(("send: there is no option %q"):format(tostring(key)), 3)
    end
  end
  local resume = options.resume
  if resume ~= nil and resume ~= "continue" and resume ~= "restart" then
    error("send: resume must be \"continue\" or \"restart\"", 3)
  end
  local within_ms = options.within_ms
  if within_ms == nil then return end
  local is_time = type(within_ms) == "number" and within_ms >= 1 -- a NaN is none
  if not is_time then
    error("send: within_ms must be a number of milliseconds, at least 1", 3)
  end
  native.within_ms(math.min(within_ms, 1e11))
end

--- What the try at hand has brought, which can be judged.
local function take_answer(req)
  local res, class, detail, failed_target, work, said = native.send_result(req)
  if res then
    if after_send then after_send(req, res) end
    if own_classes then settle_own_class(req, res, nil) end
    return res
  end
  local err = { class = class, detail = detail, target = failed_target, work = work,
    status = nil } -- an error under status 200 has one, see `settle`
  if said then
    settle(req, err, said)
  elseif own_classes then
    settle_own_class(req, nil, err)
  end
  return nil, err
end

native.take_answer = take_answer -- for perilune.hedge

--- Sends the request to a target; waits for an answer that can be judged.
-- @tparam[opt] table options `within_ms`: how soon the answer must begin; `resume`: "restart" asks
-- a target afresh to go on with an answer that broke off
function request.send(req, target, options)
  if options then heed_send_options(options) end
  native.send_begin(req, target, options and options.resume)
  return take_answer(req)
end

--- Answers that no target could be tried, and when to come again.
local function answer_given_up(req, code, retry_after_ms)
  local headers
  if retry_after_ms > 0 then
    headers = { ["Retry-After"] = tostring(math.ceil(retry_after_ms / 1000)) }
  end
  local status, _, message = errors.given_up(code)
  return native.fail(req, status, code, message, nil, headers, true)
end

--- Answers the client with `res`, or with the error that `err` stands for; waits for the end.
-- @param res
-- @tparam[opt] table err
-- @tparam[opt] table rescue mode, max_bytes: another target may go on when it breaks off
-- @treturn[1] boolean true: it ended well
-- @treturn[2] nil
-- @treturn[2] string why it broke off
-- @treturn[2] ?boolean true: the client still waits, and another target may go on
function request.relay(req, res, err, rescue)
  if res ~= nil then
    if not native.can_relay(req, res) then return heartbeat.relay(native, req, res, classify) end
    native.relay_begin(req, res, rescue or nil)
    local whole, class, is_open, said = native.relay_result(req)
    if said then class = settle(req, { class = class, detail = "", target = res.target }, said) end
    return whole, class, is_open
  end
  if native.end_at_seam(req) then return nil, err and err.class end
  local code, retry_after_ms = native.given_up(req)
  if err == nil and code then return answer_given_up(req, code, retry_after_ms) end
  local status, failure_code, message = errors.from_failure(err)
  return native.fail(req, status, failure_code, message, nil, nil, true)
end

--- Answers with a whole body; a table is sent as JSON.
function request.respond(req, status, body, headers)
  local text = body or ""
  if type(body) == "table" then
    local problem
    text, problem = encode(body)
    if not text then error("respond: the body cannot be encoded: " .. tostring(problem), 2) end
    headers = headers or JSON_HEADERS
  end
  if native.stream_is_open(req) then
    return heartbeat.respond(native, req, status, text, headers, decode)
  end
  return native.respond(req, status, text, headers)
end

local NO_OPTIONS = {}

--- Answers with an error in the form that the client's library reads.
-- @tparam number status
-- @tparam ?string code for programs
-- @tparam string message for people
-- @tparam[opt] table options `param`: the member of the body at fault; `headers` of the answer;
-- `is_own`, for the library only: it is an error of the gateway's own, and so called in the log
function request.fail(req, status, code, message, options)
  options = options or NO_OPTIONS
  return native.fail(req, status, code, errors.clean(message), options.param, options.headers,
    options.is_own)
end

--- The body as a table, decoded anew at each call; nil, "malformed" when it is not JSON, nil,
-- "too_large" when the table would not fit the memory.
function request.json(req)
  return decode(req:body())
end

--- Roughly how many tokens the prompt has, and how many the answer may have; see
-- perilune.estimate. A body that does not fit the memory is judged by its length; what is no JSON
-- object, such as an upload, has none.
function request.tokens_estimate(req)
  local text = req:body()
  local body, code = decode(text)
  if body then return estimate.tokens(body, #text) end
  return code == "too_large" and estimate.of_bytes(#text) or 0, 0
end

--- Sets a top-level field of the body that targets get.
function request.set(req, key, value)
  if type(key) ~= "string" then error("set: the key must be a string", 2) end
  local text, problem = encode(value)
  if not text then error("set: '" .. key .. "' cannot be encoded: " .. tostring(problem), 2) end
  return native.edit(req, key, text)
end

--- Removes a top-level field from the body that targets get.
function request.unset(req, key)
  if type(key) ~= "string" then error("unset: the key must be a string", 2) end
  return native.edit(req, key)
end

-- ---- the target's methods ------------------------------------------------------------------

local target = native.target_methods

--- How the target is: { fit, state, reason, out_for_ms, in_flight, ejections, success_ratio,
-- first_token_ms }.
function target.health(self)
  return native.view(self)
end

--- Takes the target out of the choice for a while: `target:eject("30s", "why")`.
function target.eject(self, text, why)
  local ms, code, message = duration.parse(text)
  if not ms then error("eject: the duration " .. (message or code), 2) end
  native.eject(self, ms, "policy")
  native.log("warn", ("target %s is out for %s: %s"):format(self.name, text,
    tostring(why or "a policy says so")))
end

--- Takes the target in again at once.
function target.restore(self)
  native.restore(self)
end

-- ---- the answer's methods ------------------------------------------------------------------

local response = native.response_methods

--- The answer's body, read to its end; of an error, its first 64 KiB.
function response.body(res)
  native.collect_begin(res)
  return native.collect_result(res)
end

--- The answer's body as a table; nil and a code when it is not whole or not JSON.
function response.json(res)
  local body, code = response.body(res)
  if not body then return nil, code end
  return decode(body)
end

--- The words of the answer, whatever its form, read to its end; see perilune.completion. Nil and a
-- code when it is not whole.
function response.text(res)
  local body, code = response.body(res)
  if not body then return nil, code end
  return completion.text(body, res.headers["content-type"], decode)
end

-- ---- what C calls --------------------------------------------------------------------------

local function describe_all(problems, secrets)
  local lines = {}
  for position, problem in ipairs(problems) do
    lines[position] = config_show.hide(config.describe(problem), secrets)
  end
  return table.concat(lines, "\n")
end

local function load_config(sources, helpers, secrets)
  local source = sources[CONFIG_FILE]
  if not source then error(CONFIG_FILE .. ": there is no such file in the directory", 0) end
  local loaded, _, problems = config.load(source, CONFIG_FILE, helpers)
  if not loaded then error(describe_all(problems, secrets), 0) end
  return loaded, problems
end

local function raise_missing(name, file, loaded, sources, secrets)
  local position = 1
  while loaded.routes[position].policy ~= name do position = position + 1 end
  error(config_show.hide(config.describe {
    file = CONFIG_FILE, line = config.policy_line(sources[CONFIG_FILE], position),
    key = ("routes[%d].policy"):format(position),
    message = ("there is no file %s in the directory"):format(file),
  }, secrets), 0)
end

--- A problem of a policy's file. Its text begins with the file's name, by itself or by us.
local function raise_in(file, problem)
  error(modules.name_problem(file, problem), 0)
end

--- What a file gives: a function, or { handle = function, selftest = function }.
local function parts_of_policy(file, value)
  if type(value) == "function" then return value end
  if type(value) ~= "table" or next(value) == nil then
    raise_in(file, "must return a function(req, route), got " .. type(value))
  end
  for key in pairs(value) do
    if key ~= "handle" and key ~= "selftest" then
      raise_in(file, ("returns a table with %q; only handle and selftest are known"):format(
        tostring(key)))
    end
  end
  if type(value.handle) ~= "function" then
    raise_in(file, "returns a table whose handle is no function(req, route)")
  end
  if value.selftest ~= nil and type(value.selftest) ~= "function" then
    raise_in(file, "returns a table whose selftest is no function")
  end
  return value.handle, value.selftest
end

--- Runs a policy's file.
-- @treturn function the policy
-- @treturn ?function its self-test
local function load_policy(file, source, load)
  local ok, value = pcall(load, source, file)
  if ok then ok, value = pcall(native.run_file, value) end
  if not ok then raise_in(file, value) end
  return parts_of_policy(file, value)
end

--- A self-test fails by an error, or by returning false, or nil and why.
local function run_selftest(file, selftest)
  local results = { pcall(selftest) }
  local ok, value, why = results[1], results[2], results[3]
  if not ok then raise_in(file, value) end
  if value == false or (value == nil and why ~= nil) then
    raise_in(file, "selftest failed: " .. tostring(why or "it returned false"))
  end
end

--- Notes what looks like a mistake in the code of each file that is loaded.
local function noting_load(warnings)
  local known = sandbox.names()
  return function(source, file)
    local chunk = native.load_policy(source, file)
    for _, warning in ipairs(config.code_warnings(file, native.globals(source), known)) do
      table.insert(warnings, warning)
    end
    return chunk
  end
end

--- Loads the policies of all routes.
-- @tparam table loaded normalised configuration
-- @tparam table sources
-- @tparam {string,...} secrets which messages must not tell
-- @tparam[opt] function visit visit(file, selftest) for each self-test
-- @tparam[opt] function load load(source, file) instead of native.load_policy
local function load_policies(loaded, sources, secrets, visit, load)
  local policies = {}
  load = load or native.load_policy
  sandbox.set_require(modules.new {
    sources = sources, load = load, run = native.run_file, burst = native.burst,
    public = function() return require("perilune") end,
  })
  for _, name in ipairs(config.policies(loaded)) do
    local file = name .. ".lua"
    if not sources[file] then raise_missing(name, file, loaded, sources, secrets) end
    local selftest
    policies[name], selftest = load_policy(file, sources[file], load)
    if visit and selftest then visit(file, selftest) end
  end
  return policies
end

--- Checks a directory's files: the configuration, each policy it uses, and their self-tests.
-- @tparam table sources file name -> text
-- @tparam table helpers env, secret, file
-- @treturn table the normalised configuration; raises an error whose text has a problem per line
-- @treturn {table,...} its parts, see perilune.config.parts
-- @treturn table what operators may see of it, see perilune.config.show
-- @treturn string what looks like a mistake, a line each; "" when nothing does
function boot.check(sources, helpers)
  local watched, secrets = config_show.watch(helpers)
  local loaded, warnings = load_config(sources, watched, secrets)
  load_policies(loaded, sources, secrets, run_selftest, noting_load(warnings))
  local lines = {}
  for position, warning in ipairs(warnings) do
    lines[position] = config.describe_warning(warning)
  end
  return loaded, config_parts.of(loaded),
    config_show.texts(loaded, sources[CONFIG_FILE], secrets), table.concat(lines, "\n")
end

--- Headers of a request that is only asked about, by their names in lower case.
local function asked_headers(text)
  local headers = {}
  for name, value in pairs(text ~= "" and decode(text) or {}) do
    if type(value) == "string" then headers[name:lower()] = value end
  end
  return headers
end

--- What would become of a request, see perilune.explain.
-- @tparam table sources
-- @tparam table helpers
-- @tparam table asked method, path, headers_json, model, stream, body
-- @treturn string JSON
function boot.explain(sources, helpers, asked)
  local watched, secrets = config_show.watch(helpers)
  local loaded = load_config(sources, watched, secrets)
  asked.headers = asked_headers(asked.headers_json)
  local answer = explain.run({ config = loaded, targets = native.targets(), native = native },
    asked)
  return config_show.json(answer, secrets)
end

--- What runs for each request: C passes the request as a pointer, and whether its policy has
-- failed and the floor policy is to serve it.
local function entry(handle)
  local wrap = native.wrap
  return function(pointer, serves_floor)
    return handle(wrap(pointer), serves_floor)
  end
end

--- The gateway's entry function.
function boot.gateway(sources, helpers)
  local watched, secrets = config_show.watch(helpers)
  local loaded = load_config(sources, watched, secrets)
  local targets = native.targets()
  after_send = health.new { config = loaded, targets = targets, native = native }
  own_classes = classes.new(loaded, native)
  native.classify = own_classes and own_classes.classify
  local handle, _, problem = gateway.new {
    config = loaded,
    policies = load_policies(loaded, sources, secrets),
    targets = targets,
    candidates = require("perilune").candidates,
    classify = native.classify,
    now_wall_ms = native.now_wall_ms,
    last_work = native.last_work,
  }
  if not handle then error(CONFIG_FILE .. ": " .. problem, 0) end
  return entry(handle)
end

--- The simulator's settings, from its command line.
-- @treturn[1] table listen, limits, banner, handle
-- @treturn[2] nil
-- @treturn[2] string "usage" or "help"
-- @treturn[2] string what to print
function boot.sim_settings(arguments)
  return require("perilune.sim").new(arguments, native)
end

--- The simulator's entry function and the line it introduces itself with.
function boot.simulator(arguments)
  native.targets()
  local simulator, _, problem = boot.sim_settings(arguments)
  if not simulator then error(problem, 0) end
  return entry(simulator.handle), simulator.banner
end

return boot
