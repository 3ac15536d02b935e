--- `require` for policies: the public module, and the other files of the policies directory.
--
-- `require "lib.tenants"` gives what lib/tenants.lua returns. A file runs once per generation, in
-- an environment as policies have it, when it is first asked for; it may require others, but not
-- wait: another request would find it half done. One that fails is run again by who asks next.
--
-- What a module returns is the module itself, not a copy: it is shared by all requests of a worker,
-- as locals at the top of a policy's file are, and no better protected. A view that refuses writes
-- would also hide its items from `#`, `ipairs` and `pairs`, which look past metatables.

local modules = {}

local PUBLIC = "perilune"
local CONFIG_FILE = "gateway.lua"
local MAX_NAME_BYTES = 200

--- The file that a name stands for, nil when it can be none.
local function file_of(name)
  if type(name) ~= "string" or #name > MAX_NAME_BYTES then return nil end
  if not ("." .. name):find("^[%.%w_-]+$") or ("." .. name .. "."):find("..", 1, true) then
    return nil
  end
  return (name:gsub("%.", "/")) .. ".lua"
end

local function shown(name)
  return type(name) == "string" and name:sub(1, MAX_NAME_BYTES) or tostring(name)
end

local function why_there_is_none(file)
  if file:find("^spec/") then return "files in spec/ are not for policies" end
  return ("there is no file %s in the directory"):format(file)
end

--- Everything that is being loaded, from the first that was asked for to `file`.
local function cycle_of(loading, file)
  local names, position = {}, #loading
  while loading[position] ~= file do position = position - 1 end
  for index = position, #loading do names[#names + 1] = loading[index] end
  names[#names + 1] = file
  return table.concat(names, " -> ")
end

local function is_loading(loading, file)
  for _, other in ipairs(loading) do
    if other == file then return true end
  end
  return false
end

--- A problem of a file, with the file's name before it if it does not begin with that. Where in the
-- library it was found is left out.
-- @tparam string file
-- @param problem what was raised
-- @treturn string
function modules.name_problem(file, problem)
  if type(problem) ~= "string" then problem = "raises an error without a message" end
  if problem == "not enough memory" then collectgarbage() end -- there is to be some for the text
  problem = problem:gsub("^perilune[%w_.]*:%d+: ", "")
  if problem:sub(1, #file + 1) == file .. ":" then return problem end
  return file .. ": " .. problem
end

--- Makes the function.
-- @tparam table deps
--
--  * sources: file name -> text
--  * public: function that gives the public module
--  * load(text, file) -> chunk, in a policy's environment; raises what the compiler finds
--  * run(chunk) -> what it returns; waits are errors in it
--  * burst() -> a number that differs between two entries into Lua
--
-- @treturn function require(name)
function modules.new(deps)
  local loaded = {}
  local loading, burst = {}, nil

  -- one that was stopped by its CPU budget could not clean up: nothing is loaded across bursts
  local function drop_stale()
    local now = deps.burst()
    if burst ~= now then loading, burst = {}, now end
  end

  local function load_file(name, file)
    local depth = #loading + 1
    loading[depth] = file
    local ok, value = pcall(function() return deps.run(deps.load(deps.sources[file], file)) end)
    for position = depth, #loading do loading[position] = nil end
    if not ok then error(modules.name_problem(file, value), 0) end
    if value == nil then
      error(file .. ": must return a value, as a module, and returns none", 0)
    end
    loaded[name] = value
    return value
  end

  return function(name)
    if name == PUBLIC then return deps.public() end
    if loaded[name] ~= nil then return loaded[name] end
    local file = file_of(name)
    if not file or name:find("^" .. PUBLIC .. "%.") then
      error(("module '%s' is not available to policies (only 'perilune', and files of the "
        .. "directory: 'lib.name' for lib/name.lua)"):format(shown(name)), 2)
    end
    if file == CONFIG_FILE then
      error("module 'gateway': gateway.lua is the configuration, it cannot be required", 2)
    end
    if not deps.sources[file] then
      error(("module '%s': %s"):format(name, why_there_is_none(file)), 2)
    end
    drop_stale()
    if is_loading(loading, file) then
      error(("module '%s': requires itself: %s"):format(name, cycle_of(loading, file)), 2)
    end
    return load_file(name, file)
  end
end

return modules
