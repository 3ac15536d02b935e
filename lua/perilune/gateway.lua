--- One request of a client, from its route to its policy.
--
-- Answers GET /v1/models from the configuration, refuses what no route serves, and hands the rest
-- to the route's policy. The C core has checked the request and its JSON, has filled `req.model`
-- and `req.stream`, and enforces the deadline that is set here. An error in a policy is not caught:
-- the core counts it, and calls again for the floor policy if nothing has gone to the client.
--
-- What is built here once (routes, answers) is shared by all requests and read-only.

local deadline = require "perilune.deadline"
local errors = require "perilune.errors"
local floor = require "perilune.floor"
local frozen = require "perilune.frozen"
local retry = require "perilune.retry"
local route = require "perilune.route"

local gateway = {}

local GATE_MAX_BYTES = 64 * 1024
local OWNER = "perilune"
local DEFAULT_POLICY = "fallback"
local PREFIX = "/v1/"
local MODELS_PATH = "/v1/models"
local JSON_HEADERS = { ["content-type"] = "application/json" }
local ALLOWED = "GET, HEAD, POST, PUT, PATCH, DELETE"
local NOT_ALLOWED = { headers = { allow = ALLOWED }, is_own = true }
local OWN = { is_own = true }
local MODEL_AT_FAULT = { param = "model", is_own = true }
local METHODS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true }

-- POST to these means nothing without a model.
local MODEL_PATHS = {
  ["/v1/chat/completions"] = true, ["/v1/completions"] = true, ["/v1/embeddings"] = true,
  ["/v1/responses"] = true, ["/v1/messages"] = true, ["/v1/images/generations"] = true,
}

-- ---- /v1/models ----------------------------------------------------------------------------

local function model_json(name, created_s)
  return ("{\"id\":%s,\"object\":\"model\",\"created\":%d,\"owned_by\":%s}"):format(
    errors.quote(name), created_s, errors.quote(OWNER))
end

--- The answers, written once: the list, and each model by its name.
local function make_models(config, now_wall_ms)
  local created_s = math.floor(now_wall_ms / 1000)
  local items, by_name = {}, {}
  for number, name in ipairs(route.models(config)) do
    items[number] = model_json(name, created_s)
    by_name[name] = items[number]
  end
  -- written by hand: cjson would make {} of an empty list
  return { list = "{\"object\":\"list\",\"data\":[" .. table.concat(items, ",") .. "]}",
    by_name = by_name }
end

local function percent_decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- The name in /v1/models/{name}, "" for the list, nil for another path.
local function model_in_path(path)
  if path == MODELS_PATH then return "" end
  if path:sub(1, #MODELS_PATH + 1) ~= MODELS_PATH .. "/" then return nil end
  return percent_decode(path:sub(#MODELS_PATH + 2))
end

-- ---- answers -------------------------------------------------------------------------------

--- Sends a whole answer. To HEAD the core sends its head alone, with the length of the body.
local function answer(req, body)
  return req:respond(200, body, JSON_HEADERS)
end

local function answer_models(req, models, name)
  if name == "" then return answer(req, models.list) end
  local model = models.by_name[name]
  if model then return answer(req, model) end
  return req:fail(errors.model_not_found(name))
end

local function refuse_method(req)
  local message = "Not allowed to " .. errors.clean(req.method, 32) .. " on "
    .. errors.clean(req.path, 256)
  return req:fail(405, "method_not_allowed", message, NOT_ALLOWED)
end

--- No route serves the request: says what is missing.
local function refuse_unrouted(req)
  local model = req.model
  if model ~= nil and model ~= "" then
    return req:fail(errors.model_not_found(model))
  end
  if req.method == "POST" and MODEL_PATHS[req.path] then
    return req:fail(400, "missing_model", "You must provide a model parameter", MODEL_AT_FAULT)
  end
  return req:fail(errors.unknown_url(req.method, req.path))
end

--- The client says how much time it has in words that are none.
local function refuse_deadline(req, code, message, header)
  return req:fail(400, code, message, { param = header, is_own = true })
end

--- The policy could not even begin, and its route wants no other.
local function refuse_policy(req)
  return req:fail(500, "policy_error",
    "The gateway's policy failed while it handled this request.", OWN)
end

-- ---- routes --------------------------------------------------------------------------------

local function copy(list)
  local out = {}
  for position, item in ipairs(list) do out[position] = item end
  return out
end

--- The read-only route object that policies get. `targets` is a new array at every access, so that
-- a policy may sort or cut its own.
local function make_route(entry, all_targets, last_work)
  local targets = {}
  for position, index in ipairs(entry.targets) do targets[position] = all_targets[index] end
  local fields = {
    name = entry.name, policy = entry.policy or DEFAULT_POLICY, deadline_ms = entry.deadline_ms,
    retry = retry.new(entry.retry or {}, last_work), panic = entry.panic,
    balance = entry.balance and frozen.view("perilune.route.balance", entry.balance),
    max_ejection_ratio = entry.max_ejection_ratio,
    rescue = entry.rescue and frozen.view("perilune.route.rescue", entry.rescue) or false,
    hedge = entry.hedge and frozen.view("perilune.route.hedge", entry.hedge) or false,
    reserve_ms = entry.retry and entry.retry.reserve_ms,
    retry_within_ms = entry.retry and entry.retry.within_ms,
  }
  local function computed(_, key)
    return key == "targets" and copy(targets) or nil
  end
  setmetatable(fields, { __index = computed })
  return frozen.view("perilune.route", fields)
end

local function any_reads_headers(routes)
  for _, entry in ipairs(routes) do
    if entry.match and entry.match.headers and next(entry.match.headers) then return true end
  end
  return false
end

--- What the core is told of a route's answers; nil where the core's own defaults do.
local function gate_of(entry)
  local gate = entry.gate or {}
  local on, max_bytes = gate.on or "content", gate.max_bytes or GATE_MAX_BYTES
  local is_usual = on == "content" and max_bytes == GATE_MAX_BYTES and not gate.heartbeat_ms
  local drops_malformed = entry.malformed_events == "drop"
  if is_usual and not entry.check_body and not entry.classes and not drops_malformed then
    return nil
  end
  return { on = on, max_bytes = max_bytes, check_body = entry.check_body,
    heartbeat_ms = gate.heartbeat_ms, drops_malformed = drops_malformed,
    settles = entry.classes ~= nil }
end

--- How long a try without an answer must have lasted to say something about its target, see
-- core/admit.c: what the operator thinks is a chance. Clients' deadlines do not change it.
local function chance_ms_of(entry)
  return entry.retry and entry.retry.reserve_ms or entry.deadline_ms / 2
end

--- The headers of clients' deadlines as core/deadline.h reads them.
local function deadline_text_of(entry)
  local items = {}
  for position, header in ipairs(entry.deadline_headers or {}) do
    items[position] = header.name .. ":" .. header.unit
  end
  return #items > 0 and table.concat(items, ",") or nil
end

--- What is needed of each route, in order.
local function make_served(deps)
  local served = {}
  for position, entry in ipairs(deps.config.routes) do
    local object = make_route(entry, deps.targets, deps.last_work)
    local policy = deps.policies[object.policy]
    if type(policy) ~= "function" then
      return nil, "unknown_policy",
        ("route \"%s\": there is no policy \"%s\""):format(entry.name, object.policy)
    end
    served[position] = { name = entry.name, deadline_ms = entry.deadline_ms, object = object,
      policy = policy, policy_name = object.policy,
      floor = floor.new(object, deps.candidates, deps.classify),
      refuses_floor = entry.on_policy_error == "fail", gate = gate_of(entry),
      chance_ms = chance_ms_of(entry), deadline_headers = entry.deadline_headers,
      deadline_text = deadline_text_of(entry),
      pattern_of = route.pattern_finder(entry.match and entry.match.model) }
  end
  return served
end

--- The route's deadline, or the client's, if that is earlier. Results as perilune.deadline.of.
local function deadline_of(chosen, req)
  if not chosen.deadline_headers then return chosen.deadline_ms end
  local wanted_ms, problem, message, header = deadline.of(chosen.deadline_headers, req.headers)
  if not wanted_ms then return nil, problem, message, header end
  return math.min(wanted_ms, chosen.deadline_ms)
end

--- Builds the handler of one configuration.
-- @tparam table deps
--
--  * config: the normalised configuration
--  * targets: target objects by their index in config.targets
--  * policies: name -> function(req, route)
--  * candidates(route): as policies have it, for the floor policy
--  * now_wall_ms(): for the `created` of models
--  * last_work(): see perilune.retry; may be absent
--  * classify(res, err): where routes have classes of their own; may be absent
--
-- @treturn[1] function handle(req, serves_floor), which may yield; serves_floor: its policy has
-- failed, and the floor policy is to serve the request
-- @treturn[2] nil
-- @treturn[2] string "unknown_policy"
-- @treturn[2] string which route names which
function gateway.new(deps)
  local served, code, detail = make_served(deps)
  if not served then return nil, code, detail end
  local matcher = route.compile(deps.config.routes)
  local reads_headers = any_reads_headers(deps.config.routes)
  local models = make_models(deps.config, deps.now_wall_ms())

  return function(req, serves_floor)
    local method, path = req.method, req.path
    if path:sub(1, #PREFIX) ~= PREFIX then
      return req:fail(errors.unknown_url(method, path))
    end
    if not METHODS[method] then return refuse_method(req) end
    if method == "GET" or method == "HEAD" then
      local name = model_in_path(path)
      if name then return answer_models(req, models, name) end
    end
    local headers = reads_headers and req.headers or nil
    local index = route.match(matcher, req.model, path, method, headers)
    if not index then return refuse_unrouted(req) end
    local chosen = served[index]
    if serves_floor and req.route then return chosen.floor(req) end
    req:set_route(chosen.name, chosen.policy_name, chosen.refuses_floor,
      chosen.pattern_of(req.model), chosen.gate, chosen.chance_ms,
      chosen.deadline_text)
    local wanted_ms, problem, message, header = deadline_of(chosen, req)
    if not wanted_ms then return refuse_deadline(req, problem, message, header) end
    req:set_deadline_ms(wanted_ms)
    if not serves_floor then return chosen.policy(req, chosen.object) end
    if chosen.refuses_floor then return refuse_policy(req) end
    return chosen.floor(req)
  end
end

return gateway
