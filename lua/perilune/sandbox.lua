--- The environment that policies run in: what computing needs, and nothing that reaches further.
--
-- A policy's globals are one read-only table of its own. It has no `load`, `xpcall`, `coroutine`,
-- `collectgarbage`, raw access or library to reach files, processes or other requests with, and
-- assigning a global is an error that names it. What `require` gives, perilune.modules says.

local sandbox = {}

local FUNCTIONS = {
  "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "select",
  "setmetatable", "tonumber", "tostring", "type", "unpack",
}
local LIBRARIES = { bit = bit, math = math, string = string, table = table }
local WITHHELD = {
  math = { randomseed = true },
  string = { dump = true },
}

local function read_only(content, what)
  return setmetatable({}, {
    __index = content,
    __newindex = function(_, key)
      error(("%s '%s' cannot be set: declare it with 'local'"):format(what, tostring(key)), 2)
    end,
    __metatable = "locked",
  })
end

local function copy_library(name, library)
  local copy = {}
  for key, value in pairs(library) do
    if not (WITHHELD[name] and WITHHELD[name][key]) then copy[key] = value end
  end
  return read_only(copy, "library field")
end

local function public_only(name)
  if name ~= "perilune" then
    error(("module '%s' is not available to policies (only 'perilune')"):format(tostring(name)), 2)
  end
  return require("perilune")
end

local shared
local given_require = public_only

local function policy_require(name)
  return given_require(name)
end

local function build()
  local content = { _VERSION = _VERSION, require = policy_require }
  for _, name in ipairs(FUNCTIONS) do content[name] = _G[name] end
  for name, library in pairs(LIBRARIES) do content[name] = copy_library(name, library) end
  return content
end

--- What `require` does in all environments of this VM from now on.
-- @tparam function require see perilune.modules
function sandbox.set_require(require)
  given_require = require
end

--- The names of the globals that policies have.
-- @treturn {string,...} in no order
function sandbox.names()
  shared = shared or build()
  local names = {}
  for name in pairs(shared) do table.insert(names, name) end
  return names
end

--- An environment for one policy file: read-only, shared content, its own identity.
-- @treturn table the environment, to be set with setfenv
function sandbox.environment()
  shared = shared or build()
  return read_only(shared, "global")
end

return sandbox
