local modules = require "perilune.modules"

--- A require over sources; `runs` counts how often each file ran.
local function make(sources)
  local burst, runs, require_of = { number = 1 }, {}, {}
  local require = modules.new {
    sources = sources,
    public = function() return "the public module" end,
    burst = function() return burst.number end,
    load = function(text, file)
      runs[file] = (runs[file] or 0) + 1
      local chunk = assert(loadstring(text, "@" .. file))
      return setfenv(chunk, { require = require_of.it, error = error, pcall = pcall, stop = burst })
    end,
    run = function(chunk) return (chunk()) end,
  }
  require_of.it = require
  return require, runs, burst
end

local function problem_of(require, name)
  local ok, problem = pcall(require, name)
  assert.is_false(ok)
  return problem
end

describe("perilune.modules", function()
  it("gives what a file returns, once", function()
    local require, runs = make { ["tenants.lua"] = "return { n = 1 }" }
    local first = require "tenants"
    assert.same({ n = 1 }, first)
    assert.equal(first, require "tenants")
    assert.equal(1, runs["tenants.lua"])
  end)

  it("gives any value but nil", function()
    local require = make { ["a.lua"] = "return false", ["b.lua"] = "return 'text'",
      ["c.lua"] = "local x = 1" }
    assert.is_false(require "a")
    assert.equal("text", require "b")
    assert.equal("c.lua: must return a value, as a module, and returns none",
      problem_of(require, "c"))
  end)

  it("finds files in folders", function()
    local require = make { ["lib/deep/x.lua"] = "return require 'lib.y' + 1",
      ["lib/y.lua"] = "return 1" }
    assert.equal(2, require "lib.deep.x")
  end)

  it("knows the public module, whatever the files", function()
    local require = make { ["perilune.lua"] = "return 1", ["perilune/x.lua"] = "return 2" }
    assert.equal("the public module", require "perilune")
    assert.matches("not available to policies", problem_of(require, "perilune.x"))
  end)

  it("names the file that is not there", function()
    local require = make {}
    assert.matches("module 'lib.x': there is no file lib/x.lua in the directory",
      problem_of(require, "lib.x"), 1, true)
    assert.matches("files in spec/ are not for policies", problem_of(require, "spec.x"), 1, true)
    assert.matches("gateway.lua is the configuration", problem_of(require, "gateway"), 1, true)
  end)

  it("takes names only that can be files of the directory", function()
    local require = make { ["x.lua"] = "return 1" }
    for _, name in ipairs({ "", ".", "..", ".x", "x.", "a..b", "../x", "/x", "x/y", "x\0", "x y",
      ("x"):rep(300), 1, true, {} }) do
      assert.matches("is not available to policies", problem_of(require, name))
    end
    assert.matches("module 'nil'", problem_of(require, nil))
  end)

  it("names a cycle, and only the cycle", function()
    local require = make { ["start.lua"] = "return require 'a'", ["a.lua"] = "return require 'b'",
      ["b.lua"] = "return (require 'c')", ["c.lua"] = "return (require 'a')" }
    assert.matches("module 'a': requires itself: a.lua -> b.lua -> c.lua -> a.lua",
      problem_of(require, "start"), 1, true)
    -- and again: nothing is left half loaded
    assert.matches("a.lua -> b.lua -> c.lua -> a.lua", problem_of(require, "start"), 1, true)
    assert.matches("b.lua -> c.lua -> a.lua -> b.lua", problem_of(require, "b"), 1, true)
  end)

  it("names the file of a problem", function()
    local require = make { ["a.lua"] = "\n\nerror('boom')", ["b.lua"] = "error({})",
      ["c.lua"] = "error('bare', 0)", ["d.lua"] = "return (require 'a')" }
    assert.equal("a.lua:3: boom", problem_of(require, "a"))
    assert.equal("b.lua: raises an error without a message", problem_of(require, "b"))
    assert.equal("c.lua: bare", problem_of(require, "c"))
    assert.equal("d.lua: a.lua:3: boom", problem_of(require, "d"))
  end)

  it("runs a file again that has failed", function()
    local require, runs, state = make {
      ["a.lua"] = "if not stop.ready then error('no') end return 1",
    }
    problem_of(require, "a")
    state.ready = true
    assert.equal(1, require "a")
    assert.equal(2, runs["a.lua"])
  end)

  it("lets a file be required that a stopped burst was in the middle of", function()
    local require, _, state
    require, _, state = make { ["a.lua"] = "if stop.number == 1 then stop.go() end return 1" }
    local stopped = coroutine.create(function() require "a" end)
    state.go = coroutine.yield -- never resumed, as by an overrun: no clean-up ran
    assert.is_true(coroutine.resume(stopped))
    assert.matches("requires itself", problem_of(require, "a"))
    state.number = 2
    assert.equal(1, require "a")
  end)
end)
