--- Lines of large files.

local lines = require "perilune.simulate.lines"

--- All lines of a text that is read in chunks of so many bytes.
local function all(text, chunk_bytes, max_bytes)
  local position, list = 1, {}
  local next_line = lines.of(function()
    if position > #text then return nil end
    local chunk = text:sub(position, position + chunk_bytes - 1)
    position = position + chunk_bytes
    return chunk
  end, max_bytes)
  for line in next_line do list[#list + 1] = line end
  return list
end

local function all_of(text, max_bytes)
  local position, list = 0, {}
  local next_line = lines.of(function()
    position = position + 3
    local chunk = text:sub(position - 2, position)
    return chunk ~= "" and chunk or nil
  end, max_bytes)
  local line = next_line()
  while line ~= nil do
    list[#list + 1] = line
    line = next_line()
  end
  return list
end

describe("perilune.simulate.lines", function()
  it("gives lines without their ends, however the chunks lie", function()
    for chunk_bytes = 1, 12 do
      assert.same({ "one", "", "three", "four" }, all("one\n\nthree\r\nfour", chunk_bytes))
      assert.same({ "one" }, all("one\n", chunk_bytes))
    end
    assert.same({}, all("", 1))
  end)

  it("gives false for a line that is too long, and goes on behind it", function()
    assert.same({ "12345", false, "ok", false }, all_of("12345\n123456\nok\n12345678901", 5))
    assert.same({ false, "x" }, all_of(("y"):rep(1000) .. "\nx", 5))
    assert.same({ false }, all_of(("y"):rep(1000), 5))
  end)
end)
