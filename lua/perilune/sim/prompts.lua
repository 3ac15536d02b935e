--- What generating endpoints read alike from a request: texts of messages, limits, switches. Pure.
-- A prompt is `{ count = tokens, echo = what echo mode repeats }`.
local errors = require "perilune.sim.errors"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local format = string.format

local prompts = {}

local MAX_CHOICES = 128

-- The text of a content block; nil when its shape is wrong. Images and the like have none.
local function block_text(block)
  if type(block) ~= "table" or fields.is_array(block) then return nil end
  local value = block.text
  if value == nil or value == json.null then value = block.content end
  if value == nil or value == json.null or type(value) == "table" then return "" end
  return type(value) == "string" and value or nil
end

local function blocks_text(blocks)
  local texts = {}
  for index = 1, #blocks do
    local text = block_text(blocks[index])
    if not text then return nil end
    if text ~= "" then texts[#texts + 1] = text end
  end
  return concat(texts, "\n")
end

--- The text of a member that is a string or an array of content blocks; "" when absent.
function prompts.content(reader, name)
  local value = reader:any(name)
  if value == nil then return "" end
  if type(value) == "string" then return value end
  local text = fields.is_array(value) and blocks_text(value)
  if text then return text end
  reader:refuse(name, "a string or an array of content blocks")
  return ""
end

--- What is left to echo of a text that the assistant has begun already.
local function rest_of(text, begun)
  if text:sub(1, #begun) == begun then return text:sub(#begun + 1) end
  return begun
end

--- The prompt that an array of messages makes. It may end in the beginning of the answer.
-- @tparam table reader fields of the request
-- @tparam string name the member that holds the messages
-- @tparam[opt] string system text that comes before them
-- @treturn table a prompt; message_count: how many messages there were; has_prefix: the last one
-- is the assistant's
function prompts.of_messages(reader, name, system)
  local messages = reader:array(name) or {}
  local prompt = { count = tokens.count(system or ""), echo = "", message_count = #messages }
  for index = 1, #messages do
    local message = messages[index]
    if type(message) ~= "table" or message[1] ~= nil then
      reader:refuse(format("%s[%d]", name, index - 1), "an object")
      return prompt
    end
    local part = fields.of(message, format("%s%s[%d].", reader.path, name, index - 1))
    prompt.has_prefix = part:string("role") == "assistant"
    local text = prompts.content(part, "content")
    prompt.echo = prompt.has_prefix and rest_of(prompt.echo, text) or text
    prompt.count = prompt.count + tokens.count(text)
    reader:adopt(part)
  end
  return prompt
end

--- What all generating endpoints share.
-- @tparam table reader fields of the request
-- @tparam string limit_name the member that limits the answer's tokens
-- @treturn table asked, without prompts
function prompts.read_common(reader, limit_name)
  return {
    model = reader:string("model") or "",
    stream = reader:boolean("stream") or false,
    max_tokens = reader:integer(limit_name),
    ignore_eos = reader:boolean("ignore_eos") or false,
    n = 1,
  }
end

--- OpenAI's members for several answers and for usage in streams.
function prompts.read_openai(reader, asked)
  asked.n = reader:integer("n") or 1
  local stream_options = reader:object_of("stream_options")
  asked.include_usage = stream_options:boolean("include_usage") or false
  reader:adopt(stream_options)
end

--- Limits that make no sense.
-- @treturn table|nil the error
function prompts.check_limits(asked)
  if asked.max_tokens and asked.max_tokens <= 0 then
    return errors.new(400, "Max completion tokens and max tokens should be positive")
  end
  if asked.ignore_eos and not asked.max_tokens then
    return errors.new(400,
      "Ignore_eos is true but max_completion_tokens (or max_tokens) is not set")
  end
  if asked.n < 1 or asked.n * #asked.prompts > MAX_CHOICES then
    return errors.new(400, format("n must give 1 to %d choices", MAX_CHOICES), "n")
  end
  return nil
end

--- As `check_limits`, for requests that must hold messages.
function prompts.check_messages(asked, config)
  local prompt = asked.prompts[1]
  if prompt.message_count == 0 then
    return errors.new(400, "messages must not be empty", "messages")
  end
  if prompt.has_prefix and config.refuse_prefix then
    return errors.new(400, "This model does not go on with a message of the assistant's: the last "
      .. "one must be the user's.", "messages")
  end
  return prompts.check_limits(asked)
end

--- The usage object of chat completions and completions.
function prompts.openai_usage(result)
  return format('{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    .. '"prompt_tokens_details":{"cached_tokens":0}}', result.prompt_tokens,
    result.completion_tokens, result.prompt_tokens + result.completion_tokens)
end

return prompts
