--- policies/README.md names all that policies see, and nothing that there is not. What there is
-- comes from the library's own tables, and for the classes that C makes from core/bind_*.c. Its
-- examples are run by policies/spec/readme_spec.lua.

local gateway = require "perilune.gateway"
local support = require "spec.unit.support"

local INTERNAL = { ["req:set_route"] = true } -- mentioned as such

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local BOOT = read("lua/perilune/boot.lua")

local function add_all(names, text, pattern, prefix)
  local count = 0
  for name in text:gmatch(pattern) do
    if name:sub(1, 2) ~= "__" then
      names[prefix .. name] = true
      count = count + 1
    end
  end
  assert(count > 0, "nothing is found by " .. pattern)
end

--- The part of a C file from one line to the next that begins with "}".
local function body_of(path, start)
  local text = read(path)
  local from = assert(text:find(start, 1, true), path .. ": there is no " .. start)
  return text:sub(from, (assert(text:find("\n}", from, true))))
end

--- A class of C: the fields that its __index compares with, and the methods that C and Lua add.
local function add_class(names, prefix, class, path)
  add_all(names, body_of(path, "static int " .. class .. "_index("), 'strcmp%(key, "([%w_]+)"%)',
    prefix .. ".")
  add_all(names, BOOT, "function " .. class .. "%.([%w_]+)%(", prefix .. ":")
end

--- The keys behind a read-only view; what is computed is not among them.
local function keys_of(view)
  local keys = {}
  for key in pairs(debug.getmetatable(view).__index) do keys[#keys + 1] = key end
  assert(#keys > 0)
  return keys
end

local function make_route()
  local seen
  local handle = assert(gateway.new {
    config = { routes = { { name = "r", match = {}, targets = { 1 }, policy = "p", models = {},
      deadline_ms = 1000, balance = { by = "p2c" }, panic = "use", max_ejection_ratio = 1,
      hedge = { after = "2s" },
      retry = { attempts = 3, per_priority = 1, budget = { ratio = 0.2, min_count = 3 },
        reserve_ms = 1, within_ms = 1 } } } },
    policies = { p = function(_, route) seen = route end },
    targets = support.targets { {} }, now_wall_ms = function() return 0 end,
  })
  handle(support.req { model = "m" })
  return seen
end

local function real_names()
  local names = {}
  add_class(names, "req", "request", "core/bind_request.c")
  add_all(names, body_of("core/bind_request.c", "luaL_Reg methods[]"), '{"([%w_]+)",', "req:")
  add_class(names, "res", "response", "core/bind_response.c")
  add_class(names, "target", "target", "core/bind_target.c")
  add_all(names, assert(BOOT:match("local err = ({ class = .-})")), "([%w_]+) =", "err.")
  local route = make_route()
  for _, key in ipairs(keys_of(route)) do names["route." .. key] = true end
  names["route.targets"] = #route.targets == 1
  for _, key in ipairs(keys_of(route.retry)) do
    local separator = type(route.retry[key]) == "function" and ":" or "."
    names["route.retry" .. separator .. key] = true
  end
  local world = { clock = support.clock(), random = support.random(1), log = {} }
  local gw = support.public_module(support.native(world))
  for _, key in ipairs(keys_of(gw)) do names["gw." .. key] = true end
  return names
end

local README = read("policies/README.md")

--- The names that the README uses of an object: "req.x", "req:x", "route.retry:x".
local function add_used(used, prefix)
  local literal = prefix:gsub("%.", "%%.")
  for before, separator, name in (" " .. README):gmatch("([^%w_.])" .. literal .. "([.:])([%w_]+)")
  do
    if before ~= "\"" then used[prefix .. separator .. name] = true end
  end
end

describe("policies/README.md", function()
  local real = real_names()

  it("names all that there is", function()
    for name in pairs(real) do
      local escaped = name:gsub("%p", "%%%0") .. "%f[^%w_]"
      assert.is_truthy(README:find(escaped), "the README does not say what " .. name .. " is")
    end
  end)

  it("has a heading for each function", function()
    for name in pairs(real) do
      if (name:find(":", 1, true) or name:find("^gw")) and not INTERNAL[name] then
        local heading = "\n####[^\n]* ?`" .. name:gsub("%p", "%%%0") .. "%("
        assert.is_truthy(README:find(heading), name .. " has no heading")
      end
    end
  end)

  it("names nothing that there is not", function()
    local used = {}
    for _, prefix in ipairs { "req", "res", "err", "target", "route", "route.retry", "gw" } do
      add_used(used, prefix)
    end
    for name in pairs(used) do
      assert.is_truthy(real[name], "policies/README.md names " .. name .. ", which there is not")
    end
  end)

  it("names the fields of a target's health", function()
    local names = {}
    add_all(names, read("core/bind_health.c"), 'lua_setfield%(L, %-2, "([%w_]+)"%)', "")
    local section = README:match("#### `target:health%(%)`(.-)\n####")
    for name in pairs(names) do
      assert.is_truthy(section:find("\n| `" .. name .. "` |", 1, true), "health's " .. name)
    end
  end)
end)

describe("the cookbook's tables", function()
  local files = {}
  for name in read("examples/cookbook/gateway.lua"):gmatch('policy = "([%w_]+)"') do
    files[#files + 1] = name .. ".lua"
  end

  --- Routes that are recipes of their own.
  local function plain_routes()
    local names = {}
    for name, rest in read("examples/cookbook/gateway.lua"):gmatch(
      '\n    {\n      name = "([%w_]+)",(.-)\n    },')
    do
      if not rest:find("policy =", 1, true) then names[#names + 1] = name end
    end
    return names
  end

  for _, path in ipairs { "policies/README.md", "examples/cookbook/README.md" } do
    it("in " .. path .. " have all recipes", function()
      local text = read(path)
      assert.is_true(#files >= 9 and #plain_routes() >= 8)
      for _, file in ipairs(files) do
        assert.is_truthy(text:find("`" .. file .. "`", 1, true), path .. " has no " .. file)
      end
      for _, name in ipairs(plain_routes()) do
        assert.is_truthy(text:find("route[^|]*`" .. name .. "`"), path .. " has no route " .. name)
      end
    end)
  end

  it("stand beside the same fallback.lua", function()
    assert.equal(read("policies/fallback.lua"), read("examples/cookbook/fallback.lua"))
  end)
end)
