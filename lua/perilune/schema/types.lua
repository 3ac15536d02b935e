--- Makes types: the words in which the gateway's options are described. See perilune.schema for
-- what the kinds mean. Pure.

local duration = require "perilune.duration"
local size = require "perilune.size"

local types = {}

--- A type with more said of it, such as a default.
-- @tparam table type_of
-- @tparam table extra what is added or replaced
-- @treturn table a new type
function types.with(type_of, extra)
  local copy = {}
  for key, value in pairs(type_of) do
    copy[key] = value
  end
  for key, value in pairs(extra) do
    copy[key] = value
  end
  return copy
end

--- A closed table.
-- @tparam {table,...} fields { name, type }, in the order in which they are checked
function types.record(fields) return { kind = "record", fields = fields } end

--- A record that may be left out: its fields' defaults hold then.
function types.section(fields) return types.with(types.record(fields), { default = {} }) end

function types.list(item, min, max) return { kind = "list", item = item, min = min, max = max } end

--- A table of the operator's own names; `name(key)` gives the name, or nil, a code and a detail.
function types.map(name, value, min, max)
  return { kind = "map", name = name, value = value, min = min, max = max }
end

function types.integer(min, max, default)
  return { kind = "integer", min = min, max = max, default = default }
end

function types.number(min, max, default)
  return { kind = "number", min = min, max = max, default = default }
end

--- A share of all that could be, as a number from 0 to 1.
function types.share(default) return types.number(0, 1, default) end

function types.percent(default) return types.number(0, 100, default) end

function types.boolean(default) return { kind = "boolean", default = default } end

function types.choice(choices, default)
  return { kind = "choice", choices = choices, default = default }
end

--- A size; bounds and default as the operator would write them.
function types.bytes(min, max, default)
  return { kind = "size", min = size.parse(min), max = size.parse(max), default = default }
end

--- A duration in whole milliseconds, rounded up: where the C core arms a timer, 0 would mean "no
-- limit". Bounds and default as the operator would write them.
function types.span(min, max, default)
  return {
    kind = "duration", min = duration.parse(min), max = duration.parse(max), default = default,
    whole = true,
  }
end

--- A duration that is waited in Lua, to the microsecond.
function types.exact_span(min, max, default)
  return types.with(types.span(min, max, default), { whole = false })
end

return types
