--- JSON for the simulator: strict reading of one object, writing by pieces.
-- lua-cjson writes an empty table as {}, so arrays and objects are put together here from raw JSON
-- and lua-cjson only encodes strings and numbers.
local cjson = require "cjson.safe"
local byte, find, gsub, rep, sub = string.byte, string.find, string.gsub, string.rep, string.sub
local concat = table.concat

local json = { null = cjson.null }

local MAX_DEPTH = 200
local MAX_CHARACTER_BYTES = 4
local MAX_KEPT = 1024
local REPLACEMENT = "\239\191\189" -- U+FFFD
local TAIL = "[\128-\191]"
local AFTER_LEAD = {} -- what may follow a lead byte: well-formed UTF-8, Unicode table 3-7
for lead = 194, 223 do AFTER_LEAD[lead] = "^" .. TAIL end
for lead = 225, 239 do AFTER_LEAD[lead] = "^" .. TAIL .. TAIL end
for lead = 241, 243 do AFTER_LEAD[lead] = "^" .. TAIL .. TAIL .. TAIL end
AFTER_LEAD[224] = "^[\160-\191]" .. TAIL
AFTER_LEAD[237] = "^[\128-\159]" .. TAIL
AFTER_LEAD[240] = "^[\144-\191]" .. TAIL .. TAIL
AFTER_LEAD[244] = "^[\128-\143]" .. TAIL .. TAIL

local codec = cjson.new()
codec.decode_invalid_numbers(false)
codec.decode_max_depth(MAX_DEPTH)

-- A byte beyond ASCII and the continuation bytes after it, mended; false when they are a character.
local function mend_piece(piece)
  local pattern, good_bytes = AFTER_LEAD[byte(piece)], 0
  if pattern then
    local _, last = find(piece, pattern, 2)
    if last == #piece then return false end
    good_bytes = last or 0
  end
  return sub(piece, 1, good_bytes) .. rep(REPLACEMENT, #piece - good_bytes)
end

-- Asked by gsub for each piece. Keeps what comes often; the number of short pieces is bounded, but
-- there is no need to keep a million of them.
local mended = {}
local mended_count = 0

local function look_up(_, piece)
  local result = mend_piece(piece)
  if #piece <= MAX_CHARACTER_BYTES and mended_count < MAX_KEPT then
    mended[piece] = result
    mended_count = mended_count + 1
  end
  return result
end

setmetatable(mended, { __index = look_up })

--- Replace bytes that are not UTF-8 by U+FFFD.
function json.mend(text)
  return (gsub(text, "[\128-\255][\128-\191]*", mended))
end

--- Decode a text that must be one JSON object.
-- @treturn[1] table JSON null is json.null
-- @treturn[2] nil
-- @treturn[2] string "malformed"
-- @treturn[2] string why
function json.decode_object(text)
  local start = find(text, "[^ \t\r\n]")
  if not start then return nil, "malformed", "the body is empty" end
  if byte(text, start) ~= 123 then return nil, "malformed", "expected a JSON object" end
  local value, detail = codec.decode(json.mend(text))
  if value == nil then return nil, "malformed", detail end
  return value
end

--- A string as JSON.
json.string = codec.encode

--- A finite number as JSON.
json.number = codec.encode

--- An array of raw JSON texts.
function json.array(items)
  return "[" .. concat(items, ",") .. "]"
end

--- An object from `{ {key, raw}, ... }`, in that order.
function json.object(members)
  local pieces = {}
  for index = 1, #members do
    pieces[index] = json.string(members[index][1]) .. ":" .. members[index][2]
  end
  return "{" .. concat(pieces, ",") .. "}"
end

return json
