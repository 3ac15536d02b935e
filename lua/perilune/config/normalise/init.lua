--- From a checked configuration to the one that the C core and the library read: flat tables with
-- units in their names, providers and targets as arrays that routes point into. Pure.

local providers = require "perilune.config.normalise.provider"
local routes = require "perilune.config.normalise.route"
local tracing = require "perilune.config.normalise.tracing"

local normalise = {}

local NONE = {} -- what is read where an optional table is absent; never written

local function limits_of(limits)
  return {
    request_line_bytes = limits.request_line, head_bytes = limits.head,
    header_count = limits.header_count, body_bytes = limits.body,
    connections = limits.connections, head_ms = limits.head_timeout,
    body_idle_ms = limits.body_idle, keepalive_idle_ms = limits.keepalive_idle,
    write_stall_ms = limits.write_stall,
  }
end

local function budgets_of(budgets)
  return {
    burst_ms = budgets.burst, request_ms = budgets.request, memory_bytes = budgets.memory,
    log_line_count = budgets.log_lines,
  }
end

--- Without a log there is no path.
local function access_log_of(log)
  if not log then return {} end
  return {
    path = log.path, is_plain = log.format == "text",
    request_body_bytes = log.bodies.request, response_body_bytes = log.bodies.response,
    redact = log.redact,
  }
end

local function reload_of(reload)
  local canary = reload.canary
  return {
    policy_error_ratio = canary.policy_errors / 100, failure_ratio = canary.failures / 100,
    unfinished_ratio = canary.unfinished / 100, client_fault_ratio = canary.client_faults / 100,
    first_token_ratio = canary.first_token_ratio, first_token_margin_ms = canary.first_token_margin,
    min_request_count = canary.min_requests,
    drain_ms = reload.drain,
    strikes_count = reload.strikes.count, strikes_window_ms = reload.strikes.window,
  }
end

--- Normalise a configuration in which nothing was refused.
-- @tparam table checked what the schema's check gave
-- @treturn table
function normalise.run(checked)
  local listen, admin, tls = checked.listen, checked.admin, checked.listen.tls or NONE
  local provider_list, by_name = providers.all(checked.providers)
  local route_list, targets = routes.all(checked.routes, by_name, checked)
  return {
    listen = {
      address = listen.address.address, port = listen.address.port,
      tls_cert = tls.cert, tls_key = tls.key,
    },
    admin = {
      address = admin.address.address, port = admin.address.port, token = admin.token,
      recent_count = admin.recent, metrics = admin.metrics,
    },
    workers = checked.workers, drain_ms = checked.drain, log_level = checked.log_level,
    access_log = access_log_of(checked.access_log),
    reload = reload_of(checked.reload),
    response_headers = checked.response_headers, limits = limits_of(checked.limits),
    budgets = budgets_of(checked.budgets), tracing = tracing.of(checked.tracing),
    providers = provider_list, targets = targets, routes = route_list,
  }
end

return normalise
