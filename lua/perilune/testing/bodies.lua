--- Bodies of answers as providers write them: completions, streamed or not, and errors. The shapes
-- are those of the simulated provider.

local errors = require "perilune.sim.errors"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local tokens = require "perilune.sim.tokens"

local bodies = {}

local MESSAGES_ENDPOINT = require "perilune.sim.messages"
local RESPONSES_ENDPOINT = require "perilune.sim.responses"

-- By the end of the path, without a query: providers have prefixes of their own.
local ENDPOINTS = {
  { "/chat/completions", require "perilune.sim.chat" },
  { "/completions", require "perilune.sim.completions" },
  { "/responses", RESPONSES_ENDPOINT },
  { "/messages", MESSAGES_ENDPOINT },
  { "/embeddings", require "perilune.sim.embeddings" },
}
local MODELS = '{"object":"list","data":[]}'
local EMBEDDING_CONFIG = { default_embedding_dimensions = 8 }

local MESSAGES = {
  [400] = "The request is not valid.", [401] = "Invalid API key.", [403] = "Not allowed.",
  [404] = "The model does not exist.", [429] = "Too many requests.",
  [500] = "Something went wrong.", [503] = "The service is not available.",
}

local function endpoint_of(path)
  path = path:match("^[^?]*")
  for _, entry in ipairs(ENDPOINTS) do
    if path:sub(-#entry[1]) == entry[1] then return entry[2] end
  end
end

--- The usual body of an error.
function bodies.error(path, status)
  local endpoint = endpoint_of(path)
  local err = errors.new(status, MESSAGES[status] or ("The answer is %d."):format(status))
  return (endpoint and endpoint.error_body or errors.openai_body)(err)
end

-- The marks that a stream is whole, where they say nothing else.
local DONE = "data: [DONE]\n\n"
local MESSAGE_STOP = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'

--- The mark at the end of an endpoint's streams; "" where it is more than a mark.
function bodies.mark(path)
  local endpoint = endpoint_of(path)
  if endpoint == MESSAGES_ENDPOINT then return MESSAGE_STOP end
  return endpoint == RESPONSES_ENDPOINT and "" or DONE
end

local function numbered_words(count)
  local list = {}
  for number = 1, count do list[number] = "word" .. number end
  return table.concat(list, " ")
end

--- The text of a completion.
-- @param words a text, a number of words, or nil for the usual one
function bodies.text(words, target)
  if type(words) == "number" then return numbered_words(words) end
  return words or ("Hello from %s."):format(target)
end

local function result_of(asked, text)
  local list = tokens.split(text)
  local result = { choices = {}, prompt_tokens = 0, completion_tokens = 0 }
  for _, prompt in ipairs(asked.prompts) do
    result.prompt_tokens = result.prompt_tokens + prompt.count
    for _ = 1, asked.n or 1 do
      result.choices[#result.choices + 1] = { tokens = list, text = text, finish = "stop" }
      result.completion_tokens = result.completion_tokens + #list
    end
  end
  return result
end

local function read(endpoint, call, number)
  local object = type(call.json) == "table" and call.json or {}
  local asked = endpoint.parse(fields.of(object))
  local meta = { id = "stage-" .. number, created = math.floor(call.wall_ms / 1000),
    model_json = json.string(json.mend(asked.model)) }
  return asked, meta
end

--- The body of a good answer that is not streamed.
-- @tparam table call path, json, wall_ms, target
-- @param words
-- @tparam number number makes the answer's id
function bodies.whole(call, words, number)
  local endpoint = endpoint_of(call.path)
  if not endpoint then return MODELS end
  local asked, meta = read(endpoint, call, number)
  if not endpoint.events then return (endpoint.answer(EMBEDDING_CONFIG, asked, meta)) end
  return endpoint.body(asked, result_of(asked, bodies.text(words, call.target)), meta)
end

--- Splits bytes into events.
local function split(text, list)
  for event in text:gmatch(".-\n\n") do list[#list + 1] = event end
  return list
end

--- The events of a good answer that is streamed; nil where nothing is.
-- @treturn {string,...} what comes together at first
-- @treturn {string,...} what comes one by one, the last of them the end of the text
-- @treturn string the mark that the stream is whole
function bodies.events(call, words, number)
  local endpoint = endpoint_of(call.path)
  if not endpoint or not endpoint.events then return nil end
  local asked, meta = read(endpoint, call, number)
  local result = result_of(asked, bodies.text(words, call.target))
  local plan = endpoint.events(asked, result, meta)
  local first, rest = split(plan.opening .. plan.lead, {}), {}
  for position = 1, #result.choices[1].tokens do
    for index, choice in ipairs(result.choices) do
      rest[#rest + 1] = plan.token(index, choice.tokens[position])
    end
  end
  split(plan.closing(), rest)
  return first, rest, plan.terminal()
end

return bodies
