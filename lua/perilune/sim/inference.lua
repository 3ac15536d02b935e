--- One request to a model, judged in the order of llm-d-inference-sim: can it be read, does a
-- header ask for an error, is it to fail, is the model served, does it make sense, does it fit, is
-- there a place. Then the answer.
local answer = require "perilune.sim.answer"
local errors = require "perilune.sim.errors"
local failures = require "perilune.sim.failures"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local multipart = require "perilune.sim.multipart"
local overrides = require "perilune.sim.overrides"
local text = require "perilune.sim.text"
local floor = math.floor
local format = string.format

local inference = {}

local function refuse(call, endpoint, err)
  local headers = { ["content-type"] = "application/json" }
  if (err.status == 429 or err.status == 503) and call.config.retry_after ~= "" then
    headers["retry-after"] = call.config.retry_after
  end
  call.finish()
  local has_body = err.status ~= 204 and err.status ~= 304
  call.req:respond(err.status, has_body and endpoint.error_body(err) or "", headers)
end

local function read_form(req)
  local values, code, detail = multipart.fields(req:body(), req.headers["content-type"] or "")
  if not values then return nil, code, detail end
  for name, value in pairs(values) do values[name] = json.mend(value) end
  return values
end

-- What a request asks for, or the error: its body cannot be read.
local function read(endpoint, req)
  local object, detail, _
  if endpoint.is_form then
    object, _, detail = read_form(req)
  else
    object, _, detail = json.decode_object(req:body())
  end
  if not object then return nil, errors.unreadable(detail) end
  local reader = fields.of(object)
  local asked = endpoint.parse(reader)
  if reader.fault then return nil, errors.unreadable(reader.fault) end
  return asked
end

local function response_headers(simulator, request_id)
  local headers = { ["x-inference-namespace"] = simulator.pod.namespace }
  if simulator.pod.name then
    headers["x-inference-pod"] = simulator.pod.name
    headers["x-inference-port"] = format("%d", simulator.config.port)
  end
  if simulator.config.enable_request_id_headers then headers["x-request-id"] = request_id end
  return headers
end

-- One request on its way through: what perilune.sim.answer needs of it.
local function new_call(simulator, req)
  local random = simulator.random:fork()
  local own_id = simulator.config.enable_request_id_headers and req.headers["x-request-id"] or ""
  local request_id = own_id ~= "" and own_id or random:uuid()
  return {
    req = req,
    config = simulator.config,
    random = random,
    request_id = request_id,
    headers = response_headers(simulator, request_id),
    sleep_ms = simulator.native.sleep_ms,
    running_count = function() return simulator.slots.running_count end,
    finish = function() simulator.slots:release(req) end,
  }
end

-- Takes the request's headers into account. Gives the error to answer with, if any.
local function personalise(simulator, call)
  local headers = call.req.headers
  local config, forced = overrides.apply(simulator.config, headers)
  if not config then return forced end
  call.config = config
  local err = overrides.returned_error(headers)
  if err then return err end
  if forced then
    call.failure = forced ~= "none" and forced or nil
  else
    call.failure = simulator.failures:choose(config, call.random)
  end
  return nil
end

-- Failures that come before the request is looked at any further; true: it has ended.
local EARLY = {
  reset_before_headers = function(call)
    call.req:abort()
    return true
  end,
  reset_after_headers = function(call, is_stream)
    answer.head_only(call, is_stream)
    return true
  end,
  empty = function(call, is_stream)
    answer.empty(call, is_stream)
    return true
  end,
  hang = function(call)
    answer.stall(call)
    return false
  end,
}

local function fail_early(simulator, call, endpoint, asked)
  local failure, counts = call.failure, simulator.stats.failures
  if not failure then return false end
  counts[failure] = (counts[failure] or 0) + 1
  local model = simulator.config.model or simulator.names[1] or asked.model
  local err = failures.error_of(failure, model)
  if err then
    refuse(call, endpoint, err)
    return true
  end
  return EARLY[failure] and EARLY[failure](call, asked.stream)
end

local function check(simulator, endpoint, asked)
  local is_known = asked.model ~= ""
  if #simulator.names > 0 then is_known = simulator.is_served[asked.model] end
  if not is_known then return errors.no_such_model(asked.model) end
  return endpoint.check(asked, simulator.config)
end

-- The answer's content, or the error: it does not fit the context window.
local function make_result(endpoint, call, asked)
  if endpoint.events then return text.answers(call.config, asked, call.random) end
  return { prompt_tokens = endpoint.prompt_tokens and endpoint.prompt_tokens(asked) or 0 }
end

local function send(simulator, call, endpoint, asked, result)
  local meta = {
    id = json.string(json.mend(call.request_id)):sub(2, -2),
    created = floor(simulator.native.now_wall_ms() / 1000),
    model_json = json.string(simulator.names[1] or asked.model),
  }
  if not endpoint.events then
    local body, content_type = endpoint.answer(call.config, asked, meta)
    return answer.whole(call, body, result, content_type)
  end
  if asked.stream then
    return answer.stream(call, endpoint.events(asked, result, meta), result)
  end
  return answer.whole(call, endpoint.body(asked, result, meta), result)
end

--- Serve a request to a model.
-- @tparam table simulator config, native, pod, names, is_served, random, failures, slots, stats
-- @tparam table endpoint parse, check, and events and body, or answer
-- @tparam userdata req
function inference.run(simulator, endpoint, req)
  simulator.stats.requests = simulator.stats.requests + 1
  local call = new_call(simulator, req)
  local asked, err = read(endpoint, req)
  err = err or personalise(simulator, call)
  if err then return refuse(call, endpoint, err) end
  if fail_early(simulator, call, endpoint, asked) then return end
  err = check(simulator, endpoint, asked)
  if err then return refuse(call, endpoint, err) end
  local result
  result, err = make_result(endpoint, call, asked)
  if not result then return refuse(call, endpoint, err) end
  if not simulator.slots:acquire(req) then
    return refuse(call, endpoint,
      errors.new(429, "Failed to enqueue request, waiting requests queue is full"))
  end
  return send(simulator, call, endpoint, asked, result)
end

return inference
