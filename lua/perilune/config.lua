--- Configuration: from the text of policies/gateway.lua to one checked, normalised table.
--
-- Four steps, each a section below: evaluate (text only, in an environment with nothing but env,
-- secret and file), check (perilune.schema, then what concerns several keys at once), locate (the
-- source is read a second time, as tokens, to say on which line a problem stands), normalise (flat
-- tables with units in their names, as the C core reads them).
--
-- Everything wrong is reported at once. Endless loops and memory are for the caller to bound: the
-- text runs under the same limits as policies do. The input is never changed.

local route = require "perilune.route"
local schema = require "perilune.schema"
local url = require "perilune.url"

local config = {}

local at = schema.at
local ROOT = {}
local NONE = {}        -- what is read where an optional table is absent; never written
local CHUNK = "gateway.lua" -- the chunk's name while it runs, to find its lines in messages

--- The entries of a map as { name, value }, in the order of their names.
local function sorted_pairs(map)
  local result = {}
  for name, value in pairs(map) do
    table.insert(result, { name, value })
  end
  table.sort(result, function(a, b) return a[1] < b[1] end)
  return result
end

-- Evaluate ----------------------------------------------------------------------------------------

local function call_helper(helpers, name, subject)
  if type(subject) ~= "string" or subject == "" then
    error(name .. ": needs a name, such as " .. name .. ' "NAME"', 3)
  end
  if type(helpers[name]) ~= "function" then error(name .. ": is not available here", 3) end
  local ok, value, detail = pcall(helpers[name], subject)
  if not ok then value, detail = nil, value end
  if value ~= nil and type(value) ~= "string" then
    error(("%s %s: gave a %s instead of a string"):format(name, subject, type(value)), 3)
  end
  return value, detail
end

local function environment(helpers)
  local env = {}
  function env.env(name, default)
    local value, detail = call_helper(helpers, "env", name)
    if value == nil and detail ~= nil then error("env " .. name .. ": " .. tostring(detail), 2) end
    if value == nil then return default end
    return value
  end
  local function must_exist(helper, missing)
    return function(name)
      local value, detail = call_helper(helpers, helper, name)
      if value == nil then
        error(("%s %s: %s"):format(helper, name, tostring(detail or missing)), 2)
      end
      return (value:gsub("%s+$", ""))
    end
  end
  env.secret = must_exist("secret", "neither the variable nor its _FILE form is set")
  env.file = must_exist("file", "cannot be read")
  return setmetatable(env, {
    __index = function(_, key)
      error(("unknown name %s: only env, secret and file exist here"):format(schema.show(key)), 2)
    end,
    __newindex = function(_, key)
      error(("write local %s = ...: there are no globals here"):format(tostring(key)), 2)
    end,
  })
end

--- A problem from the text of a Lua error, which begins with chunk and line when these are known.
local function lua_problem(message)
  local line, text = tostring(message):match("^" .. CHUNK .. ":(%d+): (.*)$")
  return { line = tonumber(line), key = "", message = text or tostring(message) }
end

local function evaluate(source, helpers)
  if source:byte() == 27 then
    return nil, { key = "", message = "is compiled code; only the text of a script is read" }
  end
  local chunk, syntax_error = load(source, "=" .. CHUNK, "t", environment(helpers))
  if not chunk then return nil, lua_problem(syntax_error) end
  local ok, value = pcall(chunk)
  if not ok then return nil, lua_problem(value) end
  if type(value) ~= "table" then
    local got = schema.show(value)
    return nil, { key = "", message = "must end with return { ... }, one table; got " .. got }
  end
  return value
end

-- Locate ------------------------------------------------------------------------------------------
--
-- The tree of the returned table's constructor: { line =, fields = { [key] = tree }, partial = }.
-- A value that is no constructor has no fields; `partial` marks a table with computed keys. What
-- cannot be followed (a variable, a call, a function) is left open and gets no line.

local OPENS = { ["("] = true, ["{"] = true, ["["] = true }
local CLOSES = { [")"] = true, ["}"] = true, ["]"] = true }
local BLOCK_OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local BLOCK_CLOSES = { ["end"] = true, ["until"] = true }
local SEPARATES = { [","] = true, [";"] = true, ["}"] = true }
local OPERATORS = { "^%.%.%.", "^%.%.", "^[=~<>]=", "^::", "^." }

--- How many line ends are within a stretch; CR LF and LF CR count once, as in Lua.
local function count_lines(stretch)
  local count, position = 0, stretch:find("[\r\n]")
  while position do
    local pair = stretch:sub(position, position + 1)
    count = count + 1
    position = stretch:find("[\r\n]", position + ((pair == "\r\n" or pair == "\n\r") and 2 or 1))
  end
  return count
end

local function after_long_bracket(source, position)
  local level = source:match("^%[(=*)%[", position)
  if not level then return nil end
  local _, last = source:find("]" .. level .. "]", position, true)
  return (last or #source) + 1
end

local function after_blank(source, position)
  local after_space = source:match("^%s+()", position)
  if after_space then return after_space end
  if source:sub(position, position + 1) ~= "--" then return nil end
  return after_long_bracket(source, position + 2) or source:match("^[^\r\n]*()", position)
end

local function after_quoted(source, position)
  local quote = source:sub(position, position)
  position = position + 1
  while position <= #source do
    local char = source:sub(position, position)
    if char == quote then return position + 1 end
    position = position + (char == "\\" and 2 or 1)
  end
  return position
end

--- The token at a position: its kind, the position after it, and for strings what they hold (nil
-- when that takes more than copying).
local function read_token(source, position)
  local after = source:match("^[%a_\128-\255][%w_\128-\255]*()", position)
  if after then return "name", after end
  after = source:match("^%.?%d[%w_.]*()", position)
  if after then return "number", after end
  if source:find("^[\"']", position) then
    after = after_quoted(source, position)
    local plain = source:sub(position + 1, after - 2)
    return "string", after, not plain:find("\\", 1, true) and plain or nil
  end
  after = after_long_bracket(source, position)
  if after then return "string", after end
  for _, operator in ipairs(OPERATORS) do
    after = after or source:match(operator .. "()", position)
  end
  return "operator", after
end

local function tokens_of(source)
  local tokens = { kind = {}, text = {}, line = {}, value = {}, count = 0 }
  local position, line = source:match("^\239\187\191()") or 1, 1
  if source:find("^#", position) then position = source:match("^[^\r\n]*()", position) end
  while position <= #source do
    local after = after_blank(source, position)
    if not after then
      local kind, past, value = read_token(source, position)
      local count = tokens.count + 1
      after, tokens.count = past, count
      tokens.kind[count], tokens.line[count], tokens.value[count] = kind, line, value
      tokens.text[count] = kind == "string" and "" or source:sub(position, past - 1)
    end
    line = line + count_lines(source:sub(position, after - 1))
    position = after
  end
  return tokens
end

--- Where an expression that starts at `index` ends: the separator after it, or past the last token.
local function after_expression(tokens, index)
  local depth = 0
  while index <= tokens.count do
    local text = tokens.text[index]
    if depth == 0 and SEPARATES[text] then return index end
    if OPENS[text] or BLOCK_OPENS[text] then depth = depth + 1 end
    if CLOSES[text] or BLOCK_CLOSES[text] then depth = depth - 1 end
    index = index + 1
  end
  return index
end

--- Where a bracketed group that starts at `index` ends: the token after its closing bracket.
local function after_group(tokens, index)
  local depth = 0
  repeat
    local text = tokens.text[index]
    if OPENS[text] then depth = depth + 1 end
    if CLOSES[text] then depth = depth - 1 end
    index = index + 1
  until depth == 0 or index > tokens.count
  return index
end

--- The key of the field that starts at `index`, and where its value starts. No key: positional.
-- A key that cannot be read without running the code is false.
local function field_key(tokens, index)
  if tokens.kind[index] == "name" and tokens.text[index + 1] == "=" then
    return tokens.text[index], index + 2
  end
  if tokens.text[index] ~= "[" then return nil, index end
  local value_index = after_group(tokens, index) + 1 -- past "]" and "="
  if value_index ~= index + 4 then return false, value_index end
  local key = tokens.value[index + 1]
  if tokens.kind[index + 1] == "number" then key = tonumber(tokens.text[index + 1]) end
  return key or false, value_index
end

local function add_field(tree, key, child, duplicates, path)
  if key == false then
    tree.partial = true
    return
  end
  local first = tree.fields[key]
  if first then
    table.insert(duplicates, { path = at(path, key), line = child.line, first_line = first.line })
  end
  tree.fields[key] = child
end

--- Read the constructor whose "{" is at `index`.
local function read_constructor(tokens, index, duplicates, path)
  local tree = { line = tokens.line[index], fields = {} }
  local position = 0
  index = index + 1
  while index <= tokens.count and tokens.text[index] ~= "}" do
    local key, value_index = field_key(tokens, index)
    if key == nil then
      position = position + 1
      key = position
    end
    local after = after_expression(tokens, value_index)
    local child = {}
    if tokens.text[value_index] == "{" and after_group(tokens, value_index) == after then
      local noted = key == false and {} or duplicates -- without its key, a path cannot be named
      child = read_constructor(tokens, value_index, noted, at(path, key))
    end
    child.line = tokens.line[index]
    add_field(tree, key, child, duplicates, path)
    index = tokens.text[after] == "}" and after or after + 1
  end
  return tree
end

--- Where the keys of a configuration stand in its text.
-- @tparam string source must be valid Lua
-- @treturn ?table the tree (see above) of the table constructor that the chunk itself returns; nil
-- when it returns something else
-- @treturn {table,...} keys that are given twice: { path, line, first_line }
function config.locate(source)
  local tokens, duplicates, depth = tokens_of(source), {}, 0
  for index = 1, tokens.count do
    local text = tokens.text[index]
    if BLOCK_OPENS[text] then depth = depth + 1 end
    if BLOCK_CLOSES[text] then depth = depth - 1 end
    if depth == 0 and text == "return" then
      local after = after_expression(tokens, index + 1)
      local is_constructor = tokens.text[index + 1] == "{"
        and after_group(tokens, index + 1) == after
      if not is_constructor then return nil, duplicates end
      return read_constructor(tokens, index + 1, duplicates, ROOT), duplicates
    end
  end
  return nil, duplicates
end

local function tree_at(tree, path)
  if not path.parent then return tree end
  local parent = tree_at(tree, path.parent)
  return parent and parent.fields and parent.fields[path.key]
end

--- The line of a key; of a key that is not there, the line of the table that lacks it. The second
-- result is the nearest line known, for sorting only.
local function line_of(tree, path)
  local node = tree_at(tree, path)
  if node then return node.line, node.line end
  while path.parent do
    path = path.parent
    node = tree_at(tree, path)
    if node then return node.fields and not node.partial and node.line or nil, node.line end
  end
  return nil, nil
end

-- Check: what concerns several keys at once -------------------------------------------------------
--
-- These see checked values: a key that was refused already is absent here, and is not judged again.

local function check_listeners(checked, report)
  local listen, admin = checked.listen or NONE, checked.admin or NONE
  local path = at(at(ROOT, "admin"), "address")
  if not listen.address or not admin.address then return end
  if
    admin.address.port ~= 0 and admin.address.port == listen.address.port
    and admin.address.address == listen.address.address
  then
    report(path, "is the same as listen.address")
  end
end

local function check_admin(checked, value, report)
  local admin = checked.admin
  if not admin or not admin.address or url.is_loopback(admin.address.address) then return end
  if admin.token == nil and (type(value.admin) ~= "table" or value.admin.token == nil) then
    report(at(at(ROOT, "admin"), "token"),
      "is required, because admin.address can be reached from other machines")
  end
end

local function check_limits(checked, report)
  local limits = checked.limits or NONE
  if limits.request_line and limits.head and limits.request_line > limits.head then
    report(at(at(ROOT, "limits"), "request_line"), "must not be more than limits.head")
  end
end

local function check_provider(provider, path, report)
  if provider.key and provider.auth then
    report(at(path, "auth"),
      'cannot be "passthrough" together with key: upstreams get one credential or the other')
  end
  for _, pair in ipairs(sorted_pairs(provider.headers or NONE)) do
    local name = pair[1]
    if name:lower() == "authorization" and (provider.key or provider.auth) then
      report(at(at(path, "headers"), name), "cannot be set together with key or auth")
    end
  end
  if provider.tls and provider.url and not provider.url.tls then
    report(at(path, "tls"), "has no effect with an http:// url")
  end
end

local function check_headers(headers, path, report)
  local removed = {}
  for position, name in ipairs(headers.remove or NONE) do
    removed[name] = position
  end
  for _, pair in ipairs(sorted_pairs(headers.set or NONE)) do
    local name = pair[1]
    local position = removed[name:lower()]
    if position then
      report(at(at(path, "remove"), position), ("is also in set: %s"):format(schema.show(name)))
    end
  end
end

local function check_body(body, path, report)
  local set, advice = body.set or NONE, "cannot be changed here: write model = ... in the target"
  if set.model then report(at(at(path, "set"), "model"), advice) end
  for position, key in ipairs(body.unset or NONE) do
    if key == "model" then
      report(at(at(path, "unset"), position), advice)
    elseif set[key] then
      report(at(at(path, "unset"), position), ("is also in set: %s"):format(schema.show(key)))
    end
  end
end

local function check_target(target, path, providers, report)
  if target.provider and not providers.is_known[target.provider] then
    report(at(path, "provider"), ("there is no provider %s: %s"):format(
      schema.show(target.provider), schema.hint(target.provider, providers.names)))
  end
  check_headers(target.headers or NONE, at(path, "headers"), report)
  check_body(target.body or NONE, at(path, "body"), report)
end

--- Refuse a priority in which no target could ever be drawn.
local function check_weights(targets, path, report)
  local priorities, total = {}, {}
  for _, target in ipairs(targets) do
    local priority, weight = target.priority, target.weight
    if not priority or not weight then return end
    if not total[priority] then table.insert(priorities, priority) end
    total[priority] = (total[priority] or 0) + weight
  end
  for _, priority in ipairs(priorities) do
    if total[priority] == 0 then
      report(path, ("all weights of priority %d are 0: at least one must be more"):format(priority))
    end
  end
end

local function check_retry(retry, path, report)
  if retry.per_priority and retry.attempts and retry.per_priority > retry.attempts then
    report(at(path, "per_priority"), ("must not be more than attempts (%d), got %d"):format(
      retry.attempts, retry.per_priority))
  end
  local backoff = retry.backoff or NONE
  for _, name in ipairs { "base", "floor" } do
    if backoff[name] and backoff.max and backoff[name] > backoff.max then
      local detail = "must not be more than max (%.14gms), got %.14gms"
      report(at(at(path, "backoff"), name), detail:format(backoff.max, backoff[name]))
    end
  end
end

local function check_routes(routes, providers, report)
  local position_of = {}
  for position, entry in ipairs(routes) do
    local path = at(at(ROOT, "routes"), position)
    if entry.name and position_of[entry.name] then
      report(at(path, "name"), ("is the name of routes[%d] already, got %s"):format(
        position_of[entry.name], schema.show(entry.name)))
    elseif entry.name then
      position_of[entry.name] = position
    end
    local targets_path = at(path, "targets")
    for target_position, target in ipairs(entry.targets or NONE) do
      check_target(target, at(targets_path, target_position), providers, report)
    end
    check_weights(entry.targets or NONE, targets_path, report)
    check_retry(entry.retry or NONE, at(path, "retry"), report)
  end
end

--- The providers' names as the operator wrote them, so that a broken one is not unknown as well.
local function provider_names(value)
  local names, is_known = {}, {}
  for name in pairs(type(value.providers) == "table" and value.providers or NONE) do
    if type(name) == "string" then
      is_known[name] = true
      table.insert(names, name)
    end
  end
  table.sort(names)
  return { names = names, is_known = is_known }
end

local function check_all(checked, value, report)
  check_listeners(checked, report)
  check_admin(checked, value, report)
  check_limits(checked, report)
  for _, pair in ipairs(sorted_pairs(checked.providers or NONE)) do
    check_provider(pair[2], at(at(ROOT, "providers"), pair[1]), report)
  end
  check_routes(checked.routes or NONE, provider_names(value), report)
end

--- Collects problems; the first of each key counts.
local function collector()
  local problems, seen = {}, {}
  local function report(path, message)
    local key = schema.path_text(path)
    if seen[key] then return end
    seen[key] = true
    table.insert(problems, { path = path, key = key, message = message })
  end
  return problems, report
end

--- Give problems their lines, in the order of the lines, then of the keys.
local function arrange(problems, tree, file)
  for position, problem in ipairs(problems) do
    problem.file, problem.position = file, position
    if problem.path then
      local line, near = line_of(tree, problem.path)
      problem.line, problem.near = problem.line or line, problem.line or near
    end
  end
  table.sort(problems, function(a, b)
    local a_near, b_near = a.near or math.huge, b.near or math.huge
    if a_near ~= b_near then return a_near < b_near end
    return a.position < b.position
  end)
  local result = {}
  for position, problem in ipairs(problems) do
    result[position] = {
      file = file, line = problem.line, key = problem.key, message = problem.message,
    }
  end
  return result
end

-- Normalise ---------------------------------------------------------------------------------------

local function timeouts_of(own, inherited)
  local result = {}
  for _, name in ipairs { "connect", "tls", "head", "first_token", "idle", "try" } do
    local key = name .. "_ms"
    result[key] = own[name] or inherited[key]
  end
  return result
end

local function normalise_provider(name, provider)
  local tls = provider.tls or NONE
  return {
    name = name, api = provider.api,
    url = provider.url.text, host = provider.url.host, port = provider.url.port,
    tls = provider.url.tls, path = provider.url.path,
    auth = provider.auth or provider.key and "key" or "none", key = provider.key,
    headers = sorted_pairs(provider.headers),
    tls_verify = tls.verify ~= false, tls_ca = tls.ca, tls_server_name = tls.server_name,
    idle_connections = provider.connections.idle, idle_ms = provider.connections.idle_timeout,
    timeouts = timeouts_of(provider.timeouts, NONE),
  }
end

--- A name that nobody has yet: the wanted one, or with "#2", "#3", ... after it. `taken` keeps for
-- each name how far its numbers have got.
local function unique(wanted, taken)
  local name, count = wanted, taken[wanted] or 0
  while taken[name] do
    count = count + 1
    name = wanted .. "#" .. count
  end
  taken[name] = 1
  taken[wanted] = math.max(count, 1)
  return name
end

local function normalise_target(target, provider)
  return {
    name = target.model and target.provider .. "/" .. target.model or target.provider,
    provider = provider.index, provider_name = target.provider,
    model = target.model, priority = target.priority, weight = target.weight,
    set_headers = sorted_pairs(target.headers.set), remove_headers = target.headers.remove,
    set_body = sorted_pairs(target.body.set), unset_body = target.body.unset,
    timeouts = timeouts_of(target.timeouts, provider.timeouts),
  }
end

--- What a route without a name is called: what it matches.
local function described(match)
  local model = match.model
  if type(model) == "table" then
    model = #model == 1 and model[1] or ("%s,+%d"):format(model[1], #model - 1)
  end
  return model or match.path or "*"
end

local function normalise_route(entry, name)
  local retry = entry.retry
  return {
    name = name, match = entry.match, policy = entry.policy, targets = {},
    retry = {
      attempts = retry.attempts, per_priority = retry.per_priority, on = retry.on,
      base_ms = retry.backoff.base, max_ms = retry.backoff.max, floor_ms = retry.backoff.floor,
    },
    deadline_ms = entry.deadline, models = route.models_of(entry),
  }
end

local function route_names(routes)
  local names, taken = {}, {}
  for _, entry in ipairs(routes) do
    if entry.name then taken[entry.name] = 1 end
  end
  for position, entry in ipairs(routes) do
    names[position] = entry.name or unique(described(entry.match), taken)
  end
  return names
end

local function normalise_providers(providers)
  local result, by_name = {}, {}
  for index, pair in ipairs(sorted_pairs(providers)) do
    local provider = normalise_provider(pair[1], pair[2])
    result[index] = provider
    by_name[pair[1]] = { index = index, timeouts = provider.timeouts }
  end
  return result, by_name
end

local function normalise_routes(routes, by_name)
  local result, targets = {}, {}
  local names = route_names(routes)
  for position, entry in ipairs(routes) do
    local normalised = normalise_route(entry, names[position])
    for _, target in ipairs(entry.targets) do
      table.insert(targets, normalise_target(target, by_name[target.provider]))
      table.insert(normalised.targets, #targets)
    end
    result[position] = normalised
  end
  return result, targets
end

local function normalise_limits(limits)
  return {
    request_line_bytes = limits.request_line, head_bytes = limits.head,
    header_count = limits.header_count, body_bytes = limits.body,
    connections = limits.connections, head_ms = limits.head_timeout,
    body_idle_ms = limits.body_idle, keepalive_idle_ms = limits.keepalive_idle,
    write_stall_ms = limits.write_stall,
  }
end

local function normalise(checked)
  local listen, admin, tls = checked.listen, checked.admin, checked.listen.tls or NONE
  local providers, by_name = normalise_providers(checked.providers)
  local routes, targets = normalise_routes(checked.routes, by_name)
  return {
    listen = {
      address = listen.address.address, port = listen.address.port,
      tls_cert = tls.cert, tls_key = tls.key,
    },
    admin = { address = admin.address.address, port = admin.address.port, token = admin.token },
    workers = checked.workers, drain_ms = checked.drain, log_level = checked.log_level,
    response_headers = checked.response_headers, limits = normalise_limits(checked.limits),
    providers = providers, targets = targets, routes = routes,
  }
end

-- Public ------------------------------------------------------------------------------------------

--- Read a configuration.
-- @tparam string source the text of gateway.lua
-- @tparam string chunkname the file's name for messages; a leading "@" is left out
-- @tparam[opt] table helpers `env(name)`, `secret(name)` and `file(path)`, each giving a string, or
-- nil and a reason: what the configuration may call. env may give nil without a reason: not set.
-- @treturn[1] table the normalised configuration
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] {table,...} all problems, as { file, line (nil when it cannot be told), key ("" for
-- the file itself), message }, in the order of the file
function config.load(source, chunkname, helpers)
  if type(source) ~= "string" then error("perilune.config: source must be a string", 2) end
  local file = chunkname:gsub("^@", "")
  local value, failure = evaluate(source, helpers or NONE)
  if not value then return nil, "invalid", arrange({ failure }, nil, file) end

  local problems, report = collector()
  local checked = schema.check(schema.GATEWAY, value, ROOT, report)
  check_all(checked, value, report)
  local tree, duplicates = config.locate(source)
  for _, duplicate in ipairs(duplicates) do
    table.insert(problems, {
      path = duplicate.path, key = schema.path_text(duplicate.path), line = duplicate.line,
      message = ("is given twice, first on line %d"):format(duplicate.first_line),
    })
  end
  if #problems > 0 then return nil, "invalid", arrange(problems, tree, file) end
  return normalise(checked)
end

--- A problem as one line: "gateway.lua:12: routes[2].targets[1].weight: must be ...".
-- @tparam table problem one of those that `load` gives
-- @treturn string
function config.describe(problem)
  local place = problem.line and ("%s:%d"):format(problem.file, problem.line) or problem.file
  local key = problem.key ~= "" and problem.key .. ": " or ""
  return ("%s: %s%s"):format(place, key, problem.message)
end

--- The line on which a route names its policy; of a route without, the line it begins on.
-- @tparam string source the text of gateway.lua, which must load
-- @tparam number position of the route
-- @treturn ?number nil when it cannot be told
function config.policy_line(source, position)
  return (line_of(config.locate(source), at(at(at(ROOT, "routes"), position), "policy")))
end

--- The names of the policies that routes use; each is a file NAME.lua beside gateway.lua.
-- @tparam table cfg normalised configuration
-- @treturn {string,...} sorted, without duplicates
function config.policies(cfg)
  local names, seen = {}, {}
  for _, entry in ipairs(cfg.routes) do
    if not seen[entry.policy] then
      seen[entry.policy] = true
      table.insert(names, entry.policy)
    end
  end
  table.sort(names)
  return names
end

return config
