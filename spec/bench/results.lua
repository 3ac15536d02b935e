--- The numbers of a benchmark run: reads them, derives the measurements, checks that work was done.
--
-- Input: lines "round, row, contender, key, value" with tabs. A measurement is one number of one
-- contender in one round; the rounds are repeats of the same.

local results = {}

-- Contenders whose job includes giving the upstream another model than the client asked for.
local REWRITES = { ["nginx-lua"] = true, perilune = true, portkey = true,
  unseen = true, seen_1 = true, seen_10 = true, seen_100 = true }
-- Rows that disturb the gateway on purpose; what fails there is counted apart.
local DISTURBED = { reload = true, reload_streams = true, drain = true }
local GROWTH_MAX_KIB = 8192 -- while reloading; what the allocator keeps between two loads
local ENTRY = "^(%d+)\t([^\t]+)\t([^\t]+)\t([^\t]+)\t(.*)$"

local Run = {}
Run.__index = Run

local function quotient(upper, lower)
  return upper and lower and lower ~= 0 and upper / lower or nil
end

--- CPU time of the gateway; nil when there is none.
local function cpu_us(numbers)
  return numbers.cpu_us and numbers.cpu_us > 0 and numbers.cpu_us or nil
end

local function ok_requests(numbers)
  return numbers.ok_a and numbers.ok_a + numbers.ok_b
end

-- How each measurement comes from the numbers noted for a round; nil when one of them is missing.
local measure = {
  rps = function(n) return n.rps end,
  p50_us = function(n) return n.p50_us end,
  p99_us = function(n) return n.p99_us end,
  first_p50_us = function(n) return n.first_p50_us end,
  first_p50_ms = function(n) return quotient(n.first_p50_us, 1000) end,
  first_p99_ms = function(n) return quotient(n.first_p99_us, 1000) end,
  request_us = function(n) return quotient(cpu_us(n), ok_requests(n)) end,
  event_us = function(n) return quotient(cpu_us(n), n.events) end,
  events_per_s = function(n) return quotient(n.events, quotient(n.elapsed_us, 1e6)) end,
  tries = function(n)
    local ok = ok_requests(n)
    return ok and quotient(ok + n.failing, ok)
  end,
  idle_mib = function(n) return quotient(n.idle_kib, 1024) end,
  held_kib = function(n) return n.held_kib and (n.held_kib - n.idle_kib) / n.count end,
  foreign = function(n) return quotient(n.foreign_us, n.elapsed_us) end,
  load_foreign = function(n) return quotient(n.load_foreign_us, n.elapsed_us) end,
}

--- What a client waits longer than without a gateway, in the same round.
function measure.added_us(numbers, round, data)
  local direct = data.chat1 and data.chat1.direct and data.chat1.direct[round]
  return direct and direct.p50_us and numbers.p50_us and numbers.p50_us - direct.p50_us
end

--- What the gate adds to the time to the first event, in the same round.
function measure.gate_us(numbers, round, data)
  local head = data["gate-head"] and data["gate-head"].perilune
  head = head and head[round]
  return head and head.first_p50_us and numbers.first_p50_us
    and numbers.first_p50_us - head.first_p50_us
end

--- Median, lowest, highest and count.
-- @tparam table rounds numbers by round; holes are allowed
-- @treturn table|nil nil when there is none
local function summary(rounds)
  local values = {}
  for _, value in pairs(rounds) do
    values[#values + 1] = value
  end
  if #values == 0 then
    return nil
  end
  table.sort(values)
  local lower, upper = math.floor((#values + 1) / 2), math.ceil((#values + 1) / 2)
  return { median = (values[lower] + values[upper]) / 2, low = values[1], high = values[#values],
    count = #values }
end

local function by_round(run, row, contender, name)
  local result = {}
  for round, numbers in pairs(run.data[row] and run.data[row][contender] or {}) do
    result[round] = measure[name](numbers, round, run.data)
  end
  return result
end

--- One measurement of one contender over the rounds.
function Run:value(row, contender, name)
  return summary(by_round(self, row, contender, name))
end

--- The quotient of two contenders, taken within each round.
function Run:ratio(row, name, contender, against)
  local upper = by_round(self, row, contender, name)
  local lower = by_round(self, row, against, name)
  local result = {}
  for round, value in pairs(upper) do
    result[round] = quotient(value, lower[round])
  end
  return summary(result)
end

--- One measurement of everybody in every row, as if they were rounds.
function Run:everywhere(name)
  local values = {}
  for _, of_row in pairs(self.data) do
    for _, rounds in pairs(of_row) do
      for round, numbers in pairs(rounds) do
        values[#values + 1] = measure[name](numbers, round, self.data)
      end
    end
  end
  return summary(values)
end

--- Whether a contender has numbers in a row, or in any row.
function Run:has(contender, row)
  if row then
    return self.data[row] ~= nil and self.data[row][contender] ~= nil
  end
  for _, of_row in pairs(self.data) do
    if of_row[contender] then
      return true
    end
  end
  return false
end

local function why_no_work(row, contender, numbers)
  local ok = ok_requests(numbers)
  if not ok or ok == 0 then
    return "no request was answered by the upstream"
  elseif REWRITES[contender] and numbers.rewritten < 0.99 * (ok + numbers.failing) then
    return "the model was not rewritten in every request"
  elseif row == "observed" and contender:find("^seen") and numbers.exports == 0 then
    return "no traces were sent"
  elseif row == "failover" and measure.tries(numbers) < 2.9 then
    return "not every request went over three targets"
  end
end

local function check_work(run)
  for _, row in ipairs { "chat64", "chat1", "failover", "sse", "burst", "observed",
    "observed_sse" } do
    for contender, rounds in pairs(run.data[row] or {}) do
      for _, numbers in pairs(rounds) do
        local key = row .. "/" .. contender
        run.invalid[key] = run.invalid[key] or why_no_work(row, contender, numbers)
      end
    end
  end
end

local function check_reload(run)
  local reload = run:has("perilune", "reload") and run.data.reload.perilune[1]
  local drain = run:has("perilune", "drain") and run.data.drain.perilune[1]
  local served = reload and ok_requests(reload) or 0
  if reload and (served == 0 or math.min(reload.ok_a, reload.ok_b) < 0.1 * served) then
    run.invalid["reload/perilune"] = "the reloads did not switch the upstream"
  elseif reload and reload.in_force < 0.9 * reload.reloads then
    run.invalid["reload/perilune"] = ("only %d of %d reloads took effect"):format(reload.in_force,
      reload.reloads)
  elseif reload and reload.late_kib > reload.early_kib + GROWTH_MAX_KIB then
    run.invalid["reload/perilune"] = ("memory grew from %d to %d KiB"):format(reload.early_kib,
      reload.late_kib)
  end
  if drain and drain.exited ~= 1 then
    run.invalid["drain/perilune"] = "the gateway died early, or did not end after its last stream"
  end
end

local function add(run, round, row, contender, key, value)
  local data = run.data
  data[row] = data[row] or {}
  data[row][contender] = data[row][contender] or {}
  local rounds = data[row][contender]
  rounds[round] = rounds[round] or {}
  rounds[round][key] = value
  if key == "failed" then
    local failed = DISTURBED[row] and run.failed_disturbed or run.failed
    failed[contender] = (failed[contender] or 0) + value
  end
end

--- Reads a run.
-- @tparam string path of result.tsv
-- @treturn Run data; failed, failed_disturbed: counts by contender, under load alone and with
-- reloads and drain; invalid: "row/contender" -> why it says nothing
function results.read(path)
  local run = setmetatable({ data = {}, failed = {}, failed_disturbed = {}, invalid = {} }, Run)
  for line in io.lines(path) do
    local round, row, contender, key, text = line:match(ENTRY)
    local value = tonumber(text)
    if value then
      add(run, tonumber(round), row, contender, key, value)
    end
  end
  check_work(run)
  check_reload(run)
  return run
end

return results
