--- What a decision log itself says became of its requests, in the form of a simulation's result.
-- Pure.

local spend = require "perilune.simulate.spend"
local tally = require "perilune.simulate.tally"
local upstreams = require "perilune.simulate.upstreams"

local log_tally = {}

local function is_good(class, status)
  if class then return class == "ok" end
  return status and status < 300 or false
end

--- The tries of a request. Only a good one is known to have made tokens: those of the answer.
local function attempts_of(log, record, described)
  local attempts, attempt = {}, log.attempt
  for index = log.first[record], log.first[record + 1] - 1 do
    local target = attempt.target[index]
    local entry = { target = target }
    if is_good(attempt.class[index], attempt.status[index]) then
      entry.input_tokens = log.input_tokens[record] or 0
      entry.output_tokens = log.output_tokens[record] or 0
      entry.cost = spend.cost(described:price(target, attempt.provider[index]),
        entry.input_tokens, entry.output_tokens)
    end
    attempts[#attempts + 1] = entry
  end
  return attempts
end

--- When the first token of the last try came, since the request had, where the log does not say.
local function first_token_ms(log, record)
  if log.first_token_ms[record] then return log.first_token_ms[record] end
  local last = log.first[record + 1] - 1
  if last < log.first[record] then return nil end
  local attempt = log.attempt
  local first_ms = attempt.first_token_ms[last]
  if first_ms == 0 then return nil end
  return attempt.start_ms[last] + first_ms - (log.time_ms[record] - log.start_wall_ms)
end

local ENDED = {
  complete = "complete", refused = "complete", failed = "complete", cut = "cut",
  client_gone = "left", killed = "cut",
}

--- How a request ended: as the log says, or else as status and last try tell.
local function ended_of(log, record, class)
  local status, ended = log.status[record] or 0, ENDED[log.ended[record]]
  if status == 0 then return ended == "left" and ended or "reset" end
  if ended then return ended end
  if status == 499 then return "left" end
  return status < 400 and class and class ~= "ok" and "cut" or "complete"
end

local function outcome_of(log, record, number, described)
  local last = log.first[record + 1] - 1
  local has_attempt = last >= log.first[record]
  local class = has_attempt and log.attempt.class[last] or nil
  return {
    number = number, at_ms = log.time_ms[record] - log.start_wall_ms, stream = log.stream[record],
    status = log.status[record] or 0, ended = ended_of(log, record, class),
    why = log.reason[record] or class ~= "ok" and class or nil,
    duration_ms = log.duration_ms[record], first_token_ms = first_token_ms(log, record),
    attempts = attempts_of(log, record, described),
    served_by = has_attempt and log.attempt.target[last] or nil,
  }
end

--- The summary of a log.
-- @tparam table log see perilune.simulate.log
-- @tparam ?table scenario whose prices and outages count
-- @treturn table see perilune.simulate.tally; what a log does not tell is nil
function log_tally.of(log, scenario)
  local counted = tally.new()
  local described = upstreams.new(scenario and scenario.upstreams or {}, {}, 1)
  for number, record in ipairs(log.order) do
    counted:add(outcome_of(log, record, number, described))
  end
  local summary = counted:summary(scenario and scenario.outages or {})
  summary.ejections = nil
  for _, counts in pairs(summary.targets) do counts.ejections = nil end
  return summary
end

return log_tally
