--- What is no mistake for sure, but looks like one: told when a configuration is checked, and
-- served all the same. Pure.

local locate = require "perilune.config.locate"
local route = require "perilune.route"
local tokens_of = require("perilune.config.tokens").of
local wording = require "perilune.schema.wording"

local warnings = {}

local at = wording.at
local ROOT = {}
local ENDS = { [","] = true, [";"] = true, ["}"] = true }
local OPENS = { ["{"] = true, ["("] = true, ["["] = true }
local CLOSES = { ["}"] = true, [")"] = true, ["]"] = true }
local CONSTANTS = { ["nil"] = true, ["true"] = true, ["false"] = true }

--- Puts warnings in the order of their lines.
local function arrange(list, file)
  for position, warning in ipairs(list) do warning.file, warning.position = file, position end
  table.sort(list, function(a, b)
    local a_line, b_line = a.line or math.huge, b.line or math.huge
    if a_line ~= b_line then return a_line < b_line end
    return a.position < b.position
  end)
  return list
end

-- ---- fields without a value ----------------------------------------------------------------

--- The name of the variable that `env "NAME"` at `index` asks for, and the token after the call.
local function read_env(tokens, index)
  if tokens.text[index] ~= "env" or tokens.kind[index] ~= "name" then return nil end
  local before = tokens.text[index - 1]
  if before == "." or before == ":" then return nil end
  if tokens.kind[index + 1] == "string" then return tokens.value[index + 1], index + 2 end
  local is_call = tokens.text[index + 1] == "(" and tokens.kind[index + 2] == "string"
    and tokens.text[index + 3] == ")"
  if is_call then return tokens.value[index + 2], index + 4 end
  return nil
end

--- The key of the field whose value begins at `index`, when it is written as a name.
local function field_name(tokens, index)
  local is_named = tokens.text[index - 1] == "=" and tokens.kind[index - 2] == "name"
  return is_named and tokens.text[index - 2] or nil
end

--- The path of the field whose value begins with that token.
local function path_of(tree, index, path)
  for key, child in pairs(tree and tree.fields or {}) do
    local here = at(path, key)
    if child.index == index then return here end
    local found = path_of(child, index, here)
    if found then return found end
  end
  return nil
end

--- `key = env "NAME"` where the variable is not set: the key is as good as not written.
local function add_unset(list, tokens, tree, unset)
  local open, depth = {}, 0
  for index = 1, tokens.count do
    local text = tokens.text[index]
    if OPENS[text] then
      depth = depth + 1
      open[depth] = text
    elseif CLOSES[text] then
      depth = math.max(0, depth - 1)
    end
    local name, after = read_env(tokens, index)
    local is_field = name and unset[name] and open[depth] == "{" and depth > 0
      and ENDS[tokens.text[after]] and field_name(tokens, index)
    if is_field then
      local path = path_of(tree, index, ROOT)
      table.insert(list, {
        line = tokens.line[index], key = path and wording.path_text(path) or is_field,
        message = ('the variable %s is not set, so it is as if this were not written (secret "%s" '
          .. 'would refuse that; env "%s" or nil says that it may be missing)'):format(name, name,
          name),
      })
    end
  end
end

--- `key = NAME` where the local NAME is nil.
local function add_nil_locals(list, tokens, tree, value, path)
  for key, child in pairs(tree and tree.fields or {}) do
    local here, index = at(path, key), child.index
    local got
    if type(value) == "table" then got = value[key] end
    if child.fields then
      add_nil_locals(list, tokens, child, got, here)
    elseif
      got == nil and type(key) == "string" and type(value) == "table"
      and tokens.kind[index] == "name" and not CONSTANTS[tokens.text[index]]
      and ENDS[tokens.text[index + 1]]
    then
      table.insert(list, {
        line = child.line, key = wording.path_text(here),
        message = ("%s is nil, so it is as if this were not written (%s or nil says that it may be)"
          ):format(tokens.text[index], tokens.text[index]),
      })
    end
  end
end

-- ---- routes that never serve ---------------------------------------------------------------

local function add_covered(list, tree, routes)
  for position = 2, #routes do
    for earlier = 1, position - 1 do
      if route.covers(routes[earlier].match or {}, routes[position].match or {}) then
        local path = at(at(ROOT, "routes"), position)
        table.insert(list, {
          line = locate.line_of(tree, path), key = wording.path_text(path),
          message = ("never serves: routes[%d] comes first and matches all that it matches"):format(
            earlier),
        })
        break
      end
    end
  end
end

--- What looks like a mistake in a configuration that is good otherwise.
-- @tparam table given
--
--  * source: the text of gateway.lua
--  * file: its name
--  * tree: where its keys stand, see perilune.config.locate
--  * value: the table that the text returned
--  * routes: of the normalised configuration
--  * unset: names of the variables that env was asked for and that are not set, as a set
--
-- @treturn {table,...} { file, line, key, message }, in the order of the lines
function warnings.of_config(given)
  local list, tokens = {}, tokens_of(given.source)
  add_unset(list, tokens, given.tree, given.unset)
  add_nil_locals(list, tokens, given.tree, given.value, ROOT)
  add_covered(list, given.tree, given.routes)
  return arrange(list, given.file)
end

-- ---- globals that do not exist -------------------------------------------------------------

local function global_message(global, known)
  if global.is_set then
    return ("assigns the global '%s', which is an error when it runs: declare it with 'local'"
      ):format(global.name)
  end
  local guess = wording.guess(global.name, known)
  return ("there is no global '%s', it is nil here%s"):format(global.name,
    guess and ": " .. guess or "")
end

--- What looks like a mistake in the code of a policy, or of a file that it requires.
-- @tparam string file its name
-- @tparam {table,...} globals what it names: { name, line, is_set }
-- @tparam {string,...} known the names that exist
-- @treturn {table,...} { file, line, key = "", message }, in the order of the lines
function warnings.of_code(file, globals, known)
  local list, is_known = {}, {}
  for _, name in ipairs(known) do is_known[name] = true end
  for _, global in ipairs(globals) do
    if global.is_set or not is_known[global.name] then
      table.insert(list, { line = global.line, key = "", message = global_message(global, known) })
    end
  end
  return arrange(list, file)
end

--- A warning as one line.
-- @tparam table warning
-- @treturn string "gateway.lua:12: warning: providers.a.key: ..."
function warnings.describe(warning)
  local place = warning.line and ("%s:%d"):format(warning.file, warning.line) or warning.file
  local key = warning.key ~= "" and warning.key .. ": " or ""
  return ("%s: warning: %s%s"):format(place, key, warning.message)
end

return warnings
