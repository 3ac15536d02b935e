--- POST /v1/messages, as Anthropic has it. Pure.
local errors = require "perilune.sim.errors"
local json = require "perilune.sim.json"
local prompts = require "perilune.sim.prompts"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local format = string.format

local messages = {
  path = "/v1/messages",
  error_body = errors.anthropic_body,
}

local STOP_REASONS = { stop = "end_turn", length = "max_tokens" }

--- Read a request.
function messages.parse(reader)
  local asked = prompts.read_common(reader, "max_tokens")
  local system = prompts.content(reader, "system")
  asked.prompts = { prompts.of_messages(reader, "messages", system) }
  return asked
end

--- What is wrong with a request that could be read.
function messages.check(asked, config)
  if asked.prompts[1].message_count > 0 and not asked.max_tokens then
    return errors.new(400, "max_tokens is required", "max_tokens")
  end
  return prompts.check_messages(asked, config)
end

-- A message object around its content, stop reason and output tokens.
local function message(result, meta, content, stop_reason, output_count)
  return format('{"id":"msg_%s","type":"message","role":"assistant","model":%s,"content":%s,'
    .. '"stop_reason":%s,"stop_sequence":null,"usage":{"input_tokens":%d,'
    .. '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":%d}}',
    meta.id, meta.model_json, content, stop_reason, result.prompt_tokens, output_count)
end

local function stop_reason_json(choice)
  return '"' .. STOP_REASONS[choice.finish] .. '"'
end

--- The whole answer.
function messages.body(_, result, meta)
  local choice = result.choices[1]
  local content = format('[{"type":"text","text":%s}]', json.string(choice.text))
  return message(result, meta, content, stop_reason_json(choice), result.completion_tokens)
end

local function event(name, members)
  return format('event: %s\ndata: {"type":"%s"%s}\n\n', name, name, members)
end

local DELTA_HEAD = 'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
  .. '"delta":{"type":"text_delta","text":'

--- The streamed answer, message_start to message_stop.
function messages.events(_, result, meta)
  local choice = result.choices[1]
  return {
    opening = event("message_start", ',"message":' .. message(result, meta, "[]", "null", 0)),
    lead = event("content_block_start", ',"index":0,"content_block":{"type":"text","text":""}')
      .. event("ping", ""),
    token = function(_, token)
      return concat { DELTA_HEAD, tokens.to_json(token), "}}\n\n" }
    end,
    closing = function()
      return event("content_block_stop", ',"index":0')
        .. event("message_delta", format(',"delta":{"stop_reason":%s,"stop_sequence":null},'
          .. '"usage":{"output_tokens":%d}', stop_reason_json(choice), result.completion_tokens))
    end,
    terminal = function() return event("message_stop", "") end,
  }
end

return messages
