--- What the gateway itself has to say when it has no answer to pass on: status, code, message and
-- options, as `req:fail` takes them. How that is written, in the form that the client's library
-- reads, is the core's business (core/client_error.h).
--
-- Texts may hold what clients and upstreams sent: they are cut, made valid UTF-8, and rid of what
-- looks like a credential. Pure.

local cjson = require "cjson.safe"

local errors = {}

local READ_MAX_BYTES = 4096 -- so that a huge text costs nothing
local TEXT_MAX_BYTES = 1024
local PART_MAX_BYTES = 256 -- of a text that is put into a message

-- Class -> status and what is said of the target, whose name is put in place of %s.
local FAILURES = {
  dns = { 502, "The host of target `%s` could not be resolved" },
  connect = { 502, "No connection to target `%s` could be made" },
  tls = { 502, "The TLS handshake with target `%s` failed" },
  reset = { 502, "Target `%s` closed the connection before it had answered" },
  truncated = { 502, "The answer of target `%s` ended too early" },
  malformed = { 502, "Target `%s` did not answer as it should" },
  empty = { 502, "Target `%s` sent an empty answer" },
  -- errors that came under status 200
  rate_limited = { 429, "Target `%s` limits its rate" },
  context_length = { 400, "The request is too long for target `%s`" },
  content_filter = { 400, "Target `%s` refuses the request's content" },
  client_fault = { 400, "Target `%s` refuses the request" },
  overloaded = { 503, "Target `%s` is overloaded" },
  timeout_connect = { 504, "Connecting to target `%s` took too long" },
  timeout_head = { 504, "Target `%s` did not begin to answer in time" },
  timeout_first_token = { 504, "Target `%s` sent no first token in time" },
  timeout_idle = { 504, "Target `%s` fell silent within its answer" },
  timeout_try = { 504, "Target `%s` did not answer in time" },
  timeout_deadline = { 504, "The request's deadline passed while target `%s` was tried" },
}
local OTHER_FAILURE = { 502, "Target `%s` failed" }

-- Lead bytes of UTF-8 from 0xC2 to 0xF4: how many bytes follow.
local function following_count(lead)
  if lead >= 0xC2 and lead <= 0xDF then return 1 end
  if lead >= 0xE0 and lead <= 0xEF then return 2 end
  if lead >= 0xF0 and lead <= 0xF4 then return 3 end
  return nil
end

-- RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
local function second_byte_range(lead)
  if lead == 0xE0 then return 0xA0, 0xBF end
  if lead == 0xED then return 0x80, 0x9F end
  if lead == 0xF0 then return 0x90, 0xBF end
  if lead == 0xF4 then return 0x80, 0x8F end
  return 0x80, 0xBF
end

--- How many bytes the UTF-8 sequence at `position` has, nil when it is broken.
local function sequence_length(text, position)
  local lead, second, third, fourth = text:byte(position, position + 3)
  if lead < 0x80 then return 1 end
  local following = following_count(lead)
  local low, high = second_byte_range(lead)
  if not following or not second or second < low or second > high then return nil end
  if following >= 2 and (not third or third < 0x80 or third > 0xBF) then return nil end
  if following == 3 and (not fourth or fourth < 0x80 or fourth > 0xBF) then return nil end
  return following + 1
end

--- Replaces every broken byte by "?".
local function to_utf8(text)
  if not text:find("[\128-\255]") then return text end
  local out, position = {}, 1
  while position <= #text do
    local length = sequence_length(text, position)
    out[#out + 1] = length and text:sub(position, position + length - 1) or "?"
    position = position + (length or 1)
  end
  return table.concat(out)
end

local function is_continuation(byte)
  return byte >= 0x80 and byte <= 0xBF
end

--- Cuts valid UTF-8 between two characters.
local function cut(text, max_bytes)
  if #text <= max_bytes then return text end
  local length = max_bytes
  while is_continuation(text:byte(length + 1)) do length = length - 1 end
  return text:sub(1, length) .. "..."
end

local function without_secrets(text)
  text = text:gsub("([Bb]earer%s+)[^%s\"',]+", "%1***")
  text = text:gsub("sk%-[%w_%-]+", "sk-***")
  text = text:gsub("([?&][%w_%-]*[Kk]ey=)[^&%s]+", "%1***")
  return (text:gsub("://[^/%s@]*@", "://***@"))
end

--- Makes text fit for an error message: no credentials, valid UTF-8, bounded.
-- @param text anything; what is no string is turned into one
-- @tparam[opt] number max_bytes of the result, the dots that mark a cut not included
-- @treturn string
function errors.clean(text, max_bytes)
  local head = tostring(text):sub(1, READ_MAX_BYTES)
  return cut(to_utf8(without_secrets(head)), max_bytes or TEXT_MAX_BYTES)
end

--- A JSON string literal. cjson writes "/" as "\/", which is right and hard to read.
-- @tparam string text valid UTF-8
-- @treturn string quotes included
function errors.quote(text)
  return (cjson.encode(text):gsub("\\(.)", { ["/"] = "/" }))
end

local function name_of(target)
  return errors.clean(target and target.name or "unknown", PART_MAX_BYTES)
end

--- What a client is told when no answer can be relayed.
-- @tparam ?table err `{ class, detail, target }`; nil when no target was tried at all
-- @treturn number status
-- @treturn string code, the outcome class, or "no_target"
-- @treturn string message
function errors.from_failure(err)
  if type(err) ~= "table" then
    return 503, "no_target", "No target of this route could be tried"
  end
  local failure = FAILURES[err.class] or OTHER_FAILURE
  local name = name_of(err.target)
  local message = failure[2]:gsub("%%s", function() return name end)
  if err.detail ~= nil and err.detail ~= "" then
    message = message .. ": " .. errors.clean(err.detail, PART_MAX_BYTES)
  end
  local code = type(err.class) == "string" and err.class or "upstream_error"
  return failure[1], code, message
end

local OWN = { is_own = true }
local MODEL_AT_FAULT = { param = "model", is_own = true }

local GIVEN_UP = {
  queue_full = "All targets of this route are busy, and the queue is full",
  queue_timeout = "All targets of this route stayed busy",
  all_ejected = "All targets of this route are out of service for now",
  work_uncertain = "An earlier try may have been served; the request is not sent again",
}

--- For a request that no target could take.
-- @tparam string code "queue_full", "queue_timeout", "all_ejected" or "work_uncertain"
-- @treturn number status 503
-- @treturn string code
-- @treturn string message
function errors.given_up(code)
  return 503, code, GIVEN_UP[code] or "No target of this route can be tried"
end

--- For a path that is not served.
-- @tparam string method
-- @tparam string path
-- @treturn number status 404
-- @treturn string code
-- @treturn string message
-- @treturn table options
function errors.unknown_url(method, path)
  local message = "Unknown request URL: " .. errors.clean(method, PART_MAX_BYTES) .. " "
    .. errors.clean(path, PART_MAX_BYTES)
  return 404, "unknown_url", message, OWN
end

--- For a model that no route serves.
-- @tparam string model as the client wrote it
-- @treturn number status 404
-- @treturn string code
-- @treturn string message
-- @treturn table options
function errors.model_not_found(model)
  local message = "The model `" .. errors.clean(model, PART_MAX_BYTES)
    .. "` does not exist or is not configured in the gateway"
  return 404, "model_not_found", message, MODEL_AT_FAULT
end

return errors
