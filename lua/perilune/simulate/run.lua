--- Plays requests through one directory's policies, and counts what becomes of them.
--
-- The gateway's own request code runs on a stage (core/stage.h): its clock is virtual, its
-- upstreams answer what they are told to here, its clients only exist in these numbers.

local body = require "perilune.simulate.body"
local cjson = require "cjson.safe"
local classify = require("perilune.classify").classify
local spend = require "perilune.simulate.spend"
local tally = require "perilune.simulate.tally"

local run = {}
run.__index = run

local MESSAGE = "A simulated answer"
local ERROR_CODE = '"code"%s*:%s*"([%w_.%-]+)"'
local HEALTHY = 200
local STEP_MS, MAX_STEPS = 1000, 26 * 60 * 60 -- longer than any deadline may be

-- Upstreams ---------------------------------------------------------------------------------------

--- The body of an error, as providers of OpenAI's form write it.
local function error_body(self, plan)
  local key = plan.status .. (plan.code or "")
  local text = self.error_bodies[key]
  if not text then
    text = assert(cjson.encode { error = { message = MESSAGE, code = plan.code } })
    self.error_bodies[key] = text
  end
  return text
end

local function on_call(self, number, client, target, provider, at_ms, max_tokens)
  local state = self.open[client]
  local request, nth = state.request, (state.seen[target] or 0) + 1
  local call = { target = target, provider = provider, at_ms = at_ms, request = request, nth = nth,
    max_tokens = max_tokens, state = state }
  local plan, source = self.answers:answer(call)
  if source then self.sources[source] = (self.sources[source] or 0) + 1 end
  plan.stream = request.stream
  if (plan.status or 0) >= 400 and not plan.body then plan.body = error_body(self, plan) end
  call.plan, call.attempt = plan, { target = target, status = plan.status }
  state.seen[target], state.call_count = nth, state.call_count + 1
  table.insert(state.attempts, call.attempt)
  self.upstreams:start(call)
  self.calls[number] = call
  return plan
end

--- What an active check of a provider gets: a status, or 0 when nothing comes in time.
local function on_check(self, provider, at_ms, timeout_ms)
  self.check_count = self.check_count + 1
  local plan = self.answers:check { provider = provider, at_ms = at_ms, number = self.check_count }
  if not plan then return HEALTHY end
  if plan.failure or plan.after_ms >= timeout_ms then return 0 end
  return plan.status
end

-- Clients -----------------------------------------------------------------------------------------

--- A request is counted when its client has its answer and its last try is over.
local function count(self, state)
  if not state.outcome or state.call_count > 0 then return end
  self.open[state.request.number] = nil
  self.tally:add(state.outcome)
end

local function on_call_end(self, number, ended_ms, outcome)
  local call = self.calls[number]
  local attempt, state = call.attempt, call.state
  self.calls[number] = nil
  self.upstreams:finish(call)
  local input, output = spend.tokens(call.plan, call.request.input_tokens, ended_ms - call.at_ms)
  attempt.input_tokens, attempt.output_tokens, attempt.outcome = input, output, outcome
  attempt.cost = spend.cost(self.upstreams:price(call.target, call.provider), input, output)
  state.call_count = state.call_count - 1
  count(self, state)
end

--- The class of an upstream's error, as the gateway takes it.
local function class_of(status, text)
  return classify { status = status, headers = {}, json = function() return cjson.decode(text) end }
end

--- What went wrong: the class of the error that was passed on, or the code of the gateway's own, or
-- how the last try ended.
local function reason_of(state, ended, status, text)
  local last = state.attempts[#state.attempts]
  if ended == "complete" then
    if not text then return nil end
    return last and last.status == status and class_of(status, text) or text:match(ERROR_CODE)
  end
  local outcome = last and last.outcome
  if outcome ~= "ok" and outcome ~= "cancelled" then return outcome end
  return nil
end

local function on_client_end(self, number, ended, status, first_byte_ms, ended_ms, text)
  local state = self.open[number]
  local request, last = state.request, state.attempts[#state.attempts]
  state.outcome = {
    number = request.number, at_ms = request.at_ms, stream = request.stream,
    status = status, ended = ended, why = reason_of(state, ended, status, text),
    duration_ms = ended_ms - state.started_ms,
    first_token_ms = first_byte_ms and status < 400 and first_byte_ms - state.started_ms or nil,
    attempts = state.attempts, served_by = last and last.target,
  }
  count(self, state)
end

-- The run -----------------------------------------------------------------------------------------

--- Loads a directory, as `perilune run` does.
-- @tparam table stage the module perilune.simulate.stage
-- @tparam table options directory, seed, start_wall_ms
-- @treturn[1] table a run, which has yet to be played
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, one problem a line
function run.new(stage, options)
  local self = setmetatable({
    open = {}, calls = {}, sources = {}, error_bodies = {}, tally = tally.new(), check_count = 0,
  }, run)
  local world, problems = stage.new {
    directory = options.directory, seed = options.seed, start_wall_ms = options.start_wall_ms,
    on_call = function(...) return on_call(self, ...) end,
    on_call_end = function(...) return on_call_end(self, ...) end,
    on_client_end = function(...) return on_client_end(self, ...) end,
    on_check = function(...) return on_check(self, ...) end,
  }
  if not world then return nil, "invalid", problems end
  self.world = world
  return self
end

--- Lets time pass. True when nothing will happen any more.
local function move(self, until_ms)
  local how = self.world:run(until_ms)
  if how == "stuck" then error("a policy does more and more without any time passing", 0) end
  return how == "idle"
end

--- Goes on until all requests have ended; active checks would go on for ever.
local function finish(self, now_ms)
  for _ = 1, MAX_STEPS do
    now_ms = now_ms + STEP_MS
    if self.world:active_count() == 0 or move(self, now_ms) then return end
  end
end

--- What will never end, because its policy waits for nothing that could come.
local function count_open(self)
  for _, state in pairs(self.open) do
    state.call_count = 0
    state.outcome = {
      number = state.request.number, at_ms = state.request.at_ms, stream = state.request.stream,
      status = 0, ended = "open", duration_ms = 0, attempts = state.attempts,
    }
    count(self, state)
  end
end

--- Play requests until all have ended.
-- @tparam function next_request see perilune.simulate.arrivals
-- @tparam table answers answer(call) -> a plan with nothing left open, and a word for where it is
-- from, or nil; check(check) -> a plan, or nil when all is well
-- @tparam table upstreams see perilune.simulate.upstreams: what is in flight, and prices
-- @tparam {table,...} outages to be told of
-- @treturn table the summary, see perilune.simulate.tally; with `answers` by source, if these have
-- any; with `policy_failures` by kind, and in `floor` how many requests were served without
function run:play(next_request, answers, upstreams, outages)
  local world, now_ms = self.world, 0
  self.answers, self.upstreams = answers, upstreams
  for request in next_request do
    now_ms = math.floor(request.at_ms * 1000 + 0.5) / 1000 -- the stage counts microseconds
    move(self, now_ms)
    self.open[request.number] = {
      request = request, started_ms = now_ms, attempts = {}, seen = {}, call_count = 0,
    }
    world:start(request.headers, body.of(request), request.patience_ms,
      request.path)
  end
  finish(self, now_ms)
  count_open(self)
  for name, times in pairs(world:ejections()) do self.tally:add_ejections(name, times) end
  local summary = self.tally:summary(outages)
  summary.policy_failures, summary.floor = world:faults()
  if next(self.sources) then summary.answers = self.sources end
  return summary
end

return run
