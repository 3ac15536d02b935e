--- The body that a simulated client sends: a chat completion with a prompt of the request's size.
-- Pure.

local cjson = require "cjson.safe"
local sorted = require "perilune.sorted"

local body = {}

local BYTES_PER_TOKEN = 4 -- of English text, about
local MAX_PROMPT_BYTES = 128 * 1024 -- so that thousands of requests at once fit the memory
local WORDS = ("lorem "):rep(64)

local function prompt(token_count)
  local length = math.min(token_count * BYTES_PER_TOKEN, MAX_PROMPT_BYTES)
  return WORDS:rep(math.ceil(length / #WORDS)):sub(1, length)
end

--- The JSON text of a request's body.
-- @tparam table request see perilune.simulate.arrivals
-- @treturn string
function body.of(request)
  local parts = { '{"model":' .. cjson.encode(request.model) }
  if request.stream then parts[2] = '"stream":true' end
  for _, entry in ipairs(sorted.pairs(request.body)) do
    parts[#parts + 1] = cjson.encode(entry[1]) .. ":" .. entry[2]
  end
  parts[#parts + 1] = ('"messages":[{"role":"user","content":"%s"}]}'):format(
    prompt(request.input_tokens))
  return table.concat(parts, ",")
end

--- The limit on the answer's tokens that a body sets.
-- @tparam string text a body made here, as an upstream got it: policies may have set the limit
-- @treturn ?number
function body.max_tokens(text)
  local limit = text:match('"max_completion_tokens"%s*:%s*(%d+)')
    or text:match('"max_tokens"%s*:%s*(%d+)')
  return tonumber(limit)
end

return body
