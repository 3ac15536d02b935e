--- Checks of single values, by kind: each is a function(type, value, path, report) that gives the
-- value as it is meant (durations as milliseconds, sizes as bytes), or reports and gives nil. Pure.

local duration = require "perilune.duration"
local json = require "perilune.schema.json"
local size = require "perilune.size"
local wording = require "perilune.schema.wording"

local scalars = {}

local MAX_TEXT_BYTES = 256 -- models, paths, body fields: where a type names no other limit
local MAX_EXACT_INTEGER = 2 ^ 53

local NOUN = {
  integer = "a whole number",
  number = "a number",
  duration = "a duration",
  size = "a size",
}

local got = wording.got

-- Numbers and quantities --------------------------------------------------------------------------

local function within(type_of, number)
  return number >= type_of.min and number <= (type_of.max or MAX_EXACT_INTEGER)
end

local function refuse_number(type_of, value, path, report)
  local range = wording.bounds(type_of)
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

scalars.integer = check_number
scalars.number = check_number
scalars.duration = check_quantity(duration.parse)
scalars.size = check_quantity(size.parse)

-- Words and texts ---------------------------------------------------------------------------------

function scalars.boolean(type_of, value, path, report)
  if type(value) == "boolean" then return value end
  report(path, "must be true or false" .. got(type_of, value))
end

function scalars.choice(type_of, value, path, report)
  local wanted = {}
  for position, choice in ipairs(type_of.choices) do
    if value == choice then return value end
    wanted[position] = ('"%s"'):format(choice)
  end
  local advice = type_of.advice and type_of.advice[value] or wording.guess(value, type_of.choices)
  report(path, ("must be %s%s%s"):format(
    table.concat(wanted, ", "), got(type_of, value), advice and ": " .. advice or ""))
end

function scalars.text(type_of, value, path, report)
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

function scalars.trigger(type_of, value, path, report)
  if type(value) == "number" then
    if value % 1 == 0 and value >= type_of.min and value <= type_of.max then return value end
    return report(path, ("must be a status from %d to %d%s"):format(
      type_of.min, type_of.max, got(type_of, value)))
  end
  for _, word in ipairs(type_of.words) do
    if value == word then return value end
  end
  report(path, ("must be a status, such as 503, or a known word%s: %s"):format(
    got(type_of, value), wording.hint(value, type_of.words)))
end

-- Values of other kinds ---------------------------------------------------------------------------

function scalars.json(_, value, path, report)
  local text, _, detail = json.encode(value)
  if text then return text end
  report(path, detail)
end

scalars["function"] = function(type_of, value, path, report)
  if type(value) == "function" then return value end
  report(path, ("must be a function(%s)%s"):format(type_of.arguments, got(type_of, value)))
end

return scalars
