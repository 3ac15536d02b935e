--- What may be said of a provider: where it is, which credential it gets, how its connections are
-- kept, how long its answers may take. Plain data.

local health = require "perilune.schema.health"
local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"
local url = require "perilune.url"

local function host_name(text)
  if url.is_host(text) then return text end
  return nil, "invalid", "must be a host name or an IPv4 address"
end

return types.record {
  { "api", types.choice({ "openai", "anthropic" }, "openai") },
  { "url", { kind = "text", max = 2048, read = url.parse, secret = true, required = true } },
  { "key", texts.CREDENTIAL },
  { "keys", types.list(texts.CREDENTIAL, 1, 16) },
  { "auth", types.choice { "passthrough" } },
  { "headers", texts.HEADERS },
  { "tls", types.record {
    { "verify", types.boolean(true) },
    { "ca", texts.FILE },
    { "server_name", { kind = "text", read = host_name } },
  } },
  { "connections", types.section {
    { "idle", types.integer(0, 4096, 64) },
    { "idle_timeout", types.span("10ms", "1h", "60s") },
  } },
  { "stream_usage", types.boolean(false) },
  { "timeouts", texts.timeouts {
    connect = "5s", tls = "5s", head = "5m", first_token = "5m", idle = "60s", try = "0ms",
  } },
  { "prefix", types.with(texts.PREFIX, { default = {} }) },
  { "health", health },
}
