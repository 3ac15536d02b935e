-- Looking at a running simulator and changing it; and bodies that mean harm.
local options = require "perilune.sim.options"
local random = require "perilune.sim.random"
local sim = require "spec.unit.sim_support"

describe("/admin/config", function()
  it("shows every option, durations as text", function()
    local world = sim.start { "--time-to-first-token", "1500ms", "--model", "m", "--retry-after",
      "5" }
    local shown = world:get("/admin/config"):json()
    for _, option in ipairs(options.all) do assert.is_not_nil(shown[option.flag], option.flag) end
    assert.equal("1.5s", shown["time-to-first-token"])
    assert.equal("0s", shown["inter-token-latency"])
    assert.equal("m", shown.model)
    assert.equal(1, shown.seed)
    assert.equal("5", shown["retry-after"])
    assert.is_false(shown["log-http"])
    assert.matches('"failure%-types":%[%]', world:get("/admin/config").body)
  end)

  it("changes failures for the requests that follow", function()
    local world = sim.start()
    local answer = world:post("/admin/config",
      { ["failure-injection-rate"] = 100, ["failure-types"] = { "rate_limit" },
        ["retry-after"] = 3 })
    assert.equal(200, answer.status)
    assert.same({ "rate_limit" }, answer:json()["failure-types"])
    answer = world:post("/v1/chat/completions", sim.chat("a"))
    assert.equal(429, answer.status)
    assert.equal("3", answer.headers["retry-after"])
    world:post("/admin/config", { ["failure-injection-rate"] = 0 })
    assert.equal(200, world:post("/v1/chat/completions", sim.chat("a")).status)
  end)

  it("starts --fail-first anew when it is set", function()
    local world = sim.start { "--fail-first", "1", "--failure-types", "server_error", "cut" }
    local function status()
      return world:post("/v1/chat/completions", sim.chat("a", { stream = true })).status
    end
    assert.same({ 503, 200 }, { status(), status() })
    world:post("/admin/config", '{"fail-first":2,"cut-after":0}')
    local second
    assert.equal(503, status())
    second = world:post("/v1/chat/completions", sim.chat("a", { stream = true }))
    assert.equal("cut", second.ended)
    assert.equal(200, status())
    world:post("/admin/config", '{"fail-pattern":".x","failure-types":["invalid_api_key"]}')
    assert.same({ 200, 401, 200 }, { status(), status(), status() })
  end)

  it("takes durations as text or as nanoseconds, and null as no change", function()
    local world = sim.start { "--mode", "echo", "--inter-token-latency", "7ms" }
    local answer = world:post("/admin/config", '{"time-to-first-token":"250ms",'
      .. '"inter-token-latency":null,"prefill-overhead":3000000,"time-factor-under-load":1.5}')
    assert.equal(200, answer.status)
    assert.equal("250ms", answer:json()["time-to-first-token"])
    assert.equal("7ms", answer:json()["inter-token-latency"])
    assert.equal("3ms", answer:json()["prefill-overhead"])
    assert.equal(250, world:post("/v1/chat/completions", sim.chat("a")).end_ms)
  end)

  it("leaves a request that runs as it began", function()
    local world = sim.start { "--mode", "echo", "--inter-token-latency", "10ms" }
    local answer = world:begin("POST", "/v1/chat/completions", sim.chat("a b c"))
    world:post("/admin/config", '{"inter-token-latency":"1s"}')
    world:advance(10000)
    assert.equal(20, answer.end_ms)
  end)

  it("refuses as a whole what is wrong", function()
    local world = sim.start { "--mode", "echo" }
    local before = world:get("/admin/config").body
    for body, message in pairs {
      ['{"port":1}'] = "'port' cannot be changed while running",
      ['{"nonsense":1}'] = "'nonsense' cannot be changed while running",
      ['{"failure-injection-rate":101}']
        = "failure-injection-rate must be a whole number from 0 to 100",
      ['{"failure-injection-rate":"5"}']
        = "failure-injection-rate must be a whole number from 0 to 100",
      ['{"time-to-first-token":"soon"}'] = "time-to-first-token is not a duration: write a number "
        .. "with a unit, such as 100ms, 1.5s or 2m",
      ['{"time-to-first-token":-1}'] = 'time-to-first-token must be a duration such as "250ms"',
      ['{"time-to-first-token":{}}'] = 'time-to-first-token must be a duration such as "250ms"',
      ['{"failure-types":"cut"}'] = "failure-types must be an array",
      ['{"failure-types":{"a":1}}'] = "failure-types must be an array",
      ['{"time-to-first-token-std-dev":"1ms"}']
        = "time-to-first-token-std-dev cannot be more than 30% of time-to-first-token",
      ['{"latency-calculator":"magic"}']
        = 'latency-calculator must be one of: constant, per-token, ""',
      ['{"time-factor-under-load":"2"}']
        = "time-factor-under-load must be a number from 1 to 1000",
      ['{"retry-after":"1\\r\\nx: y"}'] = "retry-after must be printable ASCII, such as 60",
      ['{"retry-after":[]}'] = "retry-after must be printable ASCII, such as 60",
      ['{"fail-pattern":7}'] = 'fail-pattern must be made of "x" (fail) and "." (answer), such as '
        .. '"xx."',
    } do
      local answer = world:post("/admin/config", body)
      assert.equal(400, answer.status, body)
      assert.equal(message, answer:json().error.message)
    end
    local answer = world:post("/admin/config", '{"failure-types":["cut",7]}')
    assert.equal(400, answer.status)
    answer = world:post("/admin/config", "[]")
    assert.equal(400, answer.status)
    assert.equal(before, world:get("/admin/config").body)
  end)
end)

describe("hostile bodies", function()
  -- Puts a value of every type into every member, in every endpoint: an answer, never a Lua error.
  local VALUES = { "null", "true", "1", "-1", "0", "1.5", "1e308", "1e999", '""', '"x"', "[]",
    "{}", "[1]", '["x"]', "[null]", "[[]]", "[{}]", '{"a":1}', '[{"content":1}]',
    '[{"role":{},"content":[{"type":1,"text":2}]}]', '[{"content":[[]]}]', '[{"content":{"a":1}}]',
    '[{"content":[{"type":"text","text":"x","content":[1]}]}]', '[{"output":[1]}]',
    '[{"output":7,"arguments":7}]', "[[1,null]]", "[true,false]", '"\\u0000\\uffff"',
    "9007199254740993", '"\255\254"' }
  local BASES = {
    ["/v1/chat/completions"] = { model = '"m"', messages = '[{"content":"x"}]', stream = "true",
      n = "1", max_tokens = "5", max_completion_tokens = "5", ignore_eos = "true",
      stream_options = '{"include_usage":true}' },
    ["/v1/completions"] = { model = '"m"', prompt = '"x"', stream = "false", max_tokens = "5",
      n = "1" },
    ["/v1/messages"] = { model = '"m"', messages = '[{"content":"x"}]', max_tokens = "5",
      system = '"s"', stream = "true" },
    ["/v1/responses"] = { model = '"m"', input = '"x"', instructions = '"i"', stream = "true",
      max_output_tokens = "5" },
    ["/v1/embeddings"] = { model = '"m"', input = '"x"', dimensions = "3",
      encoding_format = '"base64"' },
    ["/v1/images/generations"] = { model = '"m"', prompt = '"x"', n = "1" },
    ["/tokenize"] = { prompt = '"x"', messages = "null" },
    ["/admin/config"] = { ["failure-types"] = "[]", ["fail-first"] = "0",
      ["time-to-first-token"] = '"1ms"', ["retry-after"] = '"1"', ["fail-pattern"] = '""',
      ["time-factor-under-load"] = "1", ["latency-calculator"] = '""', ["cut-after"] = "1" },
  }

  local function body_of(base, changed, value)
    local members = {}
    for name, usual in pairs(base) do
      members[#members + 1] = '"' .. name .. '":' .. (name == changed and value or usual)
    end
    return "{" .. table.concat(members, ",") .. "}"
  end

  local function check(answer, body)
    assert.is_truthy(answer.ended, body)
    assert.is_true(answer.status == 200 or answer.status == 400 or answer.status == 404
      or answer.status == 401, body)
    if answer.headers["content-type"] == "application/json" then
      assert.is_table(answer:json(), body)
    else
      answer:events()
    end
  end

  it("get an answer whatever stands where", function()
    for path, base in pairs(BASES) do
      for name in pairs(base) do
        for _, value in ipairs(VALUES) do
          for _, mode in ipairs { "echo", "random" } do
            local body = body_of(base, name, value)
            check(sim.start({ "--mode", mode }):post(path, body), path .. " " .. body)
          end
        end
      end
    end
  end)

  it("get an answer when they are cut or damaged anywhere", function()
    local generator = random.new(5)
    for path, base in pairs(BASES) do
      local body, world = body_of(base), sim.start { "--mode", "echo" }
      for length = 0, #body do check(world:post(path, body:sub(1, length)), path) end
      for _ = 1, 200 do
        local place = generator:integer(1, #body)
        local damaged = body:sub(1, place - 1) .. string.char(generator:integer(0, 255))
          .. body:sub(place + 1)
        if path == "/admin/config" then world = sim.start { "--mode", "echo" } end
        check(world:post(path, damaged), damaged)
      end
    end
  end)

  it("are answered with valid UTF-8 only", function()
    local world = sim.start { "--mode", "echo" }
    local answer = world:post("/v1/chat/completions",
      '{"model":"a\255","messages":[{"content":"b\237\160\128"}]}')
    assert.equal("a\239\191\189", answer:json().model)
    assert.equal("b" .. ("\239\191\189"):rep(3), answer:json().choices[1].message.content)
  end)

  it("are not copied into headers", function()
    local world = sim.start { "--mode", "echo" }
    for _, header in ipairs { "x-sim-failure", "x-return-error", "x-sim-cut-after",
      "x-sim-stall-duration", "x-sim-time-to-first-token" } do
      local answer = world:post("/v1/chat/completions", sim.chat("a"), { [header] = "\255%s%n\t" })
      assert.equal(400, answer.status, header)
      assert.is_table(answer:json())
    end
  end)

  it("of great size are done with soon", function()
    local world = sim.start { "--mode", "echo" }
    local started = os.clock()
    for _, filler in ipairs { "a", "a ", "!", " ", "\195\169", "\226\130\172 ", "\255" } do
      local body = '{"model":"m","messages":[{"content":"' .. filler:rep(400000 / #filler) .. '"}]}'
      local answer = world:post("/v1/chat/completions", body)
      assert.is_truthy(answer.status == 200 or answer.status == 400)
    end
    assert.is_true(os.clock() - started < 10)
  end)
end)
