local duration = require "perilune.duration"
local size = require "perilune.size"

describe("duration.parse", function()
  it("reads a number with its unit as milliseconds", function()
    for text, ms in pairs {
      ["0ms"] = 0, ["1ms"] = 1, ["100ms"] = 100, ["12.5ms"] = 12.5, ["10s"] = 10000,
      ["1.5s"] = 1500, ["2m"] = 120000, ["1h"] = 3600000, ["0.5h"] = 1800000, ["007s"] = 7000,
    } do
      assert.are.equal(ms, duration.parse(text), text)
    end
  end)

  it("is exact where binary fractions are not", function()
    assert.are.equal(4350, duration.parse("4.35s"))
    assert.are.equal(138000, duration.parse("2.3m"))
    assert.are.equal(100, duration.parse("0.1s"))
  end)

  it("refuses a number without a unit as ambiguous", function()
    for value, expected in pairs {
      [10] = 'is ambiguous: write "10s" or "10ms"',
      [0.5] = 'is ambiguous: write "0.5s" or "0.5ms"',
      ["30"] = 'is ambiguous: write "30s" or "30ms"',
    } do
      local ms, code, detail = duration.parse(value)
      assert.is_nil(ms)
      assert.are.equal("ambiguous", code)
      assert.are.equal(expected, detail)
    end
  end)

  it("names the units when it does not know one", function()
    local ms, code, detail = duration.parse("5min")
    assert.is_nil(ms)
    assert.are.equal("invalid", code)
    assert.are.equal('has an unknown unit "min": write ms, s, m or h', detail)
    assert.is_nil((duration.parse("5S")))
    assert.is_nil((duration.parse("5us")))
  end)

  it("refuses everything else", function()
    for _, value in ipairs {
      "", "s", "ms", "-1s", "+1s", " 1s", "1s ", "1 s", "1.s", ".5s", "1.2.3s", "1e3s", "0x10s",
      "1m30s", "1s\n", "1s\0", "inf", "nan", "1234567890123456s", true, {}, print,
    } do
      local ms, code, detail = duration.parse(value)
      assert.is_nil(ms, tostring(value))
      assert.are.equal("invalid", code)
      assert.are.equal('must be a duration such as "10s" or "100ms"', detail)
    end
    assert.is_nil((duration.parse(nil)))
  end)
end)

describe("duration.format", function()
  it("takes the largest unit that needs no fraction", function()
    for text, ms in pairs {
      ["0ms"] = 0, ["12.5ms"] = 12.5, ["999ms"] = 999, ["1s"] = 1000, ["90s"] = 90000,
      ["5m"] = 300000, ["24h"] = 86400000,
    } do
      assert.are.equal(text, duration.format(ms))
      assert.are.equal(ms, duration.parse(text))
    end
  end)
end)

describe("size.parse", function()
  it("reads plain numbers and binary units", function()
    for text, bytes in pairs {
      ["0B"] = 0, ["512B"] = 512, ["64KiB"] = 65536, ["50MiB"] = 52428800, ["1GiB"] = 1073741824,
      ["1.5KiB"] = 1536,
    } do
      assert.are.equal(bytes, size.parse(text), text)
    end
    assert.are.equal(0, size.parse(0))
    assert.are.equal(65536, size.parse(65536))
  end)

  it("says what is wrong with the unit", function()
    local bytes, code, detail = size.parse("64KB")
    assert.is_nil(bytes)
    assert.are.equal("invalid", code)
    assert.are.equal('has an unknown unit "KB": write B, KiB, MiB or GiB', detail)
    assert.are.equal("has no unit: write B, KiB, MiB or GiB", select(3, size.parse("64")))
  end)

  it("refuses everything else", function()
    for _, value in ipairs {
      -1, 1.5, 0 / 0, 1 / 0, 2 ^ 60, "", "KiB", "-1KiB", "1 KiB", "1.KiB", "0.3B", "1.0001KiB",
      "9999999999999999B", "9999999GiB", true, {},
    } do
      local bytes, code, detail = size.parse(value)
      assert.is_nil(bytes, tostring(value))
      assert.are.equal("invalid", code)
      assert.are.equal('must be a size such as "64KiB" or a whole number of bytes', detail)
    end
  end)

  it("writes what it reads", function()
    for text, bytes in pairs { ["0B"] = 0, ["8000B"] = 8000, ["8KiB"] = 8192, ["50MiB"] = 52428800,
      ["3GiB"] = 3221225472 } do
      assert.are.equal(text, size.format(bytes))
    end
  end)
end)
