--- What may be said of tracing: which collector gets the spans, and of how many requests. Plain
-- data.

local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"
local url = require "perilune.url"

local TRACES_PATH = "/v1/traces" -- where OTLP/HTTP has it when the URL does not say

local function collector(text)
  local parsed, code, detail = url.parse(text)
  if not parsed then return nil, code, detail end
  if parsed.path == "" then parsed.path = TRACES_PATH end
  return parsed
end

local function host_name(text)
  if url.is_host(text) then return text end
  return nil, "invalid", "must be a host name or an IPv4 address"
end

local attribute_name = texts.named(
  texts.matching("^[%w._-]+$", "is a name with other than letters, digits, - _ ."))

return types.record {
  { "endpoint", {
    kind = "text", max = 2048, read = collector, secret = true,
    required = 'the collector\'s URL, such as "http://127.0.0.1:4318/v1/traces"',
  } },
  { "sample", types.share(0.1) },
  { "headers", texts.HEADERS },
  { "service_name", { kind = "text", max = 256, read = texts.printable, default = "perilune" } },
  { "resource", types.with(
    types.map(attribute_name, { kind = "text", max = 512, read = texts.printable }, 0, 32),
    { default = {} }) },
  { "timeout", types.span("10ms", "1m", "10s") },
  { "queue", types.bytes("64KiB", "64MiB", "4MiB") },
  { "tls", types.record {
    { "verify", types.boolean(true) },
    { "ca", texts.FILE },
    { "server_name", { kind = "text", read = host_name } },
  } },
}
