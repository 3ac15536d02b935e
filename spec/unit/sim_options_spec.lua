local argv = require "perilune.sim.argv"
local go_duration = require "perilune.sim.go_duration"
local options = require "perilune.sim.options"
local sim = require "spec.unit.sim_support"
local perilune_sim = require "perilune.sim"

local function parse(...)
  return argv.parse({ ... }, function() return nil end)
end

local function refused(message, ...)
  local config, code, text = parse(...)
  assert.is_nil(config)
  assert.equal("usage", code)
  assert.equal(message, text)
end

describe("perilune.sim.go_duration", function()
  it("reads what Go writes", function()
    for text, ms in pairs {
      ["0"] = 0, ["0s"] = 0, ["100ms"] = 100, ["1.5s"] = 1500, ["750us"] = 0.75, ["1m30s"] = 90000,
      ["2h"] = 7200000, [".5s"] = 500, ["1ns"] = 1e-6, ["10\194\181s"] = 0.01, ["1.s"] = 1000,
    } do
      assert.near(ms, assert(go_duration.parse(text)), 1e-9, text)
    end
  end)

  it("refuses the rest", function()
    for _, text in ipairs { "", "5", "ms", "-1s", "+1s", "1 s", "1sec", "1.2.3s", "s1", ".s", "1s2",
      "169h", "1e3ms", "nan", "inf" } do
      local ms, code = go_duration.parse(text)
      assert.is_nil(ms, text)
      assert.equal("bad_duration", code)
    end
  end)

  it("writes as Go does", function()
    for ms, text in pairs {
      [0] = "0s", [250] = "250ms", [1000] = "1s", [1500] = "1.5s", [90000] = "1m30s",
      [3600000] = "1h0m0s", [0.75] = "750us", [60000] = "1m0s", [12.5] = "12.5ms", [1e-6] = "1ns",
    } do
      assert.equal(text, go_duration.format(ms))
    end
  end)
end)

describe("perilune.sim.argv", function()
  it("has the defaults of llm-d-inference-sim", function()
    local config = assert(parse())
    assert.equal(8000, config.port)
    assert.equal("127.0.0.1", config.host)
    assert.equal(1024, config.max_model_len)
    assert.equal(5, config.max_num_seqs)
    assert.equal(1000, config.max_waiting_queue_length)
    assert.equal(4, config.max_request_body_size_mb)
    assert.equal("random", config.mode)
    assert.equal(0, config.failure_injection_rate)
    assert.equal(1, config.time_factor_under_load)
    assert.equal(0, config.time_to_first_token_ms)
    assert.same({}, config.failure_types)
    assert.is_nil(config.model)
  end)

  it("reads values after a space and after =", function()
    local config = assert(parse("--port", "9000", "--model=gpt-4", "--mode=echo", "--seed", "-7",
      "--time-to-first-token=1.5s", "--inter-token-latency", "20ms", "--log-http"))
    assert.equal(9000, config.port)
    assert.equal("gpt-4", config.model)
    assert.equal("echo", config.mode)
    assert.equal(-7, config.seed)
    assert.equal(1500, config.time_to_first_token_ms)
    assert.equal(20, config.inter_token_latency_ms)
    assert.is_true(config.log_http)
    assert.is_false(assert(parse("--log-http=false")).log_http)
    assert.equal("a=b", assert(parse("--model=a=b")).model)
  end)

  it("reads lists up to the next flag", function()
    local config = assert(parse("--failure-types", "cut", "stall", "rate_limit",
      "--served-model-name=a", "b", "--port", "1"))
    assert.same({ "cut", "stall", "rate_limit" }, config.failure_types)
    assert.same({ "a", "b" }, config.served_model_name)
    assert.same({}, assert(parse("--failure-types")).failure_types)
  end)

  it("takes a bare number as milliseconds, the deprecated form", function()
    assert.equal(500, assert(parse("--time-to-first-token=500")).time_to_first_token_ms)
  end)

  it("takes an address and a port in one", function()
    local config = assert(parse("--listen", "0.0.0.0:81"))
    assert.equal("0.0.0.0", config.host)
    assert.equal(81, config.port)
    assert.equal("::1", assert(parse("--listen=[::1]:0")).host)
    refused("--listen must be ADDR:PORT, such as 127.0.0.1:8000 or [::1]:8000", "--listen", "80")
    refused("--listen must be ADDR:PORT, such as 127.0.0.1:8000 or [::1]:8000",
      "--listen", "a:65536")
    refused("--listen cannot be given together with --host or --port", "--listen", "a:1",
      "--port", "2")
  end)

  it("takes the model from the environment unless it is given", function()
    local function environment(name) return name == "SIM_MODEL" and "from-env" or nil end
    assert.equal("from-env", argv.parse({}, environment).model)
    assert.equal("given", argv.parse({ "--model", "given" }, environment).model)
  end)

  it("says what is wrong", function()
    refused("unknown flag --modell (did you mean --model?)", "--modell", "x")
    refused("unknown flag --failure-type (did you mean --failure-types?)", "--failure-type=cut")
    refused("unknown flag --xyzzy-frobnicate; see perilune sim --help", "--xyzzy-frobnicate")
    refused("--lora-modules: a flag of llm-d-inference-sim that this simulator does not have",
      "--lora-modules", "x")
    refused("unexpected argument 'serve'", "serve")
    refused("unexpected argument '-p'", "-p", "1")
    refused("unexpected argument '--'", "--")
    refused("--port needs a value", "--port")
    refused("--port needs a value", "--port", "--model")
    refused("--port must be a whole number from 0 to 65535", "--port", "0x10")
    refused("--port must be a whole number from 0 to 65535", "--port", "65536")
    refused("--mode must be one of: random, echo", "--mode", "parrot")
    refused("--failure-injection-rate must be a whole number from 0 to 100",
      "--failure-injection-rate", "101")
    refused("--time-factor-under-load must be a number from 1 to 1000",
      "--time-factor-under-load", "0.5")
    refused("--time-to-first-token is not a duration: write a number with a unit, such as 100ms, "
      .. "1.5s or 2m", "--time-to-first-token", "-5ms")
    refused("time-to-first-token-std-dev cannot be more than 30% of time-to-first-token",
      "--time-to-first-token", "100ms", "--time-to-first-token-std-dev", "31ms")
    refused("prefill-time-std-dev cannot be more than 30% of prefill-time-per-token",
      "--prefill-overhead", "1s", "--prefill-time-std-dev", "1ms")
    refused("ssl-certfile and ssl-keyfile must be given together", "--ssl-certfile", "x")
    refused("--log-http must be true or false", "--log-http=maybe")
    refused("--retry-after must be printable ASCII, such as 60", "--retry-after", "1\r\nx: y")
    refused('--fail-pattern must be made of "x" (fail) and "." (answer), such as "xx."',
      "--fail-pattern", "yes")
    local _, _, text = parse("--failure-types", "cut", "cat")
    assert.matches("^%-%-failure%-types has the unknown value 'cat'; each must be one of: rate_lim",
      text)
  end)

  it("allows a deviation of exactly 30 %", function()
    assert(parse("--inter-token-latency", "100ms", "--inter-token-latency-std-dev", "30ms"))
    assert(parse("--time-to-first-token", "1ms", "--time-to-first-token-std-dev", "300us"))
  end)

  it("ignores what llm-d-inference-sim ignores", function()
    local config = assert(parse("--force-dummy-tokenizer", "--v", "4", "--v=5",
      "--tensor-parallel-size", "2", "--port", "1"))
    assert.equal(1, config.port)
  end)

  it("gives help that names every flag", function()
    local config, code, text = parse("--port", "1", "--help")
    assert.is_nil(config)
    assert.equal("help", code)
    for _, option in ipairs(options.all) do
      assert.is_truthy(text:find("--" .. option.flag, 1, true), option.flag)
    end
    for line in text:gmatch("[^\n]+") do assert.is_true(#line <= 100, line) end
  end)
end)

describe("the README of perilune.sim", function()
  it("lists every flag, with its marks, and every failure type", function()
    local file = assert(io.open("lua/perilune/sim/README.md"))
    local text = file:read("*a")
    file:close()
    for _, option in ipairs(options.all) do
      local line = text:match("\n(| [^|\n]*`%-%-" .. option.flag:gsub("%-", "%%-") .. "`[^\n]*)\n")
      assert.is_string(line, option.flag)
      local marks = (option.admin and "a" or "") .. (option.header and " h" or "")
      assert.equal(marks, line:match("| ([a h]*)|$"):gsub(" $", ""), option.flag)
    end
    for _, kind in ipairs(options.by_flag["failure-types"].values) do
      assert.is_truthy(text:find("| `" .. kind .. "` |", 1, true), kind)
    end
  end)
end)

describe("perilune.sim", function()
  it("says where to listen, with which limits, and who it is", function()
    local world = sim.start { "--port", "0", "--model", "gpt-4", "--mode", "echo",
      "--max-request-body-size-mb", "2" }
    assert.same({ address = "127.0.0.1", port = 0 }, world.sim.listen)
    assert.equal(2097152, world.sim.limits.body_bytes)
    assert.equal("model gpt-4, mode echo, seed 1", world.sim.banner)
    assert.equal("model any, mode random, seed 1", sim.start().sim.banner)
  end)

  it("passes on what is wrong with the command line", function()
    local made, code, message = perilune_sim.new({ "--what" }, sim.start().native)
    assert.is_nil(made)
    assert.equal("usage", code)
    assert.matches("unknown flag", message)
  end)

  it("serves TLS when told to", function()
    local world = sim.start { "--ssl-certfile", "a.pem", "--ssl-keyfile", "b.pem" }
    assert.equal("a.pem", world.sim.listen.tls_cert)
    assert.equal("b.pem", world.sim.listen.tls_key)
  end)
end)
