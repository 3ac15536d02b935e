--- Counts what became of requests, and sums it up. Of a request that has been counted a few numbers
-- remain. Pure.
--
-- An outcome of a request, as its client saw it:
--
--     number, at_ms, stream    of the request; numbers go from 1 on, in the order of arrival
--     status                   of the answer; 0 when none came
--     ended                    "complete", "cut" (after its head), "reset" (before), "left" (the
--                              client lost its patience), "open" (nothing more will come)
--     why                      a word for what went wrong, or nil
--     duration_ms              until the end
--     first_token_ms           of a stream, until its first token; nil when none came
--     attempts                 { target, output_tokens, input_tokens, cost } each, in their order
--     served_by                the target whose answer the client got, or nil
--
-- A request has succeeded when its answer was complete and its status below 400.

local percentiles = require "perilune.simulate.percentiles"
local sorted = require "perilune.sorted"

local tally = {}
tally.__index = tally

--- An empty tally.
function tally.new()
  return setmetatable({
    count = 0, succeeded_count = 0, attempt_count = 0, retry_count = 0, max_attempts = 0,
    failures = {}, targets = {}, durations_ms = {}, first_tokens_ms = {},
    at_ms = {}, failed = {}, -- by the request's number
  }, tally)
end

--- Whether a client got what it wanted.
function tally.is_success(outcome)
  return outcome.ended == "complete" and outcome.status >= 200 and outcome.status < 400
end

--- What a failure is listed under, such as "503 all_ejected" or "200 cut: truncated".
local function label_of(outcome)
  local what = {
    complete = outcome.why or "", cut = "cut" .. (outcome.why and ": " .. outcome.why or ""),
    reset = "reset", left = "client left", open = "no end",
  }
  local status = outcome.status > 0 and ("%d "):format(outcome.status) or ""
  return ((status .. what[outcome.ended]):gsub("%s+$", ""))
end

--- The counts of one target.
function tally:target(name)
  local counts = self.targets[name]
  if not counts then
    counts = {
      attempts = 0, served = 0, input_tokens = 0, output_tokens = 0, spend = 0, ejections = 0,
    }
    self.targets[name] = counts
  end
  return counts
end

local function add_attempts(self, attempts)
  local count = #attempts
  self.attempt_count = self.attempt_count + count
  self.retry_count = self.retry_count + math.max(0, count - 1)
  self.max_attempts = math.max(self.max_attempts, count)
  for position = 1, count do
    local attempt = attempts[position]
    local counts = self:target(attempt.target)
    counts.attempts = counts.attempts + 1
    counts.input_tokens = counts.input_tokens + (attempt.input_tokens or 0)
    counts.output_tokens = counts.output_tokens + (attempt.output_tokens or 0)
    counts.spend = counts.spend + (attempt.cost or 0)
  end
end

--- Count a request.
-- @tparam table outcome
function tally:add(outcome)
  local is_success = tally.is_success(outcome)
  self.count = self.count + 1
  self.at_ms[outcome.number], self.failed[outcome.number] = outcome.at_ms, not is_success
  self.durations_ms[self.count] = outcome.duration_ms
  if outcome.stream and outcome.first_token_ms then
    self.first_tokens_ms[#self.first_tokens_ms + 1] = outcome.first_token_ms
  end
  add_attempts(self, outcome.attempts)
  if is_success then
    self.succeeded_count = self.succeeded_count + 1
    if outcome.served_by then
      local counts = self:target(outcome.served_by)
      counts.served = counts.served + 1
    end
  else
    local label = label_of(outcome)
    self.failures[label] = (self.failures[label] or 0) + 1
  end
end

--- Note how often a target, or a whole provider, was taken out.
function tally:add_ejections(name, count)
  if count > 0 then
    local counts = self:target(name)
    counts.ejections = counts.ejections + count
  end
end

-- The summary -------------------------------------------------------------------------------------

--- When requests failed within a time: of those that came in it, and of those after it that failed
-- before any succeeded again.
local function failures_within(self, from_ms, to_ms)
  local result, is_failing = { failed = 0 }, false
  for number = 1, self.count do
    local at_ms = self.at_ms[number]
    if at_ms >= to_ms and not is_failing then break end
    if at_ms >= from_ms then
      is_failing = self.failed[number]
      if is_failing then
        result.failed = result.failed + 1
        result.first_failed_ms = result.first_failed_ms or at_ms
        result.recovered_ms = nil
      elseif result.first_failed_ms then
        result.recovered_ms = result.recovered_ms or at_ms
      end
    end
  end
  return result
end

local function summarise_targets(self)
  local targets, total = {}, 0
  for name, counts in pairs(self.targets) do
    targets[name] = {
      attempts = counts.attempts, served = counts.served, ejections = counts.ejections,
      share = self.count > 0 and counts.served / self.count or 0,
      input_tokens = counts.input_tokens, output_tokens = counts.output_tokens,
      spend = counts.spend,
    }
  end
  for _, entry in ipairs(sorted.pairs(targets)) do total = total + entry[2].spend end
  return targets, total
end

local function ejection_count(targets)
  local sum = 0
  for _, counts in pairs(targets) do sum = sum + counts.ejections end
  return sum
end

local function summarise_outages(self, outages)
  if #outages == 0 then return nil end
  local result = {}
  for position, outage in ipairs(outages) do
    local failures = failures_within(self, outage.from_ms, outage.to_ms or math.huge)
    failures.upstream = outage.upstream
    failures.from_ms, failures.to_ms = outage.from_ms, outage.to_ms
    result[position] = failures
  end
  return result
end

--- What it comes to.
-- @tparam {table,...} outages of the scenario: upstream, from_ms, to_ms
-- @treturn table plain data: numbers, and tables by name
function tally:summary(outages)
  local times = percentiles.of(self.durations_ms, { 50, 90, 99, 100 })
  local first_tokens = percentiles.of(self.first_tokens_ms, { 50, 99 })
  local targets, spend = summarise_targets(self)
  local whole = failures_within(self, 0, math.huge)
  return {
    requests = self.count, succeeded = self.succeeded_count,
    failed = self.count - self.succeeded_count,
    success_rate = self.count > 0 and self.succeeded_count / self.count or nil,
    failures = self.failures,
    latency_ms = { p50 = times[1], p90 = times[2], p99 = times[3], max = times[4] },
    first_token_ms = { p50 = first_tokens[1], p99 = first_tokens[2] },
    attempts = {
      total = self.attempt_count, max = self.max_attempts,
      mean = self.count > 0 and self.attempt_count / self.count or nil,
    },
    retries = self.retry_count, targets = targets, spend = spend,
    ejections = ejection_count(targets),
    first_failed_ms = whole.first_failed_ms, recovered_ms = whole.recovered_ms,
    outages = summarise_outages(self, outages),
  }
end

return tally
