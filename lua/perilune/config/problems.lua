--- What is wrong with a configuration: collected while it is checked, then given lines and the
-- order of the file.

local line_of = require("perilune.config.locate").line_of
local wording = require "perilune.schema.wording"

local problems = {}

--- A list to collect problems in; the first of each key counts.
-- @treturn table the list: { path, key, message } each
-- @treturn function report(path, message)
function problems.collector()
  local list, seen = {}, {}
  local function report(path, message)
    local key = wording.path_text(path)
    if seen[key] then return end
    seen[key] = true
    table.insert(list, { path = path, key = key, message = message })
  end
  return list, report
end

local function before(a, b)
  local a_near, b_near = a.near or math.huge, b.near or math.huge
  if a_near ~= b_near then return a_near < b_near end
  return a.position < b.position
end

--- Give problems their lines, in the order of the lines, then of their discovery.
-- @tparam {table,...} list problems, each with a path, or with a line if that is known otherwise;
-- they are changed
-- @tparam ?table tree see perilune.config.locate
-- @tparam string file its name
-- @treturn {table,...} { file, line, key, message } each
function problems.arrange(list, tree, file)
  for position, problem in ipairs(list) do
    problem.position = position
    if problem.path then
      local line, near = line_of(tree, problem.path)
      problem.line, problem.near = problem.line or line, problem.line or near
    end
  end
  table.sort(list, before)
  local result = {}
  for position, problem in ipairs(list) do
    result[position] = {
      file = file, line = problem.line, key = problem.key, message = problem.message,
    }
  end
  return result
end

--- A problem as one line.
-- @tparam table problem as `arrange` gives it
-- @treturn string
function problems.describe(problem)
  local place = problem.line and ("%s:%d"):format(problem.file, problem.line) or problem.file
  local key = problem.key ~= "" and problem.key .. ": " or ""
  return ("%s: %s%s"):format(place, key, problem.message)
end

return problems
