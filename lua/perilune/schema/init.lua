--- Schema: what policies/gateway.lua may hold, and the checker that reads it.
--
-- Types are plain data: a table with a `kind`, its bounds, and `required` or `default`. That makes
-- them readable from outside: the checker reads them, and a spec holds the reference configuration
-- to them (`each`, `bounds`). The kinds:
--
--     record   closed table of known keys, in the order in which they are checked
--     map      table of the operator's own names, all values of one type
--     list     values of one type, in order; `if_empty` says what to write instead of none
--     boolean, integer, number, duration (gives milliseconds), size (gives bytes), choice
--     text     a string; `read(text)` checks it further and may give another value for it
--     either   a string of the type `text`, a number of the type `number` or a table of the type
--              `table`, as far as it has these; `wanted` names them
--     switch   a table of the type `on`, or what else that takes as an `either`, or false;
--              `off`, if any, is the table false stands for
--     trigger  what calls for another try: a status or a word
--     json     any value with a JSON form (gives the raw text)
--     function a Lua function; it stays one, so whoever passes the result on must leave it out
--
-- A path says where a value stands: { parent =, key = }, the root being the empty table. Values
-- that may be credentials are never repeated in a message.
--
-- The types of the gateway's own options are in gateway.lua and, below it, provider.lua (with
-- health.lua) and route.lua (with target.lua).

local checker = require "perilune.schema.check"
local gateway = require "perilune.schema.gateway"
local json = require "perilune.schema.json"
local wording = require "perilune.schema.wording"

local schema = {}

--- The path of a member. See perilune.schema.wording.
schema.at = wording.at

--- A path as it is shown. See perilune.schema.wording.
schema.path_text = wording.path_text

--- A value as it is shown. See perilune.schema.wording.
schema.show = wording.show

--- The known word that an unknown one was probably meant to be. See perilune.schema.wording.
schema.nearest = wording.nearest

--- A hint to be put after the report of an unknown word. See perilune.schema.wording.
schema.hint = wording.hint

--- The bounds of a type as the reference configuration names them. See perilune.schema.wording.
schema.bounds = wording.bounds

--- The JSON text of a Lua value. See perilune.schema.json.
schema.json = json.encode

--- The type of the table that gateway.lua returns.
schema.GATEWAY = gateway

--- Stands in checked lists for an item that was refused, so that the others keep their positions.
schema.BROKEN = checker.BROKEN

--- Check a value against a type. Changes nothing; the result shares no table with `value`.
-- @tparam table type_of
-- @param value
-- @tparam table path where the value stands
-- @tparam function report report(path, message) for each problem
-- @return the value with defaults filled in, durations as milliseconds, sizes as bytes; without
-- what was refused (nil in records and maps, `schema.BROKEN` in lists)
function schema.check(type_of, value, path, report)
  return checker.check(type_of, value, path, report)
end

local function each_member(type_of, path, visit)
  if type_of.kind == "record" then
    for _, field in ipairs(type_of.fields) do
      schema.each(field[2], visit, schema.at(path, field[1]))
    end
  elseif type_of.kind == "map" then
    schema.each(type_of.value, visit, schema.at(path, "*"))
  elseif type_of.kind == "list" then
    schema.each(type_of.item, visit, schema.at(path, 1))
  elseif type_of.kind == "either" then
    schema.each(type_of.table, visit, path)
  elseif type_of.kind == "switch" then
    schema.each(type_of.on, visit, path)
  end
end

--- Visit a type and every type in it; the table of an `either` or a `switch` has its path again.
-- @tparam table type_of
-- @tparam function visit visit(path, type); a map's entries have the key "*", a list's items 1
-- @tparam[opt] table path of `type_of`
function schema.each(type_of, visit, path)
  path = path or {}
  visit(path, type_of)
  each_member(type_of, path, visit)
end

return schema
