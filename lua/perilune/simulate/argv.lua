--- Reads the command line of `perilune simulate`. Pure.

local schema = require "perilune.schema"

local argv = {}

local MAX_SEED = 2 ^ 53

argv.HELP = [[
perilune simulate: what policies would have done, under a virtual clock

usage: perilune simulate DIR [DIR2] --scenario FILE.lua [--requests N] [--seed N] [--json]
       perilune simulate DIR [DIR2] --log FILE.jsonl [--scenario FILE.lua] ...

  DIR [DIR2]         policy directories; with two, both results and their difference
  --scenario FILE    the requests that come, and how upstreams answer them; with --log only what
                     is not in the log: prices, further outages, targets it does not know
  --log FILE         requests and answers from the gateway's access log
  --requests N       N requests at the scenario's rate, or the first N of the log
  --seed N           of the random numbers, instead of the scenario's seed
  --json             the result as one JSON object

Nothing is sent anywhere. The same files and seed give the same output, byte by byte.
Exit status: 0 done, 1 a file is not good, 2 this usage is not followed.
]]

local function usage(format, ...)
  return nil, "usage", format:format(...)
end

local function whole_number(text, min, max)
  local number = text:find("^%d+$") and tonumber(text)
  return number and number >= min and number <= max and number or nil
end

local function numeric(key, min, max)
  return function(options, text, name)
    options[key] = whole_number(text, min, max)
    if options[key] then return true end
    return usage("%s: a whole number from %.0f to %.0f is expected, not '%s'", name, min, max, text)
  end
end

local function file(key)
  return function(options, text, name)
    if text == "" then return usage("%s needs the name of a file", name) end
    options[key] = text
    return true
  end
end

local TAKE = {
  ["--scenario"] = file "scenario", ["--log"] = file "log",
  ["--requests"] = numeric("requests", 1, 1000000), ["--seed"] = numeric("seed", 0, MAX_SEED),
}
local OPTIONS = { "--scenario", "--log", "--requests", "--seed", "--json", "--help" }

local function take_option(options, arguments, index)
  local name, value = arguments[index]:match("^(%-%-[^=]*)=(.*)$")
  name = name or arguments[index]
  local take = TAKE[name]
  if name == "--json" then
    if value then return usage("--json takes no value") end
    options.json = true
    return index + 1
  end
  if not take then
    local meant = schema.nearest(name, OPTIONS)
    return usage("unknown option %s%s", name, meant and (" (did you mean %s?)"):format(meant) or "")
  end
  if not value then
    index = index + 1
    value = arguments[index]
  end
  if not value then return usage("%s needs a value", name) end
  local ok, code, message = take(options, value, name)
  if not ok then return nil, code, message end
  return index + 1
end

local function complete(options)
  if #options.directories == 0 then return usage("a policy directory is needed") end
  if #options.directories > 2 then
    return usage("at most two directories can be given; unexpected '%s'", options.directories[3])
  end
  if not options.scenario and not options.log then
    return usage("--scenario FILE.lua or --log FILE.jsonl is needed")
  end
  return options
end

--- Read a command line.
-- @tparam {string,...} arguments what follows `perilune simulate`
-- @treturn[1] table directories, scenario, log, requests, seed, json
-- @treturn[2] nil
-- @treturn[2] string "usage" for a mistake, "help" for --help
-- @treturn[2] string the message, or the help text
function argv.parse(arguments)
  local options, index = { directories = {} }, 1
  while arguments[index] do
    local argument = arguments[index]
    if argument == "--help" or argument == "-h" then return nil, "help", argv.HELP end
    if argument:find("^%-%-?.") then
      local next_index, code, message = take_option(options, arguments, index)
      if not next_index then return nil, code, message end
      index = next_index
    else
      table.insert(options.directories, argument)
      index = index + 1
    end
  end
  return complete(options)
end

return argv
