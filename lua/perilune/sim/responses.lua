--- POST /v1/responses, with OpenAI's events. Pure.
local errors = require "perilune.sim.errors"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local prompts = require "perilune.sim.prompts"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local format = string.format

local responses = {
  path = "/v1/responses",
  error_body = errors.openai_body,
}

local function item_text(item)
  if item:any("output") ~= nil then return prompts.content(item, "output") end
  return item:string("arguments") or prompts.content(item, "content")
end

-- The prompt of an array of input items: messages, function calls and their outputs.
local function items_prompt(reader, list, instructions)
  local prompt = { count = tokens.count(instructions), echo = "", message_count = #list }
  for index = 1, #list do
    if type(list[index]) ~= "table" or list[index][1] ~= nil then
      reader:refuse(format("input[%d]", index - 1), "an object")
      return prompt
    end
    local item = fields.of(list[index], format("input[%d].", index - 1))
    item:string("type")
    item:string("role")
    prompt.echo = item_text(item)
    prompt.count = prompt.count + tokens.count(prompt.echo)
    reader:adopt(item)
  end
  return prompt
end

local function read_prompt(reader, instructions)
  local input = reader:any("input")
  if type(input) == "string" then
    return { count = tokens.count(instructions) + tokens.count(input), echo = input,
      message_count = input ~= "" and 1 or 0 }
  end
  if input == nil or fields.is_array(input) then
    return items_prompt(reader, input or {}, instructions)
  end
  reader:refuse("input", "a string or an array of input items")
  return items_prompt(reader, {}, instructions)
end

--- Read a request.
function responses.parse(reader)
  local asked = prompts.read_common(reader, "max_output_tokens")
  asked.instructions = reader:string("instructions")
  asked.prompts = { read_prompt(reader, asked.instructions or "") }
  return asked
end

--- What is wrong with a request that could be read.
function responses.check(asked)
  if asked.prompts[1].message_count == 0 then
    return errors.new(400, "input must not be empty", "input")
  end
  return prompts.check_limits(asked)
end

local function usage(result)
  return format('{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},'
    .. '"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}',
    result.prompt_tokens, result.completion_tokens,
    result.prompt_tokens + result.completion_tokens)
end

local function part(text)
  return format('{"type":"output_text","text":%s,"annotations":[],"logprobs":[]}',
    json.string(text))
end

local function item(meta, status, content)
  return format('{"type":"message","id":"msg_%s","status":"%s","role":"assistant","content":%s}',
    meta.id, status, content)
end

-- A response object. `output` is raw JSON, `usage_json` too.
local function response(asked, meta, status, output, usage_json)
  return json.object {
    { "id", '"resp_' .. meta.id .. '"' },
    { "object", '"response"' },
    { "created_at", format("%d", meta.created) },
    { "status", '"' .. status .. '"' },
    { "error", "null" },
    { "incomplete_details",
      status == "incomplete" and '{"reason":"max_output_tokens"}' or "null" },
    { "instructions", asked.instructions and json.string(asked.instructions) or "null" },
    { "max_output_tokens", asked.max_tokens and format("%.0f", asked.max_tokens) or "null" },
    { "model", meta.model_json },
    { "output", output },
    { "parallel_tool_calls", "true" },
    { "text", '{"format":{"type":"text"}}' },
    { "tool_choice", '"auto"' },
    { "tools", "[]" },
    { "usage", usage_json },
  }
end

local function final(asked, result, meta)
  local choice = result.choices[1]
  local status = choice.finish == "length" and asked.max_tokens and "incomplete" or "completed"
  local output = json.array { item(meta, status, json.array { part(choice.text) }) }
  return response(asked, meta, status, output, usage(result)), status
end

--- The whole answer.
function responses.body(asked, result, meta)
  return (final(asked, result, meta))
end

-- Events of one stream, numbered as they are made.
local function numbered()
  local sequence = -1
  return function(name, members)
    sequence = sequence + 1
    return format('event: %s\ndata: {"type":"%s","sequence_number":%d,%s}\n\n', name, name,
      sequence, members)
  end
end

local function closing_events(event, meta, place, choice, status)
  local text_json, part_json = json.string(choice.text), part(choice.text)
  return concat {
    event("response.output_text.done", place .. ',"text":' .. text_json .. ',"logprobs":[]'),
    event("response.content_part.done", place .. ',"part":' .. part_json),
    event("response.output_item.done",
      '"output_index":0,"item":' .. item(meta, status, json.array { part_json })),
  }
end

--- The streamed answer, response.created to response.completed (or response.incomplete).
function responses.events(asked, result, meta)
  local event = numbered()
  local begun = '"response":' .. response(asked, meta, "in_progress", "[]", "null")
  local place = format('"item_id":"msg_%s","output_index":0,"content_index":0', meta.id)
  local last_response, status = final(asked, result, meta)
  return {
    opening = event("response.created", begun) .. event("response.in_progress", begun),
    lead = event("response.output_item.added",
      '"output_index":0,"item":' .. item(meta, "in_progress", "[]"))
      .. event("response.content_part.added", place .. ',"part":' .. part("")),
    token = function(_, token)
      return event("response.output_text.delta",
        concat { place, ',"delta":', tokens.to_json(token), ',"logprobs":[]' })
    end,
    closing = function()
      return closing_events(event, meta, place, result.choices[1], status)
    end,
    terminal = function()
      return event("response." .. status, '"response":' .. last_response)
    end,
  }
end

return responses
