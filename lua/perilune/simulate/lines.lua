--- Reads a file line by line, with a limit on the length of a line. Pure, given a reader.

local lines = {}

local MAX_LINE_BYTES = 1024 * 1024
local CHUNK_BYTES = 64 * 1024

--- Lines of a file.
-- @tparam function read read(count) -> a text of at most so many bytes, nil at the end
-- @tparam[opt] number max_bytes of a line
-- @treturn function next() gives a line without its end, false for one that is too long, nil at the
-- end; an unfinished last line counts
function lines.of(read, max_bytes)
  max_bytes = max_bytes or MAX_LINE_BYTES
  local rest, position, is_skipping, is_at_end = "", 1, false, false
  return function()
    while not is_at_end do
      local stop = rest:find("\n", position, true)
      if stop then
        local line = rest:sub(position, stop - 1)
        local is_whole = not is_skipping and #line <= max_bytes
        position, is_skipping = stop + 1, false
        return is_whole and (line:gsub("\r$", ""))
      end
      rest, position = rest:sub(position), 1
      if #rest > max_bytes then rest, is_skipping = "", true end
      local chunk = read(CHUNK_BYTES)
      is_at_end = chunk == nil
      rest = rest .. (chunk or "")
    end
    if is_skipping then
      is_skipping = false
      rest = ""
      return false
    end
    if rest == "" then return nil end
    local line = rest
    rest = ""
    return line
  end
end

return lines
