--- Read-only views of tables that outlive a request.
--
-- Routes, their retry rules and the public module are shared by all requests of a worker. A policy
-- that wrote into one of them would change other requests; a view refuses.

local frozen = {}

--- A table that reads through to `fields` and can be neither written nor unmasked.
-- @tparam string label what it is, for the error text and for getmetatable
-- @tparam table|function fields what is read through to, as for __index
-- @treturn table
function frozen.view(label, fields)
  return setmetatable({}, {
    __index = fields,
    __newindex = function(_, key)
      error(label .. " is read-only: cannot set \"" .. tostring(key) .. "\"", 2)
    end,
    __metatable = label,
  })
end

return frozen
