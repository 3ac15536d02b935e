-- The parts of the simulator that can be looked at alone.
local embeddings = require "perilune.sim.embeddings"
local fields = require "perilune.sim.fields"
local json = require "perilune.sim.json"
local latency = require "perilune.sim.latency"
local multipart = require "perilune.sim.multipart"
local options = require "perilune.sim.options"
local overrides = require "perilune.sim.overrides"
local random = require "perilune.sim.random"
local text = require "perilune.sim.text"
local tokens = require "perilune.sim.tokens"

local function config_with(values)
  local config = options.defaults()
  for key, value in pairs(values or {}) do config[key] = value end
  return config
end

describe("perilune.sim.random", function()
  it("repeats itself for the same seed", function()
    for _, seed in ipairs { 0, 1, -1, 2147483563, 2 ^ 53, -2 ^ 53 } do
      local one, other = random.new(seed), random.new(seed)
      for _ = 1, 50 do assert.equal(one:unit(), other:unit()) end
    end
    assert.not_equal(random.new(1):unit(), random.new(2):unit())
  end)

  it("is spread evenly", function()
    local generator, counts = random.new(42), {}
    for _ = 1, 10000 do
      local value = generator:integer(1, 10)
      counts[value] = (counts[value] or 0) + 1
    end
    for value = 1, 10 do assert.near(1000, counts[value], 120) end
    assert.is_nil(counts[0] or counts[11])
  end)

  it("is spread evenly over the first numbers of forks", function()
    local generator, low = random.new(7), 0
    for _ = 1, 1000 do
      if generator:fork():unit() < 0.1 then low = low + 1 end
    end
    assert.near(100, low, 35)
  end)

  it("keeps normal values within 70 % of the mean", function()
    local generator, sum = random.new(3), 0
    for _ = 1, 5000 do
      local value = generator:normal(100, 60)
      assert.is_true(value >= 30 and value <= 170)
      sum = sum + value
    end
    assert.near(100, sum / 5000, 3)
    assert.equal(100, generator:normal(100, 0))
  end)

  it("makes version 4 UUIDs", function()
    assert.matches("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$",
      random.new(1):uuid())
  end)
end)

describe("perilune.sim.json", function()
  it("decodes objects and nothing else", function()
    assert.same({ a = 1 }, json.decode_object(' \n{"a":1}\n'))
    for _, body in ipairs { "", " ", "[]", "1", "null", '"x"', "{", "{}x", '{"a":}', '{"a":nan}',
      "{'a':1}", '{"a":1,}', '{"a":"\\ud800"}' } do
      local value, code, detail = json.decode_object(body)
      assert.is_nil(value, body)
      assert.equal("malformed", code)
      assert.is_string(detail)
    end
    local _, code = json.decode_object('{"a":' .. ("["):rep(5000) .. ("]"):rep(5000) .. "}")
    assert.equal("malformed", code)
  end)

  it("replaces what is not UTF-8", function()
    local bad = "\239\191\189"
    for given, mended in pairs {
      ["caf\195\169 \226\130\172 \240\159\152\128"] = "caf\195\169 \226\130\172 \240\159\152\128",
      ["a\255b"] = "a" .. bad .. "b",
      ["\195"] = bad,
      ["\195\195\169"] = bad .. "\195\169",
      ["\224\128\128"] = bad .. bad .. bad,    -- overlong
      ["\237\160\128"] = bad .. bad .. bad,    -- a surrogate
      ["\244\144\128\128"] = bad:rep(4),       -- above U+10FFFF
      ["\128\195\169\128"] = bad .. "\195\169" .. bad,
    } do
      assert.equal(mended, json.mend(given))
    end
  end)

  it("writes empty arrays and members in order", function()
    assert.equal('{"b":[],"a":{}}',
      json.object { { "b", json.array {} }, { "a", json.object {} } })
  end)
end)

describe("perilune.sim.fields", function()
  local function reader(body) return fields.of(assert(json.decode_object(body))) end

  it("gives members of the right type; null is absent", function()
    local r = reader '{"s":"x","b":false,"i":3,"a":[1],"o":{"b":true},"n":null}'
    assert.equal("x", r:string("s"))
    assert.is_false(r:boolean("b"))
    assert.equal(3, r:integer("i"))
    assert.same({ 1 }, r:array("a"))
    assert.is_true(r:object_of("o"):boolean("b"))
    assert.is_nil(r:string("n"))
    assert.is_nil(r:string("absent"))
    assert.is_nil(r.fault)
  end)

  it("keeps the first fault", function()
    for body, fault in pairs {
      ['{"s":1}'] = "field 's' must be a string",
      ['{"b":"true"}'] = "field 'b' must be a boolean",
      ['{"i":1.5}'] = "field 'i' must be an integer",
      ['{"i":1e300}'] = "field 'i' must be an integer",
      ['{"i":"1"}'] = "field 'i' must be an integer",
      ['{"a":{"x":1}}'] = "field 'a' must be an array",
      ['{"a":7}'] = "field 'a' must be an array",
      ['{"o":[1]}'] = "field 'o' must be an object",
      ['{"o":"x"}'] = "field 'o' must be an object",
    } do
      local r = reader(body)
      local parts = { r:string("s"), r:boolean("b"), r:integer("i"), r:array("a") }
      assert.is_nil(next(parts))
      r:object_of("o")
      r:string("s")
      assert.equal(fault, r.fault)
    end
  end)
end)

describe("perilune.sim.tokens", function()
  it("splits into words and marks; joined they are the text", function()
    assert.same({ "Hello", ", ", "world", "!" }, tokens.split("Hello, world!"))
    assert.same({ "  a ", "b" }, tokens.split("  a b"))
    assert.same({ "gr\195\188n ", "\226\130\172" }, tokens.split("gr\195\188n \226\130\172"))
    assert.same({}, tokens.split(""))
    assert.same({ " \n" }, tokens.split(" \n"))
    local generator, bytes = random.new(9), {}
    for _ = 1, 200 do
      for index = 1, 40 do bytes[index] = string.char(generator:integer(0, 255)) end
      local sample = table.concat(bytes)
      local list = tokens.split(sample)
      assert.equal(sample, table.concat(list))
      assert.equal(#list, tokens.count(sample))
    end
  end)

  it("numbers tokens the same every time", function()
    assert.equal(tokens.id("moon "), tokens.id("moon"))
    assert.not_equal(tokens.id("moon"), tokens.id("noom"))
  end)
end)

describe("perilune.sim.text", function()
  local prompt = { count = 10, echo = "one two three four" }

  local function answer(asked, values, seed)
    return text.answer(config_with(values), asked, prompt, random.new(seed or 1))
  end

  it("repeats the prompt in echo mode", function()
    local said = answer({}, { mode = "echo" })
    assert.equal("one two three four", said.text)
    assert.equal("stop", said.finish)
    said = answer({ max_tokens = 2 }, { mode = "echo" })
    assert.equal("one two ", said.text)
    assert.equal("length", said.finish)
    assert.equal("stop", answer({ max_tokens = 4 }, { mode = "echo" }).finish)
  end)

  it("never says more than it may", function()
    for _, limit in ipairs { 1, 2, 5, 6, 7, 30, 119, 120, 121, 500, 5000 } do
      for seed = 1, 60 do
        local said = answer({ max_tokens = limit }, nil, seed)
        local most = math.min(limit, 1014)
        assert.is_true(#said.tokens >= 1 and #said.tokens <= most)
        assert.equal(#said.tokens == most and "length" or "stop", said.finish)
        assert.equal(said.text, table.concat(said.tokens))
        assert.is_nil(said.text:find("%s$"))
      end
    end
  end)

  it("says exactly as much as it may with ignore_eos", function()
    local said = answer { max_tokens = 77, ignore_eos = true }
    assert.equal(77, #said.tokens)
    assert.equal("length", said.finish)
  end)

  it("uses all lengths under a limit", function()
    local seen, limit = {}, 12
    for seed = 1, 400 do seen[#answer({ max_tokens = limit }, nil, seed).tokens] = true end
    for length = 1, limit do assert.is_true(seen[length], length) end
  end)

  it("says about forty tokens without a limit", function()
    local sum = 0
    for seed = 1, 300 do sum = sum + #answer({}, nil, seed).tokens end
    assert.near(40, sum / 300, 5)
    for seed = 1, 60 do
      local said = answer({}, { max_model_len = 15 }, seed)
      assert.is_true(#said.tokens <= 5)
    end
  end)

  it("needs room in the context window", function()
    local said, err = answer({}, { max_model_len = 10 })
    assert.is_nil(said)
    assert.equal(400, err.status)
    assert.equal("This model's maximum context length is 10 tokens. However, you requested 11 "
      .. "tokens (10 in the messages, 1 in the completion). Please reduce the length of the "
      .. "messages or completion", err.message)
    assert.is_nil((answer({}, { mode = "echo", max_model_len = 13 })))
    assert.is_table(answer({}, { mode = "echo", max_model_len = 14 }))
    assert.is_table(answer({ max_tokens = 1 }, { mode = "echo", max_model_len = 11 }))
    assert.is_table(answer({ max_tokens = 9999 }, { max_model_len = 11 }))
  end)
end)

describe("perilune.sim.latency", function()
  local generator = random.new(1)

  it("is constant when a time to first token is set", function()
    local config = config_with { time_to_first_token_ms = 100, prefill_overhead_ms = 7 }
    assert.equal(100, latency.first_token_ms(config, generator, 50, 1))
  end)

  it("counts tokens when it is not, or when told to", function()
    local values = { prefill_overhead_ms = 7, prefill_time_per_token_ms = 2 }
    assert.equal(107, latency.first_token_ms(config_with(values), generator, 50, 1))
    values.time_to_first_token_ms, values.latency_calculator = 100, "per-token"
    assert.equal(107, latency.first_token_ms(config_with(values), generator, 50, 1))
    values.latency_calculator = "constant"
    assert.equal(100, latency.first_token_ms(config_with(values), generator, 50, 1))
  end)

  it("grows with load, evenly", function()
    local config = config_with { time_to_first_token_ms = 100, inter_token_latency_ms = 10,
      time_factor_under_load = 3, max_num_seqs = 5 }
    assert.equal(100, latency.first_token_ms(config, generator, 0, 1))
    assert.equal(200, latency.first_token_ms(config, generator, 0, 3))
    assert.equal(300, latency.first_token_ms(config, generator, 0, 5))
    assert.equal(30, latency.inter_token_ms(config, generator, 5))
    config.max_num_seqs = 1
    assert.equal(10, latency.inter_token_ms(config, generator, 1))
  end)

  it("varies, within 70 %", function()
    local config = config_with { inter_token_latency_ms = 100, inter_token_latency_std_dev_ms = 30 }
    local seen = {}
    for _ = 1, 500 do
      local ms = latency.inter_token_ms(config, generator, 1)
      assert.is_true(ms >= 30 and ms <= 170)
      seen[ms] = true
    end
    assert.is_truthy(next(seen, next(seen)))
  end)
end)

describe("perilune.sim.multipart", function()
  local TYPE = "multipart/form-data; boundary=XyZ"
  local function body(...)
    local parts = {}
    for index, part in ipairs { ... } do parts[index] = "--XyZ\r\n" .. part .. "\r\n" end
    return table.concat(parts) .. "--XyZ--\r\n"
  end
  local MODEL = 'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1'
  local FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    .. "Content-Type: audio/wav\r\n\r\nRIFF\0\r\n--Xy\r\nname=\"model\"\r\n\r\nno"

  it("reads fields and leaves files", function()
    assert.same({ model = "whisper-1" }, multipart.fields(body(MODEL, FILE), TYPE))
    assert.same({ model = "whisper-1" }, multipart.fields(body(FILE, MODEL), TYPE))
    assert.same({ model = "whisper-1" },
      multipart.fields("preamble\r\n" .. body(MODEL), 'Multipart/Form-Data; a=b; boundary="XyZ"'))
    assert.same({ a = "" },
      multipart.fields(body('content-disposition: form-data; name="a"\r\n\r\n'), TYPE))
    assert.same({}, multipart.fields("--XyZ--", TYPE))
  end)

  it("refuses what is broken", function()
    for _, case in ipairs {
      { body(MODEL), "application/json" }, { body(MODEL), "" },
      { body(MODEL), "multipart/form-data" }, { body(MODEL), "multipart/form-data; boundary=" },
      { body(MODEL), "multipart/form-data; boundary=other" }, { "", TYPE },
      { "--XyZ\r\n" .. MODEL, TYPE }, { "--XyZ\r\nno end of head\r\n--XyZ--", TYPE },
      { ("--XyZ\r\n\r\n\r\n\r\n"):rep(400) .. "--XyZ--", TYPE },
    } do
      local values, code, detail = multipart.fields(case[1], case[2])
      assert.is_nil(values)
      assert.equal("malformed", code)
      assert.is_string(detail)
    end
  end)
end)

describe("perilune.sim.overrides", function()
  it("leaves the configuration alone without headers", function()
    local config = config_with()
    assert.equal(config, (overrides.apply(config, {})))
  end)

  it("gives a view with what the request asks for", function()
    local config = config_with { time_to_first_token_ms = 100,
      time_to_first_token_std_dev_ms = 30, latency_calculator = "per-token" }
    local view, forced = overrides.apply(config, { ["x-sim-time-to-first-token"] = "7ms",
      ["x-sim-cut-after"] = "0", ["x-sim-failure"] = "cut" })
    assert.equal("cut", forced)
    assert.equal(0, view.cut_after)
    assert.equal(3, view.stall_after)
    assert.equal(7, latency.first_token_ms(view, random.new(1), 10, 1))
    assert.equal(100, config.time_to_first_token_ms)
  end)

  it("refuses values that make no sense", function()
    for header, value in pairs { ["x-sim-cut-after"] = "-1", ["x-sim-failure"] = "explode",
      ["x-sim-stall-duration"] = "soon" } do
      local view, err = overrides.apply(config_with(), { [header] = value })
      assert.is_nil(view)
      assert.equal(400, err.status)
      assert.matches("^Invalid " .. header:gsub("%-", "%%-"), err.message)
    end
  end)
end)

describe("perilune.sim.embeddings", function()
  it("encodes base64", function()
    for bytes, encoded in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v",
      ["\0\255\254"] = "AP/+" } do
      assert.equal(encoded, embeddings.base64(bytes))
    end
  end)
end)
