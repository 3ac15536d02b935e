--- Lua values of the configuration to raw JSON: members in the order of their names, so that the
-- same configuration always gives the same bytes, and every number with all of its digits. Pure.

local cjson = require "cjson.safe"
local sorted = require "perilune.sorted"

local json = {}

local MAX_DEPTH = 32
local MAX_NODES = 10000
local MAX_EXACT_INTEGER = 2 ^ 53

local UTF8_SEQUENCES = { -- RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF
  "^[\194-\223][\128-\191]()", "^\224[\160-\191][\128-\191]()",
  "^[\225-\236\238\239][\128-\191][\128-\191]()", "^\237[\128-\159][\128-\191]()",
  "^\240[\144-\191][\128-\191][\128-\191]()",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]()", "^\244[\128-\143][\128-\191][\128-\191]()",
}

local function is_utf8(text)
  local position = text:find("[\128-\255]")
  while position do
    local after
    for _, sequence in ipairs(UTF8_SEQUENCES) do
      after = after or text:match(sequence, position)
    end
    if not after then return false end
    position = text:find("[\128-\255]", after)
  end
  return true
end

--- The shortest form that reads back as the same number (cjson would keep 14 digits only).
local function encode_number(number)
  if number ~= number or number == math.huge or number == -math.huge then
    return nil, "holds a number that is not finite"
  end
  if number % 1 == 0 and math.abs(number) <= MAX_EXACT_INTEGER then
    return ("%.0f"):format(number)
  end
  for digits = 14, 16 do
    local text = ("%." .. digits .. "g"):format(number)
    if tonumber(text) == number then return text end
  end
  return ("%.17g"):format(number)
end

local function encode_string(text)
  if not is_utf8(text) then return nil, "holds a string that is not valid UTF-8" end
  return cjson.encode(text)
end

local encode_value

local function encode_list(list, depth, budget)
  local parts = {}
  for position = 1, #list do
    local text, detail = encode_value(list[position], depth, budget)
    if not text then return nil, detail end
    parts[position] = text
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function encode_object(object, depth, budget)
  local parts = {}
  for position, key in ipairs(sorted.keys(object)) do
    local name, detail = encode_string(key)
    local text
    if name then text, detail = encode_value(object[key], depth, budget) end
    if not text then return nil, detail end
    parts[position] = name .. ":" .. text
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Whether a table's keys are all strings ("object"), exactly 1..n ("list"), or nothing JSON knows.
local function shape_of(value)
  local numbers, strings, highest = 0, 0, 0
  for key in pairs(value) do
    if type(key) == "string" then
      strings = strings + 1
    elseif type(key) == "number" and key >= 1 and key % 1 == 0 then
      numbers, highest = numbers + 1, math.max(highest, key)
    else
      return nil, "holds a table with a key that is neither a string nor a position"
    end
  end
  if numbers == 0 then return "object" end
  if strings > 0 then return nil, "holds a table with both named fields and list items" end
  if highest ~= numbers then return nil, "holds a list with a hole in it" end
  return "list"
end

local function encode_table(value, depth, budget)
  if depth >= MAX_DEPTH then
    return nil, ("is nested more than %d levels deep"):format(MAX_DEPTH)
  end
  local shape, detail = shape_of(value)
  if not shape then return nil, detail end
  local encode = shape == "list" and encode_list or encode_object
  return encode(value, depth + 1, budget)
end

function encode_value(value, depth, budget)
  budget.nodes = budget.nodes + 1
  if budget.nodes > budget.max then
    return nil, ("holds more than %d values"):format(budget.max)
  end
  local kind = type(value)
  if kind == "table" then return encode_table(value, depth, budget) end
  if kind == "string" then return encode_string(value) end
  if kind == "number" then return encode_number(value) end
  if kind == "boolean" then return tostring(value) end
  if value == cjson.null then return "null" end
  if cjson.empty_array ~= nil and value == cjson.empty_array then return "[]" end
  return nil, ("holds a %s, which has no JSON form"):format(kind)
end

--- The JSON text of a Lua value. An empty table is {}.
-- @param value
-- @tparam[opt] number max_nodes how many values it may hold; for configurations there is a limit
-- @treturn[1] string raw JSON
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function json.encode(value, max_nodes)
  local text, detail = encode_value(value, 0, { nodes = 0, max = max_nodes or MAX_NODES })
  if text then return text end
  return nil, "invalid", detail
end

return json
