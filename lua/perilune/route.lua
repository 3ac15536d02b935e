--- Route matching: which route serves a request. The first one whose conditions all hold wins.
--
-- `compile` once per configuration, `match` once per request. Matching allocates nothing: literal
-- comparisons, hash lookups and anchored finds only. Routes that ask for nothing but exact model
-- names are found by one lookup; the others are tried in order, up to the one that was looked up.

local find, byte = string.find, string.byte

local route = {}

local SLASH = byte("/")

--- Split a model pattern. One "*" is allowed, at the start or at the end.
-- @tparam string pattern "gpt-4", "gpt-*", "*-mini" or "*"
-- @treturn[1] string "exact", "prefix", "suffix" or "any"
-- @treturn[1] string the literal part
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function route.pattern(pattern)
  local before, after = pattern:match("^([^*]*)%*([^*]*)$")
  if not before then
    if pattern:find("*", 1, true) then return nil, "invalid", 'may hold only one "*"' end
    return "exact", pattern
  end
  if before == "" and after == "" then return "any", "" end
  if before ~= "" and after ~= "" then
    return nil, "invalid", 'may hold a "*" only at its start or its end'
  end
  if after == "" then return "prefix", before end
  return "suffix", after
end

local function anchored(literal)
  return "^" .. literal:gsub("%W", "%%%0")
end

local function patterns_of(model)
  if type(model) == "table" then return model end
  return { model } -- an empty list when there is no condition on the model
end

--- The conditions on headers, method and path, in the form that `match` reads.
local function compile_conditions(index, match)
  local rule = { index = index, method = match.method, header_names = {}, header_values = {} }
  local path = match.path and match.path:gsub("/+$", "")
  if path and path ~= "" then
    rule.path_find, rule.path_bytes = anchored(path), #path
  end
  for name in pairs(match.headers or {}) do
    table.insert(rule.header_names, name)
  end
  table.sort(rule.header_names)
  for position, name in ipairs(rule.header_names) do
    rule.header_values[position] = match.headers[name]
    rule.header_names[position] = name:lower()
  end
  return rule
end

local function add_pattern(rule, pattern)
  local kind, literal = route.pattern(pattern)
  if kind == "any" then
    rule.any_model = true
  elseif kind == "exact" then
    rule.exact[literal] = true
  elseif kind == "prefix" then
    table.insert(rule.prefix_finds, anchored(literal))
  elseif kind == "suffix" then
    table.insert(rule.suffixes, literal)
  else
    error("perilune.route: model pattern " .. pattern .. ": not checked", 0)
  end
end

local function compile_route(index, match)
  local rule = compile_conditions(index, match)
  rule.exact, rule.prefix_finds, rule.suffixes = {}, {}, {}
  rule.any_model = match.model == nil
  for _, pattern in ipairs(patterns_of(match.model)) do
    add_pattern(rule, pattern)
  end
  return rule
end

local function has_conditions(rule)
  return rule.method ~= nil or rule.path_find ~= nil or #rule.header_names > 0
end

--- Prepare routes for matching.
-- @tparam {table,...} routes in order; of each only `match` is read (see perilune.config)
-- @treturn table the matcher; immutable, to be used with `match` only
function route.compile(routes)
  local matcher = { by_model = {}, rules = {} }
  for index, entry in ipairs(routes) do
    local rule = compile_route(index, entry.match or {})
    local scanned = true
    if not has_conditions(rule) and not rule.any_model then
      for model in pairs(rule.exact) do
        matcher.by_model[model] = matcher.by_model[model] or index
      end
      scanned = #rule.prefix_finds > 0 or #rule.suffixes > 0
    end
    if scanned then table.insert(matcher.rules, rule) end
  end
  return matcher
end

--- Whether the pattern `inner` matches nothing but what `outer` matches.
local function pattern_covers(outer, inner)
  local outer_kind, outer_text = route.pattern(outer)
  local inner_kind, inner_text = route.pattern(inner)
  if outer_kind == "any" then return true end
  if outer_kind == "exact" then return inner_kind == "exact" and inner_text == outer_text end
  if inner_kind ~= "exact" and inner_kind ~= outer_kind or #inner_text < #outer_text then
    return false
  end
  if outer_kind == "prefix" then return inner_text:sub(1, #outer_text) == outer_text end
  return inner_text:sub(-#outer_text) == outer_text
end

local function models_cover(outer, inner)
  if outer == nil then return true end
  for _, wanted in ipairs(inner == nil and { "*" } or patterns_of(inner)) do
    local is_covered = false
    for _, pattern in ipairs(patterns_of(outer)) do
      is_covered = is_covered or pattern_covers(pattern, wanted)
    end
    if not is_covered then return false end
  end
  return true
end

local function paths_cover(outer, inner)
  outer, inner = (outer or ""):gsub("/+$", ""), (inner or ""):gsub("/+$", "")
  return outer == "" or inner == outer or inner:sub(1, #outer + 1) == outer .. "/"
end

local function headers_cover(outer, inner)
  local wanted = {}
  for name, value in pairs(inner or {}) do wanted[name:lower()] = value end
  for name, value in pairs(outer or {}) do
    if wanted[name:lower()] ~= value then return false end
  end
  return true
end

--- Whether `inner` matches nothing but what `outer` matches: a route with it never serves when one
-- with `outer` comes first.
-- @tparam table outer conditions as a route has them: model, path, method, headers
-- @tparam table inner
-- @treturn boolean
function route.covers(outer, inner)
  return (outer.method == nil or outer.method == inner.method)
    and models_cover(outer.model, inner.model) and paths_cover(outer.path, inner.path)
    and headers_cover(outer.headers, inner.headers)
end

local function model_matches(rule, model)
  if rule.any_model then return true end
  if model == nil then return false end
  if rule.exact[model] then return true end
  local finds, suffixes = rule.prefix_finds, rule.suffixes
  for position = 1, #finds do
    if find(model, finds[position]) then return true end
  end
  for position = 1, #suffixes do
    local start = #model - #suffixes[position] + 1
    if start >= 1 and find(model, suffixes[position], start, true) then return true end
  end
  return false
end

local function path_matches(rule, path)
  if rule.path_find == nil then return true end
  if path == nil or not find(path, rule.path_find) then return false end
  return #path == rule.path_bytes or byte(path, rule.path_bytes + 1) == SLASH
end

local function headers_match(rule, headers)
  local names, values = rule.header_names, rule.header_values
  for position = 1, #names do
    if headers == nil or headers[names[position]] ~= values[position] then return false end
  end
  return true
end

--- Find the route of a request.
-- @tparam table matcher from `compile`
-- @tparam ?string model the request's model; without one only "*" and routes without a condition
-- on the model can match
-- @tparam ?string path without the query
-- @tparam ?string method
-- @param headers indexable by lower-case names; may be nil
-- @treturn ?number the index of the first route that matches, or nil
function route.match(matcher, model, path, method, headers)
  local looked_up = model ~= nil and matcher.by_model[model] or nil
  local rules = matcher.rules
  for position = 1, #rules do
    local rule = rules[position]
    if looked_up and rule.index > looked_up then break end
    if
      (rule.method == nil or rule.method == method)
      and model_matches(rule, model)
      and path_matches(rule, path)
      and headers_match(rule, headers)
    then
      return rule.index
    end
  end
  return looked_up
end

--- What the model of a request that a route has matched is called where there must not be any
-- number of names: the pattern that it matches.
-- @param model the route's condition: a pattern, a list of them, or nil
-- @treturn function find(model) -> one of the patterns, the first that matches; nil without any
function route.pattern_finder(model)
  local patterns = patterns_of(model)
  if #patterns <= 1 then
    return function() return patterns[1] end
  end
  local compiled = {}
  for position, pattern in ipairs(patterns) do
    compiled[position] = compile_route(position, { model = pattern })
  end
  return function(asked)
    for position = 1, #compiled do
      if model_matches(compiled[position], asked) then return patterns[position] end
    end
    return nil
  end
end

local function append_new(list, seen, name)
  if seen[name] then return end
  seen[name] = true
  table.insert(list, name)
end

--- The model names that one route can be asked for by name: the exact ones of its match, then the
-- ones that it lists itself.
-- @tparam table entry a route with `match` and, if any, `models`
-- @treturn {string,...} in order, without duplicates
function route.models_of(entry)
  local list, seen = {}, {}
  for _, pattern in ipairs(patterns_of(entry.match and entry.match.model)) do
    if route.pattern(pattern) == "exact" then append_new(list, seen, pattern) end
  end
  for _, name in ipairs(entry.models or {}) do
    append_new(list, seen, name)
  end
  return list
end

--- The model names for GET /v1/models.
-- @tparam table config normalised configuration
-- @treturn {string,...} in the order of the configuration, without duplicates
function route.models(config)
  local list, seen = {}, {}
  for _, entry in ipairs(config.routes) do
    for _, name in ipairs(route.models_of(entry)) do
      append_new(list, seen, name)
    end
  end
  return list
end

return route
