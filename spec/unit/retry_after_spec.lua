local retry_after = require "perilune.retry_after"

local NOW_MS = 1750000000000 -- Sun, 15 Jun 2025 15:06:40 GMT

local function parse(headers)
  return retry_after.parse(headers, NOW_MS)
end

describe("perilune.retry_after", function()
  it("reads whole seconds", function()
    assert.equal(120000, parse { ["retry-after"] = "120" })
    assert.equal(60000, parse { ["retry-after"] = "60" })
    assert.equal(0, parse { ["retry-after"] = "0" })
  end)

  it("takes unusable values for absent", function()
    for _, value in ipairs { "120s", "", "invalid", "-5", "1.5", "+5", "0x10", "1e3",
      "99999999999999999999",
      ("1"):rep(400), " " } do
      assert.is_nil(parse { ["retry-after"] = value }, value)
    end
    assert.is_nil(parse {})
    assert.is_nil(parse { ["retry-after"] = 60 })
    assert.is_nil(parse { ["retry-after"] = { "60" } })
  end)

  it("reads the three forms of dates", function()
    for _, value in ipairs {
      "Sun, 15 Jun 2025 15:07:40 GMT", "Sunday, 15-Jun-25 15:07:40 GMT", "Sun Jun 15 15:07:40 2025",
    } do
      assert.equal(60000, parse { ["retry-after"] = value }, value)
    end
  end)

  it("falls through for dates in the past, and for now", function()
    assert.equal(7, parse { ["retry-after"] = "Sun, 15 Jun 2025 15:06:39 GMT",
      ["retry-after-ms"] = "7" })
    assert.is_nil(parse { ["retry-after"] = "Sun, 15 Jun 2025 15:06:40 GMT" })
  end)

  it("converts dates exactly", function()
    local dates = {
      ["Thu, 01 Jan 1970 00:00:00 GMT"] = 0, ["Sun, 06 Nov 1994 08:49:37 GMT"] = 784111777000,
      ["Sunday, 06-Nov-94 08:49:37 GMT"] = 784111777000,
        ["Sun Nov  6 08:49:37 1994"] = 784111777000,
      ["Tue, 29 Feb 2000 23:59:59 GMT"] = 951868799000,
        ["Wed, 01 Mar 2000 00:00:00 GMT"] = 951868800000,
      ["Mon, 28 Feb 2028 00:00:00 GMT"] = 1835308800000,
        ["Fri, 31 Dec 9999 23:59:59 GMT"] = 253402300799000,
    }
    for text, ms in pairs(dates) do assert.equal(ms, retry_after.http_date_ms(text), text) end
  end)

  it("refuses what is no date", function()
    for _, text in ipairs {
      "Sun, 31 Jun 2026 00:00:00 GMT", "Sun, 29 Feb 2027 00:00:00 GMT",
        "Sun, 00 Jun 2026 00:00:00 GMT",
      "Sun, 15 Foo 2026 00:00:00 GMT", "Sun, 15 Jun 2026 24:00:00 GMT",
        "Sun, 15 Jun 2026 00:60:00 GMT",
      "Sun, 15 Jun 2026 00:00:61 GMT", "Sun, 15 Jun 2026 00:00:00 CET", "Sun, 15 Jun 2026 00:00:00",
      "15 Jun 2026 00:00:00 GMT", "Sun, 15 Jun 2026 00:00:00 GMT ",
    } do
      assert.is_nil(retry_after.http_date_ms(text), text)
    end
  end)

  it("reads milliseconds, in order", function()
    assert.equal(1500, parse { ["retry-after-ms"] = "1500" })
    assert.equal(250, parse { ["x-ms-retry-after-ms"] = "250" })
    assert.equal(1500, parse { ["retry-after-ms"] = "1500", ["x-ms-retry-after-ms"] = "250" })
    assert.equal(2000, parse { ["retry-after"] = "2", ["retry-after-ms"] = "1500" })
    assert.equal(250, parse { ["retry-after-ms"] = "soon", ["x-ms-retry-after-ms"] = "250" })
  end)

  it("reads x-ratelimit-reset as seconds or as a Unix time", function()
    assert.equal(1234000, parse { ["x-ratelimit-reset"] = "1234" })
    assert.equal(2591999000, parse { ["x-ratelimit-reset"] = "2591999" })
    assert.is_nil(parse { ["x-ratelimit-reset"] = "2592000" })
    assert.equal(30000, parse { ["x-ratelimit-reset"] = "1750000030" })
    assert.is_nil(parse { ["x-ratelimit-reset"] = "1749999999" })
    assert.equal(5000, parse { ["x-ratelimit-reset"] = "1749999999",
      ["x-ratelimit-reset-tokens"] = "5s" })
  end)

  it("takes the smallest of the other reset headers", function()
    assert.equal(300000, parse { ["x-ratelimit-reset-requests"] = "5m" })
    assert.equal(150000, parse { ["x-ratelimit-reset-tokens"] = "2m30s" })
    assert.equal(11100, parse { ["x-ratelimit-reset-requests-day"] = "33011.382867097855",
      ["x-ratelimit-reset-tokens-minute"] = "11.1" })
    assert.equal(60000, parse { ["x-ratelimit-reset-requests"] = "300",
      ["x-ratelimit-reset-tokens"] = "60" })
    assert.equal(60000, parse { ["x-ratelimit-reset-tokens"] = "1m",
      ["x-ratelimit-reset-requests"] = "2m" })
    assert.equal(60000, parse { ["x-ratelimit-reset-tokens"] = "never",
      ["x-ratelimit-reset-requests"] = "60" })
    assert.equal(1000, parse { ["retry-after"] = "1", ["x-ratelimit-reset-tokens"] = "10ms" })
  end)

  it("reads Go durations", function()
    local durations = {
      ["24h"] = 86400000, ["1h2m3.5s"] = 3723500, ["100ms"] = 100, ["6ms"] = 6, ["0s"] = 0,
        ["0"] = 0,
      ["500us"] = 1, ["1500\194\181s"] = 2, ["2000000ns"] = 2, ["1.s"] = 1000, [".5s"] = 500,
    }
    for text, ms in pairs(durations) do assert.equal(ms, retry_after.go_duration_ms(text), text) end
    for _, text in ipairs { "-1m", "1m2x", "abc", "", "m", "1m-2s", "1..5s", ".", "s1", "inf",
      "nan", "1e3",
      "1m 2s", "5M" } do
      assert.is_nil(retry_after.go_duration_ms(text), text)
    end
  end)

  it("reads Gemini's delay from the body, when no header has one", function()
    local INFO = { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retryDelay = "34.07s" }
    local QUOTA = { ["@type"] = "type.googleapis.com/google.rpc.QuotaFailure", violations = {} }
    local body = { error = { status = "RESOURCE_EXHAUSTED", details = { QUOTA, INFO } } }
    local function of(status, decoded, headers)
      return retry_after.of({ status = status, headers = headers or {},
        json = function() return decoded end }, function() return NOW_MS end)
    end
    assert.equal(34070, of(429, body))
    assert.equal(34070, of(503, { body }))
    assert.equal(2000, of(429, body, { ["retry-after"] = "2" }))
    assert.is_nil(of(500, body))
    for _, shape in ipairs { "text", 7, {}, { error = "x" }, { error = { details = 7 } },
      { error = { details = { 7, { retryDelay = 7 }, { retryDelay = "soon" } } } }, { { 7 } },
      { error = { details = { { retryDelay = ("9"):rep(65) .. "s" } } } } } do
      assert.is_nil(of(429, shape))
    end
    assert.is_nil(of(429, nil))
  end)

  it("asks an answer for its headers only when there may be something in them", function()
    local function now_wall_ms() return NOW_MS end
    local headers = { ["retry-after"] = "2" }
    assert.equal(2000, retry_after.of({ headers = headers, has_wait_hint = true }, now_wall_ms))
    assert.equal(2000, retry_after.of({ headers = headers }, now_wall_ms))
    local untouchable = setmetatable({}, { __index = function() error("not to be read") end })
    assert.is_nil(retry_after.of({ headers = untouchable, has_wait_hint = false }, nil))
  end)
end)
