--- Tables in an order of their own: the same configuration always gives the same messages and
-- bytes, whatever order `pairs` has. Pure.

local sorted = {}

local ORDERED = { number = true, string = true }

local function before(a, b)
  local type_a, type_b = type(a), type(b)
  if type_a ~= type_b then return type_a < type_b end
  if ORDERED[type_a] then return a < b end
  return tostring(a) < tostring(b)
end

--- The keys of a table.
-- @tparam table map keys of any type
-- @treturn table array, by type: numbers before strings, both in their order
function sorted.keys(map)
  local keys = {}
  for key in pairs(map) do
    table.insert(keys, key)
  end
  table.sort(keys, before)
  return keys
end

--- The entries of a table.
-- @tparam table map
-- @treturn {table,...} array of { key, value }, in the order of the keys
function sorted.pairs(map)
  local entries = sorted.keys(map)
  for position, key in ipairs(entries) do
    entries[position] = { key, map[key] }
  end
  return entries
end

return sorted
