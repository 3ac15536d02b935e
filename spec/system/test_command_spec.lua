--- `perilune test`: which specs it runs, what it says, and its exit status.

local support = require "support"

local GATEWAY = [[
return { providers = { a = { url = "http://127.0.0.1:1" } },
  routes = { { targets = { { provider = "a" } } } } }
]]
local GOOD = [[
local testing = require "perilune.testing"
describe("good", function()
  it("answers", function()
    assert.equal(200, testing.world():request({ model = "m" }).status)
  end)
  it("is another one", function() end)
end)
]]
local BAD = 'it("fails", function() assert.equal(1, 2) end)'

--- A directory of policies with these specs: path below spec/ -> source.
local function folder_with(specs)
  local folder = support.make_folder()
  support.write_file(folder .. "/gateway.lua", GATEWAY)
  support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
  for path, source in pairs(specs) do
    local parent = (folder .. "/spec/" .. path):match("^(.*)/")
    assert.equal(0, support.run({ "mkdir", "-p", parent }).status)
    support.write_file(folder .. "/spec/" .. path, source)
  end
  return folder
end

local function test(folder, ...)
  return support.perilune { "test", folder, ... }
end

describe("perilune test", function()
  after_each(support.finish)

  it("runs all specs below DIR/spec, and nothing else there", function()
    local folder = folder_with { ["a_spec.lua"] = GOOD, ["deep/b_spec.lua"] = GOOD,
      ["helper.lua"] = "error('is no spec')" }
    for _, name in ipairs { folder, folder .. "/" } do
      local result = test(name)
      assert.equal(0, result.status)
      assert.equal("", result.stderr)
      assert.matches("4 successes / 0 failures / 0 errors", result.stdout)
    end
  end)

  it("fails when one of them does", function()
    local result = test(folder_with { ["a_spec.lua"] = GOOD, ["b_spec.lua"] = BAD })
    assert.equal(1, result.status)
    assert.matches("2 successes / 1 failure / 0 errors", result.stdout)
    assert.matches("b_spec.lua:1: Expected", result.stdout)
  end)

  it("fails when one cannot be loaded", function()
    local result = test(folder_with { ["a_spec.lua"] = "describe(" })
    assert.equal(1, result.status)
    assert.matches("0 successes / 0 failures / 1 error", result.stdout)
  end)

  it("hands on options to busted", function()
    local folder = folder_with { ["a_spec.lua"] = GOOD, ["b_spec.lua"] = BAD }
    local result = test(folder, "--", "--filter=answers", "--output=TAP")
    assert.equal(0, result.status)
    assert.equal("ok 1 - good answers\n1..1\n", result.stdout)
    assert.equal(1, test(folder, "--", "--no-such-option").status)
  end)

  it("lets specs share modules of theirs, and find those of the system", function()
    local folder = folder_with { ["shared.lua"] = "return { seven = 7 }", ["a_spec.lua"] = [[
      it("shares", function()
        assert.equal(7, require("shared").seven)
        assert.equal(8, require("elsewhere").eight)
        assert.is_table(require("perilune.testing"))
        assert.has_error(function() require("perilune.nowhere") end)
      end)]] }
    support.write_file(folder .. "/elsewhere.lua", "return { eight = 8 }")
    local result = support.perilune({ "test", folder },
      { env = { LUA_PATH = folder .. "/?.lua;;" } })
    assert.equal(0, result.status, result.stdout)
  end)

  it("says when there is nothing to run", function()
    local folder = folder_with { ["helper.lua"] = "return 1" }
    local result = test(folder)
    assert.equal(2, result.status)
    assert.equal(("perilune test: there are no specs: no file in %s/spec ends in _spec.lua\n")
      :format(folder), result.stderr)
    assert.equal(2, test("/nowhere").status)
  end)

  it("says how to get busted where it is not installed", function()
    local folder = folder_with { ["a_spec.lua"] = GOOD }
    local result = support.perilune({ "test", folder }, { env = {
      LUA_PATH = folder .. "/?.lua", LUA_CPATH = folder .. "/?.so" } })
    assert.equal(2, result.status)
    assert.matches("^perilune test: busted, which runs the specs, cannot be loaded: ",
      result.stderr)
    assert.matches("apt%-get install lua%-busted", result.stderr)
  end)

  it("refuses what it does not know", function()
    for _, arguments in ipairs { { "test", "--filter=x" }, { "test", "a", "b" } } do
      local result = support.perilune(arguments)
      assert.equal(2, result.status)
      assert.matches("^perilune test: .*usage: perilune test %[DIR%]", result.stderr)
    end
  end)
end)
