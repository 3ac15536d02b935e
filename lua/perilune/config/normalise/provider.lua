--- Normalises providers, with the rules of their health. Pure.

local sorted = require "perilune.sorted"

local provider = {}

local NONE = {} -- what is read where an optional table is absent; never written

--- The time limits of a try, where `own` names none those of `inherited`.
-- @tparam table own checked
-- @tparam table inherited normalised
-- @treturn table
function provider.timeouts(own, inherited)
  local result = {}
  for _, name in ipairs { "connect", "tls", "head", "first_token", "idle", "try" } do
    local key = name .. "_ms"
    result[key] = own[name] or inherited[key]
  end
  return result
end

local function active_check(active)
  return active and {
    path = active.path, method = active.method, statuses = active.statuses,
    headers = sorted.pairs(active.headers), interval_ms = active.interval,
    timeout_ms = active.timeout, jitter_ratio = active.jitter,
    unhealthy_after = active.unhealthy_after, healthy_after = active.healthy_after,
    readmits = active.readmits,
  }
end

local function health_of(health)
  local retry_after = health.retry_after
  return {
    consecutive_5xx_count = health.consecutive_5xx,
    consecutive_gateway_count = health.consecutive_gateway,
    consecutive_connection_count = health.consecutive_connection,
    split_connection = health.split_connection,
    failure_ratio = health.failure_percent / 100, failure_min_count = health.failure_min_requests,
    window_ms = health.window, success_ewma_min_ratio = health.success_ewma_below,
    retry_after = retry_after and { statuses = retry_after.statuses, cap_ms = retry_after.cap }
      or nil,
    auth_statuses = health.auth or nil, unhealthy = health.unhealthy,
    base_ejection_ms = health.base_ejection, max_ejection_ms = health.max_ejection,
    jitter_ratio = health.jitter, decay_ms = health.decay, slow_start_ms = health.slow_start,
    probe_timeout_ms = health.probe_timeout, active = active_check(health.active),
  }
end

--- How a target is asked to go on from the assistant's words.
-- @param prefix checked: a table, or false
-- @treturn table|boolean
function provider.prefix(prefix)
  if not prefix then return false end
  return { set_message = sorted.pairs(prefix.message), set_body = sorted.pairs(prefix.body) }
end

local function normalise_provider(name, checked)
  local tls = checked.tls or NONE
  return {
    name = name, api = checked.api,
    url = checked.url.text, host = checked.url.host, port = checked.url.port,
    tls = checked.url.tls, path = checked.url.path,
    auth = checked.auth or (checked.key or checked.keys) and "key" or "none", key = checked.key,
    keys = checked.keys,
    headers = sorted.pairs(checked.headers),
    tls_verify = tls.verify ~= false, tls_ca = tls.ca, tls_server_name = tls.server_name,
    idle_connections = checked.connections.idle, idle_ms = checked.connections.idle_timeout,
    stream_usage = checked.stream_usage,
    timeouts = provider.timeouts(checked.timeouts, NONE), health = health_of(checked.health),
  }
end

--- Normalise all providers.
-- @tparam table providers name -> checked provider
-- @treturn {table,...} in the order of their names
-- @treturn table name -> { index in the array, timeouts, prefix }
function provider.all(providers)
  local result, by_name = {}, {}
  for index, entry in ipairs(sorted.pairs(providers)) do
    local normalised = normalise_provider(entry[1], entry[2])
    result[index] = normalised
    by_name[entry[1]] = { index = index, timeouts = normalised.timeouts,
      prefix = provider.prefix(entry[2].prefix) }
  end
  return result, by_name
end

return provider
