--- Reads a decision log: the gateway's access log, a JSON object a line.
--
-- Of a request: `time` (RFC 3339, when it ended), `duration_ms`, `http.request.method`, `url.path`,
-- `gen_ai.request.model`, `gen_ai.usage.input_tokens` and `.output_tokens`, `stream`,
-- `http.response.status_code`, `end`, `reason`, `first_token_ms`, and `attempts` in their order. Of
-- an attempt: `target`, `provider`, `status`, `class` (see perilune.classify), `start_ms` since the
-- request's start, or `wait_ms` since the attempt before; `head_ms`, `first_token_ms` and
-- `total_ms` since its own start; `retry_after_ms`, if its answer asked for one. Null counts as
-- absent, and what else a line says is passed over. So are lines whose `scope` is not "request".
--
-- A line that is broken is noted and left out. What is kept lies in arrays of numbers, one a field,
-- so that a night of traffic fits the memory. Pure.

local cjson = require "cjson.safe"
local rfc3339 = require "perilune.rfc3339"

local log = {}

local MAX_REQUESTS = 1000000
local MAX_ATTEMPTS = 64 -- of one request
local MAX_NAMED = 20    -- broken lines that are named; the others are counted
local MAX_TEXT_BYTES = 1100 -- a little more than the gateway writes
local MAX_NUMBER = 1e15
local NULL = cjson.null

local REQUEST_FIELDS = {
  { "gen_ai.request.model", "model", "string" },
  { "gen_ai.usage.input_tokens", "input_tokens", "number" },
  { "gen_ai.usage.output_tokens", "output_tokens", "number" },
  { "stream", "stream", "boolean" },
  { "http.request.method", "method", "string" },
  { "url.path", "path", "string" },
  { "http.response.status_code", "status", "number" },
  { "duration_ms", "duration_ms", "number" },
  { "first_token_ms", "first_token_ms", "number" },
  { "end", "ended", "string" },
  { "reason", "reason", "string" },
  { "attempts", "attempts", "table" },
}
local ATTEMPT_FIELDS = {
  { "target", "target", "string" },
  { "provider", "provider", "string" },
  { "start_ms", "start_ms", "number" },
  { "class", "class", "string" },
  { "status", "status", "number" },
  { "head_ms", "head_ms", "number" },
  { "first_token_ms", "first_token_ms", "number" },
  { "total_ms", "total_ms", "number" },
  { "wait_ms", "wait_ms", "number" },
  { "retry_after_ms", "retry_after_ms", "number" },
}

--- What is wrong with a value, if anything. Texts are shown to people later.
local function problem_of(value, kind)
  if type(value) ~= kind then return "must be a " .. kind end
  if kind == "number" and not (value >= 0 and value < MAX_NUMBER) then
    return "must be a number >= 0"
  end
  if kind == "string" and (#value > MAX_TEXT_BYTES or value:find("%c")) then
    return ("must be at most %d bytes without control characters"):format(MAX_TEXT_BYTES)
  end
  return nil
end

--- The known fields of an object, or nil and what is wrong with one.
local function fields_of(object, fields)
  local result = {}
  for position = 1, #fields do
    local name, key, kind = fields[position][1], fields[position][2], fields[position][3]
    local value = object[name]
    if value ~= nil and value ~= NULL then
      local problem = problem_of(value, kind)
      if problem then return nil, ("%s %s"):format(name, problem) end
      result[key] = value
    end
  end
  return result
end

local function attempts_of(list)
  local attempts = {}
  if #list > MAX_ATTEMPTS then
    return nil, ("has more than %d attempts"):format(MAX_ATTEMPTS)
  end
  for position = 1, #list do
    local attempt, problem
    if type(list[position]) == "table" then
      attempt, problem = fields_of(list[position], ATTEMPT_FIELDS)
    end
    if attempt and not attempt.target then attempt, problem = nil, "target is missing" end
    if not attempt then
      return nil, ("attempts[%d]: %s"):format(position, problem or "must be an object")
    end
    attempts[position] = attempt
  end
  return attempts
end

--- What one line says of a request.
-- @tparam string text
-- @treturn[1] table time_ms (when it came), and the fields above; false when the line is of another
-- kind
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function log.parse(text)
  local object = cjson.decode(text)
  if type(object) ~= "table" then return nil, "is not a JSON object" end
  if type(object.scope) == "string" and object.scope ~= "request" then return false end
  local record, problem = fields_of(object, REQUEST_FIELDS)
  if not record then return nil, problem end
  local detail
  record.time_ms, problem, detail = rfc3339.parse(object.time)
  if not record.time_ms then return nil, problem and "time " .. detail end
  record.time_ms = record.time_ms - (record.duration_ms or 0)
  record.attempts, problem = attempts_of(record.attempts or {})
  if not record.attempts then return nil, problem end
  return record
end

-- What is kept ------------------------------------------------------------------------------------

local function new_log()
  return {
    count = 0, time_ms = {}, path = {}, model = {}, input_tokens = {}, output_tokens = {},
    stream = {}, status = {}, duration_ms = {}, first_token_ms = {}, ended = {}, reason = {},
    first = {}, -- attempt of each; one more entry tells the end of the last one's
    attempt = {
      count = 0, request = {}, target = {}, provider = {}, class = {}, status = {},
      start_ms = {}, head_ms = {},
      first_token_ms = {}, total_ms = {}, retry_after_ms = {},
    },
    line_count = 0, left_out_count = 0, is_cut = false,
    broken = { count = 0 }, -- and the first of them: { line, problem }
  }
end

-- 0 stands for "not known" in times of attempts, and false in all else: arrays have no holes.
local function keep_attempt(self, entry, number, at_ms)
  local position = self.count + 1
  self.count = position
  self.request[position], self.target[position] = number, entry.target
  self.provider[position] = entry.provider or entry.target:match("^([^/]*)/") or entry.target
  self.class[position], self.status[position] = entry.class or false, entry.status or false
  self.start_ms[position], self.head_ms[position] = at_ms, entry.head_ms or 0
  self.first_token_ms[position] = entry.first_token_ms or 0
  self.total_ms[position] = entry.total_ms or entry.head_ms or 0
  self.retry_after_ms[position] = entry.retry_after_ms or 0
end

local function keep_attempts(self, record, number)
  local at_ms = record.time_ms
  self.first[number] = self.attempt.count + 1
  for position = 1, #record.attempts do
    local entry = record.attempts[position]
    local start_ms = entry.start_ms and record.time_ms + entry.start_ms
      or at_ms + (entry.wait_ms or 0)
    keep_attempt(self.attempt, entry, number, start_ms)
    at_ms = start_ms + (entry.total_ms or entry.head_ms or 0)
  end
  self.first[number + 1] = self.attempt.count + 1
end

local function keep(self, record)
  local number = self.count + 1
  self.count = number
  self.time_ms[number], self.model[number] = record.time_ms, record.model
  self.path[number] = record.path or false
  self.input_tokens[number] = record.input_tokens or false
  self.output_tokens[number] = record.output_tokens or false
  self.stream[number] = record.stream or false
  self.status[number], self.duration_ms[number] = record.status or false, record.duration_ms or 0
  self.first_token_ms[number] = record.first_token_ms or false
  self.ended[number], self.reason[number] = record.ended or false, record.reason or false
  keep_attempts(self, record, number)
end

--- Whether a request can be played: its body named a model.
local function is_playable(record)
  local path = record.path or "/"
  return record.model and (record.method or "POST") == "POST" and path:find("^/[%w/._-]*$")
end

local function note_broken(self, problem)
  local broken = self.broken
  broken.count = broken.count + 1
  if broken.count <= MAX_NAMED then broken[broken.count] = { self.line_count, problem } end
end

local function take_line(self, text)
  self.line_count = self.line_count + 1
  if not text then return note_broken(self, "is too long") end
  if not text:find("%S") then return end
  local record, problem = log.parse(text)
  if record == nil then return note_broken(self, problem) end
  if record and is_playable(record) then
    keep(self, record)
  elseif record then
    self.left_out_count = self.left_out_count + 1
  end
end

--- The requests' numbers in the order of their times; the log has them as they ended.
local function order_of(self)
  local order, time_ms = {}, self.time_ms
  for number = 1, self.count do order[number] = number end
  table.sort(order, function(a, b)
    if time_ms[a] ~= time_ms[b] then return time_ms[a] < time_ms[b] end
    return a < b
  end)
  return order
end

--- Times of tries count from the start of the log, like the clock of the simulation.
local function set_relative(self)
  local start_ms = self.attempt.start_ms
  for position = 1, self.attempt.count do
    start_ms[position] = start_ms[position] - self.start_wall_ms
  end
end

--- The middle of the numbers that are known.
local function median(list, otherwise)
  local known = {}
  for position = 1, #list do
    if list[position] then known[#known + 1] = list[position] end
  end
  table.sort(known)
  return known[math.ceil(#known / 2)] or otherwise
end

--- Read a log.
-- @tparam function next_line next_line() -> text, or false for a line that is too long, or nil
-- @tparam[opt] number max_count how many requests are read at most
-- @treturn[1] table the log; its requests are those with a model
-- @treturn[2] nil
-- @treturn[2] string "empty"
-- @treturn[2] table the log without requests: line_count, broken, left_out_count
function log.read(next_line, max_count)
  local self = new_log()
  max_count = math.min(max_count or MAX_REQUESTS, MAX_REQUESTS)
  local line = next_line()
  while line ~= nil and self.count < max_count do
    take_line(self, line)
    line = next_line()
  end
  self.is_cut = line ~= nil
  if self.count == 0 then return nil, "empty", self end
  self.order = order_of(self)
  self.start_wall_ms = self.time_ms[self.order[1]]
  set_relative(self)
  self.usual_input_tokens = median(self.input_tokens, 500)
  self.usual_output_tokens = median(self.output_tokens, 200)
  return self
end

local NONE = {} -- never written

--- The requests of a log, in the order of their arrival; see perilune.simulate.arrivals. A client
-- that has left in the log leaves again, unless it has its answer sooner.
-- @tparam table self
-- @treturn function next(); of each request `record` is its number in the log
function log.requests(self)
  local number = 0
  return function()
    number = number + 1
    local record = self.order[number]
    if not record then return nil end
    return {
      number = number, record = record, at_ms = self.time_ms[record] - self.start_wall_ms,
      model = self.model[record], stream = self.stream[record],
      input_tokens = self.input_tokens[record] or self.usual_input_tokens,
      output_tokens = self.output_tokens[record] or self.usual_output_tokens,
      headers = NONE, body = NONE, path = self.path[record] or nil,
      patience_ms = self.ended[record] == "client_gone" and self.duration_ms[record] or nil,
    }
  end
end

return log
