local date = require "perilune.date"

local DAY_MS = 86400000

local function text_of(wall_ms)
  local at = assert(date.fields(wall_ms))
  return ("%04d-%02d-%02dT%02d:%02d:%02d %d"):format(at.year, at.month, at.day, at.hour, at.minute,
    at.second, at.weekday)
end

describe("perilune.date", function()
  it("splits a time into its fields", function()
    for wall_ms, expected in pairs {
      [0] = "1970-01-01T00:00:00 4",
      [-1] = "1969-12-31T23:59:59 3",
      [951782400000] = "2000-02-29T00:00:00 2",
      [951868800000] = "2000-03-01T00:00:00 3",
      [1767614400000] = "2026-01-05T12:00:00 1",
      [1750000000999] = "2025-06-15T15:06:40 7",
      [4107542399999] = "2100-02-28T23:59:59 7",
      [4107542400000] = "2100-03-01T00:00:00 1", -- 2100 is no leap year
      [-62135596800000] = "0001-01-01T00:00:00 1",
      [253402300799999] = "9999-12-31T23:59:59 5",
    } do
      assert.equal(expected, text_of(wall_ms))
    end
  end)

  it("counts the days of 800 years as the system's clock does", function()
    for day = -146097, 146097, 97 do
      local wall_ms = day * DAY_MS + day % 1000 * 86399
      local expected = os.date("!*t", math.floor(wall_ms / 1000))
      assert.equal(("%04d-%02d-%02dT%02d:%02d:%02d %d"):format(expected.year, expected.month,
        expected.day, expected.hour, expected.min, expected.sec, (expected.wday + 5) % 7 + 1),
        text_of(wall_ms))
    end
  end)

  it("is the reverse of wall_ms", function()
    for day = -146097, 146097, 97 do
      local wall_ms = day * DAY_MS + day % 1000 * 86000
      local fields = date.fields(wall_ms)
      assert.equal(math.floor(wall_ms / 1000) * 1000, date.wall_ms(fields.year, fields.month,
        fields.day, fields.hour, fields.minute, fields.second))
    end
  end)

  it("refuses what is no time", function()
    for _, value in ipairs { 0 / 0, 1 / 0, -1 / 0, 253402300800000, -62135596800001 } do
      assert.same({ nil, "invalid", "the time must be within the years 1 to 9999" },
        { date.fields(value) })
    end
    assert.same({ nil, "invalid", "a number of milliseconds is expected, not a string" },
      { date.fields("0") })
    assert.same({ nil, "invalid", "a number of milliseconds is expected, not a nil" },
      { date.fields() })
  end)
end)
