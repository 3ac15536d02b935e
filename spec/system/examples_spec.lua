--- The examples, each started by its `run` on ports of the system's choice and with shorter times:
-- the commands of its README are run one after the other and must print what it says, and what it
-- promises is counted.

local cjson = require "cjson.safe"
local sched = require "support.sched"
local support = require "support"

--- A time that is long enough here, in milliseconds.
local function ms(number)
  return ('"%dms"'):format(number * sched.patience)
end

local function sleep(milliseconds)
  return ("sleep %.2f"):format(milliseconds * sched.patience / 1000)
end

-- A simulated provider that takes no time.
local INSTANT = {
  ["time-to-first-token-std-dev"] = "0s", ["time-to-first-token"] = "0s",
  ["inter-token-latency-std-dev"] = "0s", ["inter-token-latency"] = "0s",
}

--- Waits in a README's shell until `health` has a line.
local function until_health(line)
  return ("until health | grep -q '%s'; do sleep 0.05; done"):format(line)
end

-- Example -> its providers in the order of their ports from 8000 on, its policy's file, and what is
-- shortened in gateway.lua and in the README: pairs of text and replacement.
local EXAMPLES = {
  ["provider-fallback"] = {
    providers = { "primary", "fallback" },
    policy = "fallback",
    config = {
      { 'base_ejection = "10s"', "base_ejection = " .. ms(2000) },
      { 'head = "30s", first_token = "30s"',
        "head = " .. ms(3000) .. ", first_token = " .. ms(3000) },
      { 'interval = "10s", timeout = "3s",',
        "interval = " .. ms(500) .. ", timeout = " .. ms(500) .. "," },
      { "unhealthy_after = 3, healthy_after = 2", "unhealthy_after = 3, healthy_after = 2" },
    },
    readme = {
      { "sleep 12", until_health "name:primary/gpt-4 state:half_open" },
      { "sleep 35", until_health "name:primary state:open" },
      { "sleep 25", "until primary '" .. cjson.encode(INSTANT) .. "'; do sleep 0.05; done\n"
        .. until_health "name:primary state:closed" },
    },
  },
  ["priority-groups"] = {
    providers = { "limited", "member", "reserve" },
    policy = "once",
    config = {
      { '["retry-after"] = "60"', ('["retry-after-ms"] = "%d"'):format(2000 * sched.patience) },
    },
    readme = {
      { "sleep 61", sleep(2200) }, { "%header{retry-after}", "%header{retry-after-ms}" },
      { " 60\n", (" %d\n"):format(2000 * sched.patience) },
    },
  },
  ["model-virtualization"] = {
    providers = { "large", "medium", "small" },
    policy = "virtual",
    config = {
      { 'base_ejection = "5s"', "base_ejection = " .. ms(1500) },
      { 'base = "100ms"', "base = " .. ms(1) },
    },
    readme = { { "sleep 6", sleep(1800) }, { "sleep 12", sleep(3500) } },
  },
}

local function replace(text, pairs_of_texts, where)
  for _, pair in ipairs(pairs_of_texts) do
    local from = pair[1]:gsub("%W", "%%%0")
    local to = pair[2]:gsub("%%", "%%%%")
    local count
    text, count = text:gsub(from, to)
    assert(count > 0, ("%s: there is no %q"):format(where, pair[1]))
  end
  return text
end

--- A copy of an example's policies with its times made shorter.
local function shortened(name, example)
  local folder, home = support.make_folder(), "examples/" .. name
  local source = support.read_file(home .. "/gateway.lua")
  support.write_file(folder .. "/gateway.lua", replace(source, example.config, home))
  local policy = "/" .. example.policy .. ".lua"
  support.write_file(folder .. policy, support.read_file(home .. policy))
  return folder
end

local Example = {}
Example.__index = Example

--- Starts an example.
-- @treturn table ports (by provider, and gateway, admin), env, process; ask(), sim(), targets()
local function start(name)
  local example = EXAMPLES[name]
  local self = setmetatable({ name = name, ports = {} }, Example)
  self.env = {
    PERILUNE_BIN = support.BINARY, POLICIES = shortened(name, example),
    LISTEN = "127.0.0.1:0", ADMIN = "127.0.0.1:0", RUN_DIR = support.make_folder() .. "/run",
  }
  for _, provider in ipairs(example.providers) do
    self.ports[provider] = support.free_port()
    self.env[provider:upper() .. "_PORT"] = self.ports[provider]
  end
  self.process = support.start {
    command = { "examples/" .. name .. "/run" }, env = self.env, expects_failure = true,
  }
  local gateway, admin = self.process:wait_output("stdout",
    "perilune: listening on %S-:(%d+), admin on %S-:(%d+)")
  self.ports.gateway, self.ports.admin = tonumber(gateway), tonumber(admin)
  return self
end

--- Changes a simulated provider while it runs.
function Example:configure(provider, options)
  local answer = support.request {
    to = self.ports[provider], path = "/admin/config", json = options,
  }
  assert.equal(200, answer.status)
end

--- How many requests for answers a simulated provider has seen.
function Example:asked_count(provider)
  return support.request({ to = self.ports[provider], path = "/admin/stats" }):json().requests
end

--- One chat completion; its trail without times in `trail`.
function Example:ask(model, options)
  local request = { to = self.ports.gateway, model = model }
  for key, value in pairs(options or {}) do request[key] = value end
  local answer = support.chat(request)
  answer.trail = (answer.headers["x-perilune-trail"] or ""):gsub(";%d+ms", "")
  return answer
end

--- A target as GET /admin/targets shows it.
function Example:target(name)
  local answer = support.request {
    to = self.ports.admin, path = "/admin/targets", host = "127.0.0.1",
  }
  for _, target in ipairs(answer:json().targets) do
    if target.name == name then return target end
  end
  error("there is no target " .. name)
end

function Example:process_id(of)
  return assert(support.read_file(("%s/%s.pid"):format(self.env.RUN_DIR, of))):match("%d+")
end

-- ---- READMEs ------------------------------------------------------------------------------------

--- The fenced blocks of a README: { commands, expected (nil when it does not say) }.
local function blocks_of(readme)
  local blocks = {}
  for language, text in readme:gmatch("\n```(%w*)\n(.-\n)```") do
    if language == "sh" then
      blocks[#blocks + 1] = { commands = text }
    else
      blocks[#blocks].expected = text
    end
  end
  return blocks
end

--- The README with the ports, the folder and the times of this run.
local function adapted_readme(self)
  local example = EXAMPLES[self.name]
  local path = ("examples/%s/README.md"):format(self.name)
  local text = replace(support.read_file(path), example.readme, path)
  local port_of = { ["8080"] = self.ports.gateway, ["9901"] = self.ports.admin }
  for index, provider in ipairs(example.providers) do
    port_of[tostring(7999 + index)] = self.ports[provider]
  end
  text = text:gsub("127%.0%.0%.1:(%d+)", function(port)
    return "127.0.0.1:" .. assert(port_of[port], port)
  end)
  text = text:gsub("build/perilune", support.BINARY)
  return (text:gsub("build/run/" .. self.name:gsub("%-", "%%-"), self.env.RUN_DIR))
end

local MARK = "@@@ "

local function in_one_script(blocks)
  local parts = { "set -eu -o pipefail\n" }
  for index, block in ipairs(blocks) do
    parts[#parts + 1] = ("echo '%s%d'\n"):format(MARK, index) .. block.commands
  end
  return table.concat(parts)
end

--- What differs from run to run: how long it took.
local function without_times(text)
  return (text:gsub(";%d+ms", ";Nms"))
end

--- Runs all commands of the README in one shell and compares what they print.
local function run_readme(self)
  local blocks = blocks_of(adapted_readme(self))
  assert.is_true(#blocks > 3)
  local result = support.run({ "bash", "-c", in_one_script(blocks) },
    { env = self.env, timeout_s = 60 })
  assert.equal("", result.stderr)
  for index, block in ipairs(blocks) do
    local output = result.stdout:match(MARK .. index .. "\n(.-)\n?" .. MARK)
      or result.stdout:match(MARK .. index .. "\n(.*)$")
    block.output = output:gsub("\n$", "")
    if block.expected then
      assert.equal(without_times(block.expected):gsub("\n$", ""), without_times(block.output))
    end
  end
  assert.equal(0, result.status)
  return blocks
end

--- What the block with those commands has printed, as count by what was counted.
local function counts_of(blocks, commands)
  for _, block in ipairs(blocks) do
    if block.commands:find(commands, 1, true) then
      local counts = {}
      for count, what in block.output:gmatch("(%d+) ([^\n]+)") do counts[what] = tonumber(count) end
      return counts
    end
  end
  error("the README has no command " .. commands)
end

local function assert_near(expected, actual, tolerance, what)
  assert.is_true(math.abs(actual - expected) <= tolerance,
    ("%s: %s instead of %s"):format(what, tostring(actual), tostring(expected)))
end

-- ---- the specs ----------------------------------------------------------------------------------

describe("the examples", function()
  after_each(support.finish)

  for name in pairs(EXAMPLES) do
    it("are well as they lie there: " .. name, function()
      local result = support.perilune { "check", "examples/" .. name }
      assert.equal(0, result.status)
      local listed = support.read_file("examples/README.md")
      assert.truthy(listed:find(("`examples/%s/run`"):format(name), 1, true))
    end)
  end

  it("start one provider alone, and know which there are", function()
    local port = support.free_port()
    local one = support.start {
      command = { "examples/provider-fallback/run", "fallback" },
      env = { PERILUNE_BIN = support.BINARY, FALLBACK_PORT = port },
    }
    one:wait_output("stdout", "listening on %S-:" .. port)
    assert.equal(200, support.chat({ to = port }).status)
    local result = support.run({ "examples/provider-fallback/run", "another" },
      { env = { PERILUNE_BIN = support.BINARY } })
    assert.equal(1, result.status)
    assert.equal("provider-fallback: there is no provider another\n", result.stderr)
  end)
end)

describe("provider-fallback", function()
  local example
  before_each(function()
    example = start("provider-fallback")
    example:configure("primary", INSTANT)
    example:configure("fallback", INSTANT)
  end)
  after_each(support.finish)

  it("does what its README says", function()
    local blocks = run_readme(example)
    local counts = counts_of(blocks, "ask gpt-4-shared")
    -- each of the gateway's threads begins its own turn
    assert_near(40, counts["200 primary/gpt-4"], 4, "requests of fifty to the primary")
    assert_near(10, counts["200 fallback/gpt-4"], 4, "requests of fifty to the fallback")
    assert.matches("on to the next", example.process:stdout())
  end)

  it("lets one request alone find out whether the primary is well", function()
    example:configure("primary", { ["failure-injection-rate"] = 100,
      ["failure-types"] = { "server_error" } })
    for _ = 1, 5 do
      assert.equal("primary/gpt-4;503, fallback/gpt-4;200", example:ask("gpt-4").trail)
    end
    local before = example:asked_count("primary")
    assert.equal("fallback/gpt-4;200", example:ask("gpt-4").trail)
    assert.equal("consecutive_5xx", example:target("primary/gpt-4").why)
    example:configure("primary", { ["failure-injection-rate"] = 0,
      ["time-to-first-token"] = "150ms" })
    support.wait_until("the end of the ejection", function()
      return example:target("primary/gpt-4").state == "half_open"
    end)
    local requests = {}
    for number = 1, 8 do
      requests[number] = function() return example:ask("gpt-4").trail end
    end
    local trails = { ["primary/gpt-4;200"] = 0, ["fallback/gpt-4;200"] = 0 }
    for _, trail in ipairs(support.together(requests)) do trails[trail] = trails[trail] + 1 end
    assert.same({ ["primary/gpt-4;200"] = 1, ["fallback/gpt-4;200"] = 7 }, trails)
    assert.equal(before + 1, example:asked_count("primary"))
    assert.equal("primary/gpt-4;200", example:ask("gpt-4").trail)
  end)
end)

describe("priority-groups", function()
  after_each(support.finish)

  it("does what its README says, and the second group is never reached from the first", function()
    local example = start("priority-groups")
    run_readme(example)
    assert.equal(19, example:target("member/gpt-4o-mini").counters.ok)
    local reserve = example:target("reserve/gpt-4o-mini")
    assert.equal(0, reserve.counters.ok + reserve.counters.neutral + reserve.counters.rejected)
  end)
end)

describe("model-virtualization", function()
  local example

  before_each(function()
    example = start("model-virtualization")
  end)
  after_each(support.finish)

  it("does what its README says", function()
    local counts = counts_of(run_readme(example), "ask virtual-qwen-model")
    for target, count in pairs { ["large/qwen2.5:7b"] = 25, ["medium/qwen2.5:1.5b"] = 15,
      ["small/qwen2.5:0.5b"] = 10 } do
      assert_near(count, counts["200 " .. target], 4, "requests of fifty to " .. target)
    end
  end)

  it("shares a thousand requests 50 to 30 to 20", function()
    local counts, connection = {}, support.connect(example.ports.gateway)
    local body = cjson.encode { model = "virtual-qwen-model",
      messages = { { role = "user", content = "Hello" } } }
    for _ = 1, 1000 do
      local answer = connection:request { path = "/v1/chat/completions", body = body,
        headers = { ["Content-Type"] = "application/json" } }
      assert.equal(200, answer.status)
      local model = answer.body:match('"model":"([^"]*)"')
      counts[model] = (counts[model] or 0) + 1
    end
    assert_near(500, counts["qwen2.5:7b"], 30, "requests to the large model")
    assert_near(300, counts["qwen2.5:1.5b"], 30, "requests to the medium model")
    assert_near(200, counts["qwen2.5:0.5b"], 30, "requests to the small model")
  end)

  it("moves on from every trigger in its list", function()
    for _, status in ipairs { 500, 502, 503, 504, 404, 401, 403 } do
      for _, target in ipairs { "large/qwen2.5:7b", "small/qwen2.5:0.5b" } do
        local answer = support.request { to = example.ports.admin, host = "127.0.0.1",
          method = "POST", path = "/admin/targets/restore?target=" .. target }
        assert.equal(200, answer.status)
      end
      local answer = example:ask("qwen-with-fallback",
        { headers = { ["X-Return-Error"] = status }, timeout_s = 20 })
      assert.equal(status, answer.status) -- both return it, in all six tries
      local round = ("large/qwen2.5:7b;%d, small/qwen2.5:0.5b;%d"):format(status, status)
      assert.equal(("%s, %s, %s"):format(round, round, round), answer.trail)
    end
  end)

  it("loses no request when the large model's provider is killed in between", function()
    local requests = {}
    for number = 1, 20 do
      requests[number] = function()
        if number == 8 then
          support.run { "sh", "-c", "kill -KILL " .. example:process_id("large") }
        end
        return example:ask("qwen-with-fallback",
          { headers = { ["x-sim-time-to-first-token"] = "20ms" } })
      end
    end
    for number = 1, 20, 4 do -- four at a time
      for _, answer in ipairs(support.together { unpack(requests, number, number + 3) }) do
        assert.equal(200, answer.status)
      end
    end
    assert.equal("small/qwen2.5:0.5b;200", example:ask("qwen-with-fallback").trail)
    support.start { command = { "examples/model-virtualization/run", "large" }, env = example.env }
    support.wait_until("answers of the large model", function()
      return example:ask("qwen-with-fallback").trail == "large/qwen2.5:7b;200"
    end)
  end)
end)
