local parts = require "perilune.config.parts"
local support = require "spec.unit.config_support"

local SOURCE = [[return {
  drain = "5s",
  providers = { b = { url = "http://127.0.0.1:1" }, a = { url = "http://127.0.0.1:2" } },
  routes = {
    { match = { model = "x" }, targets = { { provider = "a" }, { provider = "b", model = "m" } } },
    { match = { model = "*" }, targets = { { provider = "a", weight = 2 } } },
  },
}]]

--- "kind name" -> text
local function parts_of(source)
  local map = {}
  for _, part in ipairs(parts.of(support.load(source))) do
    local key = part.kind .. " " .. part.name
    assert.is_nil(map[key])
    map[key] = part.text
  end
  return map
end

--- The parts that differ, sorted.
local function changed(pattern, replacement)
  local before, after = parts_of(SOURCE), parts_of((SOURCE:gsub(pattern, replacement)))
  local names = {}
  for name, text in pairs(before) do
    if after[name] ~= text then table.insert(names, name) end
  end
  for name in pairs(after) do
    if not before[name] then table.insert(names, "+" .. name) end
  end
  table.sort(names)
  return names
end

describe("perilune.config.parts", function()
  it("is the same for the same configuration", function()
    assert.same(parts_of(SOURCE), parts_of(SOURCE))
    assert.same({}, changed("return {", "local one = 1\nreturn {"))
  end)

  it("names providers, targets, routes and settings", function()
    local all = parts_of(SOURCE)
    for _, name in ipairs({ "provider a", "provider b", "target a", "target b/m", "route x",
      "route *", "setting drain_ms", "setting limits.body_bytes", "setting admin.address" }) do
      assert.is_string(all[name], name)
    end
  end)

  it("tells what a change concerns, and nothing else", function()
    assert.same({ "setting drain_ms" }, changed('"5s"', '"6s"'))
    assert.same({ "provider b" }, changed(":1\"", ":3\""))
    assert.same({ "route *", "target a" }, changed("weight = 2", "weight = 3"))
    assert.same({ "+route y", "route x" }, changed('"x"', '"y"'))
    assert.same({ "+provider c" }, changed("providers = {",
      'providers = { c = { url = "http://127.0.0.1:9" },'))
  end)

  it("does not mind that the positions of targets move", function()
    assert.same({ "+route new", "+target b" }, changed("routes = {",
      'routes = { { match = { model = "new" }, targets = { { provider = "b" } } },'))
  end)
end)
