--- Prints the table and the verdicts of a benchmark run.
--
--   LUA_PATH=spec/bench/?.lua luajit spec/bench/report.lua build/bench/result.tsv
--
-- A cell is the median over the rounds and half the distance between the lowest and the highest
-- round, in per cent. A ratio is taken within each round, between measurements made seconds apart,
-- and its median counts. With BENCH_STRICT=1 the exit status is 1 unless every goal is met.

local results = require "results"

local CONTENDERS = { "direct", "nginx", "haproxy", "nginx-lua", "perilune", "portkey" }
-- Perilune, by what it tells of its requests; in a table of their own.
local OBSERVED = { "unseen", "perilune", "seen_1", "seen_10", "seen_100" }
local LABEL_WIDTH, CELL_WIDTH, RANGE_WIDTH = 38, 16, 20
local QUIET_RATIO = 0.05

-- Lines of the table: row of the run, label, measurement, number format.
local TABLE = {
  { "chat64", "chat, 64 connections: requests/s", "rps", "%.0f" },
  { "chat64", "  latency p50, us", "p50_us", "%.0f" },
  { "chat64", "  latency p99, us", "p99_us", "%.0f" },
  { "chat64", "  CPU per request, us", "request_us", "%.2f" },
  { "chat1", "chat, 1 connection: latency p50, us", "p50_us", "%.0f" },
  { "chat1", "  latency p99, us", "p99_us", "%.0f" },
  { "chat1", "  added to direct, p50, us", "added_us", "%.0f" },
  { "chat1", "  CPU per request, us", "request_us", "%.2f" },
  { "failover", "failover over 3 targets: requests/s", "rps", "%.0f" },
  { "failover", "  CPU per request, us", "request_us", "%.2f" },
  { "failover", "  upstream tries per request", "tries", "%.2f" },
  { "sse", "paced streams: events/s", "events_per_s", "%.0f" },
  { "sse", "  CPU per relayed event, us", "event_us", "%.2f" },
  { "sse", "  first event p50, ms", "first_p50_ms", "%.2f" },
  { "sse", "  first event p99, ms", "first_p99_ms", "%.2f" },
  { "burst", "unpaced streams: events/s", "events_per_s", "%.0f" },
  { "burst", "  CPU per relayed event, us", "event_us", "%.3f" },
  { "gate-model", "one stream: first event p50, us", "first_p50_us", "%.0f" },
  { "gate-head", "  with the gate open", "first_p50_us", "%.0f" },
  { "gate-model", "  added by the gate", "gate_us", "%.0f" },
  { "memory", "memory: idle, MiB", "idle_mib", "%.1f" },
  { "memory", "  per open stream, KiB", "held_kib", "%.1f" },
  { "memory_idle", "  per idle connection, KiB", "held_kib", "%.1f" },
}

-- The same of OBSERVED.
local OBSERVED_TABLE = {
  { "observed", "chat, 64 connections: requests/s", "rps", "%.0f" },
  { "observed", "  latency p99, us", "p99_us", "%.0f" },
  { "observed", "  CPU per request, us", "request_us", "%.2f" },
  { "observed_sse", "unpaced streams: CPU per event, us", "event_us", "%.3f" },
  { "memory", "memory per open stream, KiB", "held_kib", "%.1f" },
}

local run = results.read(assert(arg[1], "usage: report.lua result.tsv"))

--- Failures in all rows, once the reloads and the drain were measured.
local function failures()
  for _, row in ipairs { "reload", "reload_streams", "drain" } do
    if not run:has("perilune", row) then
      return nil
    end
  end
  local count = (run.failed.perilune or 0) + (run.failed_disturbed.perilune or 0)
  return { median = count, low = count, high = count, count = 1 }
end

-- label; number format; unit; limit; whether at least that much is wanted; what was measured; the
-- measurements that must be valid for it.
local GOALS = {
  { "CPU per request / nginx-lua", "%.2f", "x", 0.95, false,
    function() return run:ratio("chat64", "request_us", "perilune", "nginx-lua") end,
    { "chat64/perilune", "chat64/nginx-lua" } },
  { "failover requests/s / nginx-lua", "%.2f", "x", 3, true,
    function() return run:ratio("failover", "rps", "perilune", "nginx-lua") end,
    { "failover/perilune", "failover/nginx-lua" } },
  { "CPU per relayed event / nginx", "%.2f", "x", 1, false,
    function() return run:ratio("sse", "event_us", "perilune", "nginx") end,
    { "sse/perilune", "sse/nginx" } },
  { "memory per open stream", "%.1f", "KiB", 8, false,
    function() return run:value("memory", "perilune", "held_kib") end, {} },
  { "added latency p50 / nginx-lua", "%.2f", "x", 1, false,
    function() return run:ratio("chat1", "added_us", "perilune", "nginx-lua") end,
    { "chat1/perilune", "chat1/nginx-lua", "chat1/direct" } },
  { "added by the gate, first event p50", "%.0f", "us", 50, false,
    function() return run:value("gate-model", "perilune", "gate_us") end, {} },
  { "resident memory when idle", "%.1f", "MiB", 10, false,
    function() return run:value("memory", "perilune", "idle_mib") end, {} },
  { "CPU per request, all told / nothing", "%.3f", "x", 1.1, false,
    function() return run:ratio("observed", "request_us", "seen_10", "unseen") end,
    { "observed/seen_10", "observed/unseen" } },
  { "CPU per event, all told / nothing", "%.3f", "x", 1.1, false,
    function() return run:ratio("observed_sse", "event_us", "seen_10", "unseen") end,
    { "observed_sse/seen_10", "observed_sse/unseen" } },
  { "memory per open stream, all told", "%.1f", "KiB", 8, false,
    function() return run:value("memory", "seen_10", "held_kib") end, {} },
  { "CPU per request / portkey", "%.4f", "x", 1 / 60, false,
    function() return run:ratio("chat64", "request_us", "perilune", "portkey") end,
    { "chat64/perilune", "chat64/portkey" } },
  { "failed, with reloads and drain", "%d", "", 0, false, failures,
    { "reload/perilune", "drain/perilune" } },
}

--- Pads by what is seen, not by bytes: "±" has two.
local function pad(text, width, to_right)
  local _, continuation_count = text:gsub("[\128-\191]", "")
  local blanks = (" "):rep(width - #text + continuation_count)
  return to_right and blanks .. text or text .. blanks
end

local function cell(row, contender, name, format)
  local found = run:value(row, contender, name)
  if not found then
    return "-"
  end
  local text = format:format(found.median)
  if found.count > 1 and found.median ~= 0 then
    local half_range = (found.high - found.low) / 2 / math.abs(found.median)
    text = text .. (" ±%.0f%%"):format(half_range * 100)
  end
  return text .. (run.invalid[row .. "/" .. contender] and " !" or "")
end

--- One line of the table; `value` gives the text for a contender.
local function print_line(label, contenders, value)
  local cells = {}
  for index, contender in ipairs(contenders) do
    cells[index] = pad(value(contender), CELL_WIDTH, true)
  end
  print(pad(label, LABEL_WIDTH) .. table.concat(cells))
end

--- Those of a list that were measured.
local function present(list)
  local contenders = {}
  for _, contender in ipairs(list) do
    contenders[#contenders + 1] = run:has(contender) and contender or nil
  end
  return contenders
end

local function print_rows(lines, contenders)
  print_line("", contenders, function(contender) return contender end)
  for _, line in ipairs(lines) do
    local row, label, name, format = unpack(line)
    if run.data[row] then
      print_line(label, contenders, function(contender)
        return cell(row, contender, name, format)
      end)
    end
  end
end

local function print_failed(contenders)
  print_line("failed requests, rows above", contenders, function(contender)
    return tostring(run.failed[contender] or 0)
  end)
  print_line("  during reloads and drain", contenders, function(contender)
    return tostring(run.failed_disturbed[contender] or "-")
  end)
end

local function print_noise()
  local quiet = true
  for _, place in ipairs { { "gateway", "foreign" }, { "load", "load_foreign" } } do
    local share = run:everywhere(place[2])
    if share then
      local form = "other work on the %s's core: %.1f%% of a window in the median, %.1f%% at most"
      print(form:format(place[1], share.median * 100, share.high * 100))
      quiet = quiet and share.high <= QUIET_RATIO
    end
  end
  if not quiet then
    print("this machine was not quiet: repeat before believing small differences")
  end
end

local function verdict(found, limit, at_least, measurements)
  for _, measurement in ipairs(measurements) do
    if run.invalid[measurement] then
      return "invalid"
    end
  end
  local function reaches(value)
    if at_least then
      return value >= limit
    end
    return value <= limit
  end
  local steady = reaches(found.low) == reaches(found.high)
  local word = reaches(found.median) and "met" or "missed"
  return steady and word or word .. ", but not in every round"
end

--- Prints one goal; returns whether it is met.
local function print_goal(goal)
  local label, format, unit, limit, at_least, value, measurements = unpack(goal)
  local found = value()
  local measured, rounds, result = "-", "-", "not measured"
  if found then
    measured = format:format(found.median) .. " " .. unit
    if found.count > 1 then
      rounds = format:format(found.low) .. " to " .. format:format(found.high)
    end
    result = verdict(found, limit, at_least, measurements)
  end
  local wanted = (at_least and ">= " or "<= ") .. format:format(limit) .. " " .. unit
  print(pad(label, LABEL_WIDTH) .. pad(wanted, CELL_WIDTH) .. pad(measured, CELL_WIDTH)
    .. pad(rounds, RANGE_WIDTH) .. result)
  return result:find("^met") ~= nil
end

local function print_goals()
  local all_met = true
  print(pad("goal, Perilune against others", LABEL_WIDTH) .. pad("to reach", CELL_WIDTH)
    .. pad("measured", CELL_WIDTH) .. pad("rounds", RANGE_WIDTH) .. "verdict")
  for _, goal in ipairs(GOALS) do
    all_met = print_goal(goal) and all_met
  end
  return all_met
end

local function print_invalid()
  local lines = {}
  for measurement, why in pairs(run.invalid) do
    lines[#lines + 1] = ("! %s: %s"):format(measurement, why)
  end
  table.sort(lines)
  for _, line in ipairs(lines) do
    print(line)
  end
end

local contenders, observed = present(CONTENDERS), present(OBSERVED)
print_rows(TABLE, contenders)
print_failed(contenders)
if run.data.observed or run.data.observed_sse then
  print("")
  print_rows(OBSERVED_TABLE, observed)
  print_failed(observed)
end
print("")
print_noise()
print("")
local all_met = print_goals()
print_invalid()
os.exit((all_met or os.getenv("BENCH_STRICT") ~= "1") and 0 or 1)
