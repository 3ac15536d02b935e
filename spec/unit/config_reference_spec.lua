local config = require "perilune.config"
local schema = require "perilune.schema"
local support = require "spec.unit.config_support"

local REFERENCE = "policies/gateway.lua"

local load = support.load

describe("policies/gateway.lua", function()
  local function read_reference()
    local file = assert(io.open(REFERENCE))
    local text = file:read("*a")
    file:close()
    return text
  end

  --- The reference with every option in force.
  local function uncommented()
    return (("\n" .. read_reference()):gsub("\n( *)%-%-([%w%[{}])", "\n%1%2"):sub(2))
  end

  local helpers = {
    env = function() return "from-env" end,
    secret = function(name) return name == "POOLED_KEY_B" and "another" or "from-secret" end,
  }

  local function lines_of(text)
    local lines = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do
      table.insert(lines, line)
    end
    return lines
  end

  --- How a default is written; nil for tables, whose parts have their own.
  local function written(default)
    if type(default) == "string" then return '"' .. default .. '"' end
    if type(default) == "table" or default == nil then return nil end
    return tostring(default)
  end

  --- Every place of the tree that a path of the schema stands for: "*" is any key, 1 any position.
  local function nodes_at(tree, path)
    if not path.parent then return { tree } end
    local found = {}
    for _, parent in ipairs(nodes_at(tree, path.parent)) do
      for key, node in pairs(parent.fields or {}) do
        local any = path.key == "*" or path.key == 1 and type(key) == "number"
        if any or key == path.key then table.insert(found, node) end
      end
    end
    return found
  end

  local function contains(lines, nodes, text)
    for _, node in ipairs(nodes) do
      if lines[node.line]:find(text, 1, true) then return true end
    end
    return false
  end

  it("is the configuration that make run starts", function()
    local loaded = load(read_reference())
    assert.are.same({ address = "127.0.0.1", port = 8080 }, loaded.listen)
    assert.are.same({ address = "127.0.0.1", port = 9901, recent_count = 200,
        metrics = true },
      loaded.admin)
    assert.are.same({ "fallback", "primary" },
      { loaded.providers[1].name, loaded.providers[2].name })
    assert.are.equal("http://127.0.0.1:8001/v1", loaded.providers[1].url)
    assert.are.equal("http://127.0.0.1:8000/v1", loaded.providers[2].url)
    assert.are.same({ "degrade", "fallback", "weighted" }, config.policies(loaded))
    assert.are.same({ "gpt-4", "virtual-qwen-model", "smart" },
      require("perilune.route").models(loaded))
  end)

  it("names policies that are there", function()
    for _, name in ipairs(config.policies(load(read_reference()))) do
      local file = assert(io.open("policies/" .. name .. ".lua"))
      file:close()
    end
  end)

  it("loads with every option in force", function()
    local loaded = load(uncommented(), helpers)
    assert.are.equal("from-secret", loaded.providers[2].key)
    assert.are.equal("tls/gateway.key", loaded.listen.tls_key)
    assert.are.equal("function", type(loaded.providers[2].health.unhealthy))
    assert.are.equal(8, #loaded.routes)
  end)

  it("says how a target can be chosen", function()
    local text = read_reference()
    schema.each(schema.GATEWAY, function(path, type_of)
      if schema.path_text(path) ~= "routes[1].balance" or type_of.kind ~= "either" then return end
      for _, name in ipairs(type_of.text.choices) do
        assert.is_truthy(text:find("\n      %-%-   " .. name .. " +%l"), name)
      end
    end)
  end)

  it("names every option with its bounds and its default", function()
    local text = uncommented()
    local lines, tree = lines_of(text), config.locate(text)
    local count = 0
    schema.each(schema.GATEWAY, function(path, type_of)
      local name = schema.path_text(path)
      local nodes = nodes_at(tree, path)
      assert.is_true(#nodes > 0, name .. " is missing")
      if type(path.key) ~= "string" or path.key == "*" then return end
      count = count + 1
      local bounds = schema.bounds(type_of)
      assert.is_true(contains(lines, nodes, bounds), name .. ": its bounds are missing")
      local default = written(type_of.default)
      if default then
        local given = ("%s = %s"):format(path.key, default)
        assert.is_true(contains(lines, nodes, given), name .. ": its default is missing")
      end
    end)
    assert.is_true(count > 100)
  end)
end)
