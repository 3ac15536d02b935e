--- A configuration's parts, each with a text that changes when the part does: what a reload says
-- has been added, changed or removed. Pure.
--
-- The texts hold credentials: whoever gets them keeps a digest at most. A function (a provider's
-- `health.unhealthy`) has no text; that its code has changed is told by its file.

local sorted = require "perilune.sorted"

local parts = {}

local LISTED = { providers = true, targets = true, routes = true }

--- The same text for the same value, whatever the order of its keys.
local function text_of(value)
  if type(value) == "function" then return "function" end
  if type(value) ~= "table" then return ("%s:%q"):format(type(value), tostring(value)) end
  local pieces = {}
  for position, key in ipairs(sorted.keys(value)) do
    pieces[position] = text_of(key) .. "=" .. text_of(value[key])
  end
  return "{" .. table.concat(pieces, ",") .. "}"
end

--- A copy without one key.
local function without(map, dropped)
  local copy = {}
  for key, value in pairs(map) do
    if key ~= dropped then copy[key] = value end
  end
  return copy
end

--- Routes may share a target's name: their texts are joined, in order.
local function add_targets(list, targets)
  local by_name = {}
  for _, target in ipairs(targets) do
    local text = text_of(without(target, "provider"))
    by_name[target.name] = (by_name[target.name] or "") .. text
  end
  for _, entry in ipairs(sorted.pairs(by_name)) do
    table.insert(list, { kind = "target", name = entry[1], text = entry[2] })
  end
end

--- A route's targets are positions, which move when another route gets one more.
local function route_text(route, targets)
  local texts = {}
  for position, index in ipairs(route.targets) do
    texts[position] = text_of(without(targets[index], "provider"))
  end
  return text_of(without(route, "targets")) .. table.concat(texts)
end

--- Where a section is a table of options, each is a setting of its own.
local function add_settings(list, cfg)
  for _, entry in ipairs(sorted.pairs(cfg)) do
    local key, value = entry[1], entry[2]
    if type(value) == "table" and not LISTED[key] then
      for _, option in ipairs(sorted.pairs(value)) do
        table.insert(list, { kind = "setting", name = key .. "." .. tostring(option[1]),
          text = text_of(option[2]) })
      end
    elseif not LISTED[key] then
      table.insert(list, { kind = "setting", name = key, text = text_of(value) })
    end
  end
end

--- The parts of a normalised configuration.
-- @tparam table cfg
-- @treturn {table,...} { kind ("provider", "target", "route" or "setting"), name, text }
function parts.of(cfg)
  local list = {}
  for _, provider in ipairs(cfg.providers) do
    table.insert(list, { kind = "provider", name = provider.name,
      text = text_of(without(provider, "index")) })
  end
  add_targets(list, cfg.targets)
  for _, route in ipairs(cfg.routes) do
    table.insert(list, { kind = "route", name = route.name,
      text = route_text(route, cfg.targets) })
  end
  add_settings(list, cfg)
  return list
end

return parts
