--- How paths, values and bounds are written in messages, and "did you mean".
--
-- A path says where a value stands: { parent =, key = }, the root being the empty table. Pure.

local duration = require "perilune.duration"
local size = require "perilune.size"

local wording = {}

local SHOWN_BYTES = 60       -- of a value that is repeated in a message
local MAX_GUESSED_BYTES = 64 -- longer words are not compared for "did you mean"

-- How a bound is written, by kind; numbers are written as they are.
local FORMAT = {
  duration = duration.format,
  size = size.format,
}
local HAS_BOUNDS = { integer = true, number = true, duration = true, size = true }

-- Paths and values --------------------------------------------------------------------------------

--- The path of a member.
-- @tparam table parent path
-- @param key string or number
-- @treturn table path
function wording.at(parent, key)
  return { parent = parent, key = key }
end

--- A path as it is shown: routes[2].targets[1].weight, providers["eu-west"].url.
-- @tparam table path
-- @treturn string "" for the root
function wording.path_text(path)
  if not path.parent then return "" end
  local before, key = wording.path_text(path.parent), path.key
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then
    return before == "" and key or before .. "." .. key
  end
  return before .. "[" .. wording.show(key) .. "]"
end

--- A value as it is shown in a message: short, on one line.
-- @param value
-- @treturn string
function wording.show(value)
  local kind = type(value)
  if kind == "string" then
    local cut = #value > SHOWN_BYTES and "..." or ""
    local text = value:sub(1, SHOWN_BYTES):gsub('["\\]', "\\%0")
    text = text:gsub("%c", function(char) return ("\\%03d"):format(char:byte()) end)
    return '"' .. text .. cut .. '"'
  end
  if kind == "number" then return ("%.14g"):format(value) end
  if kind == "boolean" or kind == "nil" then return tostring(value) end
  return "a " .. kind
end

--- What was given instead, for the end of a message; of what may be a credential only its type.
-- @tparam table type_of
-- @param value
-- @treturn string ', got "x"', or ""
function wording.got(type_of, value)
  if type_of.secret then
    return type(value) == "string" and "" or ", got a " .. type(value)
  end
  return ", got " .. wording.show(value)
end

-- Bounds ------------------------------------------------------------------------------------------

--- The bounds of a type as the reference configuration names them.
-- @tparam table type_of
-- @treturn string such as "0 to 256", ">= 0", "1ms to 10m", "error, warn"; "" without bounds
function wording.bounds(type_of)
  if type_of.kind == "choice" then return table.concat(type_of.choices, ", ") end
  if type_of.kind == "boolean" then return "true or false" end
  if not HAS_BOUNDS[type_of.kind] then return "" end
  local format = FORMAT[type_of.kind] or wording.show
  if not type_of.max then return ">= " .. format(type_of.min) end
  return format(type_of.min) .. " to " .. format(type_of.max)
end

-- "Did you mean" ----------------------------------------------------------------------------------

--- How many insertions, deletions, replacements and swaps of neighbours lead from a to b.
local function edit_distance(a, b)
  local before_last, last, current = {}, {}, {}
  for column = 0, #b do
    last[column] = column
  end
  for row = 1, #a do
    current[0] = row
    for column = 1, #b do
      local cost = a:byte(row) == b:byte(column) and 0 or 1
      local best = math.min(last[column] + 1, current[column - 1] + 1, last[column - 1] + cost)
      local swapped = row > 1 and column > 1 and a:byte(row) == b:byte(column - 1)
        and a:byte(row - 1) == b:byte(column)
      if swapped then best = math.min(best, before_last[column - 2] + 1) end
      current[column] = best
    end
    before_last, last, current = last, current, before_last
  end
  return last[#b]
end

--- The known word that an unknown one was probably meant to be.
-- @tparam string word
-- @tparam {string,...} known
-- @treturn ?string nil when none is near: a third of the letters may differ
function wording.nearest(word, known)
  if #word > MAX_GUESSED_BYTES then return nil end
  local best, best_distance
  for _, candidate in ipairs(known) do
    local distance = edit_distance(word:lower(), candidate:lower())
    local allowed = math.max(1, math.floor(math.max(#word, #candidate) / 3))
    if distance <= allowed and (not best or distance < best_distance) then
      best, best_distance = candidate, distance
    end
  end
  return best
end

--- A guess to be put after the report of an unknown word.
-- @param word
-- @tparam {string,...} known
-- @treturn ?string 'did you mean "x"?'
function wording.guess(word, known)
  local meant = type(word) == "string" and wording.nearest(word, known)
  return meant and ('did you mean "%s"?'):format(meant) or nil
end

--- A hint to be put after the report of an unknown word.
-- @param word
-- @tparam {string,...} known
-- @treturn string 'did you mean "x"?', or the list of what is known
function wording.hint(word, known)
  return wording.guess(word, known) or "known here: " .. table.concat(known, ", ")
end

return wording
