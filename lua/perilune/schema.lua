--- Schema: what policies/gateway.lua may hold, and the checker that reads it.
--
-- Types are plain data: a table with a `kind`, its bounds, and `required` or `default`. That makes
-- them readable from outside: the checker reads them, and a spec holds the reference configuration
-- to them (`each`, `bounds`). The kinds:
--
--     record   closed table of known keys, in the order in which they are checked
--     map      table of the operator's own names, all values of one type
--     list     values of one type, in order
--     boolean, integer, number, duration (gives milliseconds), size (gives bytes), choice
--     text     a string; `read(text)` checks it further and may give another value for it
--     either   one of two types, told apart by whether the value is a table
--     trigger  what calls for another try: a status or a word
--     json     any value with a JSON form (gives the raw text)
--
-- A path says where a value stands: { parent =, key = }, the root being the empty table. Values
-- that may be credentials are never repeated in a message.

local cjson = require "cjson.safe"
local classify = require "perilune.classify"
local duration = require "perilune.duration"
local route = require "perilune.route"
local size = require "perilune.size"
local url = require "perilune.url"

local schema = {}

local SHOWN_BYTES = 60       -- of a value that is repeated in a message
local MAX_NAME_BYTES = 64    -- providers, policies, routes' own names
local MAX_TEXT_BYTES = 256   -- models, paths, body fields
local MAX_HEADER_BYTES = 8192
local MAX_GUESSED_BYTES = 64 -- longer words are not compared for "did you mean"
local MAX_JSON_DEPTH = 32
local MAX_JSON_NODES = 10000
local MAX_EXACT_INTEGER = 2 ^ 53

-- Paths and values as text ------------------------------------------------------------------------

--- The path of a member.
-- @tparam table parent path
-- @param key string or number
-- @treturn table path
function schema.at(parent, key)
  return { parent = parent, key = key }
end

--- A path as it is shown: routes[2].targets[1].weight, providers["eu-west"].url.
-- @tparam table path
-- @treturn string "" for the root
function schema.path_text(path)
  if not path.parent then return "" end
  local before, key = schema.path_text(path.parent), path.key
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then
    return before == "" and key or before .. "." .. key
  end
  return before .. "[" .. schema.show(key) .. "]"
end

--- A value as it is shown in a message: short, on one line.
-- @param value
-- @treturn string
function schema.show(value)
  local kind = type(value)
  if kind == "string" then
    local cut = #value > SHOWN_BYTES and "..." or ""
    local text = value:sub(1, SHOWN_BYTES):gsub('["\\]', "\\%0")
    text = text:gsub("%c", function(char) return ("\\%03d"):format(char:byte()) end)
    return '"' .. text .. cut .. '"'
  end
  if kind == "number" then return ("%.14g"):format(value) end
  if kind == "boolean" or kind == "nil" then return tostring(value) end
  return "a " .. kind
end

local function got(type_of, value)
  if type_of.secret then
    return type(value) == "string" and "" or ", got a " .. type(value)
  end
  return ", got " .. schema.show(value)
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do
    table.insert(keys, key)
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

-- "Did you mean" ----------------------------------------------------------------------------------

--- How many insertions, deletions, replacements and swaps of neighbours lead from a to b.
local function edit_distance(a, b)
  local before_last, last, current = {}, {}, {}
  for column = 0, #b do
    last[column] = column
  end
  for row = 1, #a do
    current[0] = row
    for column = 1, #b do
      local cost = a:byte(row) == b:byte(column) and 0 or 1
      local best = math.min(last[column] + 1, current[column - 1] + 1, last[column - 1] + cost)
      local swapped = row > 1 and column > 1 and a:byte(row) == b:byte(column - 1)
        and a:byte(row - 1) == b:byte(column)
      if swapped then best = math.min(best, before_last[column - 2] + 1) end
      current[column] = best
    end
    before_last, last, current = last, current, before_last
  end
  return last[#b]
end

--- The known word that an unknown one was probably meant to be.
-- @tparam string word
-- @tparam {string,...} known
-- @treturn ?string nil when none is near: a third of the letters may differ
function schema.nearest(word, known)
  if #word > MAX_GUESSED_BYTES then return nil end
  local best, best_distance
  for _, candidate in ipairs(known) do
    local distance = edit_distance(word:lower(), candidate:lower())
    local allowed = math.max(1, math.floor(math.max(#word, #candidate) / 3))
    if distance <= allowed and (not best or distance < best_distance) then
      best, best_distance = candidate, distance
    end
  end
  return best
end

--- A hint to be put after the report of an unknown word.
-- @param word
-- @tparam {string,...} known
-- @treturn string 'did you mean "x"?', or the list of what is known
function schema.hint(word, known)
  local meant = type(word) == "string" and schema.nearest(word, known)
  if meant then return ('did you mean "%s"?'):format(meant) end
  return "known here: " .. table.concat(known, ", ")
end

-- Lua values to JSON ------------------------------------------------------------------------------

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
  for position, key in ipairs(sorted_keys(object)) do
    local name, detail = encode_string(key)
    local text
    if name then text, detail = encode_value(object[key], depth, budget) end
    if not text then return nil, detail end
    parts[position] = name .. ":" .. text
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Whether a table's keys are all strings ("object"), exactly 1..n ("list"), or nothing JSON knows.
local function json_shape(value)
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
  if depth >= MAX_JSON_DEPTH then
    return nil, ("is nested more than %d levels deep"):format(MAX_JSON_DEPTH)
  end
  local shape, detail = json_shape(value)
  if not shape then return nil, detail end
  local encode = shape == "list" and encode_list or encode_object
  return encode(value, depth + 1, budget)
end

function encode_value(value, depth, budget)
  budget.nodes = budget.nodes + 1
  if budget.nodes > MAX_JSON_NODES then
    return nil, ("holds more than %d values"):format(MAX_JSON_NODES)
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

--- The JSON text of a Lua value; members in the order of their names, so that the same
-- configuration always gives the same bytes. An empty table is {}.
-- @param value
-- @treturn[1] string raw JSON
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function schema.json(value)
  local text, detail = encode_value(value, 0, { nodes = 0 })
  if text then return text end
  return nil, "invalid", detail
end

-- The checker -------------------------------------------------------------------------------------

-- How a bound is written, by kind; numbers are written as they are.
local FORMAT = {
  duration = duration.format,
  size = size.format,
}
local NOUN = {
  integer = "a whole number",
  number = "a number",
  duration = "a duration",
  size = "a size",
}

--- The bounds of a type as the reference configuration names them.
-- @tparam table type_of
-- @treturn string such as "0 to 256", ">= 0", "1ms to 10m", "one of error, warn"; "" without bounds
function schema.bounds(type_of)
  if type_of.kind == "choice" then return table.concat(type_of.choices, ", ") end
  if type_of.kind == "boolean" then return "true or false" end
  if not NOUN[type_of.kind] then return "" end
  local format = FORMAT[type_of.kind] or function(number) return ("%.14g"):format(number) end
  if not type_of.max then return ">= " .. format(type_of.min) end
  return format(type_of.min) .. " to " .. format(type_of.max)
end

local function within(type_of, number)
  return number >= type_of.min and number <= (type_of.max or MAX_EXACT_INTEGER)
end

local function refuse_number(type_of, value, path, report)
  local range = schema.bounds(type_of)
  local from = type_of.max and " from " or " "
  report(path, ("must be %s%s%s%s"):format(NOUN[type_of.kind], from, range, got(type_of, value)))
end

local function check_number(type_of, value, path, report)
  local whole = type_of.kind ~= "integer" or type(value) == "number" and value % 1 == 0
  if type(value) == "number" and whole and within(type_of, value) then return value end
  refuse_number(type_of, value, path, report)
end

--- Durations and sizes: text with a unit.
local function check_quantity(parse)
  return function(type_of, value, path, report)
    local number, code, detail = parse(value)
    if not number then
      report(path, code == "ambiguous" and detail or detail .. got(type_of, value))
    elseif not within(type_of, number) then
      refuse_number(type_of, value, path, report)
    else
      return type_of.whole and math.ceil(number) or number
    end
  end
end

local CHECK = {
  integer = check_number,
  number = check_number,
  duration = check_quantity(duration.parse),
  size = check_quantity(size.parse),
}

function CHECK.boolean(type_of, value, path, report)
  if type(value) == "boolean" then return value end
  report(path, "must be true or false" .. got(type_of, value))
end

function CHECK.choice(type_of, value, path, report)
  for _, choice in ipairs(type_of.choices) do
    if value == choice then return value end
  end
  local wanted = {}
  for position, choice in ipairs(type_of.choices) do
    wanted[position] = ('"%s"'):format(choice)
  end
  report(path, ("must be %s%s"):format(table.concat(wanted, ", "), got(type_of, value)))
end

function CHECK.text(type_of, value, path, report)
  if type(value) ~= "string" then
    return report(path, "must be a string" .. got(type_of, value))
  end
  local min, max = type_of.min or 1, type_of.max or MAX_TEXT_BYTES
  if #value < min then return report(path, "must not be empty") end
  if #value > max then
    return report(path, ("must be at most %d bytes long, got %d"):format(max, #value))
  end
  if not type_of.read then return value end
  local result, _, detail = type_of.read(value)
  if result == nil then
    report(path, detail .. got(type_of, value))
  end
  return result
end

function CHECK.json(_, value, path, report)
  local text, _, detail = schema.json(value)
  if text then return text end
  report(path, detail)
end

function CHECK.trigger(type_of, value, path, report)
  if type(value) == "number" then
    if value % 1 == 0 and value >= type_of.min and value <= type_of.max then return value end
    return report(path, ("must be a status from %d to %d%s"):format(
      type_of.min, type_of.max, got(type_of, value)))
  end
  for _, word in ipairs(type_of.words) do
    if value == word then return value end
  end
  report(path, ("must be a status, such as 503, or a known word%s: %s"):format(
    got(type_of, value), schema.hint(value, type_of.words)))
end

function CHECK.either(type_of, value, path, report)
  local chosen = type(value) == "table" and type_of.many or type_of.one
  if type(value) ~= "table" and type(value) ~= "string" then
    return report(path, "must be a string or a list of strings" .. got(type_of, value))
  end
  return schema.check(chosen, value, path, report)
end

--- The number of items, when the keys are exactly 1..n.
local function list_length(value, path, report)
  local count, highest = 0, 0
  for _, key in ipairs(sorted_keys(value)) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      report(schema.at(path, key), "is not a position: this is a list")
      return nil
    end
    count, highest = count + 1, key
  end
  if count == highest then return count end
  local hole = 1
  while value[hole] ~= nil do
    hole = hole + 1
  end
  report(schema.at(path, hole), "is nil, with items after it: a list must not have holes")
  return nil
end

local function count_fits(type_of, count, noun, path, report)
  if count < (type_of.min or 0) then
    report(path, "must not be empty")
  elseif count > type_of.max then
    report(path, ("must have at most %d %s, got %d"):format(type_of.max, noun, count))
  else
    return true
  end
  return false
end

function CHECK.list(type_of, value, path, report)
  if type(value) ~= "table" then
    return report(path, "must be a list" .. got(type_of, value))
  end
  local count = list_length(value, path, report)
  if not count or not count_fits(type_of, count, "items", path, report) then return nil end
  local result, seen = {}, {}
  for position = 1, count do
    local item_path = schema.at(path, position)
    local item = schema.check(type_of.item, value[position], item_path, report)
    if type(item) ~= "table" and item ~= nil and seen[item] then
      report(item_path, "is in the list already" .. got(type_of.item, value[position]))
    end
    if item ~= nil then seen[item] = true end
    result[position] = item == nil and schema.BROKEN or item
  end
  return result
end

function CHECK.map(type_of, value, path, report)
  if type(value) ~= "table" then
    return report(path, "must be a table" .. got(type_of, value))
  end
  local keys = sorted_keys(value)
  if not count_fits(type_of, #keys, "entries", path, report) then return nil end
  local result, seen = {}, {}
  for _, key in ipairs(keys) do
    local entry_path = schema.at(path, key)
    local name, _, detail = type_of.name(key)
    if not name then
      report(entry_path, detail)
    elseif seen[name] then
      report(entry_path, "is given twice: names are compared without case")
    else
      seen[name] = true
      result[key] = schema.check(type_of.value, value[key], entry_path, report)
    end
  end
  return result
end

local function report_unknown_keys(type_of, value, path, report)
  local known, is_known = {}, {}
  for position, field in ipairs(type_of.fields) do
    known[position], is_known[field[1]] = field[1], true
  end
  for _, key in ipairs(sorted_keys(value)) do
    if not is_known[key] then
      report(schema.at(path, key), "unknown key: " .. schema.hint(key, known))
    end
  end
end

local function report_missing(field_type, path, report)
  local reason = type(field_type.required) == "string" and ": " .. field_type.required or ""
  report(path, "is required" .. reason)
end

function CHECK.record(type_of, value, path, report)
  if type(value) ~= "table" then
    return report(path, "must be a table" .. got(type_of, value))
  end
  local result = {}
  for _, field in ipairs(type_of.fields) do
    local name, field_type = field[1], field[2]
    local field_path, given = schema.at(path, name), value[name]
    if given == nil then given = field_type.default end
    if given ~= nil then
      result[name] = schema.check(field_type, given, field_path, report)
    elseif field_type.required then
      report_missing(field_type, field_path, report)
    end
  end
  report_unknown_keys(type_of, value, path, report)
  return result
end

--- Stands in checked lists for an item that was refused, so that the others keep their positions.
schema.BROKEN = {}

--- Check a value against a type. Changes nothing; the result shares no table with `value`.
-- @tparam table type_of
-- @param value
-- @tparam table path where the value stands
-- @tparam function report report(path, message) for each problem
-- @return the value with defaults filled in, durations as milliseconds, sizes as bytes; without
-- what was refused (nil in records and maps, `schema.BROKEN` in lists)
function schema.check(type_of, value, path, report)
  return CHECK[type_of.kind](type_of, value, path, report)
end

local function each_member(type_of, path, visit)
  if type_of.kind == "record" then
    for _, field in ipairs(type_of.fields) do
      schema.each(field[2], visit, schema.at(path, field[1]))
    end
  elseif type_of.kind == "map" then
    schema.each(type_of.value, visit, schema.at(path, "*"))
  elseif type_of.kind == "list" then
    schema.each(type_of.item, visit, schema.at(path, 1))
  end
end

--- Visit a type and every type in it.
-- @tparam table type_of
-- @tparam function visit visit(path, type); a map's entries have the key "*", a list's items 1
-- @tparam[opt] table path of `type_of`
function schema.each(type_of, visit, path)
  path = path or {}
  visit(path, type_of)
  each_member(type_of, path, visit)
end

-- The gateway's own types -------------------------------------------------------------------------

local function record(fields) return { kind = "record", fields = fields } end

local function list(item, min, max) return { kind = "list", item = item, min = min, max = max } end

local function map(name, value, min, max)
  return { kind = "map", name = name, value = value, min = min, max = max }
end

local function with(type_of, extra)
  local copy = {}
  for key, value in pairs(type_of) do
    copy[key] = value
  end
  for key, value in pairs(extra) do
    copy[key] = value
  end
  return copy
end

local function integer(min, max, default)
  return { kind = "integer", min = min, max = max, default = default }
end

local function bytes(min, max, default)
  return { kind = "size", min = size.parse(min), max = size.parse(max), default = default }
end

--- Whole milliseconds, rounded up: where the C core arms a timer, 0 would mean "no limit".
local function span(min, max, default)
  return {
    kind = "duration", min = duration.parse(min), max = duration.parse(max), default = default,
    whole = true,
  }
end

local function boolean(default) return { kind = "boolean", default = default } end

--- A reader for `text` that refuses what does not match a Lua pattern.
local function matching(pattern, detail)
  return function(text)
    if type(text) == "string" and text:find(pattern) then return text end
    return nil, "invalid", detail
  end
end

local printable = matching("^%C+$", "must not hold control characters")
local provider_name = matching("^[%w._-]+$", "is a name with other than letters, digits, - _ .")

local function named(read)
  return function(key)
    if type(key) ~= "string" or key == "" then return nil, "invalid", "is not a name" end
    if #key > MAX_NAME_BYTES then
      return nil, "invalid", ("is a name of more than %d bytes"):format(MAX_NAME_BYTES)
    end
    return read(key)
  end
end

-- The gateway frames messages itself; these would contradict it (RFC 9110 7.6.1, RFC 9112 6).
local FRAMING = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true,
  ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function header_name(name)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    return nil, "invalid", "is not a valid header name"
  end
  return name:lower()
end

local function own_header_name(name)
  local lower, code, detail = header_name(name)
  if not lower then return nil, code, detail end
  if FRAMING[lower] then return nil, "invalid", "is a header that the gateway sets itself" end
  return lower
end

local function header_value(text)
  if text:find("[%z\1-\8\10-\31\127]") then
    return nil, "invalid", "must not hold CR, LF or other control characters"
  end
  return text
end

local HEADER_VALUE = {
  kind = "text", min = 0, max = MAX_HEADER_BYTES, read = header_value, secret = true,
}
local CREDENTIAL = with(HEADER_VALUE, { min = 1 })
local FILE = { kind = "text", max = 4096, read = printable }
local MODEL = { kind = "text", read = printable }
local FIELD_NAME = { kind = "text", read = printable }

local MODEL_PATTERN = {
  kind = "text",
  read = function(text)
    local kind, code, detail = route.pattern(text)
    if not kind then return nil, code, detail end
    return printable(text)
  end,
}

local function path_prefix(text)
  if not text:find("^/[^%c%s?#]*$") then
    return nil, "invalid", 'must be a path: start with "/", without spaces, "?" or "#"'
  end
  if text:find("*", 1, true) then
    return nil, "invalid", 'must not hold "*": it matches everything below it anyway'
  end
  return text
end

--- A provider's timeouts have defaults; a target's own stand over its provider's.
local function timeouts(defaults)
  return record {
    { "connect", span("1ms", "10m", defaults.connect) },
    { "tls", span("1ms", "10m", defaults.tls) },
    { "head", span("0ms", "24h", defaults.head) },
    { "first_token", span("0ms", "24h", defaults.first_token) },
    { "idle", span("0ms", "24h", defaults.idle) },
    { "try", span("0ms", "24h", defaults.try) },
  }
end

local LIMITS = record {
  { "request_line", bytes("512B", "64KiB", "8KiB") },
  { "head", bytes("1KiB", "1MiB", "64KiB") },
  { "header_count", integer(1, 1000, 100) },
  { "body", bytes("1KiB", "256MiB", "50MiB") },
  { "connections", integer(1, 1000000, 10000) },
  { "head_timeout", span("10ms", "1h", "10s") },
  { "body_idle", span("10ms", "1h", "30s") },
  { "keepalive_idle", span("10ms", "1h", "75s") },
  { "write_stall", span("10ms", "1h", "30s") },
}

local PROVIDER = record {
  { "api", { kind = "choice", choices = { "openai" }, default = "openai" } },
  { "url", { kind = "text", max = 2048, read = url.parse, secret = true, required = true } },
  { "key", CREDENTIAL },
  { "auth", { kind = "choice", choices = { "passthrough" } } },
  { "headers", with(map(own_header_name, HEADER_VALUE, 0, 64), { default = {} }) },
  { "tls", record {
    { "verify", boolean(true) },
    { "ca", FILE },
    { "server_name", {
      kind = "text",
      read = function(text)
        if url.is_host(text) then return text end
        return nil, "invalid", "must be a host name or an IPv4 address"
      end,
    } },
  } },
  { "connections", with(record {
    { "idle", integer(0, 4096, 64) },
    { "idle_timeout", span("10ms", "1h", "60s") },
  }, { default = {} }) },
  { "timeouts", with(timeouts {
    connect = "5s", tls = "5s", head = "5m", first_token = "5m", idle = "60s", try = "0ms",
  }, { default = {} }) },
}

local TARGET = record {
  { "provider", { kind = "text", max = MAX_NAME_BYTES, required = true } },
  { "model", MODEL },
  { "priority", integer(0, 1000, 0) },
  { "weight", { kind = "number", min = 0, default = 1 } },
  { "headers", with(record {
    { "set", with(map(own_header_name, HEADER_VALUE, 0, 64), { default = {} }) },
    { "remove", with(list({ kind = "text", read = own_header_name }, 0, 64), { default = {} }) },
  }, { default = {} }) },
  { "body", with(record {
    { "set", with(map(named(printable), { kind = "json" }, 0, 64), { default = {} }) },
    { "unset", with(list(FIELD_NAME, 0, 64), { default = {} }) },
  }, { default = {} }) },
  { "timeouts", with(timeouts {}, { default = {} }) },
}

--- The words a list of triggers may hold. What perilune.retry can never act on is left out.
local function trigger_words()
  local words = { ["4xx"] = true, ["5xx"] = true }
  for name in pairs(classify.CLASSES) do
    words[name] = true
  end
  for name in pairs(classify.GROUPS) do
    words[name] = true
  end
  words.ok, words.timeout_deadline = nil, nil
  return sorted_keys(words)
end

local RETRY = record {
  { "attempts", integer(1, 64, 3) },
  { "per_priority", integer(1, 100) },
  { "on", list({ kind = "trigger", min = 300, max = 599, words = trigger_words() }, 0, 64) },
  { "backoff", with(record {
    { "base", { kind = "duration", min = 0, max = 3600000, default = "100ms" } },
    { "max", { kind = "duration", min = 0, max = 3600000, default = "10s" } },
    { "floor", { kind = "duration", min = 0, max = 3600000, default = "25ms" } },
  }, { default = {} }) },
}

local POLICY_NAME = matching("^[a-z0-9_-]+$", "must be made of a-z, 0-9, _ and - only")
local ROUTE_NAME = matching(
  '^[^%c%s"\\\128-\255]+$', "must not hold spaces, quotes, backslashes or non-ASCII characters")
local METHOD = matching("^[A-Z]+$", "must be in capital letters")

local ROUTE = record {
  { "name", { kind = "text", max = MAX_NAME_BYTES, read = ROUTE_NAME } },
  { "match", with(record {
    { "model", { kind = "either", one = MODEL_PATTERN, many = list(MODEL_PATTERN, 1, 256) } },
    { "path", { kind = "text", read = path_prefix } },
    { "method", { kind = "text", max = 16, read = METHOD } },
    { "headers", map(header_name, HEADER_VALUE, 0, 16) },
  }, { default = {} }) },
  { "targets", with(list(TARGET, 1, 64), { required = true }) },
  { "policy", { kind = "text", max = MAX_NAME_BYTES, read = POLICY_NAME, default = "fallback" } },
  { "retry", with(RETRY, { default = {} }) },
  { "deadline", span("1ms", "24h", "10m") },
  { "models", with(list(MODEL, 0, 256), { default = {} }) },
}

--- The type of the table that gateway.lua returns.
schema.GATEWAY = record {
  { "listen", with(record {
    { "address", { kind = "text", read = url.address, default = "127.0.0.1:8080" } },
    { "tls", record {
      { "cert", with(FILE, { required = "the certificate chain, PEM" }) },
      { "key", with(FILE, { required = "the private key of the certificate, PEM" }) },
    } },
  }, { default = {} }) },
  { "admin", with(record {
    { "address", { kind = "text", read = url.address, default = "127.0.0.1:9901" } },
    { "token", CREDENTIAL },
  }, { default = {} }) },
  { "workers", integer(0, 256, 0) },
  { "drain", span("0ms", "1h", "30s") },
  { "log_level", {
    kind = "choice", choices = { "error", "warn", "info", "debug" }, default = "info",
  } },
  { "response_headers", boolean(true) },
  { "limits", with(LIMITS, { default = {} }) },
  { "providers", with(map(named(provider_name), PROVIDER, 1, 256), { required = true }) },
  { "routes", with(list(ROUTE, 1, 1024), { required = true }) },
}

return schema
