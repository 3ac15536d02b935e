--- What is played is what happens: the same scenarios with the real binary over sockets, and with
-- `perilune test` on its virtual clock. Targets called, statuses, headers, bodies and ends agree.

local cjson = require "cjson.safe"
local support = require "support"

local CHAT = "/v1/chat/completions"

local CONFIG = [[
return {
  providers = {
    a = { url = "%s/v1", timeouts = { %s }, health = { consecutive_5xx = 3,
      consecutive_connection = 3, base_ejection = "5m" } },
    b = { url = "%s/v1", health = { consecutive_5xx = 3, base_ejection = "5m" } },
  },
  routes = { { targets = { { provider = "a", model = "large" },
    { provider = "b", model = "small", priority = 1 } }, %s } },
}
]]

-- An answer: { status, headers, body }, or { events, cut }, or { hang } before the head, or
-- { silent } after it. Of several the last one is for ever.
local GOOD = { status = 200, body = '{"id":"good"}' }
local function bad(status, headers)
  return { status = status, headers = headers, body = '{"error":{"message":"no"}}' }
end
local ROLE = '{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
local FINISH = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
local STREAM = { events = { '{"n":1}', '{"n":2}', "[DONE]" } }

--- Name -> timeouts and route of CONFIG, answers of a and b (nil: nobody listens), and requests:
-- how many, streamed or not.
local SCENARIOS = {
  ["a target that says when to come back"] = {
    a = { bad(429, { ["retry-after"] = "60" }) }, b = { GOOD }, requests = { false, false, true },
  },
  ["failures in a row until the target is out"] = {
    requests = { false, false, false, false },
    a = { bad(503), bad(500), bad(502), GOOD }, b = { GOOD },
  },
  ["failures everywhere"] = {
    a = { bad(503) }, b = { bad(500) }, requests = { false, true },
    route = [[retry = { attempts = 2 }]],
  },
  ["an error that is the client's"] = {
    a = { bad(400), bad(422) }, b = { GOOD }, requests = { false, true },
  },
  ["a stream that is cut after two events"] = {
    a = { { events = { '{"n":1}', '{"n":2}' }, cut = true } }, b = { STREAM },
    requests = { true },
  },
  ["a stream that is cut before its first event"] = {
    a = { { events = {}, cut = true } }, b = { STREAM }, requests = { true, true },
  },
  ["a stream without events"] = {
    a = { { events = {} } }, b = { STREAM }, requests = { true },
  },
  ["a body that breaks off"] = {
    a = { { status = 200, body = "0123456789", cut = true } }, b = { GOOD }, requests = { false },
  },
  ["a role, and then silence"] = {
    timeouts = 'first_token = "150ms"', b = { STREAM }, requests = { true },
    a = { { events = { ROLE }, hang = true } },
  },
  ["an error event"] = {
    a = { { events = { ROLE, '{"error":{"code":"rate_limit_exceeded"}}', "[DONE]" } } },
    b = { STREAM }, requests = { true, true, true, true },
  },
  ["error events until the target is out"] = {
    a = { { events = { '{"error":{"type":"server_error"}}' } } },
    b = { STREAM }, requests = { true, true, true, true },
  },
  ["an end without content"] = {
    a = { { events = { ROLE, FINISH, "[DONE]" } }, { events = { "[DONE]" } },
      { events = { "{garbage" } } },
    b = { STREAM }, requests = { true, true, true, true },
  },
  ["bodies that are no answers"] = {
    a = { { status = 200, body = '{"choices":[]}' }, { status = 200, body = "<html>" },
      { status = 200, body = '{"error":{"code":429}}' } },
    b = { { status = 200, body = '{"choices":[{"text":"a"}]}' } },
    requests = { false, false, false }, route = "check_body = true",
  },
  ["a first event that does not come"] = {
    timeouts = 'first_token = "150ms"', a = { { silent = true } }, b = { STREAM },
    requests = { true },
  },
  ["a head that does not come"] = {
    timeouts = 'head = "150ms"', a = { { hang = true } }, b = { GOOD }, requests = { false },
  },
  ["a deadline before any answer"] = {
    route = 'deadline = "150ms"', a = { { hang = true } }, b = { GOOD }, requests = { false, true },
  },
  ["a deadline within a stream"] = {
    route = 'deadline = "250ms"', a = { { events = { '{"n":1}' }, hang = true } }, b = { STREAM },
    requests = { true },
  },
  ["nobody who listens"] = {
    b = { GOOD }, requests = { false, false, false, false, true },
  },
  ["nothing that could be read"] = {
    a = { { raw = "SMTP ready\r\n\r\n" } }, b = { GOOD }, requests = { false },
  },
}

-- ---- over sockets --------------------------------------------------------------------------

local function answer_events(connection, answer)
  connection:start_chunked()
  for _, event in ipairs(answer.events or {}) do connection:event(event) end
  if answer.hang or answer.silent then return connection:wait_closed(10) end
  if not answer.cut then connection:finish_chunked() end
  if answer.cut then connection:close() end
end

local function answer_once(connection, answer)
  if answer.raw then
    connection:write(answer.raw)
    connection:close()
  elseif answer.events or answer.silent then
    answer_events(connection, answer)
  elseif answer.hang then
    connection:wait_closed(10)
  elseif answer.cut then
    local half = answer.body:sub(1, #answer.body / 2)
    connection:write(("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
      .. "Content-Length: %d\r\n\r\n%s"):format(#answer.body, half))
    connection:close()
  else
    connection:respond_json(answer.status, answer.body, answer.headers)
  end
end

local function upstream(name, script, called)
  if not script then return { url = "http://127.0.0.1:" .. support.refused_port() } end
  local count = 0
  return support.upstream(function(connection)
    while connection:read_request() do
      count = count + 1
      table.insert(called, name)
      answer_once(connection, script[math.min(count, #script)])
    end
  end)
end

local function request_id(number) return "request-" .. number end

local function real(folder, scenario, called)
  local gw = support.gateway { folder = folder, workers = 1 }
  local results = {}
  for number, stream in ipairs(scenario.requests) do
    local answer = gw:request { path = CHAT, body = cjson.encode { model = "any", stream = stream },
      headers = { ["Content-Type"] = "application/json", ["X-Request-Id"] = request_id(number) } }
    results[number] = { status = answer.status, ended = answer.ended, body = answer.body,
      headers = answer.headers }
  end
  return { requests = results, called = called }
end

-- ---- played --------------------------------------------------------------------------------

--- The spec that plays the scenario; it writes down what came of it.
local PLAY = [[
local cjson = require "cjson.safe"
local testing = require "perilune.testing"

local function read(name)
  local file = assert(io.open(testing.directory .. "/spec/" .. name))
  local text = file:read("*a")
  file:close()
  return cjson.decode(text)
end

local function answer_of(given)
  if given.raw then return "malformed" end
  if given.silent then return { events = {}, stall_after = 0, done = false } end
  if given.events then
    return { events = given.events, done = false, stall_after = given.hang and #given.events or nil,
      cut_after = given.cut and #given.events or nil }
  end
  if given.hang then return "hang" end
  return { status = given.status, headers = given.headers, body = given.body,
    cut_after = given.cut and 1 or nil }
end

it("plays", function()
  local scenario = read("scenario.json")
  local world = testing.world {}
  for _, name in ipairs { "a", "b" } do
    local answers = {}
    for number, given in ipairs(scenario[name] or {}) do answers[number] = answer_of(given) end
    if #answers == 0 then answers = { "refuse" } end
    world:upstream(name):answers(unpack(answers))
  end
  local results = {}
  for number, stream in ipairs(scenario.requests) do
    local answer = world:request { body = { model = "any", stream = stream },
      headers = { ["X-Request-Id"] = "request-" .. number } }
    local headers = {}
    for name, value in pairs(answer.headers) do headers[name] = value end
    results[number] = { status = answer.status, ended = answer.ended, body = answer.body,
      headers = headers }
  end
  local called = {}
  for _, call in ipairs(world:calls()) do
    if call.outcome ~= "connect" then called[#called + 1] = call.provider end
  end
  local file = assert(io.open(testing.directory .. "/spec/results.json", "w"))
  file:write(cjson.encode { requests = results, called = called })
  file:close()
end)
]]

local function play(folder)
  local result = support.perilune { "test", folder }
  assert.equal(0, result.status, result.stdout .. result.stderr)
  return cjson.decode(support.read_file(folder .. "/spec/results.json"))
end

-- ---- comparing -----------------------------------------------------------------------------

-- Of the connection, not of the answer.
local NOT_PLAYED = { date = true, connection = true, ["transfer-encoding"] = true }

--- An outcome as lines of text, without what is not the same twice: times.
local function comparable(outcome)
  local lines = { "called " .. table.concat(outcome.called, " ") }
  for number, request in ipairs(outcome.requests) do
    local headers = {}
    for name, value in pairs(request.headers) do
      if type(value) == "string" and not NOT_PLAYED[name:lower()] then
        headers[#headers + 1] = ("%s: %s"):format(name:lower(), value):gsub(";%d+ms", "")
      end
    end
    table.sort(headers)
    lines[#lines + 1] = ("%d: %s %s\n%s\n\n%s"):format(number, request.status, request.ended,
      table.concat(headers, "\n"), request.body)
  end
  return table.concat(lines, "\n")
end

local function write_scenario(folder, scenario, called)
  local a, b = upstream("a", scenario.a, called), upstream("b", scenario.b, called)
  support.write_file(folder .. "/gateway.lua", CONFIG:format(a.url, scenario.timeouts or "", b.url,
    scenario.route or ""))
  support.write_file(folder .. "/fallback.lua", support.read_file("policies/fallback.lua"))
  assert.equal(0, support.run({ "mkdir", folder .. "/spec" }).status)
  support.write_file(folder .. "/spec/scenario.json", cjson.encode {
    a = scenario.a, b = scenario.b, requests = scenario.requests })
  support.write_file(folder .. "/spec/play_spec.lua", PLAY)
end

describe("played and real agree on", function()
  after_each(support.finish)

  for name, scenario in pairs(SCENARIOS) do
    it(name, function()
      local folder, called = support.make_folder(), {}
      write_scenario(folder, scenario, called)
      local happened = comparable(real(folder, scenario, called))
      assert.equal(happened, comparable(play(folder)))
    end)
  end
end)
