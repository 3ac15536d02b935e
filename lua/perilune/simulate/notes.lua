--- What is to be said beside the numbers: what was simulated, and what to keep in mind. Pure.

local duration = require "perilune.duration"
local rfc3339 = require "perilune.rfc3339"
local sorted = require "perilune.sorted"

local notes = {}

local MAX_LINES = 5

--- What was simulated.
-- @tparam table context options, seed, scenario, log, start_wall_ms
-- @treturn table plain data
function notes.about(context)
  local log = context.log
  return {
    seed = context.seed, scenario = context.options.scenario, log = context.options.log,
    start = rfc3339.format(context.start_wall_ms), directories = context.options.directories,
    requests = log and log.count or context.scenario.requests.count,
    span_ms = log and log.time_ms[log.order[log.count]] - log.start_wall_ms
      or context.scenario.requests.count * 1000 / context.scenario.requests.rate,
    broken_lines = log and log.broken.count or nil,
  }
end

--- The same as one line.
function notes.title(about)
  local files = {}
  for _, name in ipairs { about.log or false, about.scenario or false } do
    if name then files[#files + 1] = name end
  end
  return ("%d requests within %s from %s, seed %.0f: %s"):format(about.requests,
    duration.format(math.ceil(about.span_ms / 1000) * 1000), about.start, about.seed,
    table.concat(files, ", "))
end

local function add_broken(list, log)
  local broken = log.broken
  if log.left_out_count > 0 then
    list[#list + 1] = ("requests of the log without a model, or not POST, left out: %d"):format(
      log.left_out_count)
  end
  if log.is_cut then list[#list + 1] = "the log goes on: the rest of it was not read" end
  if broken.count == 0 then return end
  list[#list + 1] = ("broken lines of the log, left out: %d"):format(broken.count)
  for position = 1, #broken do
    list[#list + 1] = ("  line %d: %s"):format(broken[position][1], broken[position][2])
  end
  if broken.count > #broken then
    list[#list + 1] = ("  and %d more"):format(broken.count - #broken)
  end
end

--- Targets of the log that are in no directory: renamed or gone.
local function add_unknown(list, context)
  local known, unknown = {}, {}
  for _, name in ipairs(context.names) do known[name] = true end
  for _, target in ipairs(context.log.attempt.target) do
    if not known[target] then unknown[target] = true end
  end
  local names = sorted.keys(unknown)
  if #names > 0 then
    list[#list + 1] = "targets of the log that no directory has: " .. table.concat(names, ", ")
  end
end

local function add_guessed(list, column)
  local guessed = (column.summary.answers or {}).guessed or 0
  if guessed == 0 then return end
  list[#list + 1] = ("%s: %d answers were guessed: the log has no attempt of that target near that"
    .. " time"):format(column.name, guessed)
end

local function add_undescribed(list, context)
  local described, missing = context.scenario.upstreams, {}
  for _, name in ipairs(context.called) do
    if not described[name] and not described[name:match("^([^/]*)/") or name] then
      missing[#missing + 1] = name
    end
  end
  if #missing > 0 then
    list[#list + 1] = "targets that the scenario does not describe take the usual times: "
      .. table.concat(missing, ", ")
  end
end

local function called_of(columns)
  local seen = {}
  for _, column in ipairs(columns) do
    for name, counts in pairs(column.summary.targets) do
      if counts.attempts > 0 then seen[name] = true end
    end
  end
  return sorted.keys(seen)
end

local function add_errors(list, column)
  for position, line in ipairs(column.errors or {}) do
    if position > MAX_LINES then break end
    list[#list + 1] = ("%s: %s"):format(column.name, line)
  end
end

--- What to keep in mind.
-- @tparam {table,...} columns name, summary, errors (lines of the gateway's log)
-- @tparam table context as for `about`, and names of all targets and providers
-- @treturn {string,...}
function notes.of(columns, context)
  local list = {}
  if context.log then
    add_broken(list, context.log)
    add_unknown(list, context)
  else
    add_undescribed(list, { scenario = context.scenario, called = called_of(columns) })
  end
  for _, column in ipairs(columns) do
    add_guessed(list, column)
    add_errors(list, column)
  end
  return list
end

return notes
