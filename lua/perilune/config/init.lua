--- Configuration: from the text of policies/gateway.lua to one checked, normalised table.
--
-- Four steps, each a module below this one: evaluate (text only, in an environment with nothing but
-- env, secret and file), check (perilune.schema, then `checks` for what concerns several keys at
-- once), locate (the source is read a second time, as tokens, to say on which line a problem
-- stands), normalise (flat tables with units in their names, as the C core reads them).
--
-- Everything wrong is reported at once. Endless loops and memory are for the caller to bound: the
-- text runs under the same limits as policies do. The input is never changed.

local checks = require "perilune.config.checks"
local evaluate = require "perilune.config.evaluate"
local locate = require "perilune.config.locate"
local normalise = require "perilune.config.normalise"
local problems = require "perilune.config.problems"
local schema = require "perilune.schema"
local sorted = require "perilune.sorted"
local warnings = require "perilune.config.warnings"

local config = {}

local ROOT = {}
local NONE = {} -- helpers, when there are none; never written

--- Where the keys of a configuration stand in its text. See perilune.config.locate.
config.locate = locate.tree

--- A problem as one line: "gateway.lua:12: routes[2].targets[1].weight: must be ...".
-- @tparam table problem one of those that `load` gives
-- @treturn string
config.describe = problems.describe

local function add_duplicates(list, duplicates)
  for _, duplicate in ipairs(duplicates) do
    table.insert(list, {
      path = duplicate.path, key = schema.path_text(duplicate.path), line = duplicate.line,
      message = ("is given twice, first on line %d"):format(duplicate.first_line),
    })
  end
end

--- A warning as one line.
-- @tparam table warning one of those that `load` gives
-- @treturn string
config.describe_warning = warnings.describe

--- What looks like a mistake in a policy's code; see perilune.config.warnings.
config.code_warnings = warnings.of_code

--- The helpers, and the names of the variables that were asked for and are not set.
local function noting_unset(helpers)
  local noting, unset = {}, {}
  for name, helper in pairs(helpers) do noting[name] = helper end
  if type(helpers.env) == "function" then
    noting.env = function(name)
      local value, detail = helpers.env(name)
      if value == nil and detail == nil then unset[name] = true end
      return value, detail
    end
  end
  return noting, unset
end

--- Read a configuration.
-- @tparam string source the text of gateway.lua
-- @tparam string chunkname the file's name for messages; a leading "@" is left out
-- @tparam[opt] table helpers `env(name)`, `secret(name)` and `file(path)`, each giving a string, or
-- nil and a reason: what the configuration may call. env may give nil without a reason: not set.
-- They are not called any more once this function has returned.
-- @treturn[1] table the normalised configuration; functions in it (providers' `health.unhealthy`)
-- are the operator's code
-- @treturn[1] nil
-- @treturn[1] {table,...} warnings, as { file, line, key, message }
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] {table,...} all problems, as { file, line (nil when it cannot be told), key ("" for
-- the file itself), message }, in the order of the file
function config.load(source, chunkname, helpers)
  if type(source) ~= "string" then error("perilune.config: source must be a string", 2) end
  local file = chunkname:gsub("^@", "")
  local noting, unset = noting_unset(helpers or NONE)
  local value, failure = evaluate.run(source, noting)
  if not value then return nil, "invalid", problems.arrange({ failure }, nil, file) end

  local list, report = problems.collector()
  local checked = schema.check(schema.GATEWAY, value, ROOT, report)
  checks.run(checked, value, report)
  local tree, duplicates = locate.tree(source)
  add_duplicates(list, duplicates)
  if #list > 0 then return nil, "invalid", problems.arrange(list, tree, file) end
  local normalised = normalise.run(checked)
  return normalised, nil, warnings.of_config {
    source = source, file = file, tree = tree, value = value, routes = normalised.routes,
    unset = unset,
  }
end

--- The line on which a route names its policy; of a route without, the line it begins on.
-- @tparam string source the text of gateway.lua, which must load
-- @tparam number position of the route
-- @treturn ?number nil when it cannot be told
function config.policy_line(source, position)
  local path = schema.at(schema.at(schema.at(ROOT, "routes"), position), "policy")
  return (locate.line_of(locate.tree(source), path))
end

--- The names of the policies that routes use; each is a file NAME.lua beside gateway.lua.
-- @tparam table cfg normalised configuration
-- @treturn {string,...} sorted, without duplicates
function config.policies(cfg)
  local names = {}
  for _, entry in ipairs(cfg.routes) do
    names[entry.policy] = true
  end
  return sorted.keys(names)
end

return config
