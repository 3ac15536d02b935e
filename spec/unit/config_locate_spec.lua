local config = require "perilune.config"
local support = require "spec.unit.config_support"

local problems_of = support.problems_of

describe("config.load, finding lines", function()
  --- The line it gives for workers = -1 in a text that holds nothing else.
  local function line_of(source)
    local _, _, problems = config.load(source, "gateway.lua")
    for _, problem in ipairs(problems) do
      if problem.key == "workers" then return problem.line end
    end
    error("no such problem")
  end

  it("skips comments and strings of all kinds", function()
    assert.are.equal(9, line_of([==[
-- return { workers = -1 }
--[[ return {
workers = -1 } ]]
--[=[ ]] return { ]=] local a = "return { workers = -1,"
local b = 'it\'s \
{ { {' local c = [[
return {]]
return { -- }
  workers = -1, drain = a .. b .. c }]==]))
  end)

  it("skips functions, blocks and expressions", function()
    assert.are.equal(9, line_of([[
local function f(x)
  if x then return { workers = 5 } end
  repeat local y = { 1, 2 } until y
  for _ = 1, 2 do x = y end
  while x do x = nil end
  return { workers = 1 } end
return {
  drain = f { workers = 2 } and (function() return { 1, 2 } end)(),
  workers = -1 }]]))
  end)

  it("reads every form of key", function()
    assert.are.equal(2, line_of('return { ["drain"] = "1s",\n  ["workers"] = -1 }'))
    assert.are.equal(2, line_of("return { ['drain'] = \"1s\";\n  ['workers'] = -1; }"))
    assert.are.equal(3, line_of("return {\n  drain\n = \"1s\", workers\n=\n-1 }"))
  end)

  it("counts lines as Lua does", function()
    assert.are.equal(3, line_of("return {\r\n\r\nworkers = -1 }"))
    assert.are.equal(3, line_of("return {\r\rworkers = -1 }"))
    assert.are.equal(3, line_of("\239\187\191return {\n\nworkers = -1 }"))
    assert.are.equal(2, line_of("#!/usr/bin/lua\nreturn { workers = -1 }"))
  end)

  it("finds items of lists", function()
    assert.are.same({
      "gateway.lua:1: providers: is required",
      "gateway.lua:3: routes[1].targets: must be a list, got 6",
      "gateway.lua: routes[2].targets: must not be empty", -- an expression: not followed
      "gateway.lua:4: routes[3]: must be a table, got 5",
    }, problems_of("return { routes = {\n{\ntargets = 6 }, nil or { targets = {} },\n5 } }"))
  end)

  it("says no line rather than a wrong one", function()
    assert.is_nil(line_of("local c = { workers = -1 }\nreturn c"))
    assert.is_nil(line_of("local k = 'workers'\nreturn { drain = '1s',\n [k] = -1 }"))
    assert.is_nil(line_of("return { ['work\\101rs'] = -1 }"))
    assert.is_nil(line_of("do return { workers = -1 } end"))
    assert.is_nil(line_of("return { workers = 5 } and { workers = -1 }"))
    local source = "local p = { url = 5 }\nreturn { providers = { p = p } }"
    local _, _, problems = config.load(source, "gateway.lua")
    assert.are.equal("providers.p.url", problems[1].key)
    assert.is_nil(problems[1].line)
  end)

  it("gives the line of the table that lacks a key", function()
    assert.are.same({
      "gateway.lua:3: providers.p.url: is required",
      "gateway.lua:5: routes[1].targets[1].provider: is required",
    }, problems_of("return {\nproviders = {\np = {}\n},\nroutes = { { targets = { {} } } } }"))
  end)

  it("ends on any text that Lua accepts", function()
    for _, source in ipairs {
      "return {} ;", "return { [1] = {}, [ [[x]] ] = {}, [-1] = 1, [0x10] = 2 }",
      "return { a = 1 == 2, 3 ~= 4, ... }", "return { -- }\n}", "goto done ::done:: return {}",
      "return { a = function(...) return ... end, [function() end] = { { } } }", "return ({})",
      "return { 'a' .. 1 .. [==[ ]=] ]==], #{}, not {} }", "return {{{{{{}}}}}}", "return {}, 5",
      "return { 1e5, .5, 0x1p4, 1e-5, x = - - 1 }",
    } do
      assert.is_true(#problems_of(source) > 0)
    end
  end)
end)

describe("config.policy_line", function()
  local source = [[
return {
  routes = {
    { name = "one",
      policy = "weighted" },
    {
      name = "two" },
  } }]]

  it("gives the line of a route's policy, or of the route", function()
    assert.are.equal(4, config.policy_line(source, 1))
    assert.are.equal(5, config.policy_line(source, 2))
  end)

  it("gives none when it cannot be told", function()
    assert.is_nil(config.policy_line("local r = {}\nreturn { routes = r }", 1))
    assert.is_nil(config.policy_line("return f()", 1))
  end)
end)
