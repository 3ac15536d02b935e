--- Normalises tracing. Pure.

local sorted = require "perilune.sorted"

local tracing = {}

local NONE = {} -- what is read where an optional table is absent; never written

--- service.name is an attribute as any other, and may be said in either way.
local function resource_of(checked)
  local resource = { ["service.name"] = checked.service_name }
  for name, value in pairs(checked.resource) do
    resource[name] = value
  end
  return sorted.pairs(resource)
end

--- Normalise what was said of tracing.
-- @tparam[opt] table checked
-- @treturn[opt] table nil when there is none
function tracing.of(checked)
  if not checked then return nil end
  local tls = checked.tls or NONE
  return {
    sample_ratio = checked.sample,
    host = checked.endpoint.host, port = checked.endpoint.port, tls = checked.endpoint.tls,
    path = checked.endpoint.path, headers = sorted.pairs(checked.headers),
    tls_verify = tls.verify ~= false, tls_ca = tls.ca, tls_server_name = tls.server_name,
    resource = resource_of(checked), timeout_ms = checked.timeout, queue_bytes = checked.queue,
  }
end

return tracing
