local support = require "support"

--- As policies/gateway.lua, on ports that are free.
local CONFIG = [[
return {
  providers = {
    primary = { url = "http://127.0.0.1:%d/v1" },
    fallback = { url = "http://127.0.0.1:%d/v1" },
  },
  routes = {
    {
      match = { model = "gpt-4" },
      targets = {
        { provider = "primary", priority = 0 },
        { provider = "fallback", priority = 1 },
      },
    },
  },
}
]]

local function is_running(pid)
  local stat = support.read_file("/proc/" .. pid .. "/stat")
  return stat ~= nil and not stat:find(") Z", 1, true)
end

--- Process ids of the children of a process.
local function children_of(pid)
  local text = support.read_file(("/proc/%d/task/%d/children"):format(pid, pid)) or ""
  local pids = {}
  for child in text:gmatch("%d+") do
    pids[#pids + 1] = tonumber(child)
  end
  return pids
end

local function start_quickstart(ports, expects_failure)
  local folder = support.make_folder()
  support.write_file(folder .. "/gateway.lua", CONFIG:format(ports[1], ports[2]))
  support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
  return support.start({
    command = { "examples/quickstart/run" },
    env = {
      PERILUNE_BIN = support.BINARY,
      POLICIES = folder,
      PRIMARY_PORT = ports[1],
      FALLBACK_PORT = ports[2],
      RUN_DIR = folder .. "/run",
      LISTEN = "127.0.0.1:0",
      ADMIN = "127.0.0.1:0",
    },
    expects_failure = expects_failure,
  })
end

describe("make run", function()
  after_each(support.finish)

  it("prints a command that works, and leaves nothing behind", function()
    local ports = { support.free_port(), support.free_port() }
    local quickstart = start_quickstart(ports, true)
    local command = quickstart:wait_output("stdout", "\n(curl [^\n]+)")
    for _ = 1, 10 do
      local result = support.run({ "sh", "-c", command })
      assert.equal(0, result.status)
      assert.matches("^HTTP/1.1 200 OK", result.stdout)
      assert.matches('"chat.completion"', result.stdout)
    end

    local children = children_of(quickstart.pid)
    assert.is_true(#children >= 3)
    quickstart:signal("TERM")
    assert.equal(143, quickstart:wait_exit())
    for _, pid in ipairs(children) do
      assert.is_false(is_running(pid))
    end
  end)

  it("leaves nothing behind when it is killed", function()
    local ports = { support.free_port(), support.free_port() }
    local quickstart = start_quickstart(ports, true)
    quickstart:wait_output("stdout", "Ctrl%-C ends")
    local children = children_of(quickstart.pid)
    quickstart:kill()
    support.wait_until("the end of the gateway and the providers", function()
      return not (is_running(children[1]) or is_running(children[2]) or is_running(children[3]))
    end)
  end)

  it("says what did not start, and ends the rest", function()
    local taken = support.upstream(function() end)
    local free = support.free_port()
    local quickstart = start_quickstart({ free, taken.port }, true)
    assert.equal(1, quickstart:wait_exit())
    assert.matches("quickstart: the fallback did not start", quickstart:stderr())
    assert.has.error(function() support.connect(free) end)
  end)

  it("goes on without a provider, and ends when the gateway does", function()
    local ports = { support.free_port(), support.free_port() }
    local quickstart = start_quickstart(ports, true)
    local command = quickstart:wait_output("stdout", "\n(curl [^\n]+)")
    local children = children_of(quickstart.pid)
    support.run({ "sh", "-c", "kill -KILL " .. children[1] })
    local result = support.run({ "sh", "-c", command })
    assert.matches("x%-perilune%-trail: primary;connect;%d+ms, fallback;200;", result.stdout)
    support.run({ "sh", "-c", "kill -KILL " .. children[3] })
    assert.equal(1, quickstart:wait_exit())
    assert.matches("the gateway has ended", quickstart:stderr())
    for _, pid in ipairs(children) do
      assert.is_false(is_running(pid))
    end
  end)
end)
