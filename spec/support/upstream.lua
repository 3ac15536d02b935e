--- Scripted upstreams: raw HTTP/1.1 servers on a port of the system's choice, driven by a function
-- of the spec that sees every byte and may do everything wrong on purpose.

local cjson = require "cjson.safe"
local http = require "support.http"
local sched = require "support.sched"
local socket = require "socket"
local stream = require "support.stream"

local upstream = {}

local REASONS = {
  [200] = "OK", [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden",
  [404] = "Not Found", [408] = "Request Timeout", [413] = "Content Too Large",
  [429] = "Too Many Requests", [500] = "Internal Server Error", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [529] = "Overloaded",
}

--- One connection, as the handler sees it. What it does not know, the stream does: write(bytes),
-- close(), reset(), wait_closed(timeout_s), read_exactly(size), read_all(), shutdown().
local Connection = {}
Connection.__index = function(_, key)
  return Connection[key]
end

for _, name in ipairs({ "write", "close", "reset", "wait_closed", "read_exactly", "read_through",
  "read_all", "fill", "shutdown" }) do
  Connection[name] = function(self, ...)
    return self.stream[name](self.stream, ...)
  end
end

--- Reads one whole request and records it in `requests`; nil when the peer is done.
-- @treturn table method, target, headers, body, raw; json()
function Connection:read_request(timeout_s)
  local request, reason = http.read_request(self.stream, timeout_s or 30)
  if request then
    table.insert(self.owner.requests, request)
    self.last_method = request.method
  end
  return request, reason
end

--- A whole answer with Content-Length. Headers: { name = value } or { { name, value }, ... }.
function Connection:respond(status, headers, body)
  body = body or ""
  local fields = { { "Content-Length", #body } }
  for name, value in pairs(headers or {}) do
    fields[#fields + 1] = type(name) == "number" and value or { name, value }
  end
  local line = ("HTTP/1.1 %d %s"):format(status, REASONS[status] or "Status")
  if self.last_method == "HEAD" then
    body = ""
  end
  return self:write(http.build(line, fields, body))
end

--- A whole answer in JSON; `value` is a table, or the text itself.
function Connection:respond_json(status, value, headers)
  local fields = { { "Content-Type", "application/json" } }
  for name, field in pairs(headers or {}) do
    fields[#fields + 1] = type(name) == "number" and field or { name, field }
  end
  return self:respond(status, fields, type(value) == "table" and cjson.encode(value) or value)
end

--- The head of a chunked answer; by default of an event stream.
function Connection:start_chunked(status, headers)
  local fields = { { "Transfer-Encoding", "chunked" } }
  for name, value in pairs(headers or { ["Content-Type"] = "text/event-stream" }) do
    fields[#fields + 1] = type(name) == "number" and value or { name, value }
  end
  local line = ("HTTP/1.1 %d %s"):format(status or 200, REASONS[status or 200] or "Status")
  return self:write(http.build(line, fields))
end

function Connection:chunk(bytes)
  return self:write(("%x\r\n%s\r\n"):format(#bytes, bytes))
end

--- One server-sent event as one chunk; `data` is a table (sent as JSON) or text.
function Connection:event(data)
  return self:chunk("data: " .. (type(data) == "table" and cjson.encode(data) or data) .. "\n\n")
end

function Connection:finish_chunked()
  return self:write("0\r\n\r\n")
end

local Upstream = {}
Upstream.__index = Upstream

local open = {}

local function serve(self, handler, sock)
  local number = #self.connections + 1
  local connection = setmetatable({
    stream = stream.wrap(sock),
    owner = self,
    number = number,
  }, Connection)
  self.connections[number] = connection
  sched.spawn(("the upstream on port %d, connection %d"):format(self.port, number), function()
    if self.tls and not connection.stream:start_tls(self.tls) then
      connection:close()
      return
    end
    handler(connection)
    connection:close()
  end)
end

local function accept_all(self, handler)
  while not self.is_closed do
    sched.wait({ read = self.listener }, 3600)
    local sock = not self.is_closed and self.listener:accept()
    if sock then
      serve(self, handler, sock)
    end
  end
end

--- Starts one. `handler(connection)` runs as a task for each connection, which is closed after it.
-- @tparam function handler
-- @tparam[opt] table options port (to come back on the port of one that was stopped), tls (as
--   `tls.server()` gives it)
-- @treturn table port, url, requests, connections; stop()
function upstream.start(handler, options)
  options = options or {}
  local listener = assert(socket.tcp4())
  listener:setoption("reuseaddr", true)
  assert(listener:bind("127.0.0.1", options.port or 0))
  assert(listener:listen(512))
  listener:settimeout(0)
  local _, port = listener:getsockname()
  local self = setmetatable({
    listener = listener,
    port = tonumber(port),
    tls = options.tls,
    requests = {},
    connections = {},
    is_closed = false,
  }, Upstream)
  self.url = ("%s://127.0.0.1:%d"):format(options.tls and "https" or "http", self.port)
  open[self] = true
  sched.spawn("the listener on port " .. self.port, function()
    accept_all(self, handler)
  end)
  return self
end

--- Answers every request on a connection: `answer(request, connection)` gives status, table or
-- text, headers; or nothing, when it has answered by itself.
function upstream.answering(answer, options)
  return upstream.start(function(connection)
    while true do
      local request = connection:read_request()
      if not request then
        return
      end
      local status, body, headers = answer(request, connection)
      if status and not connection:respond_json(status, body, headers) then
        return
      end
    end
  end, options)
end

local refusing = {}

--- A port that nobody listens on, until `stop_all`: it is bound, so that nobody else gets it.
function upstream.refused_port()
  local sock = assert(socket.tcp4())
  assert(sock:bind("127.0.0.1", 0))
  refusing[#refusing + 1] = sock
  local _, port = sock:getsockname()
  return tonumber(port)
end

--- The first of the ports that the system gives to whoever asks for any.
local function first_given_port()
  local file = io.open("/proc/sys/net/ipv4/ip_local_port_range")
  local first = file and file:read("*n")
  if file then file:close() end
  return first or 32768
end

--- A port for a program that has to be told one. It is below those that the system gives to whoever
-- asks for any, be it for a connection: nobody comes first.
function upstream.free_port()
  local urandom = assert(io.open("/dev/urandom", "rb"))
  local lowest = 10000
  local count = math.max(first_given_port() - lowest, 10000)
  for _ = 1, 100 do
    local high, low = urandom:read(2):byte(1, 2)
    local port = lowest + (high * 256 + low) % count
    local sock = socket.bind("127.0.0.1", port, 1)
    if sock then
      sock:close()
      urandom:close()
      return port
    end
  end
  error("no port is free", 2)
end

--- Stops listening and closes its connections: the next connect is refused.
function Upstream:stop()
  open[self] = nil
  if self.is_closed then
    return
  end
  self.is_closed = true
  sched.wake(self.listener)
  self.listener:close()
  for _, connection in ipairs(self.connections) do
    connection:close()
  end
end

--- Waits until so many requests have been read.
function Upstream:wait_requests(count, timeout_s)
  sched.wait_until(("request %d at the upstream on port %d"):format(count, self.port), function()
    return #self.requests >= count
  end, timeout_s)
  return self.requests[count]
end

function upstream.stop_all()
  for self in pairs(open) do
    self:stop()
  end
  for _, sock in ipairs(refusing) do
    sock:close()
  end
  refusing = {}
end

return upstream
