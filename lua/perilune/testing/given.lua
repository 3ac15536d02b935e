--- What specs give to the kit, checked: keys, durations, types. Mistakes are errors that point at
-- the line of the spec, whatever the depth they are found at.

local duration = require "perilune.duration"
local sorted = require "perilune.sorted"
local wording = require "perilune.schema.wording"

local given = {}

-- The innermost caller that is not of this library, as seen by given.fail.
local function level_of_spec()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 0 end
    local ours = info.source:find("^=perilune%.") or info.source:find("^@lua/perilune/")
    if info.what ~= "C" and not ours then return level - 1 end
    level = level + 1
  end
end

--- Raises an error at the line of the spec.
-- @tparam string text as for string.format
function given.fail(text, ...)
  error(select("#", ...) > 0 and text:format(...) or text, level_of_spec())
end

--- A value in a message: strings in quotes, cut.
function given.show(value)
  if type(value) == "string" then return ("%q"):format(value:sub(1, 60)) end
  return type(value) == "table" and "a table" or tostring(value)
end

--- Raises an error unless the value is of that type, or nil where `optional`.
function given.type(what, value, wanted, optional)
  if type(value) == wanted or (optional and value == nil) then return value end
  return given.fail("%s: a %s is expected, not %s", what, wanted, given.show(value))
end

--- Raises an error for keys that are not known.
-- @tparam string what
-- @tparam table options
-- @tparam table known key -> true
function given.keys(what, options, known)
  for key in pairs(options) do
    if not known[key] then
      return given.fail("%s: there is no %s; %s", what, given.show(key),
        wording.hint(key, sorted.keys(known)))
    end
  end
end

--- A duration with its unit, in milliseconds.
function given.ms(what, value)
  local ms, code, message = duration.parse(value)
  if ms then return ms end
  return given.fail("%s: %s %s", what, given.show(value), message or code)
end

--- The same, or 0 for nil.
function given.optional_ms(what, value)
  return value ~= nil and given.ms(what, value) or 0
end

--- Headers: names and values that HTTP can carry; a value may be a number.
-- @treturn {table,...} array of { name, value }, in the order of the names
function given.headers(what, headers)
  local list = {}
  for _, pair in ipairs(sorted.pairs(given.type(what, headers, "table", true) or {})) do
    local name, value = pair[1], pair[2]
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
      given.fail("%s: %s is no name of a header", what, given.show(name))
    end
    if type(value) == "number" then value = ("%.14g"):format(value) end
    if type(value) ~= "string" or value:find("[%z\1-\8\10-\31\127]") then
      given.fail("%s: %s cannot be the value of %s", what, given.show(value), name)
    end
    list[#list + 1] = { name, value }
  end
  return list
end

--- A set of words.
function given.set(...)
  local set = {}
  for _, word in ipairs { ... } do set[word] = true end
  return set
end

return given
