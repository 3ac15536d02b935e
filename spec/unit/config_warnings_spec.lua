local config = require "perilune.config"
local support = require "spec.unit.config_support"
local warnings = require "perilune.config.warnings"

local gateway = support.gateway

--- Warnings of a text that is good, as lines; `variables` are those that are set.
local function warnings_of(source, variables)
  local helpers = { env = function(name) return (variables or {})[name] end }
  local loaded, _, list = config.load(source, "gateway.lua", helpers)
  assert.is_table(loaded)
  local lines = {}
  for position, warning in ipairs(list) do lines[position] = config.describe_warning(warning) end
  return lines
end

local function unset(line, key, name)
  return ("gateway.lua:%d: warning: %s: the variable %s is not set, so it is as if this were not "
    .. 'written (secret "%s" would refuse that; env "%s" or nil says that it may be missing)'
    ):format(line, key, name, name, name)
end

describe("perilune.config.warnings", function()
  it("are none for what is well", function()
    assert.same({}, warnings_of(gateway {}))
    assert.same({}, warnings_of(gateway { primary = 'key = env "KEY",' }, { KEY = "sk" }))
  end)

  it("tell of a variable that is not set where a value is wanted", function()
    for _, call in ipairs { 'env "KEY"', "env 'KEY'", 'env("KEY")', "env [[KEY]]" } do
      local is_plain = not call:find("[[", 1, true)
      assert.same(is_plain and { unset(4, "providers.primary.key", "KEY") } or {},
        warnings_of(gateway { primary = "key = " .. call .. "," }))
    end
    assert.same({ unset(4, "providers.primary.key", "A"), unset(5, "providers.other.key", "B") },
      warnings_of(gateway { primary = 'key = env "A";',
        providers = 'other = { url = "http://x", key = env("B") },' }))
  end)

  it("tell of one within a local table, by its field's name", function()
    assert.same({ unset(1, "key", "KEY") },
      warnings_of('local primary = { url = "http://x", key = env "KEY" } '
        .. 'return { providers = { primary = primary }, '
        .. 'routes = { { targets = { { provider = "primary" } } } } }'))
  end)

  it("tell of a local that is nil", function()
    local text = 'local KEY = env "KEY" ' .. gateway { primary = "key = KEY," }
    assert.same({ "gateway.lua:4: warning: providers.primary.key: KEY is nil, so it is as if this "
      .. "were not written (KEY or nil says that it may be)" }, warnings_of(text))
    assert.same({}, warnings_of(text, { KEY = "sk" }))
  end)

  it("are none where it may be missing", function()
    for _, value in ipairs { 'env "KEY" or nil', 'env("KEY", "none")', "nil",
      'env "KEY" and "x" or nil', 'env("KEY") or env("KEY_2")' } do
      assert.same({}, warnings_of(gateway { primary = "key = " .. value .. "," }))
    end
    assert.same({}, warnings_of('local a, b = env "A", env "B" ' .. gateway {}))
    assert.same({}, warnings_of('local host = env "HOST" or "h" ' .. gateway {}))
  end)

  it("tell of a route that an earlier one leaves nothing", function()
    assert.same({}, warnings_of(gateway { route = 'match = { model = "gpt-*" },',
      routes = '{ match = { model = "*" }, targets = { { provider = "primary" } } },' }))
    local lines = warnings_of(gateway { route = 'match = { model = "gpt-*" },',
      routes = '{ match = { model = "gpt-4" }, targets = { { provider = "primary" } } },\n'
        .. '{ match = { model = "gpt-*" }, targets = { { provider = "primary" } } },' })
    assert.same({
      "gateway.lua:15: warning: routes[2]: never serves: routes[1] comes first and matches all "
        .. "that it matches",
      "gateway.lua:16: warning: routes[3]: never serves: routes[1] comes first and matches all "
        .. "that it matches" }, lines)
  end)

  it("tell of globals that code names and that do not exist", function()
    local function described(globals)
      local lines = {}
      for position, warning in ipairs(warnings.of_code("p.lua", globals, { "string", "pairs" })) do
        lines[position] = warnings.describe(warning)
      end
      return lines
    end
    assert.same({}, described { { name = "pairs", line = 1, is_set = false } })
    assert.same({ "p.lua:2: warning: there is no global 'os', it is nil here",
      "p.lua:7: warning: there is no global 'strnig', it is nil here: did you mean \"string\"?",
      "p.lua:9: warning: assigns the global 'pairs', which is an error when it runs: declare it "
        .. "with 'local'" },
      described { { name = "strnig", line = 7, is_set = false },
        { name = "pairs", line = 9, is_set = true }, { name = "os", line = 2, is_set = false } })
  end)
end)
