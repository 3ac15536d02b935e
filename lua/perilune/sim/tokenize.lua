--- POST /tokenize, as vLLM has it. Pure.
local errors = require "perilune.sim.errors"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local prompts = require "perilune.sim.prompts"
local tokens = require "perilune.sim.tokens"
local format = string.format

local tokenize = {}

local function unreadable(detail)
  return errors.new(400, "Failed to read and parse tokenize request body, " .. detail)
end

local function append_ids(ids, text)
  for _, token in ipairs(tokens.split(text)) do
    ids[#ids + 1] = format("%d", tokens.id(token))
  end
end

local function message_ids(reader, ids)
  for index, message in ipairs(reader:array("messages") or {}) do
    if type(message) ~= "table" or message[1] ~= nil then
      return reader:refuse(format("messages[%d]", index - 1), "an object")
    end
    local part = fields.of(message, format("messages[%d].", index - 1))
    append_ids(ids, prompts.content(part, "content"))
    reader:adopt(part)
  end
end

--- Tokens of a prompt or of messages.
-- @tparam string body the request's
-- @tparam table config
-- @treturn[1] string the answer
-- @treturn[2] nil
-- @treturn[2] table the error
function tokenize.answer(body, config)
  local object, _, detail = json.decode_object(body)
  if not object then return nil, unreadable(detail) end
  local reader, ids = fields.of(object), {}
  local prompt = reader:string("prompt") or ""
  if prompt ~= "" and reader:any("messages") ~= nil then
    return nil, errors.new(400, "both prompt and messages fields in tokenize request")
  end
  append_ids(ids, prompt)
  message_ids(reader, ids)
  if reader.fault then return nil, unreadable(reader.fault) end
  return format('{"count":%d,"max_model_len":%d,"tokens":%s}', #ids, config.max_model_len,
    json.array(ids))
end

return tokenize
