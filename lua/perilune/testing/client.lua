--- What a client of the played gateway has got: an answer that fills while time passes.

local cjson = require "cjson.safe"

local client = {}

local methods = {}

--- Headers that are found whatever the case of the name; several of one name are joined.
local function header_table(list)
  local fields = {}
  for _, pair in ipairs(list) do
    local name = pair[1]:lower()
    fields[name] = fields[name] and fields[name] .. ", " .. pair[2] or pair[2]
  end
  return setmetatable(fields, { __index = function(_, name)
    return type(name) == "string" and rawget(fields, name:lower()) or nil
  end })
end

client.header_table = header_table

local function since(start_ms, ms)
  return ms and ms - start_ms
end

-- Fields that change until the answer has ended.
local function look(self)
  local state = self.handle:look()
  state.first_byte_ms = since(state.started_ms, state.first_byte_ms)
  state.duration_ms = since(state.started_ms, state.ended_ms)
  return state
end

local FIELDS = { status = true, ended = true, started_ms = true, first_byte_ms = true,
  duration_ms = true }

local function index(self, key)
  if methods[key] then return methods[key] end
  if FIELDS[key] then return look(self)[key] end
  if key == "body" then return self.handle:body() end
  if key == "headers" then return header_table(self.handle:headers()) end
  return nil
end

--- The body as a table; nil when it is not JSON.
function methods:json()
  return (cjson.decode(self.body))
end

--- Lines of an event: its data, joined, and its name.
local function parse_event(text)
  local event, data
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    local field, value = line:match("^([^:]+): ?(.*)$")
    if field == "data" then data = data and data .. "\n" .. value or value end
    if field == "event" then event = value end
  end
  return (data or event) and { event = event, data = data or "" }
end

--- The events of a stream that have come whole.
-- @treturn {table,...} event (its name, or nil) and data
function methods:events()
  local list = {}
  for text in self.body:gsub("\r\n", "\n"):gmatch("(.-)\n\n") do
    list[#list + 1] = parse_event(text)
  end
  return list
end

local function field(value, ...)
  for _, key in ipairs { ... } do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  return type(value) == "string" and value or nil
end

--- The words in one event or in a whole answer, in the forms of OpenAI and Anthropic.
local function words_of(value)
  if type(value) ~= "table" then return "" end
  return field(value, "choices", 1, "delta", "content")
    or field(value, "choices", 1, "message", "content") or field(value, "choices", 1, "text")
    or (value.type == "response.output_text.delta" and field(value, "delta"))
    or field(value, "delta", "text") or field(value, "content", 1, "text")
    or field(value, "output", 1, "content", 1, "text") or ""
end

--- The words of the completion, streamed or not.
function methods:text()
  local content_type = self.headers["content-type"] or ""
  if not content_type:find("^text/event%-stream") then return words_of(self:json()) end
  local words = {}
  for number, event in ipairs(self:events()) do
    words[number] = words_of(cjson.decode(event.data))
  end
  return table.concat(words)
end

--- The client goes away.
function methods:leave()
  self.handle:leave()
end

--- @param handle the stage's
function client.new(handle)
  return setmetatable({ handle = handle }, { __index = index })
end

return client
