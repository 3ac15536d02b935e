--- Checks that the C files keep to their layers: includes point downwards or sideways, never up,
-- headers never in a circle, and each layer only knows the outside libraries that are its business.
-- Usage: luajit spec/lint/layers.lua core
-- A file that is in no layer is an error: add it to LAYERS, and to the table in core/README.md.

--- From the top. A part of something, "json_splice", is where "json" is. Tests and fuzz targets may
-- include whatever they like.
local LAYERS = {
  { name = "process", files = { "main", "process", "reload", "loader", "edition",
    "worker", "jobs", "config", "admin", "stage", "testing",
    "simulate" } },
  { name = "glue", files = { "generation", "request", "try", "admit", "forward", "send", "hedge",
    "relay", "bind", "inflight" } },
  -- The two halves do not know each other: the network half has no Lua, the script half no sockets.
  { name = "script", files = { "vm", "coroutine" }, beside = true },
  { name = "network", files = { "server", "exchange", "reply", "listen", "attempt", "transport",
    "timer", "dial", "pool", "tls", "resolve", "target", "keys", "probe", "sink", "spans",
    "exporter", "access_log" } },
  { name = "pure", files = { "json", "sse", "headers", "http1", "guard", "multipart",
    "health", "gauge", "metrics", "bundle", "usage", "figures", "charges", "trial", "strikes",
    "pattern", "record", "recent", "gate", "events", "rescue", "trace", "otlp", "redact",
    "client_error", "tail", "deadline" } },
  { name = "base", files = { "base", "log", "watchdog" } },
}

local LUA = { "^lua", "^lauxlib%.h$" }
local SOCKETS = { "^event2/", "^openssl/", "^sys/socket%.h$", "^netinet/", "^arpa/", "^netdb%.h$",
  "^sys/epoll%.h$", "^poll%.h$" }
local NONE = {}

--- What each layer may not include from outside.
local FORBIDDEN = {
  process = NONE,
  glue = NONE,
  script = SOCKETS,
  network = LUA,
  pure = { LUA[1], LUA[2], unpack(SOCKETS) },
  base = { LUA[1], LUA[2], unpack(SOCKETS) },
}

--- Headers that only one file and its parts may include, so that what is behind them stays
-- replaceable.
local ONLY = { ["event2/http.h"] = "server", ["event2/http_struct.h"] = "server" }

local problems = 0

local function report(...)
  problems = problems + 1
  io.stderr:write(string.format(...), "\n")
end

local function matches_any(text, patterns)
  for _, pattern in ipairs(patterns) do
    if text:find(pattern) then
      return true
    end
  end
  return false
end

local layer_index = {}
for index, layer in ipairs(LAYERS) do
  for _, stem in ipairs(layer.files) do
    layer_index[stem] = index
  end
end

--- Index into LAYERS of a file's stem, or nil.
local function layer_of(stem)
  return layer_index[stem] or layer_index[stem:match("^(.-)_")]
end

local function list_files(folder)
  local pipe = assert(io.popen("ls '" .. folder .. "'"))
  local names = {}
  for name in pipe:lines() do
    if name:find("%.[ch]$") and not name:find("_test%.[ch]$") and not name:find("_fuzz%.c$") then
      names[#names + 1] = name
    end
  end
  pipe:close()
  return names
end

--- Calls visit(path, line_number, is_ours) for each #include.
local function each_include(path, visit)
  local number = 0
  for line in io.lines(path) do
    number = number + 1
    local open, name = line:match("^%s*#%s*include%s*([<\"])([^>\"]+)")
    if name then
      visit(name, number, open == "\"")
    end
  end
end

local function may_include(from, to)
  if LAYERS[from].beside and to == from + 1 then
    return false
  end
  return to >= from
end

local function check_ours(where, stem, from, name, graph)
  local target = name:match("^([%w_]+)%.h$")
  local to = target and layer_of(target)
  if not to then
    report("%s: \"%s\" is in no layer", where, name)
  elseif not may_include(from, to) then
    report("%s: %s (%s) may not include %s (%s)", where, stem, LAYERS[from].name, target,
      LAYERS[to].name)
  elseif graph then
    graph[stem][target] = true
  end
end

local function check_outside(where, stem, from, name)
  local layer = LAYERS[from].name
  if matches_any(name, FORBIDDEN[layer]) then
    report("%s: the %s layer may not include <%s>", where, layer, name)
  end
  if ONLY[name] and ONLY[name] ~= stem and stem:match("^(.-)_") ~= ONLY[name] then
    report("%s: only %s.c may include <%s>", where, ONLY[name], name)
  end
end

--- `headers` is the graph of who includes whom among headers.
local function check_file(folder, file, headers)
  local stem, suffix = file:match("^(.*)%.([ch])$")
  local from = layer_of(stem)
  if not from then
    report("%s/%s: in no layer; add it to spec/lint/layers.lua", folder, file)
    return
  end
  local graph = suffix == "h" and headers or nil
  headers[stem] = headers[stem] or {}
  local path = folder .. "/" .. file
  each_include(path, function(name, number, is_ours)
    local where = path .. ":" .. number
    if is_ours then
      check_ours(where, stem, from, name, graph)
    else
      check_outside(where, stem, from, name)
    end
  end)
end

--- Depth first; a stem met again on its own path closes a circle.
local function check_circles(graph)
  local state = {}
  local function visit(stem, trail)
    if state[stem] == "done" then
      return
    end
    if state[stem] == "open" then
      report("circle of includes: %s -> %s", trail, stem)
      return
    end
    state[stem] = "open"
    for target in pairs(graph[stem] or {}) do
      visit(target, trail .. " -> " .. target)
    end
    state[stem] = "done"
  end
  for stem in pairs(graph) do
    visit(stem, stem)
  end
end

local folder = arg[1] or "core"
local headers = {}
for _, file in ipairs(list_files(folder)) do
  check_file(folder, file, headers)
end
check_circles(headers)
os.exit(problems == 0 and 0 or 1)
