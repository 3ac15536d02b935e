--- A strict reader of Prometheus' text format (version 0.0.4), for specs: whatever is not as the
-- format and its conventions want it is an error that names the line.

local exposition = {}

local TYPES = { counter = true, gauge = true, histogram = true }
local SUFFIXES = { "_bucket", "_sum", "_count" }
local ESCAPES = { ["\\"] = "\\", ["\""] = "\"", n = "\n" }

local function fail(number, line, message)
  error(("line %d: %s: %s"):format(number, message, line), 0)
end

--- Reads a label's value from `at`, which is behind its quote.
-- @treturn string the value
-- @treturn number position behind the closing quote
local function read_value(text, at)
  local parts = {}
  while true do
    local plain, stop, byte = text:match("^([^\\\"]*)()([\\\"])", at)
    if not plain then return nil, "an open quote" end
    parts[#parts + 1] = plain
    if byte == "\"" then return table.concat(parts), stop + 1 end
    local escaped = ESCAPES[text:sub(stop + 1, stop + 1)]
    if not escaped then return nil, "an unknown escape" end
    parts[#parts + 1] = escaped
    at = stop + 2
  end
end

--- Reads `{a="b",c="d"}` from `at`.
local function read_labels(text, at)
  local labels = {}
  if text:sub(at, at) ~= "{" then return labels, at end
  at = at + 1
  repeat
    local name, start = text:match("^([%a_][%w_]*)=\"()", at)
    if not name then return nil, "a label is expected" end
    if labels[name] then return nil, "a label twice" end
    local value, stop = read_value(text, start)
    if not value then return nil, stop end
    labels[name] = value
    local separator = text:sub(stop, stop)
    at = stop + 1
    if separator ~= "," and separator ~= "}" then return nil, "a comma or brace is expected" end
  until separator == "}"
  return labels, at
end

local function read_sample(line)
  local name, at = line:match("^([%a_:][%w_:]*)()")
  if not name then return nil, "a name is expected" end
  local labels, after = read_labels(line, at)
  if not labels then return nil, after end
  local number = line:match("^ (%S+)$", after)
  local value = number and tonumber(number)
  if not value then return nil, "a number is expected" end
  return { name = name, labels = labels, value = value, text = number }
end

--- Labels as one text, in order; without `without`.
local function key_of(labels, without)
  local parts = {}
  for name, value in pairs(labels) do
    if name ~= without then parts[#parts + 1] = ("%s=%q"):format(name, value) end
  end
  table.sort(parts)
  return table.concat(parts, ",")
end

local Family = {}
Family.__index = Family

local function matches(labels, wanted)
  for name, value in pairs(wanted or {}) do
    if labels[name] ~= value then return false end
  end
  return true
end

--- Sum of the samples whose labels are those (others may be there, too); 0 when there is none. Of
-- a histogram: `suffix` is "_count", "_sum" or "_bucket".
function Family:sum(wanted, suffix)
  local sum = 0
  for _, sample in ipairs(self.samples) do
    if sample.name == self.name .. (suffix or "") and matches(sample.labels, wanted) then
      sum = sum + sample.value
    end
  end
  return sum
end

--- The values that a label has, sorted.
function Family:values(label)
  local seen, values = {}, {}
  for _, sample in ipairs(self.samples) do
    local value = sample.labels[label]
    if value and not seen[value] then
      seen[value] = true
      values[#values + 1] = value
    end
  end
  table.sort(values)
  return values
end

--- Names of the family's labels, but for `le`, sorted.
function Family:label_names()
  local seen, names = {}, {}
  for _, sample in ipairs(self.samples) do
    for name in pairs(sample.labels) do
      if name ~= "le" and not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return names
end

--- Which suffix a histogram's sample has.
local function suffix_of(family, name)
  for _, suffix in ipairs(SUFFIXES) do
    if name == family.name .. suffix then return suffix end
  end
end

local function check_histogram(family)
  local series = {}
  for _, sample in ipairs(family.samples) do
    local key = key_of(sample.labels, "le")
    local state = series[key] or { last_bound = -math.huge, last_count = 0 }
    series[key] = state
    local suffix = suffix_of(family, sample.name)
    if suffix == "_bucket" then
      local le = sample.labels.le
      local bound = le == "+Inf" and math.huge or tonumber(le)
      assert(bound, family.name .. ": no bound: " .. tostring(le))
      assert(bound > state.last_bound, family.name .. ": bounds do not rise: " .. key)
      assert(sample.value >= state.last_count, family.name .. ": counts fall: " .. key)
      state.last_bound, state.last_count = bound, sample.value
    else
      assert(not sample.labels.le, family.name .. suffix .. " has a bound")
      assert(not state[suffix], family.name .. suffix .. " twice: " .. key)
      state[suffix] = sample.value
    end
  end
  for key, state in pairs(series) do
    assert(state.last_bound == math.huge, family.name .. ": no +Inf: " .. key)
    assert(state._count == state.last_count, family.name .. ": _count is not +Inf's: " .. key)
    assert(state._sum, family.name .. ": no _sum: " .. key)
  end
end

local function check_family(family)
  local seen = {}
  assert(#family.help > 0 and family.help:sub(-1) == ".", family.name .. ": help is a sentence")
  assert((family.type == "counter") == (family.name:sub(-6) == "_total"),
    family.name .. ": counters, and only they, end in _total")
  for _, sample in ipairs(family.samples) do
    local key = sample.name .. key_of(sample.labels)
    assert(not seen[key], "twice: " .. key)
    seen[key] = true
    assert(family.type == "gauge" or sample.value >= 0, "less than 0: " .. key)
    if family.type == "counter" then
      assert(sample.text:match("^%d+$"), "a counter is a whole number: " .. key)
    end
  end
  if family.type == "histogram" then check_histogram(family) end
end

local function begin_family(self, line)
  local name, help = line:match("^# HELP ([%a_][%w_]*) (.+)$")
  if not name then return nil, "a HELP line is expected" end
  if self.families[name] then return nil, "a family twice" end
  local family = setmetatable({ name = name, help = help, samples = {} }, Family)
  self.families[name] = family
  self.names[#self.names + 1] = name
  return family
end

local function set_type(family, line)
  local name, kind = line:match("^# TYPE (%S+) (%S+)$")
  if not name or not family or name ~= family.name or family.type or #family.samples > 0 then
    return nil, "TYPE must follow HELP"
  end
  if not TYPES[kind] then return nil, "an unknown type" end
  family.type = kind
  return true
end

local function add_sample(family, line)
  local sample, problem = read_sample(line)
  if not sample then return nil, problem end
  if not family or not family.type then return nil, "a sample before its TYPE" end
  local name = sample.name
  if family.type == "histogram" and not suffix_of(family, name) or
    family.type ~= "histogram" and name ~= family.name then
    return nil, "a sample outside of its family"
  end
  table.insert(family.samples, sample)
  return true
end

--- Reads a whole text; raises an error when anything is wrong with it.
-- @treturn table families (name -> type, help, samples, sum(), values()), names (in order)
function exposition.parse(text)
  local self = { families = {}, names = {} }
  local family, number = nil, 0
  assert(text:sub(-1) == "\n", "the last line has no end")
  for line in text:gmatch("([^\n]*)\n") do
    local ok, problem
    number = number + 1
    if line:sub(1, 7) == "# HELP " then
      ok, problem = begin_family(self, line)
      family = ok
    elseif line:sub(1, 7) == "# TYPE " then
      ok, problem = set_type(family, line)
    else
      ok, problem = add_sample(family, line)
    end
    if not ok then fail(number, line, problem) end
  end
  for _, name in ipairs(self.names) do check_family(self.families[name]) end
  return self
end

return exposition
