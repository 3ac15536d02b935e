--- What upstreams answer: from what a spec says to what the stage plays.

local bodies = require "perilune.testing.bodies"
local cjson = require "cjson.safe"
local given = require "perilune.testing.given"
local sorted = require "perilune.sorted"
local wording = require "perilune.schema.wording"

local answers = {}

-- What goes wrong, by its name: how the stage is told.
local FAILURES = {
  connect = { failure = "connect" }, refuse = { failure = "connect" },
  dns = { failure = "dns" }, tls = { failure = "tls" }, reset = { failure = "reset" },
  malformed = { failure = "malformed" }, hang = { hangs = true },
  truncated = { cut_after = 0 }, -- 200, and the connection breaks within the body
}

local KEYS = given.set("status", "headers", "body", "after", "words", "every", "first", "events",
  "cut_after", "stall_after", "done", "failure")
local EVENT_KEYS = given.set("data", "event", "after", "raw")
local JSON_TYPE, EVENT_TYPE = "application/json", "text/event-stream"

-- ---- checks --------------------------------------------------------------------------------

local function check_failure(what, name)
  if FAILURES[name] then return name end
  return given.fail("%s: there is no failure %s; %s", what, given.show(name),
    wording.hint(name, sorted.keys(FAILURES)))
end

local function check_status(what, status)
  if type(status) == "number" and status % 1 == 0 and status >= 200 and status <= 599 then
    return status
  end
  return given.fail("%s: a status is a number from 200 to 599, not %s", what, given.show(status))
end

local function check_count(what, value)
  local good = value == nil or (type(value) == "number" and value >= 0 and value % 1 == 0)
  if good then return value end
  return given.fail("%s: a number of events is expected, not %s", what, given.show(value))
end

local function check_event(what, event)
  if type(event) == "string" then return end
  given.keys(what, given.type(what, event, "table"), EVENT_KEYS)
  given.optional_ms(what .. ".after", event.after)
  if event.raw ~= nil then given.type(what .. ".raw", event.raw, "string") end
  if event.raw == nil and event.data == nil then given.fail("%s: has no data", what) end
end

local function check_table(what, answer)
  given.keys(what, answer, KEYS)
  if answer.failure ~= nil then check_failure(what .. ".failure", answer.failure) end
  if answer.status ~= nil then check_status(what .. ".status", answer.status) end
  given.headers(what .. ".headers", answer.headers)
  for _, key in ipairs { "after", "every", "first" } do
    given.optional_ms(what .. "." .. key, answer[key])
  end
  check_count(what .. ".cut_after", answer.cut_after)
  check_count(what .. ".stall_after", answer.stall_after)
  if answer.cut_after and answer.stall_after then
    given.fail("%s: either cut_after or stall_after can be given", what)
  end
  if answer.words ~= nil and type(answer.words) ~= "string" then
    check_count(what .. ".words", answer.words)
  end
  if answer.body ~= nil and type(answer.body) ~= "string" then
    given.type(what .. ".body", answer.body, "table")
  end
  given.type(what .. ".done", answer.done, "boolean", true)
  for number, event in ipairs(given.type(what .. ".events", answer.events, "table", true) or {}) do
    check_event(("%s.events[%d]"):format(what, number), event)
  end
end

--- Raises an error unless it is an answer: a status, a failure's name, a table or a function.
function answers.check(what, answer)
  local kind = type(answer)
  if kind == "number" then return check_status(what, answer) end
  if kind == "string" then return check_failure(what, answer) end
  if kind == "table" then return check_table(what, answer) end
  if kind ~= "function" then
    given.fail("%s: an answer is a status, a failure's name, a table or a function, not %s", what,
      given.show(answer))
  end
end

-- ---- bodies --------------------------------------------------------------------------------

local function encode(value)
  if type(value) == "string" then return value end
  return (assert(cjson.encode(value)))
end

local function event_bytes(event)
  if type(event) == "string" then return "data: " .. event .. "\n\n" end
  if event.raw then return event.raw end
  local name = event.event and ("event: %s\n"):format(event.event) or ""
  return ("%sdata: %s\n\n"):format(name, encode(event.data))
end

local function says_done(bytes)
  return bytes:find("data: ?%[DONE%]") ~= nil or bytes:find("event: ?message_stop") ~= nil
end

--- Pieces of the events that a spec has listed.
local function listed_pieces(answer, call)
  local pieces, whole = {}, false
  for number, event in ipairs(answer.events) do
    local after = type(event) == "table" and event.after or number == 1 and answer.first
      or number > 1 and answer.every or nil
    pieces[number] = { given.optional_ms("after", after), event_bytes(event) }
    whole = whole or says_done(pieces[number][2])
  end
  local mark = bodies.mark(call.path)
  if not whole and answer.done ~= false and mark ~= "" then pieces[#pieces + 1] = { 0, mark } end
  return pieces
end

--- Pieces of a streamed completion.
local function completion_pieces(answer, call)
  local first, rest, terminal = bodies.events(call, answer.words, call.number)
  if not first then return nil end
  local pieces = {}
  local first_ms = given.optional_ms("first", answer.first)
  local every_ms = given.optional_ms("every", answer.every)
  for number, bytes in ipairs(first) do
    pieces[number] = { number == 1 and first_ms or 0, bytes }
  end
  for _, bytes in ipairs(rest) do
    pieces[#pieces + 1] = { #pieces == 0 and first_ms or every_ms, bytes }
  end
  if answer.done ~= false then pieces[#pieces + 1] = { 0, terminal } end
  return pieces
end

local function wants_stream(answer, status, call)
  if answer.events then return true end
  return answer.body == nil and status < 300 and type(call.json) == "table"
    and call.json.stream == true
end

local function usual_body(answer, status, call)
  if answer.body ~= nil then return encode(answer.body) end
  if status >= 400 then return bodies.error(call.path, status) end
  if status >= 300 or status == 204 then return "" end
  return bodies.whole(call, answer.words, call.number)
end

-- ---- plans ---------------------------------------------------------------------------------

local function header_list(answer, content_type)
  local list, has_type = given.headers("headers", answer.headers), false
  for _, pair in ipairs(list) do has_type = has_type or pair[1]:lower() == "content-type" end
  if not has_type then table.insert(list, 1, { "Content-Type", content_type }) end
  return list
end

--- Cuts or stalls after so many events; within a body that is no stream, in its middle.
local function break_off(plan, answer)
  local count = answer.cut_after or answer.stall_after
  if not count then return plan end
  plan.ending = answer.cut_after and "cut" or "stall"
  if plan.chunked then
    for number = #plan.pieces, count + 1, -1 do plan.pieces[number] = nil end
  elseif plan.pieces[1] then
    local text = plan.pieces[1][2]
    plan.length_bytes = #text
    plan.pieces[1][2] = text:sub(1, math.floor(#text / 2))
  end
  return plan
end

local function plan_of_table(answer, call)
  local status = answer.status or 200
  local pieces = answer.events and listed_pieces(answer, call)
  if not pieces and wants_stream(answer, status, call) then
    pieces = completion_pieces(answer, call)
  end
  local plan = { status = status, after_ms = given.optional_ms("after", answer.after),
    chunked = pieces ~= nil, pieces = pieces,
    headers = header_list(answer, pieces and EVENT_TYPE or JSON_TYPE) }
  if not pieces then
    local body = usual_body(answer, status, call)
    plan.pieces = body ~= "" and { { given.optional_ms("first", answer.first), body } } or {}
  end
  return break_off(plan, answer)
end

local function plan_of_failure(name, answer, call)
  local failure = FAILURES[name]
  if failure.cut_after then return plan_of_table({ cut_after = 0, after = answer.after }, call) end
  return { failure = failure.failure, hangs = failure.hangs,
    after_ms = given.optional_ms("after", answer.after) }
end

local NO_OPTIONS = {}

--- The answer to one call, as perilune.stage reads it.
-- @param answer one that was checked; a function is called with the call, and its result checked
-- @tparam table call number, at_ms, wall_ms, target, provider, method, path, headers, body, json
-- @treturn table options of stage.answer
function answers.plan(answer, call)
  if type(answer) == "function" then
    answer = answer(call)
    answers.check(("the function that answers for %s gave"):format(call.target), answer)
    if type(answer) == "function" then
      given.fail("the function that answers for %s gave a function", call.target)
    end
  end
  if type(answer) == "number" then return plan_of_table({ status = answer }, call) end
  if type(answer) == "string" then return plan_of_failure(answer, NO_OPTIONS, call) end
  if answer.failure then return plan_of_failure(answer.failure, answer, call) end
  return plan_of_table(answer, call)
end

return answers
