--- `perilune simulate`: files in, report out. Returns a function(arguments) -> exit status.

local argv = require "perilune.simulate.argv"
local arrivals = require "perilune.simulate.arrivals"
local lines = require "perilune.simulate.lines"
local log = require "perilune.simulate.log"
local log_tally = require "perilune.simulate.log_tally"
local notes = require "perilune.simulate.notes"
local replay = require "perilune.simulate.replay"
local report = require "perilune.simulate.report"
local run = require "perilune.simulate.run"
local sandbox = require "perilune.simulate.sandbox"
local scenario = require "perilune.simulate.scenario"
local sorted = require "perilune.sorted"
local stage = require "perilune.simulate.stage"
local upstreams = require "perilune.simulate.upstreams"

local EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
local MAX_SCENARIO_BYTES = 1024 * 1024
local NOTHING = { upstreams = {}, outages = {} }

local function open(path)
  local file, reason = io.open(path, "rb")
  if file then return file end
  return nil, "io", (reason:find(path, 1, true) == 1) and reason or path .. ": " .. reason
end

local function read_file(path)
  local file, code, reason = open(path)
  if not file then return nil, code, reason end
  local text, problem = file:read(MAX_SCENARIO_BYTES + 1)
  file:close()
  if problem then return nil, "io", path .. ": " .. problem end
  if #(text or "") > MAX_SCENARIO_BYTES then
    return nil, "limit", ("%s: is larger than %d bytes"):format(path, MAX_SCENARIO_BYTES)
  end
  return text or ""
end

local function read_scenario(options)
  local source, code, problem = read_file(options.scenario)
  if not source then return nil, code, problem end
  local text
  text, code, problem = sandbox.read(source, options.scenario, not options.log)
  if not text then return nil, code, problem end
  local loaded = scenario.of_json(text)
  loaded.source = source
  if options.requests and loaded.requests then loaded.requests.count = options.requests end
  return loaded
end

--- "3 of its lines are broken: line 7: ..." for a log nothing of which can be used.
local function describe_empty(path, rest)
  if rest.line_count == 0 then return path .. ": is empty" end
  local first = rest.broken[1]
  local why = first and ("; line %d: %s"):format(first[1], first[2]) or ""
  return ("%s: has no request with a model in %d lines, %d of them broken%s"):format(
    path, rest.line_count, rest.broken.count, why)
end

local function read_log(options)
  local file, code, reason = open(options.log)
  if not file then return nil, code, reason end
  local problem
  local function read(size)
    local chunk, failure = file:read(size)
    problem = problem or failure
    return chunk
  end
  local loaded, _, rest = log.read(lines.of(read), options.requests)
  file:close()
  if problem then return nil, "io", options.log .. ": " .. problem end
  if not loaded then return nil, "empty", describe_empty(options.log, rest) end
  return loaded
end

-- Directories -------------------------------------------------------------------------------------

local function load_runs(options, context)
  local runs, problems = {}, {}
  for position, directory in ipairs(options.directories) do
    local made, _, problem = run.new(stage, {
      directory = directory, seed = context.seed, start_wall_ms = context.start_wall_ms,
    })
    if not made then
      problems[#problems + 1] = (problem:gsub("[^\n]+", function(line)
        return line:find(directory, 1, true) == 1 and line or directory .. "/" .. line
      end))
    end
    runs[position] = made
  end
  if #problems > 0 then return nil, "invalid", table.concat(problems, "\n") end
  return runs
end

local function names_of(runs)
  local seen = {}
  for _, made in ipairs(runs) do
    for _, name in ipairs(made.world:targets()) do seen[name] = true end
    for _, name in ipairs(made.world:providers()) do seen[name] = true end
  end
  return sorted.keys(seen)
end

--- Plays one directory. Each has upstreams of its own, and the same requests.
local function play(made, context)
  local given = context.scenario or NOTHING
  local described = upstreams.new(given.upstreams, given.outages, context.seed)
  local next_request, answers
  if context.log then
    next_request = log.requests(context.log)
    answers = replay.new(context.log, described, context.seed)
  else
    next_request = arrivals.new(given.requests, context.seed)
    answers = described
  end
  return made:play(next_request, answers, described, given.outages)
end

-- The command -------------------------------------------------------------------------------------

local function read_inputs(options)
  local context = { options = options }
  for _, input in ipairs { { "scenario", read_scenario }, { "log", read_log } } do
    local name, read = input[1], input[2]
    if options[name] then
      local loaded, code, problem = read(options)
      if not loaded then return nil, code, problem end
      context[name] = loaded
    end
  end
  context.seed = options.seed or context.scenario and context.scenario.seed or 1
  context.start_wall_ms = (context.log or context.scenario).start_wall_ms
  return context
end

local function simulate(options)
  local context, code, problem = read_inputs(options)
  if not context then return nil, code, problem end
  local runs
  runs, code, problem = load_runs(options, context)
  if not runs then return nil, code, problem end
  context.names = names_of(runs)
  if context.scenario then
    local known
    known, code, problem = scenario.check_names(context.scenario, context.scenario.source,
      options.scenario, context.names)
    if not known then return nil, code, problem end
  end
  local columns = {}
  if context.log then
    columns[1] = { name = "log", summary = log_tally.of(context.log, context.scenario) }
  end
  for position, made in ipairs(runs) do
    local summary = play(made, context)
    columns[#columns + 1] = { name = options.directories[position], summary = summary,
      errors = made.world:log() }
    made.world:close()
  end
  return columns, context
end

local function print_result(columns, context)
  local about = notes.about(context)
  if context.options.json then
    about.notes = notes.of(columns, context)
    if #about.notes == 0 then about.notes = nil end
    io.stdout:write(report.json(about, columns))
    return
  end
  io.stdout:write(notes.title(about), "\n\n", report.text(columns))
  for position, note in ipairs(notes.of(columns, context)) do
    io.stdout:write(position == 1 and "\n" or "", note, "\n")
  end
end

return function(arguments)
  local options, code, message = argv.parse(arguments)
  if not options then
    if code == "help" then
      io.stdout:write(message)
      return EXIT_OK
    end
    io.stderr:write("perilune: ", message, " (see: perilune simulate --help)\n")
    return EXIT_USAGE
  end
  local columns, context, problem = simulate(options)
  if not columns then
    io.stderr:write(problem, "\n")
    return EXIT_FAILED
  end
  print_result(columns, context)
  return EXIT_OK
end
