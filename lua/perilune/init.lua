--- The module that policies get by `require "perilune"`. Its contents are described in
-- policies/README.md, and nothing else is promised to policies.
--
-- Inside the gateway this file wires the library to `perilune.native`, which the C core provides.
-- Without that module (specs) it gives only `new`, which wires the library to whatever is passed.

local candidates = require "perilune.candidates"
local classify = require "perilune.classify"
local date = require "perilune.date"
local duration = require "perilune.duration"
local frozen = require "perilune.frozen"
local hedge = require "perilune.hedge"
local ranked = require "perilune.ranked"
local rescue = require "perilune.rescue"

local function make_sleep(native)
  return function(text)
    if type(text) ~= "string" then
      error("perilune.sleep: a duration such as \"100ms\" is expected, not a " .. type(text), 2)
    end
    local ms, code, message = duration.parse(text)
    if not ms then error("perilune.sleep: the duration " .. (message or code), 2) end
    native.sleep_ms(ms)
  end
end

local function make_date(native)
  return function(wall_ms)
    if wall_ms == nil then wall_ms = native.now_wall_ms() end
    local fields, code, message = date.fields(wall_ms)
    if not fields then error("perilune.date: " .. (message or code), 2) end
    return fields
  end
end

--- What perilune.candidates needs of the core.
local function candidates_deps(native)
  return {
    now_ms = native.now_ms, now_wall_ms = native.now_wall_ms, random = native.random,
    sleep_ms = native.sleep_ms, current = native.current,
    is_fit = native.is_fit, admit = native.admit, load = native.load,
    out_until_ms = native.out_until_ms, retry_allowed = native.retry_allowed,
    queue_limits = native.queue_limits, queue_enter = native.queue_enter,
    queue_leave = native.queue_leave, give_up = native.give_up, keep_ms = native.keep_ms,
    last_try = native.last_try,
  }
end

--- classify, which also tells the core what it has found, for log and metrics: that reads the
-- bodies of errors, which the core does not. Of good answers the status says all.
local function make_classify(native)
  local tell = native.classed
  if not tell then return classify.classify end
  local classify_outcome = native.classify or classify.classify -- a route's own, see boot.lua
  return function(res, err)
    local class, status = classify_outcome(res, err)
    if status and class ~= "ok" then tell(class) end
    return class, status
  end
end

--- Builds the public module.
-- @tparam table native now_ms(), now_wall_ms(), random([n]), sleep_ms(ms), current(),
-- log(level, text), of health what candidates_deps lists, and what perilune.hedge asks for
-- @treturn table read-only: candidates, hedge, rescue, ranked, classify, sleep, now_ms,
-- now_wall_ms, date, log, random
local function new(native)
  local walk_over, walks = candidates.new(candidates_deps(native))
  local classify_and_tell = make_classify(native)
  return frozen.view("perilune", {
    candidates = walk_over,
    --- Sends to a target, and to the next one too when it is slow.
    hedge = hedge.new { native = native, candidates = walks, classify = classify_and_tell },
    --- Relays an answer; when it breaks off, lets the next target go on with it.
    rescue = rescue.new { classify = classify_and_tell, candidates = walk_over,
      resumes = native.resumes },
    --- The same route with other priorities, or with only some of its targets.
    ranked = ranked.new(),
    classify = classify_and_tell,
    --- Waits; the text has a unit: "100ms", "1.5s".
    sleep = make_sleep(native),
    --- Milliseconds of a clock that never goes back.
    now_ms = native.now_ms,
    --- Milliseconds since 1970 by the system's clock, which may be set back.
    now_wall_ms = native.now_wall_ms,
    --- The fields of a wall clock's time in UTC; of now when none is given.
    date = make_date(native),
    --- Writes a line to the gateway's log. `req:log` is for what belongs to a request.
    log = function(text) native.log("info", tostring(text)) end,
    --- random() -> [0, 1), random(n) -> 1..n. Not for secrets.
    random = native.random,
  })
end

local found, native = pcall(require, "perilune.native")
if found then return new(native) end
return { new = new }
