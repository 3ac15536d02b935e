--- The words of an answer, whatever its form: what a person would read.
--
-- Of a completion the text of its choices: chat completions, completions, responses and messages,
-- whole or streamed; a refusal that has a field of its own is part of it. Tool calls are not. Of an
-- error its message. What has none of these forms is given as it came: proxies answer in plain text
-- and HTML. Pure; what upstreams send has hostile shapes, so types are checked before each index.

local completion = {}

local EVENT_STREAM = "text/event-stream"
local TEXT_DELTAS = {
  ["response.output_text.delta"] = true, ["response.refusal.delta"] = true,
}
local PARTS_MAX = 128    -- of a list; what it holds beyond is not looked at
local EVENTS_MAX = 10000 -- about 20 ms

local function table_at(value, key)
  local item = type(value) == "table" and value[key]
  return type(item) == "table" and item or nil
end

local function string_at(value, key)
  local item = type(value) == "table" and value[key]
  return type(item) == "string" and item or ""
end

-- ---- whole answers -------------------------------------------------------------------------

local function list_text(list, text_of, separator)
  local out = {}
  for position = 1, math.min(#list, PARTS_MAX) do out[position] = text_of(list[position]) end
  return table.concat(out, separator)
end

local function part_text(part)
  return string_at(part, "text") .. string_at(part, "refusal")
end

--- The text of a content: a string, or a list of parts.
local function content_text(content)
  if type(content) == "string" then return content end
  return type(content) == "table" and list_text(content, part_text) or ""
end

--- A choice of a chat completion, whole or a piece of it, or of a completion.
local function choice_text(choice)
  local message = table_at(choice, "message") or table_at(choice, "delta")
  if not message then return string_at(choice, "text") end
  return content_text(message.content) .. string_at(message, "refusal")
end

local function item_text(item)
  return content_text(type(item) == "table" and item.content or nil)
end

local function error_text(body)
  local inner = body.error
  if type(inner) == "string" then return inner end
  return string_at(type(inner) == "table" and inner or body, "message")
end

--- @treturn ?string nil when the body has none of the forms
local function whole_text(body)
  if type(body) ~= "table" then return nil end
  if table_at(body, "choices") then return list_text(body.choices, choice_text, "\n") end
  if table_at(body, "output") then return list_text(body.output, item_text, "\n") end
  if table_at(body, "error") or string_at(body, "error") ~= "" or string_at(body, "message") ~= ""
  then
    return error_text(body)
  end
  if table_at(body, "content") then return content_text(body.content) end
  return nil
end

-- ---- streams -------------------------------------------------------------------------------

local function add(out, number, text)
  for missing = #out + 1, number do out[missing] = {} end
  table.insert(out[number], text)
end

local function add_choice(out, choice)
  local index = type(choice) == "table" and choice.index
  local known = type(index) == "number" and index >= 0 and index < PARTS_MAX
  add(out, known and math.floor(index) + 1 or 1, choice_text(choice))
end

--- Adds an event's text to `out`, a list of lists: one per choice, in the order of their numbers.
local function add_event(out, body)
  if type(body) ~= "table" then return end
  local choices = table_at(body, "choices")
  if choices then
    for position = 1, math.min(#choices, PARTS_MAX) do add_choice(out, choices[position]) end
  elseif TEXT_DELTAS[body.type] then
    add(out, 1, string_at(body, "delta"))
  elseif body.type == "content_block_delta" then
    add(out, 1, string_at(body.delta, "text"))
  end
end

--- Calls `take(data)` with each event's data. Lines end in LF, CRLF or CR, as browsers read them.
-- @treturn boolean false when there are too many events to look at
local function each_data(body, take)
  local text = body:gsub("\r\n?", "\n") .. "\n\n"
  local start, data, count = 1, nil, 0
  while start <= #text do
    local stop = text:find("\n", start, true)
    if stop == start and data then
      count = count + 1
      if count > EVENTS_MAX then return false end
      take(data)
      data = nil
    elseif text:sub(start, start + 4) == "data:" then
      local first = text:sub(start + 5, start + 5) == " " and start + 6 or start + 5
      local line = text:sub(first, stop - 1)
      data = data and data .. "\n" .. line or line
    end
    start = stop + 1
  end
  return true
end

local function streamed_text(body, decode)
  local out = {}
  local whole = each_data(body, function(data) add_event(out, decode(data)) end)
  if not whole then return nil, "too_large" end
  for number, pieces in ipairs(out) do out[number] = table.concat(pieces) end
  return table.concat(out, "\n")
end

--- The words of an answer.
-- @tparam string body the whole body, as it came
-- @tparam ?string content_type of the answer
-- @tparam function decode(text) -> table, or nil when it is not JSON
-- @treturn[1] string of several choices one after the other, a line break between them
-- @treturn[2] nil
-- @treturn[2] string "too_large": a stream of very many events
function completion.text(body, content_type, decode)
  local kind = (content_type or ""):sub(1, #EVENT_STREAM):lower()
  if kind == EVENT_STREAM then return streamed_text(body, decode) end
  return whole_text(decode(body)) or body
end

return completion
