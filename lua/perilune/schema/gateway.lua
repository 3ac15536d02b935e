--- The table that policies/gateway.lua returns. Plain data.

local provider = require "perilune.schema.provider"
local route = require "perilune.schema.route"
local texts = require "perilune.schema.texts"
local tracing = require "perilune.schema.tracing"
local types = require "perilune.schema.types"
local url = require "perilune.url"

local bytes, integer, section, span = types.bytes, types.integer, types.section, types.span
local list, map, with = types.list, types.map, types.with

local provider_name = texts.named(
  texts.matching("^[%w._-]+$", "is a name with other than letters, digits, - _ ."))

local LIMITS = section {
  { "request_line", bytes("512B", "64KiB", "8KiB") },
  { "head", bytes("1KiB", "1MiB", "64KiB") },
  { "header_count", integer(1, 1000, 100) },
  { "body", bytes("1KiB", "256MiB", "50MiB") },
  { "connections", integer(1, 1000000, 10000) },
  { "head_timeout", span("10ms", "1h", "10s") },
  { "body_idle", span("10ms", "1h", "30s") },
  { "keepalive_idle", span("10ms", "1h", "75s") },
  { "write_stall", span("10ms", "1h", "30s") },
}

local BUDGETS = section {
  { "burst", span("1ms", "10s", "50ms") },
  { "request", span("100ms", "1m", "500ms") },
  { "memory", bytes("8MiB", "1GiB", "256MiB") },
  { "log_lines", integer(0, 10000, 100) },
}

local ACCESS_LOG = section {
  { "path", { kind = "text", min = 1, max = 4096, read = texts.printable, default = "-" } },
  { "format", types.choice({ "json", "text" }, "json") },
  { "bodies", section {
    { "request", bytes("0B", "64KiB", "0B") },
    { "response", bytes("0B", "64KiB", "0B") },
  } },
  { "redact", with(list({ kind = "text", min = 1, max = 64, read = texts.printable }, 0, 64),
    { default = {} }) },
}

local RELOAD = section {
  { "drain", span("0ms", "24h", "15m") },
  { "strikes", section {
    { "count", integer(0, 64, 5) },
    { "window", span("1s", "1h", "60s") },
  } },
  { "canary", section {
    { "policy_errors", types.percent(0.5) },
    { "failures", types.percent(2) },
    { "unfinished", types.percent(25) },
    { "client_faults", types.percent(10) },
    { "first_token_ratio", types.number(1, 1000, 1.5) },
    { "first_token_margin", span("0ms", "10m", "100ms") },
    { "min_requests", integer(1, 1000000, 20) },
  } },
}

return types.record {
  { "listen", section {
    { "address", { kind = "text", read = url.address, default = "127.0.0.1:8080" } },
    { "tls", types.record {
      { "cert", with(texts.FILE, { required = "the certificate chain, PEM" }) },
      { "key", with(texts.FILE, { required = "the private key of the certificate, PEM" }) },
    } },
  } },
  { "admin", section {
    { "address", { kind = "text", read = url.admin_address, default = "127.0.0.1:9901" } },
    { "token", texts.CREDENTIAL },
    { "recent", integer(0, 10000, 200) },
    { "metrics", types.boolean(true) },
  } },
  { "workers", integer(0, 256, 0) },
  { "drain", span("0ms", "1h", "30s") },
  { "reload", RELOAD },
  { "log_level", types.choice({ "error", "warn", "info", "debug" }, "info") },
  { "access_log", { kind = "switch", on = ACCESS_LOG, default = {} } },
  { "response_headers", types.boolean(true) },
  { "limits", LIMITS },
  { "budgets", BUDGETS },
  { "on_policy_error", types.choice({ "floor", "fail" }, "floor") },
  { "tracing", tracing },
  { "providers", with(map(provider_name, provider, 1, 256), { required = true }) },
  { "routes", with(list(route, 1, 1024), { required = true }) },
}
