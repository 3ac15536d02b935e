--- Where the keys of a configuration stand in its text, read from its tokens without running it.
--
-- The tree of the returned table's constructor: { line =, index =, fields = { [key] = tree },
-- partial = }; `index` is the token with which a value begins.
-- A value that is no constructor has no fields; `partial` marks a table with computed keys. What
-- cannot be followed (a variable, a call, a function) is left open and gets no line. Pure.

local tokens_of = require("perilune.config.tokens").of
local wording = require "perilune.schema.wording"

local locate = {}

local at = wording.at
local ROOT = {}

local OPENS = { ["("] = true, ["{"] = true, ["["] = true }
local CLOSES = { [")"] = true, ["}"] = true, ["]"] = true }
local BLOCK_OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local BLOCK_CLOSES = { ["end"] = true, ["until"] = true }
local SEPARATES = { [","] = true, [";"] = true, ["}"] = true }

--- Where an expression that starts at `index` ends: the separator after it, or past the last token.
local function after_expression(tokens, index)
  local depth = 0
  while index <= tokens.count do
    local text = tokens.text[index]
    if depth == 0 and SEPARATES[text] then return index end
    if OPENS[text] or BLOCK_OPENS[text] then depth = depth + 1 end
    if CLOSES[text] or BLOCK_CLOSES[text] then depth = depth - 1 end
    index = index + 1
  end
  return index
end

--- Where a bracketed group that starts at `index` ends: the token after its closing bracket.
local function after_group(tokens, index)
  local depth = 0
  repeat
    local text = tokens.text[index]
    if OPENS[text] then depth = depth + 1 end
    if CLOSES[text] then depth = depth - 1 end
    index = index + 1
  until depth == 0 or index > tokens.count
  return index
end

--- The key of the field that starts at `index`, and where its value starts. No key: positional.
-- A key that cannot be read without running the code is false.
local function field_key(tokens, index)
  if tokens.kind[index] == "name" and tokens.text[index + 1] == "=" then
    return tokens.text[index], index + 2
  end
  if tokens.text[index] ~= "[" then return nil, index end
  local value_index = after_group(tokens, index) + 1 -- past "]" and "="
  if value_index ~= index + 4 then return false, value_index end
  local key = tokens.value[index + 1]
  if tokens.kind[index + 1] == "number" then key = tonumber(tokens.text[index + 1]) end
  return key or false, value_index
end

local function add_field(tree, key, child, duplicates, path)
  if key == false then
    tree.partial = true
    return
  end
  local first = tree.fields[key]
  if first then
    table.insert(duplicates, { path = at(path, key), line = child.line, first_line = first.line })
  end
  tree.fields[key] = child
end

--- Read the constructor whose "{" is at `index`.
local function read_constructor(tokens, index, duplicates, path)
  local tree = { line = tokens.line[index], fields = {} }
  local position = 0
  index = index + 1
  while index <= tokens.count and tokens.text[index] ~= "}" do
    local key, value_index = field_key(tokens, index)
    if key == nil then
      position = position + 1
      key = position
    end
    local after = after_expression(tokens, value_index)
    local child = {}
    if tokens.text[value_index] == "{" and after_group(tokens, value_index) == after then
      local noted = key == false and {} or duplicates -- without its key, a path cannot be named
      child = read_constructor(tokens, value_index, noted, at(path, key))
    end
    child.line, child.index = tokens.line[index], value_index
    add_field(tree, key, child, duplicates, path)
    index = tokens.text[after] == "}" and after or after + 1
  end
  return tree
end

--- Where the keys of a configuration stand in its text.
-- @tparam string source must be valid Lua
-- @treturn ?table the tree (see above) of the table constructor that the chunk itself returns; nil
-- when it returns something else
-- @treturn {table,...} keys that are given twice: { path, line, first_line }
function locate.tree(source)
  local tokens, duplicates, depth = tokens_of(source), {}, 0
  for index = 1, tokens.count do
    local text = tokens.text[index]
    if BLOCK_OPENS[text] then depth = depth + 1 end
    if BLOCK_CLOSES[text] then depth = depth - 1 end
    if depth == 0 and text == "return" then
      local after = after_expression(tokens, index + 1)
      local is_constructor = tokens.text[index + 1] == "{"
        and after_group(tokens, index + 1) == after
      if not is_constructor then return nil, duplicates end
      return read_constructor(tokens, index + 1, duplicates, ROOT), duplicates
    end
  end
  return nil, duplicates
end

local function tree_at(tree, path)
  if not path.parent then return tree end
  local parent = tree_at(tree, path.parent)
  return parent and parent.fields and parent.fields[path.key]
end

--- The line of a key; of a key that is not there, the line of the table that lacks it.
-- @tparam ?table tree from `locate.tree`
-- @tparam table path
-- @treturn ?number the line, nil when it cannot be told
-- @treturn ?number the nearest line known, for sorting only
function locate.line_of(tree, path)
  local node = tree_at(tree, path)
  if node then return node.line, node.line end
  while path.parent do
    path = path.parent
    node = tree_at(tree, path)
    if node then return node.fields and not node.partial and node.line or nil, node.line end
  end
  return nil, nil
end

return locate
