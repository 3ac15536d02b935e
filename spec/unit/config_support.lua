--- Loads configurations from texts, for the specs of perilune.config.

local assert = require "luassert"
local config = require "perilune.config"

local support = {}

local function describe_all(problems)
  local lines = {}
  for position, problem in ipairs(problems) do
    lines[position] = config.describe(problem)
  end
  return lines
end

--- Every problem of a text, as lines.
function support.problems_of(source, helpers)
  local loaded, code, problems = config.load(source, "gateway.lua", helpers)
  assert.is_nil(loaded)
  assert.are.equal("invalid", code)
  return describe_all(problems)
end

--- The configuration that a text gives; an error when there is a problem.
function support.load(source, helpers)
  local loaded, _, problems = config.load(source, "gateway.lua", helpers)
  if not loaded then error(table.concat(describe_all(problems), "\n"), 2) end
  return loaded
end

--- A small configuration with additions, each on a line of its own: `top` on 2, `primary` on 4,
-- `providers` on 5, `route` on 9, `first` (of two targets) on 11, `targets` on 13, `routes` on 15.
function support.gateway(parts)
  local text = [[
return {
  $top
  providers = {
    primary = { url = "$url", $primary },
    $providers
  },
  routes = {
    {
      $route
      targets = {
        { provider = "primary", $first },
        { provider = "primary", model = "m" },
        $targets
      } },
      $routes
  } }]]
  return (text:gsub("%$(%w+)", function(name)
    return parts[name] or (name == "url" and "http://127.0.0.1:8000/v1" or "")
  end))
end

--- Check that each addition is refused, with this one problem.
-- @tparam {table,...} cases { where (see `gateway`), text, "line: key: message" }, and `url`
function support.check_refused(cases)
  for _, case in ipairs(cases) do
    local parts = { [case[1]] = case[2], url = case.url }
    assert.are.same({ "gateway.lua:" .. case[3] }, support.problems_of(support.gateway(parts)))
  end
end

--- Check that each addition at that place is accepted.
function support.check_accepted(where, texts)
  for _, text in ipairs(texts) do
    support.load(support.gateway { [where] = text })
  end
end

return support
