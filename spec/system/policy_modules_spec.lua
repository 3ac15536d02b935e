--- `require` for files of the policies directory, and what `perilune check` says of them.

local support = require "support"

local process = require "support.process"

local CONFIG = [[
return {
  providers = { one = { url = "http://127.0.0.1:9/v1" } },
  routes = { { match = { model = "*" }, targets = { { provider = "one" } }, policy = "mine" } },
}
]]

local function write(folder, files)
  process.write_file(folder .. "/gateway.lua", CONFIG)
  for name, text in pairs(files) do
    local parent = name:match("^(.*)/[^/]*$")
    if parent then os.execute(("mkdir -p '%s/%s'"):format(folder, parent)) end
    process.write_file(folder .. "/" .. name, text)
  end
  return folder
end

local function check(folder)
  local pipe = io.popen(("'%s' check '%s' 2>&1; echo exit=$?"):format(
    os.getenv("PERILUNE_BIN") or "build/perilune", folder))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

local function check_files(files)
  return check(write(process.make_folder(), files))
end

local LUAC = string.dump(function() return 1 end)
local USES_IT = "local it = require 'lib.it' return function(req) return req:respond(200, it) end"

describe("require", function()
  after_each(support.finish)

  it("runs a file once, and gives it to all", function()
    local gw = support.gateway({ workers = 1, folder = write(process.make_folder(), {
      ["mine.lua"] = [[
        local tenants = require "tenants"
        local count = require "lib.deep.down.here.count"
        return function(req)
          local late = require "late"
          return req:respond(200, { limit = tenants.acme.limit, count = count(), late = late })
        end]],
      ["tenants.lua"] = "return { acme = { limit = 5 } }",
      ["late.lua"] = "return tostring(require 'tenants' == require('tenants'))",
      ["lib/deep/down/here/count.lua"] =
        "require 'tenants' local n = 0 return function() n = n + 1 return n end",
    }) })
    for number = 1, 3 do
      assert.same({ limit = 5, count = number, late = "true" }, gw:chat():json())
    end
  end)

  it("reads what Kubernetes mounts, each file once", function()
    local folder = process.make_folder()
    local data = folder .. "/..2026_01_01"
    os.execute(("mkdir -p '%s/lib'"):format(data))
    write(data, { ["mine.lua"] = USES_IT, ["lib/it.lua"] = "return { 'linked' }" })
    os.execute(("cd '%s' && ln -s ..2026_01_01 ..data && ln -s ..data/gateway.lua gateway.lua "
      .. "&& ln -s ..data/mine.lua mine.lua && ln -s ..data/lib lib && ln -s . again")
      :format(folder))
    assert.matches("ok", check(folder))
    local gw = support.gateway({ workers = 1, folder = folder })
    assert.same({ "linked" }, gw:chat():json())
  end)

  it("leaves out spec/ and hidden folders, whatever is in them", function()
    assert.matches("ok", check_files({ ["mine.lua"] = "return function() end",
      ["spec/mine_spec.lua"] = "syntax error", [".git/x.lua"] = "syntax error",
      ["spec/big.lua"] = ("x"):rep(1024 * 1024 + 1), ["lib/unused.lua"] = "syntax error" }))
  end)

  it("tells what is wrong, with the file and the line", function()
    local cases = {
      { "mine.lua:1: module 'lib.it': there is no file lib/it.lua in the directory" },
      { "lib/it.lua:2: boom", { ["lib/it.lua"] = "\nerror('boom')" } },
      { "lib/it.lua:1: unexpected symbol near '<eof>'", { ["lib/it.lua"] = "return {" } },
      { "lib/it.lua: must return a value", { ["lib/it.lua"] = "" } },
      { "lib/it.lua: is compiled code", { ["lib/it.lua"] = LUAC } },
      { "lib/it.lua: is not a regular file", { ["lib/it.lua/x"] = "" } },
      { "lib/it.lua: is larger than", { ["lib/it.lua"] = ("-"):rep(1024 * 1024 + 1) } },
      { "requires itself: lib/it.lua %-> b.lua %-> lib/it.lua",
        { ["lib/it.lua"] = "return (require 'b')", ["b.lua"] = "return (require 'lib.it')" } },
      { "gateway.lua is the configuration", { ["lib/it.lua"] = "return require 'gateway'" } },
      { "global 'count' cannot be set", { ["lib/it.lua"] = "count = 1 return 1" } },
      { "lib/it.lua:1: .*CPU", { ["lib/it.lua"] = "while true do end" } },
      { "only while a request is handled",
        { ["lib/it.lua"] = "require('perilune').sleep('1ms') return 1" } },
    }
    for _, case in ipairs(cases) do
      local files = { ["mine.lua"] = USES_IT }
      for name, text in pairs(case[2] or {}) do files[name] = text end
      local said = check_files(files)
      assert.matches(case[1], said)
      assert.matches("exit=1", said)
    end
  end)

  it("within a request cannot wait, and harms nobody when it fails", function()
    local gw = support.gateway({ workers = 1, folder = write(process.make_folder(), {
      ["mine.lua"] = [[
        return function(req)
          local ok, problem = pcall(require, req.headers["x-name"])
          return req:respond(200, { problem = tostring(problem) })
        end]],
      ["waits.lua"] = "require('perilune').sleep('1ms') return 1",
      ["raises.lua"] = "error('boom')",
      ["fine.lua"] = "return 'fine'",
    }) })
    local function ask(name)
      return gw:chat({ headers = { ["X-Name"] = name } }):json().problem
    end
    assert.matches("waits.lua: .*nor in a module's file", ask("waits"))
    assert.matches("raises.lua:1: boom", ask("raises"))
    assert.matches("raises.lua:1: boom", ask("raises"))
    assert.equal("fine", ask("fine"))
    assert.matches("there is no file", ask("../etc"):gsub("is not available", "there is no file"))
  end)

  it("is bounded in files, folders and depth", function()
    local files = { ["mine.lua"] = USES_IT, ["lib/it.lua"] = "return 1" }
    for number = 1, 260 do files[("many/f%d.lua"):format(number)] = "return 1" end
    assert.matches("more than 256 .lua files", check_files(files))
    files = { ["mine.lua"] = "return require 'a.b.c.d.e.f'", ["a/b/c/d/e/f.lua"] = "return 1" }
    assert.matches("there is no file a/b/c/d/e/f.lua", check_files(files))
    local folder = write(process.make_folder(), { ["mine.lua"] = "return function() end" })
    os.execute(("cd '%s' && for n in $(seq 300); do mkdir d$n; done"):format(folder))
    assert.matches("more than 256 folders", check(folder))
  end)
end)
