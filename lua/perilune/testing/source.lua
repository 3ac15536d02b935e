--- A configuration that is given as a table, as the text of gateway.lua: it is loaded and checked
-- like any other. Pure.

local given = require "perilune.testing.given"
local sorted = require "perilune.sorted"

local source = {}

local MAX_DEPTH = 40

local write

local function write_table(value, where, depth)
  if depth > MAX_DEPTH then given.fail("%s: is nested too deeply", where) end
  local items = {}
  for _, pair in ipairs(sorted.pairs(value)) do
    local key = pair[1]
    local name = type(key) == "number" and ("[%.17g]"):format(key) or ("[%q]"):format(tostring(key))
    items[#items + 1] = name .. "=" .. write(pair[2], where .. name, depth + 1)
  end
  return "{" .. table.concat(items, ",\n") .. "}"
end

function write(value, where, depth)
  local kind = type(value)
  if kind == "table" then return write_table(value, where, depth) end
  if kind == "string" then return ("%q"):format(value) end
  if kind == "number" then return ("%.17g"):format(value) end
  if kind == "boolean" then return tostring(value) end
  return given.fail("%s: a %s cannot be given in a table; give the configuration as a text", where,
    kind)
end

--- The text of a configuration.
-- @tparam table config
-- @treturn string
function source.of(config)
  return "return " .. write(config, "config", 1) .. "\n"
end

return source
