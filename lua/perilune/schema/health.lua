--- What may be said of a provider's health: when it, or one of its targets, is left out, for how
-- long, and how it comes back. Plain data.

local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"

local integer, record, section = types.integer, types.record, types.section
local percent, share, span = types.percent, types.share, types.span
local boolean, choice, list, with = types.boolean, types.choice, types.list, types.with

local check_path = texts.matching("^/[\33\34\36-\126]*$",
  'must be a path: start with "/", without spaces or "#"')

local ACTIVE = record {
  { "path", { kind = "text", read = check_path, default = "/v1/models" } },
  { "method", choice({ "GET", "HEAD", "OPTIONS", "POST" }, "GET") },
  { "statuses", with(list(integer(200, 599), 1, 64), { default = { 200 } }) },
  { "headers", texts.HEADERS },
  { "interval", span("10ms", "1h", "10s") },
  { "timeout", span("1ms", "10m", "3s") },
  { "jitter", share(0.1) },
  { "unhealthy_after", integer(1, 100, 3) },
  { "healthy_after", integer(1, 100, 2) },
  { "readmits", boolean(true) },
}

local STATUSES = with(list(integer(300, 599), 1, 64), {
  default = { 429 }, if_empty = "to switch it off, write retry_after = false",
})

local RETRY_AFTER = section {
  { "statuses", STATUSES },
  { "cap", span("1ms", "24h", "1h") },
}

local RULES = record {
  { "consecutive_5xx", integer(0, 10000, 5) },
  { "consecutive_gateway", integer(0, 10000, 0) },
  { "consecutive_connection", integer(0, 10000, 5) },
  { "split_connection", boolean(false) },
  { "failure_percent", percent(0) },
  { "failure_min_requests", integer(1, 1000000, 20) },
  { "window", span("100ms", "1h", "30s") },
  { "success_ewma_below", share(0) },
  { "retry_after", { kind = "switch", on = RETRY_AFTER, default = {} } },
  { "auth", { kind = "switch", on = list(integer(400, 499), 0, 64), default = {} } },
  { "unhealthy", { kind = "function", arguments = "res" } },
  { "base_ejection", span("1ms", "24h", "30s") },
  { "max_ejection", span("1ms", "24h", "300s") },
  { "jitter", share(0.1) },
  { "decay", span("0ms", "24h", "30s") },
  { "slow_start", span("0ms", "1h", "0s") },
  { "probe_timeout", span("1ms", "1h", "30s") },
  { "active", ACTIVE },
}

--- What `health = false` stands for; the other rules are off by default. The times remain: policies
-- and operators may eject nevertheless.
local ALL_OFF = {
  consecutive_5xx = 0, consecutive_connection = 0, retry_after = false, auth = false,
}

return { kind = "switch", on = RULES, off = ALL_OFF, default = {} }
