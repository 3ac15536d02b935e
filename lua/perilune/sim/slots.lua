--- Limits how many requests are worked on at the same time; the others wait in line.
--
-- A request whose client leaves never comes back here: its coroutine is dropped where it stands. So
-- places are held by request, and those of requests that are over are taken back when one is
-- needed. Waiting is polling, the more often the nearer the front of the line, because a dropped
-- coroutine could not be relied on to wake the next.
local max, min = math.max, math.min

local slots = {}
slots.__index = slots

local LONGEST_POLL_MS = 100
local SWEEP_EVERY_MS = 100

--- @tparam table options limit, queue_limit (how many may wait)
-- @tparam table deps now_ms(), sleep_ms(ms), is_over(request)
function slots.new(options, deps)
  return setmetatable({
    limit = options.limit, queue_limit = options.queue_limit, deps = deps,
    held = {}, running_count = 0,
    line = {}, head = 1, tail = 0,
    swept_ms = deps.now_ms(),
  }, slots)
end

local function sweep_held(self)
  for request in pairs(self.held) do
    if self.deps.is_over(request) then self:release(request) end
  end
  self.swept_ms = self.deps.now_ms()
end

local function leave_line(self, index)
  self.line[index] = nil
  while self.head <= self.tail and self.line[self.head] == nil do self.head = self.head + 1 end
end

local function sweep_line(self)
  local waiting_count = 0
  for index = self.head, self.tail do
    local request = self.line[index]
    if request and self.deps.is_over(request) then
      leave_line(self, index)
    elseif request then
      waiting_count = waiting_count + 1
    end
  end
  return waiting_count
end

--- How many wait in line.
slots.waiting_count = sweep_line

local function take(self, request)
  if self.running_count >= self.limit then sweep_held(self) end
  if self.running_count >= self.limit then return false end
  self.held[request] = true
  self.running_count = self.running_count + 1
  return true
end

local function skip_the_gone(self)
  local front = self.line[self.head]
  while front and self.deps.is_over(front) do
    leave_line(self, self.head)
    front = self.line[self.head]
  end
end

local function wait_in_line(self, request)
  self.tail = self.tail + 1
  local place = self.tail
  self.line[place] = request
  repeat
    self.deps.sleep_ms(min(max(place - self.head + 1, 1), LONGEST_POLL_MS))
    skip_the_gone(self)
  until self.head == place and take(self, request)
  leave_line(self, place)
end

--- Get a place; yields while there is none.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string "queue_full"
function slots:acquire(request)
  if self.deps.now_ms() - self.swept_ms >= SWEEP_EVERY_MS then sweep_held(self) end
  skip_the_gone(self)
  if self.head > self.tail and take(self, request) then return true end
  if self.tail - self.head + 1 >= self.queue_limit and sweep_line(self) >= self.queue_limit then
    return nil, "queue_full"
  end
  wait_in_line(self, request)
  return true
end

--- Give the place back. Does nothing when it is not held.
function slots:release(request)
  if not self.held[request] then return end
  self.held[request] = nil
  self.running_count = self.running_count - 1
end

return slots
