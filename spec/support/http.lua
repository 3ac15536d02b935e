--- HTTP/1.1 for specs, both sides. Strict: a message that bends RFC 9112 fails the spec.
--
-- A body is read piece by piece (`read_piece`), so that a spec can act in the middle of one. How it
-- ended is always told: "complete" (its framing says so), "cut" (closed too early), "reset", or
-- "close" (a body without length, which only the end of the connection ends).

local http = {}

local TOKEN = "^[%w!#$%%&'*+%-.^_`|~]+$"

local function violation(form, ...)
  error("invalid HTTP: " .. form:format(...), 0)
end

--- Fields in order, with lookup by lower-case name: fields["content-type"]; repeated ones are
-- joined by ", ".
local function parse_fields(text)
  local fields = { list = {} }
  for line in text:gmatch("(.-)\r\n") do
    local name, value = line:match("^([^:]*):[ \t]*(.-)[ \t]*$")
    if not name or not name:find(TOKEN) then
      violation("header line %q", line)
    end
    if value:find("[%z\1-\8\10-\31\127]") then
      violation("control byte in the value of %s", name)
    end
    local key = name:lower()
    table.insert(fields.list, { name, value })
    fields[key] = fields[key] and (fields[key] .. ", " .. value) or value
  end
  return fields
end

local function read_head(stream, timeout_s)
  local head, reason = stream:read_through("\r\n\r\n", timeout_s)
  if not head then
    return nil, reason
  end
  if head:gsub("\r\n", ""):find("[\r\n]") then
    violation("bare CR or LF in the head %q", head)
  end
  local start_line, rest = head:match("^(.-)\r\n(.*)\r\n$")
  return start_line, parse_fields(rest), head
end

--- Framing of a message: "none", "length", "chunked" or "close", and the length.
local function framing_of(fields, is_response)
  local length, coding = fields["content-length"], fields["transfer-encoding"]
  if length and coding then
    violation("both Content-Length and Transfer-Encoding")
  elseif coding then
    if coding:lower() ~= "chunked" then
      violation("Transfer-Encoding: %s", coding)
    end
    return "chunked"
  elseif length then
    if not length:find("^%d+$") then
      violation("Content-Length: %s", length)
    end
    return "length", tonumber(length)
  end
  return is_response and "close" or "none"
end

local Message = {}

--- `body` is what has been read of it so far; put together when asked for.
local function message_index(self, key)
  if key ~= "body" then
    return Message[key]
  end
  if self.joined_count ~= #self.pieces then
    self.joined, self.joined_count = table.concat(self.pieces), #self.pieces
  end
  return self.joined
end

local function early_end(self, reason)
  if reason == "timeout" then
    error(("timed out in the body of %s, after %d bytes"):format(self.start_line, #self.body), 0)
  end
  self.ended = reason == "reset" and "reset" or "cut"
  return nil, self.ended
end

local function finish(self, how)
  self.ended = how
  return nil, how
end

local function read_length_piece(self, timeout_s)
  if self.left == 0 then
    return finish(self, "complete")
  end
  if #self.stream.buffer == 0 then
    local ok, reason = self.stream:fill(timeout_s)
    if not ok then
      return early_end(self, reason)
    end
  end
  local piece = self.stream:take(math.min(self.left, #self.stream.buffer))
  self.left = self.left - #piece
  return piece
end

local function read_trailers(self, timeout_s)
  local text = ""
  while true do
    local line, reason = self.stream:read_through("\r\n", timeout_s)
    if not line then
      return early_end(self, reason)
    elseif line == "\r\n" then
      self.trailers = parse_fields(text)
      return finish(self, "complete")
    end
    text = text .. line
  end
end

local function read_chunk(self, timeout_s)
  local line, reason = self.stream:read_through("\r\n", timeout_s)
  if not line then
    return early_end(self, reason)
  end
  local size = line:match("^(%x+)\r\n$") or line:match("^(%x+)[ \t]*;[^\r\n]*\r\n$")
  if not size then
    violation("chunk size line %q", line)
  end
  size = tonumber(size, 16)
  if size == 0 then
    return read_trailers(self, timeout_s)
  end
  local data
  data, reason = self.stream:read_exactly(size + 2, timeout_s)
  if not data then
    return early_end(self, reason)
  end
  if data:sub(-2) ~= "\r\n" then
    violation("chunk of %d bytes without CRLF behind it", size)
  end
  return data:sub(1, -3)
end

local function read_close_piece(self, timeout_s)
  if #self.stream.buffer == 0 then
    local ok, reason = self.stream:fill(timeout_s)
    if not ok then
      if reason == "closed" then
        return finish(self, "close")
      end
      return early_end(self, reason)
    end
  end
  return self.stream:take(#self.stream.buffer)
end

local READERS = {
  none = function(self)
    return finish(self, "complete")
  end,
  length = read_length_piece,
  chunked = read_chunk,
  close = read_close_piece,
}

--- The next bytes of the body, as they come; nil and how it ended.
function Message:read_piece(timeout_s)
  if self.ended then
    return nil, self.ended
  end
  local piece, how = READERS[self.framing](self, timeout_s)
  if piece then
    self.pieces[#self.pieces + 1] = piece
  end
  return piece, how
end

--- Reads the rest of the body.
-- @treturn string the whole body; `ended` says whether it is
function Message:read_body(timeout_s)
  repeat
    local piece = self:read_piece(timeout_s)
  until not piece
  return self.body
end

--- The body, decoded; raises when it is not JSON.
function Message:json()
  local value, reason = require("cjson.safe").decode(self.body)
  if value == nil then
    error(("body is not JSON (%s): %q"):format(reason, self.body), 2)
  end
  return value
end

local function parse_event(text)
  local event = { data = nil, raw = text }
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    local field, value = line:match("^([^:]*):? ?(.*)$")
    if line:sub(1, 1) == ":" then
      event.comment = line:sub(2)
    elseif field == "data" then
      event.data = event.data and (event.data .. "\n" .. value) or value
    elseif line ~= "" then
      event[field] = value
    end
  end
  return event
end

--- The next server-sent event: { data, event, id, retry, comment, raw }; nil and how it ended.
function Message:next_event(timeout_s)
  while true do
    local first, last = self.event_rest:find("\r?\n\r?\n")
    if first then
      local text = self.event_rest:sub(1, first - 1)
      self.event_rest = self.event_rest:sub(last + 1)
      return parse_event(text)
    end
    if self.event_pieces == #self.pieces then
      local piece, how = self:read_piece(timeout_s)
      if not piece then
        return nil, how
      end
    end
    self.event_pieces = self.event_pieces + 1
    self.event_rest = self.event_rest .. self.pieces[self.event_pieces]
  end
end

--- All events to the end of the body.
function Message:events(timeout_s)
  local events = {}
  for event in function() return self:next_event(timeout_s) end do
    events[#events + 1] = event
  end
  return events
end

local function new_message(stream, start_line, fields, head)
  return setmetatable({
    stream = stream,
    start_line = start_line,
    headers = fields,
    head = head,
    pieces = {},
    event_pieces = 0, -- how many of them have gone into event_rest
    event_rest = "",
  }, { __index = message_index })
end

--- Reads a request with its body. `nil, reason` when the connection ended before one began.
-- @treturn table method, target, headers, body, raw (head and decoded body)
function http.read_request(stream, timeout_s)
  local start_line, fields, head = read_head(stream, timeout_s)
  if not start_line then
    return nil, fields
  end
  local self = new_message(stream, start_line, fields, head)
  self.method, self.target, self.version = start_line:match("^(%u+) (%S+) HTTP/(1%.[01])$")
  if not self.method then
    violation("request line %q", start_line)
  elseif self.version == "1.1" and not fields.host then
    violation("request without Host")
  end
  self.framing, self.left = framing_of(fields, false)
  self:read_body(timeout_s)
  self.raw = head .. self.body
  return self
end

--- Reads the head of a response (interim ones are kept in `interim`).
-- @tparam string method of the request: an answer to HEAD has no body
function http.read_response(stream, method, timeout_s)
  local interim = {}
  while true do
    local start_line, fields, head = read_head(stream, timeout_s)
    if not start_line then
      return nil, fields
    end
    local self = new_message(stream, start_line, fields, head)
    local version, status = start_line:match("^HTTP/(1%.[01]) (%d%d%d) [%w%p ]*$")
    if not version then
      violation("status line %q", start_line)
    end
    self.version, self.status = version, tonumber(status)
    if self.status >= 200 then
      self.framing, self.left = framing_of(fields, true)
      if method == "HEAD" or self.status == 204 or self.status == 304 then
        self.framing = "none"
      end
      self.interim = interim
      return self
    end
    interim[#interim + 1] = self
  end
end

local function append_fields(lines, headers)
  local names = {}
  for name in pairs(headers) do
    if type(name) == "string" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    lines[#lines + 1] = ("%s: %s"):format(name, headers[name])
  end
  for _, pair in ipairs(headers) do
    lines[#lines + 1] = ("%s: %s"):format(pair[1], pair[2])
  end
end

--- Bytes of a message: start line, fields ({ name = value } or { { name, value }, ... }), body.
function http.build(start_line, headers, body)
  local lines = { start_line }
  append_fields(lines, headers)
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

return http
