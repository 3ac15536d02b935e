--- `perilune sim`: a provider without a model, for trying out and testing what stands before it.
-- It speaks the APIs of OpenAI and Anthropic, takes the time and fails in the ways it is told to.
-- Flags, endpoints and errors follow llm-d-inference-sim; README.md here lists them.
local argv = require "perilune.sim.argv"
local service = require "perilune.sim.service"
local concat = table.concat
local format = string.format

local sim = {}

local MEBIBYTE = 1048576
local MAX_SEED = 2147483647

local function limits(config)
  return {
    request_line_bytes = 8192, head_bytes = 65536, header_count = 100,
    body_bytes = config.max_request_body_size_mb * MEBIBYTE,
    connections = 10000,
    head_ms = 10000, body_idle_ms = 30000, keepalive_idle_ms = 75000, write_stall_ms = 30000,
  }
end

local function banner(config, names)
  return format("model %s, mode %s, seed %.0f", #names > 0 and concat(names, ", ") or "any",
    config.mode, config.seed)
end

local function pod(getenv)
  local name, namespace = getenv("POD_NAME"), getenv("POD_NAMESPACE")
  return { name = name ~= "" and name or nil, namespace = namespace ~= "" and namespace or nil }
end

--- Make a simulator.
-- Its state is that of one VM, so it is to run with one worker.
-- @tparam {string,...} arguments the command line after `perilune sim`
-- @tparam table native perilune.native: now_ms, now_wall_ms, sleep_ms, random, log, getenv
-- @treturn[1] table listen (address, port, tls_cert, tls_key), limits, handle(req), banner
-- @treturn[2] nil
-- @treturn[2] string "usage" (a mistake) or "help"
-- @treturn[2] string what to print
function sim.new(arguments, native)
  local config, code, message = argv.parse(arguments, native.getenv)
  if not config then return nil, code, message end
  config.seed = config.seed or native.random(MAX_SEED)
  local simulator = service.new(config, native, pod(native.getenv))
  return {
    listen = { address = config.host, port = config.port,
      tls_cert = config.ssl_certfile, tls_key = config.ssl_keyfile },
    limits = limits(config),
    handle = function(req) return simulator:handle(req) end,
    banner = banner(config, simulator.names),
  }
end

return sim
