--- Reads the simulator's command line. Pure.
local options = require "perilune.sim.options"
local min = math.min
local format = string.format

local argv = {}

local MAX_SUGGESTION_DISTANCE = 3

-- Levenshtein distance, one row at a time.
local function distance(from, to)
  local row = {}
  for column = 0, #to do row[column] = column end
  for line = 1, #from do
    local diagonal
    diagonal, row[0] = row[0], line
    for column = 1, #to do
      local cost = from:byte(line) == to:byte(column) and 0 or 1
      diagonal, row[column] = row[column],
        min(row[column] + 1, row[column - 1] + 1, diagonal + cost)
    end
  end
  return row[#to]
end

local function unknown_flag(flag)
  if options.unsupported[flag] then
    return nil, "usage",
      format("--%s: a flag of llm-d-inference-sim that this simulator does not have", flag)
  end
  local nearest, nearest_distance
  for _, option in ipairs(options.all) do
    local edits = distance(flag:sub(1, 64), option.flag)
    if edits <= MAX_SUGGESTION_DISTANCE and edits < (nearest_distance or #option.flag) then
      nearest, nearest_distance = option.flag, edits
    end
  end
  return nil, "usage", format("unknown flag --%s%s", flag,
    nearest and format(" (did you mean --%s?)", nearest) or "; see perilune sim --help")
end

local function is_flag(argument)
  return argument:sub(1, 2) == "--"
end

-- The values of a list: the one after "=", and all arguments up to the next flag.
local function take_list(arguments, index, inline)
  local values = { inline ~= "" and inline or nil }
  while arguments[index] and not is_flag(arguments[index]) do
    if arguments[index] ~= "" then values[#values + 1] = arguments[index] end
    index = index + 1
  end
  return values, index
end

-- The text of one value and the index of what follows; nil text when it is missing.
local function take_text(option, arguments, index, inline)
  if inline then return inline, index end
  if option.kind == "boolean" then return "true", index end
  local text = arguments[index]
  if not text or is_flag(text) then return nil end
  return text, index + 1
end

local function take_option(config, option, arguments, index, inline)
  local text
  if options.is_list(option) then
    text, index = take_list(arguments, index, inline)
  else
    text, index = take_text(option, arguments, index, inline)
    if not text then return nil, "usage", format("--%s needs a value", option.flag) end
  end
  local value, expected = options.from_text(option, text)
  if value == nil then return nil, "usage", format("--%s %s", option.flag, expected) end
  config[option.key] = value
  return index
end

local function take_flag(config, given, arguments, index)
  local flag, inline = arguments[index]:match("^%-%-([^=]+)=?(.*)$")
  if not flag then return nil, "usage", format("unexpected argument '%s'", arguments[index]) end
  if not arguments[index]:find("=", 1, true) then inline = nil end
  local takes_value = options.ignored[flag]
  if takes_value ~= nil then return index + ((takes_value and not inline) and 2 or 1) end
  local option = options.by_flag[flag]
  if not option then return unknown_flag(flag) end
  given[flag] = true
  return take_option(config, option, arguments, index + 1, inline)
end

local function split_address(config)
  local address, port = config.listen:match("^%[([%x:.]+)%]:(%d+)$")
  if not address then address, port = config.listen:match("^([^:]+):(%d+)$") end
  port = port and tonumber(port)
  if not port or port > 65535 then
    return nil, "usage", "--listen must be ADDR:PORT, such as 127.0.0.1:8000 or [::1]:8000"
  end
  config.host, config.port = address, port
  return config
end

local function complete(config, given, environment)
  if given.listen then
    if given.host or given.port then
      return nil, "usage", "--listen cannot be given together with --host or --port"
    end
    local ok, code, message = split_address(config)
    if not ok then return nil, code, message end
  end
  local from_environment = environment("SIM_MODEL")
  if not config.model and from_environment and from_environment ~= "" then
    config.model = from_environment
  end
  local valid, _, message = options.validate(config)
  if not valid then return nil, "usage", message end
  return config
end

--- Read a command line.
-- @tparam {string,...} arguments what follows `perilune sim`
-- @tparam function environment environment(name) -> string or nil
-- @treturn[1] table configuration by option key
-- @treturn[2] nil
-- @treturn[2] string "usage" for a mistake, "help" for --help
-- @treturn[2] string the message, or the help text
function argv.parse(arguments, environment)
  local config, given = options.defaults(), {}
  local index = 1
  while arguments[index] do
    if arguments[index] == "--help" or arguments[index] == "-h" then
      return nil, "help", options.help()
    end
    local code, message
    index, code, message = take_flag(config, given, arguments, index)
    if not index then return nil, code, message end
  end
  return complete(config, given, environment)
end

return argv
