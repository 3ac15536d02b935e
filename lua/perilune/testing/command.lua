--- `perilune test [DIR] [-- OPTIONS]`: runs busted over DIR/spec.

local EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
local USAGE = "usage: perilune test [DIR] [-- OPTIONS of busted]"

local function say(text, ...)
  io.stderr:write("perilune test: ", text:format(...), "\n")
  return EXIT_USAGE
end

--- The directory, and the options after "--"; nil and what is wrong.
local function parse(arguments)
  local directory
  for number, argument in ipairs(arguments) do
    if argument == "--" then return directory or "policies", { unpack(arguments, number + 1) } end
    if argument:sub(1, 1) == "-" then return nil, ("unknown option %s"):format(argument) end
    if directory then
      return nil, ("only one directory can be given; unexpected '%s'"):format(argument)
    end
    directory = argument
  end
  return directory or "policies", {}
end

--- How many specs lie under a folder; penlight comes with busted.
local function count_specs(folder)
  local path = require "pl.path"
  if not path.isdir(folder) then return 0 end
  local count = 0
  for _, file in ipairs(require("pl.dir").getallfiles(folder)) do
    if path.basename(file):find("_spec%.lua$") then count = count + 1 end
  end
  return count
end

--- busted ends by an error or by os.exit when a spec fails.
local function run_busted(folder, options)
  local line = { [0] = "perilune test", "--ignore-lua", "--pattern=_spec%.lua$", unpack(options) }
  table.insert(line, folder)
  rawset(_G, "arg", line) -- where busted looks
  local run = loadstring([[
    local runner = require "busted.runner"
    runner({ standalone = false })
    return true]], "@perilune test")
  local ran, problem = pcall(run)
  if ran then return EXIT_OK end
  if problem ~= nil then io.stderr:write("perilune test: ", tostring(problem), "\n") end
  return EXIT_FAILED
end

return function(arguments)
  local directory, options = parse(arguments)
  if not directory then return say("%s (%s)", options, USAGE) end
  local found, problem = pcall(require, "busted.runner")
  if not found then
    return say("busted, which runs the specs, cannot be loaded: %s\n"
      .. "On Debian and Ubuntu: apt-get install lua-busted; elsewhere: luarocks install busted",
      tostring(problem):match("^[^\n]*"))
  end
  directory = directory:gsub("(.)/+$", "%1")
  local folder = directory .. "/spec"
  if count_specs(folder) == 0 then
    return say("there are no specs: no file in %s ends in _spec.lua", folder)
  end
  require("perilune.stage").directory = directory
  rawset(package, "path", folder .. "/?.lua;" .. package.path) -- what specs share
  return run_busted(folder, options)
end
