--- Exact percentiles. Pure.

local percentiles = {}

--- The values below which so many percent of a list lie, by nearest rank: each is one of the list.
-- @tparam {number,...} list sorted here, in place
-- @tparam {number,...} percents within 0..100
-- @treturn {number,...} one for each; nil ones when the list is empty
function percentiles.of(list, percents)
  table.sort(list)
  local result = {}
  for position, percent in ipairs(percents) do
    result[position] = list[math.max(1, math.ceil(percent / 100 * #list - 1e-9))]
  end
  return result
end

return percentiles
