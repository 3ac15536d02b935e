--- A raw HTTP/1.1 client for specs. It sends what it is told, right or wrong, as slowly as it is
-- told, and reads answers strictly.

local cjson = require "cjson.safe"
local http = require "support.http"
local stream = require "support.stream"

local client = {}

--- A connection: write(bytes), close(), reset(), shutdown(), wait_closed(), read_all()... and:
local Connection = {}
Connection.__index = function(self, key)
  local own = Connection[key]
  if own then
    return own
  end
  local value = self.stream[key]
  if type(value) == "function" then
    return function(_, ...)
      return value(self.stream, ...)
    end
  end
  return value
end

--- Connects to something with a port: a gateway, a sim, an upstream, or a bare number.
-- @param where number, or table with `port`
-- @tparam[opt] table options tls = { cafile, server_name }, timeout_s
function client.connect(where, options)
  options = options or {}
  local port = type(where) == "table" and where.port or where
  local tcp, reason = stream.connect("127.0.0.1", port, options.timeout_s)
  if not tcp then
    error(("cannot connect to port %s: %s"):format(tostring(port), reason), 2)
  end
  tcp.timeout_s = options.timeout_s or tcp.timeout_s
  if options.tls then
    local ok
    ok, reason = tcp:start_tls(require("support.tls").client(options.tls), options.tls.server_name)
    if not ok then
      error("TLS handshake failed: " .. reason, 2)
    end
  end
  return setmetatable({ stream = tcp }, Connection)
end

--- The fields of a request as pairs: the spec's own, and Host, Content-Type and Content-Length
-- when they are missing; `false` leaves one out.
local function complete_fields(options, body)
  local fields, seen = {}, {}
  for name, value in pairs(options.headers or {}) do
    if type(name) == "number" then
      name, value = value[1], value[2]
    end
    seen[name:lower()] = true
    if value then
      fields[#fields + 1] = { name, value }
    end
  end
  local function default(name, value)
    if value and not seen[name:lower()] then
      fields[#fields + 1] = { name, value }
    end
  end
  default("Host", options.host or "gateway.test")
  default("Content-Type", options.json and "application/json")
  default("Content-Length", body and tostring(#body))
  return fields
end

--- Bytes of a request.
-- @tparam table options method, path, headers, json (table) or body (text), host (when there is no
--   header Host)
function client.build(options)
  local body = options.json and assert(cjson.encode(options.json)) or options.body
  local method = options.method or (body and "POST" or "GET")
  local line = ("%s %s HTTP/1.1"):format(method, options.path or "/")
  return http.build(line, complete_fields(options, body), body), method
end

--- Sends a request, as for `client.build`.
function Connection:send(options)
  local bytes, method = client.build(options)
  self.method = method
  return self:write(bytes)
end

--- Sends bytes in pieces of `size` bytes; `between(offset)` runs before each but the first.
function Connection:write_in_pieces(bytes, size, between)
  for offset = 1, #bytes, size do
    if offset > 1 and between then
      between(offset)
    end
    local ok, reason = self:write(bytes:sub(offset, offset + size - 1))
    if not ok then
      return nil, reason
    end
  end
  return true
end

--- Reads the head of the next answer; its body is read by the message's own methods.
-- @treturn[1] table status, headers, next_event(), read_piece(), read_body(), events(), json(),
--   ended
-- @treturn[2] nil
-- @treturn[2] string "closed", "reset" or "timeout"
function Connection:read_head(timeout_s)
  return http.read_response(self.stream, self.method, timeout_s)
end

--- Reads the next answer whole; raises when there is none.
function Connection:read_response(timeout_s)
  local response, reason = self:read_head(timeout_s)
  if not response then
    error(("no answer: %s, after %d bytes: %q"):format(reason, self.stream.received_bytes,
      self.stream.buffer), 2)
  end
  response:read_body(timeout_s)
  return response
end

--- Sends a request and reads the answer on this connection.
function Connection:request(options)
  self:send(options)
  return self:read_response(options.timeout_s)
end

--- One request on a connection of its own.
-- @tparam table options to (gateway, sim, upstream or port), method, path, headers, json or body;
--   or raw (all bytes as they are); tls, timeout_s; streamed = true returns after the head, and
--   `response.connection` is open
-- @treturn table response with status, headers, body, ended ("complete", "close", "cut", "reset");
--   json(), events()
function client.request(options)
  local connection = client.connect(options.to, options)
  if options.raw then
    connection.method = options.raw:match("^%u+")
    connection:write(options.raw)
  else
    connection:send(options)
  end
  if options.streamed then
    local response, reason = connection:read_head(options.timeout_s)
    if not response then
      error("no answer: " .. reason, 2)
    end
    response.connection = connection
    return response
  end
  local response = connection:read_response(options.timeout_s)
  connection:close()
  return response
end

--- A chat completion: `options` as for `client.request`, and model, content, stream, more (further
-- top-level fields).
function client.chat(options)
  local body = {
    model = options.model or "gpt-4",
    messages = { { role = "user", content = options.content or "Hello" } },
    stream = options.stream,
  }
  for key, value in pairs(options.more or {}) do
    body[key] = value
  end
  local request = { path = "/v1/chat/completions", json = body }
  for key, value in pairs(options) do
    request[key] = value
  end
  return client.request(request)
end

return client
