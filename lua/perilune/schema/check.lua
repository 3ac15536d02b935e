--- The checker: holds a value to a type (see perilune.schema for the kinds). Changes nothing; the
-- result shares no table with the value. Pure.

local scalars = require "perilune.schema.scalars"
local sorted = require "perilune.sorted"
local wording = require "perilune.schema.wording"

local at, got = wording.at, wording.got

local CHECK = {}
for kind, check_scalar in pairs(scalars) do
  CHECK[kind] = check_scalar
end

--- Stands in checked lists for an item that was refused, so that the others keep their positions.
local BROKEN = {}

local function check(type_of, value, path, report)
  return CHECK[type_of.kind](type_of, value, path, report)
end

-- One of several ----------------------------------------------------------------------------------

local FORM_OF = { table = "table", string = "text", number = "number" }

function CHECK.either(type_of, value, path, report)
  local form = type_of[FORM_OF[type(value)]]
  if form then return check(form, value, path, report) end
  report(path, "must be " .. type_of.wanted .. got(type_of, value))
end

function CHECK.switch(type_of, value, path, report)
  if value == false then
    return type_of.off and check(type_of.on, type_of.off, path, report) or false
  end
  local form = type_of.on.kind == "either" and FORM_OF[type(value)]
  if type(value) == "table" or (form and type_of.on[form]) then
    return check(type_of.on, value, path, report)
  end
  report(path, ("must be %s or false"):format(type_of.on.wanted or "a table")
    .. got(type_of, value))
end

-- Lists and maps ----------------------------------------------------------------------------------

--- The number of items, when the keys are exactly 1..n.
local function list_length(value, path, report)
  local count, highest = 0, 0
  for _, key in ipairs(sorted.keys(value)) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      report(at(path, key), "is not a position: this is a list")
      return nil
    end
    count, highest = count + 1, key
  end
  if count == highest then return count end
  local hole = 1
  while value[hole] ~= nil do
    hole = hole + 1
  end
  report(at(path, hole), "is nil, with items after it: a list must not have holes")
  return nil
end

local function count_fits(type_of, count, noun, path, report)
  if count < (type_of.min or 0) then
    report(path, "must not be empty" .. (type_of.if_empty and ": " .. type_of.if_empty or ""))
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
    local item_path = at(path, position)
    local item = check(type_of.item, value[position], item_path, report)
    if type(item) ~= "table" and item ~= nil and seen[item] then
      report(item_path, "is in the list already" .. got(type_of.item, value[position]))
    end
    if item ~= nil then seen[item] = true end
    result[position] = item == nil and BROKEN or item
  end
  return result
end

function CHECK.map(type_of, value, path, report)
  if type(value) ~= "table" then
    return report(path, "must be a table" .. got(type_of, value))
  end
  local keys = sorted.keys(value)
  if not count_fits(type_of, #keys, "entries", path, report) then return nil end
  local result, seen = {}, {}
  for _, key in ipairs(keys) do
    local entry_path = at(path, key)
    local name, _, detail = type_of.name(key)
    if not name then
      report(entry_path, detail)
    elseif seen[name] then
      report(entry_path, "is given twice: names are compared without case")
    else
      seen[name] = true
      result[key] = check(type_of.value, value[key], entry_path, report)
    end
  end
  return result
end

-- Records -----------------------------------------------------------------------------------------

local function report_unknown_keys(type_of, value, path, report)
  local known, is_known = {}, {}
  for position, field in ipairs(type_of.fields) do
    known[position], is_known[field[1]] = field[1], true
  end
  for _, key in ipairs(sorted.keys(value)) do
    if not is_known[key] then
      report(at(path, key), "unknown key: " .. wording.hint(key, known))
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
    local field_path, given = at(path, name), value[name]
    if given == nil then given = field_type.default end
    if given ~= nil then
      result[name] = check(field_type, given, field_path, report)
    elseif field_type.required then
      report_missing(field_type, field_path, report)
    end
  end
  report_unknown_keys(type_of, value, path, report)
  return result
end

return { check = check, BROKEN = BROKEN }
