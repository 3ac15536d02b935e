--- Reads members of a decoded JSON object with their types checked; the first fault is kept.
-- JSON null counts as absent. Pure.
local json = require "perilune.sim.json"
local floor = math.floor
local format = string.format

local fields = {}
fields.__index = fields

local MAX_INTEGER = 2 ^ 53
local NO_FIELDS = {}

--- @tparam table object a decoded JSON object
-- @tparam[opt=""] string path put before names in messages, such as "messages[1]."
function fields.of(object, path)
  return setmetatable({ object = object, path = path or "", fault = nil }, fields)
end

--- Whether a decoded value is an array: keys of JSON objects are always strings.
function fields.is_array(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

function fields:refuse(name, expected)
  self.fault = self.fault or format("field '%s%s' must be %s", self.path, name, expected)
end

--- The member whatever it is; nil when absent or null.
function fields:any(name)
  local value = self.object[name]
  if value == json.null then return nil end
  return value
end

local function typed(self, name, wanted, expected)
  local value = self:any(name)
  if value == nil or type(value) == wanted then return value end
  self:refuse(name, expected)
  return nil
end

function fields:string(name) return typed(self, name, "string", "a string") end
function fields:boolean(name) return typed(self, name, "boolean", "a boolean") end

function fields:integer(name)
  local value = typed(self, name, "number", "an integer")
  if value and (value ~= floor(value) or value > MAX_INTEGER or value < -MAX_INTEGER) then
    self:refuse(name, "an integer")
    return nil
  end
  return value
end

function fields:array(name)
  local value = typed(self, name, "table", "an array")
  if value == nil or fields.is_array(value) then return value end
  self:refuse(name, "an array")
  return nil
end

--- A member that is an object, as fields of its own; its faults are this object's.
-- Absent or broken gives an empty one, so that reading on is safe.
function fields:object_of(name)
  local value = typed(self, name, "table", "an object")
  if value and value[1] ~= nil then
    self:refuse(name, "an object")
    value = nil
  end
  return fields.of(value or NO_FIELDS, self.path .. name .. ".")
end

--- Take over the fault of a part.
function fields:adopt(part)
  self.fault = self.fault or part.fault
end

return fields
