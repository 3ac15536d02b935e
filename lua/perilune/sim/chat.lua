--- POST /v1/chat/completions. Pure.
local errors = require "perilune.sim.errors"
local json = require "perilune.sim.json"
local prompts = require "perilune.sim.prompts"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local format = string.format

local chat = {
  path = "/v1/chat/completions",
  error_body = errors.openai_body,
  check = prompts.check_messages,
}

--- Read a request.
-- @tparam table reader fields of the body
function chat.parse(reader)
  local asked = prompts.read_common(reader, "max_tokens")
  asked.max_tokens = reader:integer("max_completion_tokens") or asked.max_tokens
  prompts.read_openai(reader, asked)
  asked.prompts = { prompts.of_messages(reader, "messages") }
  return asked
end

local function head(object, meta)
  return format('{"id":"chatcmpl-%s","object":"%s","created":%d,"model":%s,', meta.id, object,
    meta.created, meta.model_json)
end

--- The whole answer.
function chat.body(_, result, meta)
  local choices = {}
  for index, choice in ipairs(result.choices) do
    choices[index] = format('{"index":%d,"message":{"role":"assistant","content":%s},'
      .. '"finish_reason":"%s"}', index - 1, json.string(choice.text), choice.finish)
  end
  return concat { head("chat.completion", meta), '"choices":', json.array(choices), ',"usage":',
    prompts.openai_usage(result), "}" }
end

--- The streamed answer: role chunks, a chunk a token, finish chunks, usage, [DONE].
function chat.events(asked, result, meta)
  local chunk = "data: " .. head("chat.completion.chunk", meta)
  local lead, before, closing = {}, {}, {}
  for index, choice in ipairs(result.choices) do
    local start = format('%s"usage":null,"choices":[{"index":%d,"delta":{', chunk, index - 1)
    lead[index] = start .. '"role":"assistant"},"finish_reason":null}]}\n\n'
    before[index] = start .. '"content":'
    closing[index] = format('%s},"finish_reason":"%s"}]}\n\n', start, choice.finish)
  end
  if asked.include_usage then
    closing[#closing + 1] = concat { chunk, '"choices":[],"usage":', prompts.openai_usage(result),
      "}\n\n" }
  end
  return {
    opening = "",
    lead = concat(lead),
    token = function(index, token)
      return concat { before[index], tokens.to_json(token), '},"finish_reason":null}]}\n\n' }
    end,
    closing = function() return concat(closing) end,
    terminal = function() return "data: [DONE]\n\n" end,
  }
end

return chat
