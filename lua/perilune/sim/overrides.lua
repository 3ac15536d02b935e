--- What a single request asks for by its headers: x-sim-failure, x-sim-<flag> and X-Return-Error.
-- Pure.
local errors = require "perilune.sim.errors"
local failures = require "perilune.sim.failures"
local options = require "perilune.sim.options"
local format = string.format

local overrides = {}

local BY_HEADER = {}
for _, option in ipairs(options.all) do
  if option.header then
    BY_HEADER[#BY_HEADER + 1] = { name = "x-sim-" .. option.flag, option = option }
  end
end

local function invalid(header, value, expected)
  return nil, errors.new(400, format("Invalid %s header value %q: %s", header, value, expected))
end

--- The status that X-Return-Error asks for.
-- @treturn[1] table|nil the error to answer with; nil when there is no such header
function overrides.returned_error(headers)
  local value = headers["x-return-error"]
  if not value or value == "" then return nil end
  local code = #value <= 15 and value:find("^[+-]?%d+$") and tonumber(value)
  if not code then
    return errors.new(400,
      format("Invalid X-Return-Error header value %q: must be an integer", value))
  end
  if code < 200 or code > 599 then
    return errors.new(400,
      format("Invalid X-Return-Error header value %q: must be from 200 to 599", value))
  end
  return errors.new(code,
    format("Simulated error triggered by X-Return-Error header (code %d)", code))
end

local function read_header(own, header, value)
  local option = header.option
  local parsed, expected = options.from_text(option, value)
  if parsed == nil then return invalid(header.name, value, expected) end
  own[option.key] = parsed
  if option.flag == "time-to-first-token" then -- an exact time, whatever the calculator
    own.latency_calculator, own.time_to_first_token_std_dev_ms = "constant", 0
  elseif option.flag == "inter-token-latency" then
    own.inter_token_latency_std_dev_ms = 0
  end
  return true
end

--- The configuration as this request sees it.
-- @tparam table config
-- @tparam table headers indexed by lower-case name
-- @treturn[1] table config, or a view of it
-- @treturn[1] string|nil the failure type asked for, or "none"
-- @treturn[2] nil
-- @treturn[2] table the error: a header is wrong
function overrides.apply(config, headers)
  local own
  for index = 1, #BY_HEADER do
    local header = BY_HEADER[index]
    local value = headers[header.name]
    if value then
      own = own or {}
      local ok, err = read_header(own, header, value)
      if not ok then return nil, err end
    end
  end
  local forced = headers["x-sim-failure"]
  if forced and forced ~= "none" and not failures.is_type(forced) then
    return invalid("x-sim-failure", forced, "must be a failure type or none")
  end
  return own and setmetatable(own, { __index = config }) or config, forced
end

return overrides
