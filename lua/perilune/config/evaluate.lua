--- Evaluates the text of gateway.lua: in an environment with nothing but env, secret and file.
-- Other files that return one table (perilune.simulate.scenario) are read the same way, without
-- these.
--
-- Text only, never compiled code. Functions in the returned table keep the environment when they
-- run later, but the helpers answer only while the text itself runs: what they read belongs to
-- whoever called `evaluate.run`. Endless loops and memory are for the caller to bound.

local wording = require "perilune.schema.wording"

local evaluate = {}

local CHUNK = "gateway.lua" -- the chunk's name while it runs: short, so that it is never cut
local LINE = "^gateway%.lua:(%d+): (.*)$"

local function call_helper(helpers, name, subject)
  if helpers.closed then
    error(name .. ": can only be used while the configuration is read, not in a function of it", 3)
  end
  if type(subject) ~= "string" or subject == "" then
    error(name .. ": needs a name, such as " .. name .. ' "NAME"', 3)
  end
  local helper = helpers.given[name]
  if type(helper) ~= "function" then error(name .. ": is not available here", 3) end
  local ok, value, detail = pcall(helper, subject)
  if not ok then value, detail = nil, value end
  if value ~= nil and type(value) ~= "string" then
    error(("%s %s: gave a %s instead of a string"):format(name, subject, type(value)), 3)
  end
  return value, detail
end

local function closed(env, known)
  return setmetatable(env, {
    __index = function(_, key)
      error(("unknown name %s: only %s here"):format(wording.show(key), known), 2)
    end,
    __newindex = function(_, key)
      error(("write local %s = ...: there are no globals here"):format(tostring(key)), 2)
    end,
  })
end

local function environment(helpers)
  local env = {}
  function env.env(name, default)
    local value, detail = call_helper(helpers, "env", name)
    if value == nil and detail ~= nil then error("env " .. name .. ": " .. tostring(detail), 2) end
    if value == nil then return default end
    return value
  end
  local function must_exist(helper, missing)
    return function(name)
      local value, detail = call_helper(helpers, helper, name)
      if value == nil then
        error(("%s %s: %s"):format(helper, name, tostring(detail or missing)), 2)
      end
      return (value:gsub("%s+$", ""))
    end
  end
  env.secret = must_exist("secret", "neither the variable nor its _FILE form is set")
  env.file = must_exist("file", "cannot be read")
  return closed(env, "env, secret and file exist")
end

--- A problem from the text of a Lua error, which begins with chunk and line when these are known.
local function lua_problem(message)
  local line, text = tostring(message):match(LINE)
  return { line = tonumber(line), key = "", message = text or tostring(message) }
end

--- Run the text.
-- @tparam string source
-- @tparam ?table helpers env, secret and file (see perilune.config); nil: the text has no names at
-- all but its own
-- @treturn[1] table what it returns
-- @treturn[2] nil
-- @treturn[2] table the problem: { line (nil when it is not known), key = "", message }
function evaluate.run(source, helpers)
  if source:byte() == 27 then
    return nil, { key = "", message = "is compiled code; only the text of a script is read" }
  end
  local state = { given = helpers, closed = false }
  local env = helpers and environment(state) or closed({}, "what the file itself declares exists")
  local chunk, syntax_error = load(source, "=" .. CHUNK, "t", env)
  if not chunk then return nil, lua_problem(syntax_error) end
  local ok, value = pcall(chunk)
  state.closed = true
  if not ok then return nil, lua_problem(value) end
  if type(value) ~= "table" then
    local got = wording.show(value)
    return nil, { key = "", message = "must end with return { ... }, one table; got " .. got }
  end
  return value
end

return evaluate
