--- Readers for what operators write as text, and the types made of them that several sections of
-- the configuration share: names, headers, credentials, files, time limits. Pure.
--
-- A reader takes a text (or a key of any type, for maps) and gives the value that it means, or nil,
-- "invalid" and what is wrong.

local deadline = require "perilune.deadline"
local types = require "perilune.schema.types"

local texts = {}

local MAX_NAME_BYTES = 64 -- providers, policies, routes' own names
local MAX_HEADER_BYTES = 8192
local MAX_FILE_BYTES = 4096
local MAX_CHANGED_HEADERS = 64

-- Readers -----------------------------------------------------------------------------------------

--- A reader that refuses what does not match a Lua pattern.
-- @tparam string pattern
-- @tparam string detail what to say then
-- @treturn function
function texts.matching(pattern, detail)
  return function(text)
    if type(text) == "string" and text:find(pattern) then return text end
    return nil, "invalid", detail
  end
end

--- Anything without control characters.
texts.printable = texts.matching("^%C+$", "must not hold control characters")

--- A reader for keys: names of bounded length that `read` accepts.
-- @tparam function read
-- @treturn function
function texts.named(read)
  return function(key)
    if type(key) ~= "string" or key == "" then return nil, "invalid", "is not a name" end
    if #key > MAX_NAME_BYTES then
      return nil, "invalid", ("is a name of more than %d bytes"):format(MAX_NAME_BYTES)
    end
    return read(key)
  end
end

-- The gateway frames messages itself; these would contradict it (RFC 9110 7.6.1, RFC 9112 6).
local FRAMING = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true,
  ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["upgrade"] = true,
}

--- A header's name, in lower case.
function texts.header_name(name)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    return nil, "invalid", "is not a valid header name"
  end
  return name:lower()
end

--- The name, in lower case, of a header that may be changed.
function texts.own_header_name(name)
  local lower, code, detail = texts.header_name(name)
  if not lower then return nil, code, detail end
  if FRAMING[lower] then return nil, "invalid", "is a header that the gateway sets itself" end
  return lower
end

local function header_value(text)
  if text:find("[%z\1-\8\10-\31\127]") then
    return nil, "invalid", "must not hold CR, LF or other control characters"
  end
  return text
end

-- Types -------------------------------------------------------------------------------------------

texts.HEADER_VALUE = {
  kind = "text", min = 0, max = MAX_HEADER_BYTES, read = header_value, secret = true,
}
texts.CREDENTIAL = types.with(texts.HEADER_VALUE, { min = 1 })
texts.FILE = { kind = "text", max = MAX_FILE_BYTES, read = texts.printable }
texts.MODEL = { kind = "text", read = texts.printable }
texts.FIELD_NAME = { kind = "text", read = texts.printable }

--- A name of the operator's own choice.
-- @tparam[opt] function read checks it further
-- @treturn table type
function texts.name(read) return { kind = "text", max = MAX_NAME_BYTES, read = read } end

--- Headers to be set: names of any case, each once.
texts.HEADERS = types.with(
  types.map(texts.own_header_name, texts.HEADER_VALUE, 0, MAX_CHANGED_HEADERS), { default = {} })

--- Headers to be left out.
texts.HEADER_NAMES = types.with(
  types.list({ kind = "text", read = texts.own_header_name }, 0, MAX_CHANGED_HEADERS),
  { default = {} })

--- A header whose unit is known by its name.
local function deadline_header(name)
  local lower, code, detail = texts.own_header_name(name)
  if not lower then return nil, code, detail end
  local unit = deadline.unit_of(lower)
  if unit then return { name = lower, unit = unit } end
  return nil, "invalid", ('is ambiguous: write { { name = "%s", unit = "ms" } }'):format(lower)
end

local DEADLINE_HEADER = { kind = "text", read = deadline_header }

--- Headers in which clients say how much time a request has; gives one { name, unit }, or a list.
texts.DEADLINE_HEADERS = {
  kind = "either", text = DEADLINE_HEADER, wanted = "a header's name or a list of headers",
  table = types.list({
    kind = "either", text = DEADLINE_HEADER, wanted = "a name or { name = ..., unit = ... }",
    table = types.record {
      { "name", { kind = "text", read = texts.own_header_name, required = true } },
      { "unit", types.with(types.choice(deadline.UNITS), { required = true }) },
    },
  }, 0, 8),
}

--- The time limits of one try. A provider's have defaults; a target's own stand over them.
-- @tparam table defaults option -> duration as text; empty for none
-- @treturn table type
function texts.timeouts(defaults)
  return types.section {
    { "connect", types.span("1ms", "10m", defaults.connect) },
    { "tls", types.span("1ms", "10m", defaults.tls) },
    { "head", types.span("0ms", "24h", defaults.head) },
    { "first_token", types.span("0ms", "24h", defaults.first_token) },
    { "idle", types.span("0ms", "24h", defaults.idle) },
    { "try", types.span("0ms", "24h", defaults.try) },
  }
end

local JSON_FIELDS = types.with(types.map(texts.named(texts.printable), { kind = "json" }, 0, 64),
  { default = {} })

--- How a target is asked to go on from the assistant's words; false: it cannot.
texts.PREFIX = { kind = "switch", on = types.record {
  { "message", JSON_FIELDS },
  { "body", JSON_FIELDS },
} }

return texts
