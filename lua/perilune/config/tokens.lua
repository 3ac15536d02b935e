--- Splits the text of gateway.lua into tokens, each with its line. The text must be valid Lua: of
-- broken Lua the tokens mean nothing, but reading it ends. Pure.

local tokens = {}

local OPERATORS = { "^%.%.%.", "^%.%.", "^[=~<>]=", "^::", "^." }

--- How many line ends are within a stretch; CR LF and LF CR count once, as in Lua.
local function count_lines(stretch)
  local count, position = 0, stretch:find("[\r\n]")
  while position do
    local pair = stretch:sub(position, position + 1)
    count = count + 1
    position = stretch:find("[\r\n]", position + ((pair == "\r\n" or pair == "\n\r") and 2 or 1))
  end
  return count
end

local function after_long_bracket(source, position)
  local level = source:match("^%[(=*)%[", position)
  if not level then return nil end
  local _, last = source:find("]" .. level .. "]", position, true)
  return (last or #source) + 1
end

local function after_blank(source, position)
  local after_space = source:match("^%s+()", position)
  if after_space then return after_space end
  if source:sub(position, position + 1) ~= "--" then return nil end
  return after_long_bracket(source, position + 2) or source:match("^[^\r\n]*()", position)
end

local function after_quoted(source, position)
  local quote = source:sub(position, position)
  position = position + 1
  while position <= #source do
    local char = source:sub(position, position)
    if char == quote then return position + 1 end
    position = position + (char == "\\" and 2 or 1)
  end
  return position
end

--- The token at a position: its kind, the position after it, and for strings what they hold (nil
-- when that takes more than copying).
local function read_token(source, position)
  local after = source:match("^[%a_\128-\255][%w_\128-\255]*()", position)
  if after then return "name", after end
  after = source:match("^%.?%d[%w_.]*()", position)
  if after then return "number", after end
  if source:find("^[\"']", position) then
    after = after_quoted(source, position)
    local plain = source:sub(position + 1, after - 2)
    return "string", after, not plain:find("\\", 1, true) and plain or nil
  end
  after = after_long_bracket(source, position)
  if after then return "string", after end
  for _, operator in ipairs(OPERATORS) do
    after = after or source:match(operator .. "()", position)
  end
  return "operator", after
end

--- Read a text.
-- @tparam string source
-- @treturn table arrays with an item per token: kind ("name", "number", "string", "operator"), text
-- ("" for strings), line, value (of strings that hold no escapes); and count
function tokens.of(source)
  local list = { kind = {}, text = {}, line = {}, value = {}, count = 0 }
  local position, line = source:match("^\239\187\191()") or 1, 1
  if source:find("^#", position) then position = source:match("^[^\r\n]*()", position) end
  while position <= #source do
    local after = after_blank(source, position)
    if not after then
      local kind, past, value = read_token(source, position)
      local count = list.count + 1
      after, list.count = past, count
      list.kind[count], list.line[count], list.value[count] = kind, line, value
      list.text[count] = kind == "string" and "" or source:sub(position, past - 1)
    end
    line = line + count_lines(source:sub(position, after - 1))
    position = after
  end
  return list
end

return tokens
