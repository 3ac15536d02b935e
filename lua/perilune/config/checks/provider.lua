--- Checks what concerns several keys of one provider: its credential, and the rules of its health.

local duration = require "perilune.duration"
local given = require "perilune.config.given"
local sorted = require "perilune.sorted"
local wording = require "perilune.schema.wording"

local provider = {}

local at = wording.at
local KEY_HEADERS = { openai = "authorization", anthropic = "x-api-key" }
local NONE = {} -- what is read where an optional table is absent; never written

local function check_credential(checked, path, report)
  local own = checked.key and "key" or checked.keys and "keys"
  if checked.key and checked.keys then
    report(at(path, "keys"), "cannot be given together with key: write all of them here")
  end
  if own and checked.auth then
    report(at(path, "auth"), ('cannot be "passthrough" together with %s: upstreams get one '
      .. "credential or the other"):format(own))
  end
  local key_header = KEY_HEADERS[checked.api or "openai"]
  for _, name in ipairs(sorted.keys(checked.headers or NONE)) do
    if name:lower() == key_header and (own or checked.auth) then
      report(at(at(path, "headers"), name), "cannot be set together with key, keys or auth")
    end
  end
end

--- Only the answer to a credential of our own says something about the provider.
local function check_auth_rule(checked, value, path, report)
  local statuses = (checked.health or NONE).auth
  if not statuses or #statuses == 0 then return end
  local rule_path = at(at(path, "health"), "auth")
  if checked.auth == "passthrough" then
    report(rule_path, 'has no use with auth = "passthrough": the credential is each client\'s own')
  elseif given.at(value, at(path, "key")) == nil and given.at(value, at(path, "keys")) == nil then
    report(rule_path, "has no use without key: there is no credential of ours to be refused")
  end
end

local function check_ejection(health, path, report)
  local base_ms, max_ms = health.base_ejection, health.max_ejection
  if base_ms and max_ms and base_ms > max_ms then
    report(at(path, "base_ejection"), ("must not be more than max_ejection (%s), got %s"):format(
      duration.format(max_ms), duration.format(base_ms)))
  end
  -- each 502, 503 and 504 is a 5xx as well, so the other rule is always there first
  local gateway, any = health.consecutive_gateway, health.consecutive_5xx
  if gateway and any and any > 0 and gateway > any then
    report(at(path, "consecutive_gateway"),
      ("has no effect when it is more than consecutive_5xx (%d), got %d"):format(any, gateway))
  end
end

local function check_active(active, path, report)
  local interval_ms, timeout_ms = active.interval, active.timeout
  if interval_ms and timeout_ms and timeout_ms > interval_ms then
    report(at(path, "timeout"), ("must not be more than interval (%s), got %s"):format(
      duration.format(interval_ms), duration.format(timeout_ms)))
  end
end

--- Check one provider.
-- @tparam table checked what the schema's check gave for it
-- @tparam table value the whole configuration as the operator wrote it
-- @tparam table path of the provider
-- @tparam function report report(path, message) for each problem
function provider.check(checked, value, path, report)
  check_credential(checked, path, report)
  if checked.tls and checked.url and not checked.url.tls then
    report(at(path, "tls"), "has no effect with an http:// url")
  end
  local health, health_path = checked.health or NONE, at(path, "health")
  check_ejection(health, health_path, report)
  check_auth_rule(checked, value, path, report)
  check_active(health.active or NONE, at(health_path, "active"), report)
end

return provider
