--- A TCP connection of a spec, client's or server's side: buffered, never blocking the scheduler.
--
-- Reads give `nil, reason`: "closed" (the peer ended it), "reset" (the peer broke it) or "timeout".
-- Bytes that came before the end stay readable.

local socket = require "socket"
local sched = require "support.sched"

local Stream = {}
Stream.__index = Stream

local READ_BYTES = 8192 -- what luasocket reads at once: no bytes are left where select is blind
local DEFAULT_TIMEOUT_S = 10

local open_streams = setmetatable({}, { __mode = "k" })

local stream = {}

--- Takes over a connected socket.
function stream.wrap(sock)
  sock:settimeout(0)
  pcall(sock.setoption, sock, "tcp-nodelay", true)
  local self = setmetatable({
    sock = sock,
    buffer = "",
    ended = nil, -- "closed" or "reset" once the peer's end was read
    is_broken = false, -- the peer has reset it; there may be bytes to read yet
    is_shut = false, -- we have ended our direction
    received_bytes = 0,
    timeout_s = DEFAULT_TIMEOUT_S,
  }, Stream)
  open_streams[self] = true
  return self
end

--- Connects; `nil, reason` when refused.
function stream.connect(address, port, timeout_s)
  local sock = assert(socket.tcp4())
  sock:settimeout(0)
  local ok, reason = sock:connect(address, port)
  if not ok and reason == "timeout" then
    ok, reason = sched.wait({ write = sock }, timeout_s or DEFAULT_TIMEOUT_S)
    if ok then
      reason = sock:getoption("error")
      ok = reason == nil
    end
  end
  if not ok then
    sock:close()
    return nil, reason
  end
  return stream.wrap(sock)
end

--- Closes what specs have left open.
function stream.close_all()
  for self in pairs(open_streams) do
    self:close()
  end
end

--- TLS on top, with lua-sec. `params` as for ssl.wrap; `server_name` for SNI.
-- @treturn[1] Stream itself
-- @treturn[2] nil
-- @treturn[2] string why the handshake failed
function Stream:start_tls(params, server_name)
  local wrapped = assert(require("ssl").wrap(self.sock, params))
  self.sock = wrapped
  wrapped:settimeout(0)
  if server_name then
    wrapped:sni(server_name)
  end
  while true do
    local ok, reason = wrapped:dohandshake()
    if ok then
      return self
    end
    local wait = reason == "wantwrite" and { write = wrapped } or { read = wrapped }
    if reason ~= "wantread" and reason ~= "wantwrite" then
      return nil, reason
    elseif not sched.wait(wait, self.timeout_s) then
      return nil, "timeout"
    end
  end
end

--- Finds out whether the peer has reset the connection: luasocket calls both ends "closed".
-- The pending socket error tells, once. A reset that came with the last read has no error left, but
-- no peer either (nor has a connection that both sides have ended in order).
local function note_break(self, at_end)
  local sock = self.sock
  if not sock.getoption then
    return -- TLS tells no difference
  end
  self.is_broken = self.is_broken or sock:getoption("error") ~= nil
    or (at_end and not self.is_shut and sock:getpeername() == nil) or false
end

--- Reads what is there into the buffer, waiting for the first byte.
-- @treturn[1] boolean true when bytes were added
function Stream:fill(timeout_s)
  while not self.ended do
    note_break(self)
    local data, reason, partial = self.sock:receive(READ_BYTES)
    data = data or partial
    if data and #data > 0 then
      self.buffer = self.buffer .. data
      self.received_bytes = self.received_bytes + #data
    end
    if reason and reason ~= "timeout" and reason ~= "wantread" and reason ~= "wantwrite" then
      note_break(self, true)
      self.ended = self.is_broken and "reset" or "closed"
    end
    if data and #data > 0 then
      return true
    end
    if not self.ended and not sched.wait({ read = self.sock }, timeout_s or self.timeout_s) then
      return nil, "timeout"
    end
  end
  return nil, self.ended
end

--- Takes `size` bytes out of the buffer.
function Stream:take(size)
  local data = self.buffer:sub(1, size)
  self.buffer = self.buffer:sub(size + 1)
  return data
end

function Stream:read_exactly(size, timeout_s)
  while #self.buffer < size do
    local ok, reason = self:fill(timeout_s)
    if not ok then
      return nil, reason
    end
  end
  return self:take(size)
end

--- Reads through the next occurrence of `mark` (a plain string), which stays at the end.
function Stream:read_through(mark, timeout_s)
  while true do
    local _, last = self.buffer:find(mark, 1, true)
    if last then
      return self:take(last)
    end
    local ok, reason = self:fill(timeout_s)
    if not ok then
      return nil, reason
    end
  end
end

--- Reads to the peer's end.
-- @treturn string all bytes
-- @treturn string "closed", "reset" or "timeout"
function Stream:read_all(timeout_s)
  local ok, reason
  repeat
    ok, reason = self:fill(timeout_s)
  until not ok
  return self:take(#self.buffer), reason
end

--- Sends all bytes.
-- @treturn[2] nil
-- @treturn[2] string "closed" or "timeout"
-- @treturn[2] number how many bytes the kernel took
function Stream:write(bytes, timeout_s)
  local sent = 0
  while sent < #bytes do
    if not self.sock then
      return nil, "closed", sent
    end
    local last, reason, partial = self.sock:send(bytes, sent + 1)
    sent = last or partial or sent
    if not last then
      if reason ~= "timeout" and reason ~= "wantwrite" then
        return nil, "closed", sent
      elseif not sched.wait({ write = self.sock }, timeout_s or self.timeout_s) then
        return nil, "timeout", sent
      end
    end
  end
  return true
end

--- Waits for the peer's end without caring for bytes (they stay readable).
-- @treturn[1] string "closed" or "reset"
-- @treturn[2] nil
-- @treturn[2] string "timeout"
function Stream:wait_closed(timeout_s)
  local deadline = sched.now() + (timeout_s or self.timeout_s)
  while not self.ended do
    local left_s = deadline - sched.now()
    if left_s <= 0 then
      return nil, "timeout"
    end
    self:fill(left_s)
  end
  return self.ended
end

--- Ends our direction only.
function Stream:shutdown()
  if self.sock then
    self.is_shut = true
    self.sock:shutdown("send")
  end
end

--- Closes in order (FIN, or RST by the kernel when bytes were left unread).
function Stream:close()
  open_streams[self] = nil
  if self.sock then
    sched.wake(self.sock)
    self.sock:close()
    self.sock = nil
  end
  self.ended = self.ended or "closed"
end

--- Breaks it: the peer gets RST at once.
function Stream:reset()
  if self.sock then
    self.sock:setoption("linger", { on = true, timeout = 0 })
  end
  self:close()
end

--- Makes the receive buffer small, for specs about peers that do not read.
function Stream:set_receive_buffer(size_bytes)
  self.sock:setoption("recv-buffer-size", size_bytes)
end

return stream
