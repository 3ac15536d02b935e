--- GET and POST /admin/config, GET /admin/stats: looking at a running simulator and changing it.
local errors = require "perilune.sim.errors"
local json = require "perilune.sim.json"
local options = require "perilune.sim.options"
local format = string.format

local admin = {}

--- The configuration as JSON, durations as text.
function admin.config_json(config)
  local members = {}
  for index, option in ipairs(options.all) do
    members[index] = { option.flag, options.to_json(option, config[option.key]) }
  end
  return json.object(members)
end

local function read_member(config, changed, flag, value)
  local option = options.by_flag[flag]
  if not option or not option.admin then
    return nil, errors.new(400, format("'%s' cannot be changed while running", flag))
  end
  if value == json.null then return true end
  local parsed, expected = options.from_json(option, value)
  if parsed == nil then return nil, errors.new(400, format("%s %s", flag, expected)) end
  config[option.key] = parsed
  changed[flag] = true
  return true
end

--- Apply a partial update.
-- @tparam table config the present configuration; stays as it is
-- @tparam string body a JSON object with the flags to change
-- @treturn[1] table the new configuration
-- @treturn[1] table true by flag that was given
-- @treturn[2] nil
-- @treturn[2] table the error
function admin.update(config, body)
  local members, _, detail = json.decode_object(body)
  if not members then return nil, errors.unreadable(detail) end
  local updated, changed = {}, {}
  for key, value in pairs(config) do updated[key] = value end
  for flag, value in pairs(members) do
    local ok, err = read_member(updated, changed, flag, value)
    if not ok then return nil, err end
  end
  local valid, _, message = options.validate(updated)
  if not valid then return nil, errors.new(400, message) end
  return updated, changed
end

--- Counters as JSON.
-- @tparam table stats requests, failures (count by type)
-- @tparam number running_count
-- @tparam number waiting_count
function admin.stats_json(stats, running_count, waiting_count)
  local failed, names = {}, {}
  for name in pairs(stats.failures) do names[#names + 1] = name end
  table.sort(names)
  for index, name in ipairs(names) do
    failed[index] = { name, format("%d", stats.failures[name]) }
  end
  return json.object {
    { "requests", format("%d", stats.requests) },
    { "running", format("%d", running_count) },
    { "waiting", format("%d", waiting_count) },
    { "failures", json.object(failed) },
  }
end

return admin
