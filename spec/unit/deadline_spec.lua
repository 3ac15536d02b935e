local deadline = require "perilune.deadline"
local support = require "spec.unit.support"

describe("perilune.deadline", function()
  --- Each text is worth so many milliseconds; false: it is no time.
  local function assert_read(unit, cases)
    for text, ms in pairs(cases) do
      assert.equal(ms or nil, deadline.parse(unit, text), unit .. " " .. text)
    end
  end

  it("reads whole milliseconds and nothing else", function()
    assert_read("ms", {
      ["1500"] = 1500, ["1"] = 1, ["0010"] = 10, ["18446744073709551615"] = 18446744073709551615,
      [""] = false, [" 1500"] = false, ["1500 "] = false, ["+5"] = false, ["-5"] = false,
      ["1.5"] = false, ["1e3"] = false, ["0x10"] = false, ["1500ms"] = false, ["5, 6"] = false,
      ["nan"] = false, ["inf"] = false, ["123456789012345678901"] = false, ["1\n"] = false,
    })
  end)

  it("reads seconds, with fractions", function()
    assert_read("s", {
      ["30"] = 30000, ["1.5"] = 1500, ["600.0"] = 600000, ["0.0001"] = 1,
      ["1."] = false, [".5"] = false, ["30s"] = false, ["-1"] = false, ["1e2"] = false,
      ["1,5"] = false,
    })
  end)

  it("reads gRPC's form", function()
    assert_read("grpc", {
      ["1H"] = 3600000, ["2M"] = 120000, ["30S"] = 30000, ["1500m"] = 1500, ["1500u"] = 2,
      ["1n"] = 1, ["99999999H"] = 99999999 * 3600000,
      ["100000000m"] = false, ["1s"] = false, ["1"] = false, ["m"] = false, ["1.5S"] = false,
      ["1 S"] = false, ["1h"] = false,
    })
  end)

  it("takes 0 for no limit, as Envoy does", function()
    for unit, text in pairs { ms = "0", s = "0.0", grpc = "0S" } do
      assert.equal(math.huge, deadline.parse(unit, text))
    end
  end)

  it("knows the units of well known headers, and of names that say it", function()
    for name, unit in pairs {
      ["x-request-timeout-ms"] = "ms", ["x-envoy-expected-rq-timeout-ms"] = "ms",
      ["x-envoy-upstream-rq-timeout-ms"] = "ms", ["x-portkey-request-timeout"] = "ms",
      ["x-stainless-timeout"] = "s", ["x-stainless-read-timeout"] = "s", ["grpc-timeout"] = "grpc",
      ["x-budget"] = false, ["x-timeout"] = false, ["x-timeoutms"] = false,
    } do
      assert.equal(unit or nil, deadline.unit_of(name), name)
    end
  end)

  local LIST = { { name = "x-timeout-ms", unit = "ms" }, { name = "x-stainless-timeout",
    unit = "s" } }

  it("takes the least of several headers", function()
    for _, case in ipairs {
      { { ["X-Timeout-Ms"] = "1500" }, 1500 },
      { { ["x-timeout-ms"] = "1500", ["x-stainless-timeout"] = "1" }, 1000 },
      { { ["x-timeout-ms"] = "0", ["x-stainless-timeout"] = "30" }, 30000 },
      { { ["x-timeout-ms"] = "0" }, math.huge },
      { { ["x-else"] = "1" }, math.huge },
    } do
      assert.equal(case[2], deadline.of(LIST, support.headers(case[1])))
    end
  end)

  it("says which header is no time, whatever the others say", function()
    local ms, code, message, name = deadline.of(LIST,
      support.headers { ["x-timeout-ms"] = "5", ["x-stainless-timeout"] = "soon" })
    assert.is_nil(ms)
    assert.same({ "invalid_deadline", "x-stainless-timeout" }, { code, name })
    assert.equal("The header x-stainless-timeout must be seconds, such as 30 or 1.5", message)
  end)
end)
