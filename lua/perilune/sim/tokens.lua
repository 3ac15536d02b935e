--- A simple tokenizer: a word, or one punctuation mark, with the white space after it.
-- Joined together, the tokens of a text are the text. Bytes beyond ASCII count as letters, so UTF-8
-- is never cut. Pure.
local json = require "perilune.sim.json"
local byte, find, gsub, sub = string.byte, string.find, string.gsub, string.sub
local min = math.min

local tokens = {}

local WORD = "[%w_\128-\255]+"
local MARK = "[^%w_%s\128-\255]"
local ID_COUNT = 100000
local MAX_HASHED_BYTES = 65536 -- enough to tell texts apart, and soon done

--- Split a text into tokens. White space at its start belongs to the first.
-- @treturn {string,...}
function tokens.split(text)
  local list, count = {}, 0
  local start, position = 1, (find(text, "%S")) or #text + 1
  while position <= #text do
    local _, last = find(text, "^" .. WORD .. "%s*", position)
    if not last then _, last = find(text, "^" .. MARK .. "%s*", position) end
    count = count + 1
    list[count] = sub(text, start, last)
    start, position = last + 1, last + 1
  end
  if count == 0 and text ~= "" then list[1] = text end
  return list
end

--- How many tokens `split` would give.
function tokens.count(text)
  local _, words = gsub(text, WORD, "")
  local _, marks = gsub(text, MARK, "")
  if words + marks == 0 and text ~= "" then return 1 end
  return words + marks
end

--- A stable number for a text, from 0 to `below - 1`.
function tokens.hash(text, below)
  local hash = #text
  for index = 1, min(#text, MAX_HASHED_BYTES) do
    hash = (hash * 33 + byte(text, index)) % 2147483647
  end
  return hash % below
end

--- The number that stands for a token.
function tokens.id(token)
  return tokens.hash((gsub(token, "%s+$", "")), ID_COUNT)
end

local encoded = {}

--- Remember the JSON of a token that will come often.
function tokens.remember(token)
  encoded[token] = json.string(token)
end

--- A token as a JSON string.
function tokens.to_json(token)
  return encoded[token] or json.string(token)
end

return tokens
