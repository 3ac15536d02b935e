--- A configuration for operators' eyes: JSON of what is in force, without its secrets.
--
-- Three things are secrets: what stands under `key`, `keys` and `token`; the values of headers
-- whose names say so; and, wherever it stands, what the helper `secret` has answered, or `env` and
-- `file` for a name that says so. Of a long one the ends are left, so that two can be told apart:
-- "sk-…4f2a". Pure.

local errors = require "perilune.errors"
local locate = require "perilune.config.locate"
local schema = require "perilune.schema"
local sorted = require "perilune.sorted"

local show = {}

local ROOT = {}
local MASK = "…"
local WHOLLY_MASKED_BYTES = 15 -- and shorter: the ends would tell too much
local FOUND_BYTES = 6 -- shorter ones would be found by chance within other texts
local SECRET_NAMES = { "auth", "cookie", "credential", "key", "passw", "secret", "token" }
local SECRET_FIELDS = { key = true, keys = true, token = true }
-- Lists of { name, value } in the normalised form, which are maps to the operator; the values of
-- the second kind are JSON already.
local HEADER_PAIRS = { headers = true, set_headers = true, set = true, add = true }
local JSON_PAIRS = { set_body = true, set_message = true }
local RAW = { body_json = "body" } -- JSON already, shown under that name
local LISTS = { auth_statuses = true, candidates = true, left_out = true, models = true, on = true,
  providers = true, remove = true,
  remove_headers = true, routes = true, statuses = true, targets = true, unset_body = true }

--- What is shown of a secret.
-- @tparam string text
-- @treturn string
function show.mask(text)
  if #text <= WHOLLY_MASKED_BYTES then return MASK end
  local head, tail = text:sub(1, 3), text:sub(-4)
  return head:gsub("[%c\127-\255]", "?") .. MASK .. tail:gsub("[%c\127-\255]", "?")
end

--- "Bearer sk-123...": only what follows the scheme is masked.
local function mask_value(text)
  local scheme, credential = text:match("^(%a+ )(.+)$")
  if scheme then return scheme .. show.mask(credential) end
  return show.mask(text)
end

local function says_secret(name)
  name = name:lower()
  for _, word in ipairs(SECRET_NAMES) do
    if name:find(word, 1, true) then return true end
  end
  return false
end

--- Helpers that remember the secrets among their answers.
-- @tparam table helpers env, secret, file
-- @treturn table the same, as perilune.config.load wants them
-- @treturn {string,...} filled as they are called
function show.watch(helpers)
  local watched, secrets = {}, {}
  for name, helper in pairs(helpers or {}) do
    watched[name] = function(what, ...)
      local value, detail = helper(what, ...)
      if type(value) == "string" and (name == "secret" or says_secret(tostring(what))) then
        secrets[#secrets + 1] = (value:gsub("%s+$", ""))
      end
      return value, detail
    end
  end
  return watched, secrets
end

local function replace(text, what, with)
  local pieces, start = {}, 1
  while true do
    local first, last = text:find(what, start, true)
    if not first then break end
    pieces[#pieces + 1] = text:sub(start, first - 1) .. with
    start = last + 1
  end
  return table.concat(pieces) .. text:sub(start)
end

--- A text without any of the secrets in it.
local function without_secrets(text, secrets)
  for _, secret in ipairs(secrets) do
    if text == secret then return show.mask(secret) end
    if #secret >= FOUND_BYTES and text:find(secret, 1, true) then
      text = replace(text, secret, show.mask(secret))
    end
  end
  return text
end

local function unescaped(quoted)
  quoted = quoted:gsub("\\(%d%d%d)", function(code) return string.char(tonumber(code) % 256) end)
  return (quoted:gsub("\\(.)", "%1"))
end

--- Whether a text is a secret, or has a piece of one in it: messages quote the beginning of a long
-- value, or the part of it that is wrong.
local function tells_of(text, secret)
  if text == secret then return true end
  for first = 1, #text - FOUND_BYTES + 1 do
    if secret:find(text:sub(first, first + FOUND_BYTES - 1), 1, true) then return true end
  end
  return false
end

local function tells_of_any(text, secrets)
  for _, secret in ipairs(secrets) do
    if secret ~= "" and tells_of(text, secret) then return true end
  end
  return false
end

--- The position of the quotation mark that ends what begins at `first`.
local function quote_end(message, first)
  local position = first
  while position <= #message do
    local char = message:sub(position, position)
    if char == '"' then return position end
    position = position + (char == "\\" and 2 or 1)
  end
  return nil
end

--- A message about a configuration, without what it quotes of secrets.
-- @tparam string message
-- @tparam {string,...} secrets see `watch`
-- @treturn string
function show.hide(message, secrets)
  local pieces, start = {}, 1
  while true do
    local first = message:find('"', start, true)
    local last = first and quote_end(message, first + 1)
    if not last then break end
    local quoted = message:sub(first + 1, last - 1)
    if tells_of_any(unescaped(quoted), secrets) then quoted = MASK end
    pieces[#pieces + 1] = message:sub(start, first) .. quoted .. '"'
    start = last + 1
  end
  return without_secrets(table.concat(pieces) .. message:sub(start), secrets)
end

local function number_text(value)
  if value ~= value or value >= math.huge or value <= -math.huge then return "null" end
  return ("%.14g"):format(value)
end

local encode

local function encode_string(name, text, secrets)
  if SECRET_FIELDS[name] then return errors.quote(mask_value(text)) end
  return errors.quote(without_secrets(text, secrets))
end

local function header_text(name, value, secrets)
  return errors.quote(says_secret(name) and mask_value(value) or without_secrets(value, secrets))
end

--- The JSON of a body's field may hold a secret with its quotes and backslashes escaped.
local function json_text(text, secrets)
  local escaped = {}
  for position, secret in ipairs(secrets) do escaped[position] = errors.quote(secret):sub(2, -2) end
  return without_secrets(text, escaped)
end

local function encode_pairs(name, list, secrets)
  local members = {}
  for position, entry in ipairs(list) do
    local value = JSON_PAIRS[name] and json_text(entry[2], secrets)
      or header_text(entry[1], entry[2], secrets)
    members[position] = errors.quote(entry[1]) .. ":" .. value
  end
  return "{" .. table.concat(members, ",") .. "}"
end

local function encode_list(name, list, secrets)
  local items, item_name = {}, SECRET_FIELDS[name] and name or nil
  for position, item in ipairs(list) do items[position] = encode(item_name, item, secrets) end
  return "[" .. table.concat(items, ",") .. "]"
end

local function encode_map(map, secrets)
  local members = {}
  for position, key in ipairs(sorted.keys(map)) do
    local text = RAW[key] and json_text(map[key], secrets) or encode(key, map[key], secrets)
    members[position] = errors.quote(tostring(RAW[key] or key)) .. ":" .. text
  end
  return "{" .. table.concat(members, ",") .. "}"
end

local function is_pairs(name, value)
  if not HEADER_PAIRS[name] and not JSON_PAIRS[name] then return false end
  return next(value) == nil or type(value[1]) == "table"
end

--- The JSON of a value that stands under `name`.
function encode(name, value, secrets)
  local kind = type(value)
  if kind == "string" then return encode_string(name, value, secrets) end
  if kind == "number" then return number_text(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "function" then return errors.quote("function") end
  if kind ~= "table" then return "null" end
  if is_pairs(name, value) then return encode_pairs(name, value, secrets) end
  if #value > 0 or (next(value) == nil and LISTS[name]) then
    return encode_list(name, value, secrets)
  end
  return encode_map(value, secrets)
end

--- Any table as JSON: keys in order; an empty table is an array under the names in LISTS.
-- @tparam table value
-- @tparam {string,...} secrets what must not be shown, see `watch`
-- @treturn string
function show.json(value, secrets)
  return encode(nil, value, secrets)
end

local function with(map, extra)
  local copy = {}
  for key, value in pairs(map) do copy[key] = value end
  for key, value in pairs(extra) do copy[key] = value end
  return copy
end

--- Headers that a route asks for are a map, and may be credentials.
local function shown_match(match)
  local headers = match.headers and sorted.pairs(match.headers)
  return with(match, { headers = headers })
end

local function shown_targets(entry, config)
  local targets = {}
  for position, index in ipairs(entry.targets) do
    local target = config.targets[index]
    targets[position] = { name = target.name, provider = target.provider_name,
      model = target.model, priority = target.priority, weight = target.weight }
  end
  return targets
end

local function line_in(tree, ...)
  local path = ROOT
  for _, key in ipairs { ... } do path = schema.at(path, key) end
  return (locate.line_of(tree, path))
end

local function shown_providers(config, tree)
  local list = {}
  for position, provider in ipairs(config.providers) do
    list[position] = with(provider, { line = line_in(tree, "providers", provider.name) })
  end
  return list
end

local function shown_routes(config, tree)
  local list = {}
  for position, entry in ipairs(config.routes) do
    list[position] = with(entry, { line = line_in(tree, "routes", position),
      match = shown_match(entry.match), targets = shown_targets(entry, config) })
  end
  return list
end

local function shown_all_targets(config)
  local list = {}
  for position, target in ipairs(config.targets) do
    list[position] = with(target, { provider = target.provider_name })
    list[position].provider_name = nil
  end
  return list
end

--- Writes a configuration.
-- @tparam table config normalised
-- @tparam string source the text that it was read from
-- @tparam {string,...} secrets what must not be shown, see `watch`
-- @treturn table two JSON texts: config, of all of it, and routes, of its routes alone
function show.texts(config, source, secrets)
  local tree = locate.tree(source)
  local routes = shown_routes(config, tree)
  local all = with(config, { file = "gateway.lua", providers = shown_providers(config, tree),
    routes = routes, targets = shown_all_targets(config) })
  table.sort(secrets, function(a, b) return #a > #b end) -- one may be a part of another
  return { config = encode(nil, all, secrets), routes = encode(nil, { routes = routes }, secrets) }
end

return show
