--- The report as text: a table for people, one column for each policy directory, and the difference
-- where there are two columns to compare. Pure.
--
-- A column is { name =, summary = } (see perilune.simulate.tally).

local schema = require "perilune.schema"
local sorted = require "perilune.sorted"

local report = {}

local GAP = "   "
local NOTHING = "-"

-- How values are written --------------------------------------------------------------------------

local function count(value) return ("%.0f"):format(value) end
local function ms(value) return ("%.0f ms"):format(value) end
local function seconds(value) return ("%.1f s"):format(value / 1000) end
local function percent(value) return ("%.2f %%"):format(value * 100) end
local function ratio(value) return ("%.3f"):format(value) end
local function money(value) return ("%.4f"):format(value) end

local function with_sign(format, value)
  local text = format(math.abs(value))
  if not text:find("[1-9]") then return format(0) end -- no difference that shows
  return (value < 0 and "-" or "+") .. text
end

-- Rows --------------------------------------------------------------------------------------------

--- All keys that a table has in any of the columns, sorted.
local function keys_of(columns, get)
  local seen = {}
  for _, column in ipairs(columns) do
    for key in pairs(get(column.summary)) do seen[key] = true end
  end
  return sorted.keys(seen)
end

local function any(columns, holds)
  for _, column in ipairs(columns) do
    if holds(column.summary) then return true end
  end
  return false
end

local function builder(columns)
  local rows = {}
  --- A row; `get(summary)` gives nil where there is nothing to tell.
  local function add(label, format, get)
    local row = { label = label, format = format, values = {} }
    for position, column in ipairs(columns) do row.values[position] = get(column.summary) end
    rows[#rows + 1] = row
  end
  local function head(label) rows[#rows + 1] = { label = label } end
  return rows, add, head
end

--- Of policies that fail; the floor policy serves their requests, where the directory lets it.
local function add_policy_failures(add, columns)
  local function kinds_of(summary) return summary.policy_failures or {} end
  for _, kind in ipairs(keys_of(columns, kinds_of)) do
    add("policy failed: " .. kind, count, function(s)
      return s.policy_failures and (s.policy_failures[kind] or 0)
    end)
  end
  if any(columns, function(s) return (s.floor or 0) > 0 end) then
    add("  served by the floor", count, function(s) return s.floor end)
  end
end

local function add_clients(add, columns)
  add("requests", count, function(s) return s.requests end)
  add("succeeded", percent, function(s) return s.success_rate end)
  add("failed", count, function(s) return s.failed end)
  for _, label in ipairs(keys_of(columns, function(s) return s.failures end)) do
    add("  " .. label, count, function(s) return s.failures[label] or 0 end)
  end
  add_policy_failures(add, columns)
  add("first failure at", seconds, function(s) return s.first_failed_ms end)
  add("no failure since", seconds, function(s) return s.recovered_ms end)
end

local function add_times(add)
  for _, key in ipairs { "p50", "p90", "p99", "max" } do
    add("latency " .. key, ms, function(s) return s.latency_ms[key] end)
  end
  for _, key in ipairs { "p50", "p99" } do
    add("first token " .. key, ms, function(s) return s.first_token_ms[key] end)
  end
end

local function add_attempts(add, has_prices)
  add("attempts per request", ratio, function(s) return s.attempts.mean end)
  add("  most for one request", count, function(s) return s.attempts.max end)
  add("retries", count, function(s) return s.retries end)
  add("ejections", count, function(s) return s.ejections end)
  if has_prices then add("spend", money, function(s) return s.spend end) end
end

local function outage_label(outage)
  local till = outage.to_ms and ("from %s to %s"):format(seconds(outage.from_ms),
    seconds(outage.to_ms)) or "from " .. seconds(outage.from_ms)
  return ("outage of %s, %s"):format(outage.upstream, till)
end

local function add_outages(add, head, columns)
  for position, outage in ipairs(columns[#columns].summary.outages or {}) do
    local function of(key)
      return function(s) return s.outages and s.outages[position][key] end
    end
    head(outage_label(outage))
    add("  requests failed", count, of("failed"))
    add("  first failure at", seconds, of("first_failed_ms"))
    add("  no failure since", seconds, of("recovered_ms"))
  end
end

--- Of a provider that is only a name of its targets there is nothing to tell but its ejections.
local function is_called(columns, name)
  return any(columns, function(s) return s.targets[name] and s.targets[name].attempts > 0 end)
end

local function add_targets(add, head, columns, has_prices)
  for _, name in ipairs(keys_of(columns, function(s) return s.targets end)) do
    local function of(key)
      return function(s) return s.targets[name] and s.targets[name][key] end
    end
    head(name)
    if is_called(columns, name) then
      add("  served", count, of("served"))
      add("  share", percent, of("share"))
      add("  attempts", count, of("attempts"))
    end
    add("  ejections", count, of("ejections"))
    if has_prices and is_called(columns, name) then add("  spend", money, of("spend")) end
  end
end

local function add_sources(add, head, columns)
  if not columns[#columns].summary.answers then return end
  head("answers")
  local names = {
    { "own", "  of the request itself" }, { "near", "  of others at that time" },
    { "described", "  described" }, { "outage", "  of outages" }, { "guessed", "  guessed" },
  }
  for _, entry in ipairs(names) do
    local function get(s) return s.answers and (s.answers[entry[1]] or 0) end
    local is_shown = entry[1] == "guessed" or any(columns, function(s) return (get(s) or 0) > 0 end)
    if is_shown then add(entry[2], count, get) end
  end
end

-- Layout ------------------------------------------------------------------------------------------

local function cells_of(row, column_count, with_difference)
  local cells = {}
  for position = 1, column_count do
    local value = row.values[position]
    cells[position] = value ~= nil and row.format(value) or NOTHING
  end
  local from, to = row.values[column_count - 1], row.values[column_count]
  if with_difference then
    cells[column_count + 1] = from and to and with_sign(row.format, to - from) or NOTHING
  end
  return cells
end

local function lines_of(rows, titles, with_difference)
  local column_count = #titles - (with_difference and 1 or 0)
  local label_width, widths = 0, {}
  for position, title in ipairs(titles) do widths[position] = #title end
  for _, row in ipairs(rows) do
    row.cells = row.values and cells_of(row, column_count, with_difference)
    if row.cells then label_width = math.max(label_width, #row.label) end
    for position, cell in ipairs(row.cells or {}) do
      widths[position] = math.max(widths[position], #cell)
    end
  end
  local lines = {}
  local function line(label, cells)
    local text = label .. (" "):rep(label_width - #label)
    for position, cell in ipairs(cells) do
      text = text .. GAP .. (" "):rep(widths[position] - #cell) .. cell
    end
    lines[#lines + 1] = (text:gsub("%s+$", ""))
  end
  line("", titles)
  for _, row in ipairs(rows) do line(row.label, row.cells or {}) end
  return lines
end

--- The table.
-- @tparam {table,...} columns one or more; of three, the first is what the log says
-- @treturn string ends with a line feed
function report.text(columns)
  local rows, add, head = builder(columns)
  local has_prices = any(columns, function(s) return s.spend > 0 end)
  add_clients(add, columns)
  add_times(add)
  add_attempts(add, has_prices)
  add_outages(add, head, columns)
  add_targets(add, head, columns, has_prices)
  add_sources(add, head, columns)
  local titles = {}
  for position, column in ipairs(columns) do titles[position] = column.name end
  local with_difference = #columns > 1
  if with_difference then titles[#titles + 1] = "difference" end
  return table.concat(lines_of(rows, titles, with_difference), "\n") .. "\n"
end

--- The same and more for programs: one JSON object, its members in the order of their names.
-- @tparam table about what was simulated: seed, scenario, log...
-- @tparam {table,...} columns
-- @treturn string ends with a line feed
function report.json(about, columns)
  local parts = {}
  for position, column in ipairs(columns) do
    parts[position] = ('{"name":%s,"result":%s}'):format(assert(schema.json(column.name)),
      assert(schema.json(column.summary, math.huge)))
  end
  return ('{"about":%s,"columns":[%s]}\n'):format(assert(schema.json(about)),
    table.concat(parts, ","))
end

return report
