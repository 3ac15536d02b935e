--- POST /v1/completions. Pure.
local errors = require "perilune.sim.errors"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local prompts = require "perilune.sim.prompts"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local format = string.format

local completions = {
  path = "/v1/completions",
  error_body = errors.openai_body,
}

local PROMPT_FORMS = "a string, an array of strings, an array of token ids or an array of those"

local function text_prompt(text)
  return { count = tokens.count(text), echo = text }
end

-- Token ids are repeated as their decimal numbers.
local function ids_prompt(ids)
  local texts = {}
  for index = 1, #ids do
    if type(ids[index]) ~= "number" then return nil end
    texts[index] = format("%.0f", ids[index])
  end
  return { count = #ids, echo = concat(texts, ",") }
end

local function one_prompt(value)
  if type(value) == "string" then return text_prompt(value) end
  return fields.is_array(value) and ids_prompt(value) or nil
end

--- The prompts in any of the four forms; nil when it is none of them.
-- @param value string, {string,...}, {number,...} or {{number,...},...}
function completions.read_prompts(value)
  if type(value) == "string" or fields.is_array(value) and type(value[1]) == "number" then
    local prompt = one_prompt(value)
    return prompt and { prompt }
  end
  if not fields.is_array(value) then return nil end
  local list = {}
  for index = 1, #value do
    list[index] = one_prompt(value[index])
    if not list[index] or type(value[index]) ~= type(value[1]) then return nil end
  end
  return list
end

--- Read a request.
function completions.parse(reader)
  local asked = prompts.read_common(reader, "max_tokens")
  prompts.read_openai(reader, asked)
  local value = reader:any("prompt")
  local list = value == nil and {} or completions.read_prompts(value)
  if not list then reader:refuse("prompt", PROMPT_FORMS) end
  asked.prompts = list or {}
  return asked
end

--- What is wrong with a request that could be read.
function completions.check(asked)
  if #asked.prompts == 0 then return errors.new(400, "prompt must not be empty", "prompt") end
  for _, prompt in ipairs(asked.prompts) do
    if prompt.count == 0 then return errors.new(400, "prompt must not be empty", "prompt") end
  end
  return prompts.check_limits(asked)
end

local function head(meta)
  return format('{"id":"cmpl-%s","object":"text_completion","created":%d,"model":%s,', meta.id,
    meta.created, meta.model_json)
end

--- The whole answer.
function completions.body(_, result, meta)
  local choices = {}
  for index, choice in ipairs(result.choices) do
    choices[index] = format('{"index":%d,"text":%s,"finish_reason":"%s"}', index - 1,
      json.string(choice.text), choice.finish)
  end
  return concat { head(meta), '"choices":', json.array(choices), ',"usage":',
    prompts.openai_usage(result), "}" }
end

--- The streamed answer: a chunk a token, finish chunks, usage, [DONE].
function completions.events(asked, result, meta)
  local chunk = "data: " .. head(meta)
  local before, closing = {}, {}
  for index, choice in ipairs(result.choices) do
    before[index] = format('%s"usage":null,"choices":[{"index":%d,"text":', chunk, index - 1)
    closing[index] = format('%s"","finish_reason":"%s"}]}\n\n', before[index], choice.finish)
  end
  if asked.include_usage then
    closing[#closing + 1] = concat { chunk, '"choices":[],"usage":', prompts.openai_usage(result),
      "}\n\n" }
  end
  return {
    opening = "",
    lead = "",
    token = function(index, token)
      return concat { before[index], tokens.to_json(token), ',"finish_reason":null}]}\n\n' }
    end,
    closing = function() return concat(closing) end,
    terminal = function() return "data: [DONE]\n\n" end,
  }
end

return completions
