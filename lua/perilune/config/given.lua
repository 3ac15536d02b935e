--- What the operator wrote, beside what is left of it after the check: a value that was refused is
-- absent from the checked configuration, but it was given, and need not be missed again. Pure.

local given = {}

--- The value at a path.
-- @param value the whole configuration, of any type
-- @tparam table path
-- @return nil when there is none
function given.at(value, path)
  if not path.parent then return value end
  local parent = given.at(value, path.parent)
  if type(parent) ~= "table" then return nil end
  return parent[path.key]
end

return given
