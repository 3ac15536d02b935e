--- One simulator: its state and its endpoints.
-- Runs in one worker's VM, each request in a coroutine of its own.
local admin = require "perilune.sim.admin"
local errors = require "perilune.sim.errors"
local failures = require "perilune.sim.failures"
local inference = require "perilune.sim.inference"
local json = require "perilune.sim.json"
local media = require "perilune.sim.media"
local random = require "perilune.sim.random"
local slots = require "perilune.sim.slots"
local tokenize = require "perilune.sim.tokenize"
local floor = math.floor
local format = string.format

local service = {}
service.__index = service

local JSON = { ["content-type"] = "application/json" }
local LOGGED_BODY_BYTES = 512

local ENDPOINTS = {
  require "perilune.sim.chat",
  require "perilune.sim.completions",
  require "perilune.sim.responses",
  require "perilune.sim.messages",
  require "perilune.sim.embeddings",
  media.images,
  media.transcriptions,
}

local function read_id(request)
  return request.id
end

-- A request that is over has an empty handle: reading it gives nil or fails.
local function is_over(request)
  local ok, id = pcall(read_id, request)
  return not ok or id == nil
end

local function served_names(config)
  if #config.served_model_name > 0 then return config.served_model_name end
  return config.model and { config.model } or {}
end

local function as_set(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

--- @tparam table config from perilune.sim.argv, with a seed
-- @tparam table native perilune.native
-- @tparam[opt] table pod name, namespace: sent in headers
function service.new(config, native, pod)
  local names = served_names(config)
  return setmetatable({
    config = config,
    native = native,
    pod = pod or {},
    names = names,
    is_served = as_set(names),
    random = random.new(config.seed),
    failures = failures.new(config),
    slots = slots.new(
      { limit = config.max_num_seqs, queue_limit = config.max_waiting_queue_length },
      { now_ms = native.now_ms, sleep_ms = native.sleep_ms, is_over = is_over }),
    stats = { requests = 0, failures = {} },
    started_ms = native.now_ms(),
  }, service)
end

local function respond_json(req, body)
  return req:respond(200, body, JSON)
end

local function respond_error(req, err)
  return req:respond(err.status, errors.openai_body(err), JSON)
end

function service:list_models(req)
  local items, created = {}, floor(self.native.now_wall_ms() / 1000)
  for index, name in ipairs(self.names) do
    items[index] = json.object {
      { "id", json.string(name) },
      { "object", '"model"' },
      { "created", format("%d", created) },
      { "owned_by", '"vllm"' },
      { "root", json.string(self.config.model or name) },
      { "parent", "null" },
      { "max_model_len", format("%d", self.config.max_model_len) },
    }
  end
  return respond_json(req, '{"object":"list","data":' .. json.array(items) .. "}")
end

function service:health(req)
  return respond_json(req, "")
end

function service:ready(req)
  local age_ms = self.native.now_ms() - self.started_ms
  return req:respond(age_ms < self.config.startup_duration_ms and 503 or 200, "", JSON)
end

function service:tokenize(req)
  local body, err = tokenize.answer(req:body(), self.config)
  if not body then return respond_error(req, err) end
  return respond_json(req, body)
end

function service:show_config(req)
  return respond_json(req, admin.config_json(self.config))
end

function service:change_config(req)
  local config, changed = admin.update(self.config, req:body())
  if not config then return respond_error(req, changed) end
  self.config = config
  self.failures:restart(config, changed)
  return respond_json(req, admin.config_json(config))
end

function service:show_stats(req)
  return respond_json(req, admin.stats_json(self.stats, self.slots.running_count,
    self.slots:waiting_count()))
end

local ROUTES = {
  ["/v1/models"] = { GET = service.list_models },
  ["/health"] = { GET = service.health },
  ["/health/ready"] = { GET = service.ready },
  ["/tokenize"] = { POST = service.tokenize },
  ["/admin/config"] = { GET = service.show_config, POST = service.change_config },
  ["/admin/stats"] = { GET = service.show_stats },
}

for _, endpoint in ipairs(ENDPOINTS) do
  ROUTES[endpoint.path] = {
    POST = function(self, req) return inference.run(self, endpoint, req) end,
  }
end

local function log_request(self, req)
  local body = req:body()
  self.native.log("info", format("%s %s from %s, %d bytes: %s", req.method, req.path, req.peer,
    #body, body:sub(1, LOGGED_BODY_BYTES)))
end

local function allowed(methods)
  if methods.GET and methods.POST then return "GET, POST" end
  return methods.GET and "GET" or "POST"
end

--- Serve any request.
function service:handle(req)
  if self.config.log_http then log_request(self, req) end
  local methods = ROUTES[req.path]
  local serve = methods and methods[req.method]
  if serve then return serve(self, req) end
  local err = errors.new(methods and 405 or 404,
    format("%s %s is not served here", req.method, req.path))
  return req:respond(err.status, errors.openai_body(err), {
    ["content-type"] = "application/json",
    allow = methods and allowed(methods) or nil,
  })
end

return service
