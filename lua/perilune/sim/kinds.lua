--- Kinds of option values: how each is read from the command line, from a request header and from
-- JSON, and how it is written as JSON. Pure.
-- Readers give the value, or nil and what it must be ("a whole number from 0 to 100").
local fields = require "perilune.sim.fields"
local go_duration = require "perilune.sim.go_duration"
local json = require "perilune.sim.json"
local concat = table.concat
local floor, huge = math.floor, math.huge
local format = string.format

local kinds = {}

local NANOSECONDS_PER_MS = 1e6
local MAX_NANOSECONDS = 168 * 3600 * 1e9
local MAX_HEADER_VALUE_BYTES = 128
local MAX_PATTERN_BYTES = 1000

local function contains(values, value)
  for index = 1, #values do
    if values[index] == value then return true end
  end
  return false
end

local function in_range(value, option)
  return value and value >= (option.min or -huge) and value <= (option.max or huge)
end

local function range_text(noun, option)
  if option.max then return format("must be %s from %d to %d", noun, option.min, option.max) end
  if option.min then return format("must be %s, %d or more", noun, option.min) end
  return "must be " .. noun
end

local function integer(value, option)
  if value and value == floor(value) and in_range(value, option) then return value end
  return nil, range_text("a whole number", option)
end

kinds.integer = {
  from_text = function(text, option)
    return integer(#text <= 15 and text:find("^%-?%d+$") and tonumber(text), option)
  end,
  from_json = function(value, option)
    return integer(type(value) == "number" and value, option)
  end,
  to_json = function(value) return format("%.0f", value) end,
}

local function number(value, option)
  if in_range(value, option) then return value end
  return nil, range_text("a number", option)
end

kinds.number = {
  from_text = function(text, option)
    return number(#text <= 15 and text:find("^%d+%.?%d*$") and tonumber(text), option)
  end,
  from_json = function(value, option)
    return number(type(value) == "number" and value < huge and value, option)
  end,
  to_json = json.number,
}

kinds.boolean = {
  from_text = function(text)
    if text == "true" then return true end
    if text == "false" then return false end
    return nil, "must be true or false"
  end,
  to_json = tostring,
}

local function one_of(value, option)
  if contains(option.values, value) then return value end
  local listed = {}
  for index, allowed in ipairs(option.values) do
    listed[index] = allowed == "" and '""' or allowed
  end
  return nil, "must be one of: " .. concat(listed, ", ")
end

kinds.choice = { from_text = one_of, from_json = one_of, to_json = json.string }

kinds.text = {
  from_text = function(text)
    if text ~= "" then return json.mend(text) end
    return nil, "must not be empty"
  end,
  to_json = json.string,
}

kinds.duration = {
  -- a bare number means milliseconds, as llm-d-inference-sim's deprecated form does
  from_text = function(text)
    if go_duration.is_bare(text) then text = text .. "ms" end
    local ms, _, detail = go_duration.parse(text)
    if ms then return ms end
    return nil, "is not a duration: " .. detail
  end,
  -- a number means nanoseconds, as in llm-d-inference-sim
  from_json = function(value)
    if type(value) == "string" then
      local ms, _, detail = go_duration.parse(value)
      if ms then return ms end
      return nil, "is not a duration: " .. detail
    end
    if type(value) == "number" and value >= 0 and value <= MAX_NANOSECONDS then
      return value / NANOSECONDS_PER_MS
    end
    return nil, 'must be a duration such as "250ms"'
  end,
  to_json = function(value) return json.string(go_duration.format(value)) end,
}

local function header_value(value)
  if type(value) == "number" then value = format("%.14g", value) end
  if type(value) == "string" and #value <= MAX_HEADER_VALUE_BYTES
    and not value:find("[^\32-\126]") and not value:find("^ ") and not value:find(" $") then
    return value
  end
  return nil, "must be printable ASCII, such as 60"
end

kinds.header_value = {
  from_text = header_value, from_json = header_value, to_json = json.string,
}

local function pattern(value)
  if type(value) == "string" and #value <= MAX_PATTERN_BYTES and not value:find("[^x.]") then
    return value
  end
  return nil, 'must be made of "x" (fail) and "." (answer), such as "xx."'
end

kinds.pattern = { from_text = pattern, from_json = pattern, to_json = json.string }

-- Lists: every element must be one of option.values, or any non-empty text without them.
local function list(values, option)
  for index = 1, #values do
    if option.values then
      local value, expected = one_of(values[index], option)
      if not value then
        return nil, format("has the unknown value '%s'; each %s", tostring(values[index]), expected)
      end
    elseif type(values[index]) ~= "string" or values[index] == "" then
      return nil, "must be a list of names"
    end
  end
  return values
end

kinds.list = {
  is_list = true,
  from_text = list,
  from_json = function(value, option)
    if not fields.is_array(value) then return nil, "must be an array" end
    return list(value, option)
  end,
  to_json = function(values)
    local items = {}
    for index = 1, #values do items[index] = json.string(values[index]) end
    return json.array(items)
  end,
}

return kinds
