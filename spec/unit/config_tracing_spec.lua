--- What gateway.lua may say of tracing, and what is made of it.

local support = require "spec.unit.config_support"

local load = support.load

local FRAME = [[
return {
  %s
  providers = { one = { url = "http://127.0.0.1:1/v1" } },
  routes = { { match = { model = "*" }, targets = { { provider = "one" } } } },
}
]]

local function tracing_of(text)
  return load(FRAME:format(text)).tracing
end

describe("tracing", function()
  it("is off unless it is asked for", function()
    assert.is_nil(tracing_of(""))
  end)

  it("has defaults for all but the collector", function()
    assert.are.same({
      sample_ratio = 0.1, host = "127.0.0.1", port = 4318, tls = false, path = "/v1/traces",
      headers = {}, tls_verify = true, resource = { { "service.name", "perilune" } },
      timeout_ms = 10000, queue_bytes = 4 * 1024 * 1024,
    }, tracing_of('tracing = { endpoint = "http://127.0.0.1:4318" },'))
  end)

  it("takes all that can be said", function()
    assert.are.same({
      sample_ratio = 1, host = "collector.internal", port = 443, tls = true, path = "/otlp/traces",
      headers = { { "X-Api-Key", "s3cret" } }, tls_verify = false, tls_ca = "ca.crt",
      tls_server_name = "other.internal",
      resource = { { "deployment.environment.name", "test" }, { "service.name", "gate" } },
      timeout_ms = 500, queue_bytes = 65536,
    }, tracing_of([[tracing = {
      endpoint = "https://collector.internal/otlp/traces", sample = 1,
      headers = { ["X-Api-Key"] = "s3cret" }, service_name = "gate",
      resource = { ["deployment.environment.name"] = "test" },
      timeout = "500ms", queue = "64KiB",
      tls = { verify = false, ca = "ca.crt", server_name = "other.internal" },
    },]]))
  end)

  it("has an attribute of the resource stand over the option", function()
    local resource = tracing_of([[tracing = {
      endpoint = "http://127.0.0.1:4318", service_name = "a",
      resource = { ["service.name"] = "b" } },]]).resource
    assert.are.same({ { "service.name", "b" } }, resource)
  end)
end)
