--- Runs every example of README.md in the world that it describes under "Reference", and holds it
-- to what it says of itself: see the table there. Blocks with `describe` are specs and run as such.

local cjson = require "cjson"
local testing = require "perilune.testing"

local README = testing.directory .. "/README.md"
local CONFIG = [[
return {
  providers = {
    primary = { url = "http://primary.test/v1", $provider },
    fallback = { url = "http://fallback.test/v1" },
  },
  routes = {
    {
      name = "docs", policy = "example", deadline = "60s",
      targets = {
        { provider = "primary", $first }, { provider = "fallback", priority = 1, $second },
      },
      retry = { attempts = 3, per_priority = 1, budget = { percent = 20, min = 3 }, $retry },
      $route
    },
  },
}]]

--- Places of the configuration where an example may say more.
local PLACES = { provider = true, first = true, second = true, retry = true, route = true }

local BODY_START = 'local gw = require "perilune"\nreturn function(req, route)\n'

-- ---- reading the README --------------------------------------------------------------------

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local function value_of(text)
  local chunk = assert(loadstring("return " .. text, "=(" .. text .. ")"))
  return chunk()
end

--- Given: `--< name: value`. Expected: `--> name: value`, or `--> status rest`.
local function read_lines(source, mark)
  local lines = {}
  for text in source:gmatch("\n%-%-" .. mark .. " ?([^\n]*)") do
    local name, value = text:match("^([%a][%w ._/]*): ?(.*)$")
    lines[#lines + 1] = { name = name or "answer", value = value or text }
  end
  return lines
end

local function policy_of(source)
  if source:find("return function%(req") or source:find("handle = function%(req") then
    return source
  end
  return BODY_START .. source .. "end\n"
end

--- The examples in order: { heading, source, given, expected }; and the specs' sources.
local function read_examples()
  local examples, specs, section, heading = {}, {}, "", ""
  local text = read(README):gsub("\r", "")
  local block
  for line in text:gmatch("([^\n]*)\n") do
    if block and line == "```" then
      if block:find("describe(", 1, true) then
        specs[#specs + 1] = block
      else
        examples[#examples + 1] = { heading = section .. heading, source = policy_of(block),
          given = read_lines(block, "<"), expected = read_lines(block, ">") }
      end
      block = nil
    elseif block then
      block = block .. line .. "\n"
    elseif line == "```lua" then
      block = ""
    elseif line:find("^##?#? ") then
      section, heading = line:match(" (.*)"), ""
    else
      heading = line:match("^####( .*)") or heading
    end
  end
  return examples, specs
end

-- ---- running an example --------------------------------------------------------------------

local function make_world(example)
  local more = {}
  local options = { directory = false, files = { ["example.lua"] = example.source } }
  local path, headers = "/v1/chat/completions", { ["x-team"] = "research" }
  local body = { model = "gpt-4", user = "ada", max_tokens = 100,
    messages = { { role = "user", content = "Hello" } } }
  local answers = { primary = '{ words = "Hello from primary" }',
    fallback = '{ words = "Hello from fallback" }' }
  for _, line in ipairs(example.given) do
    local file = line.name:match("^file (.*)")
    if file then
      options.files[file] = line.value
    elseif PLACES[line.name] then
      more[line.name] = line.value
    elseif line.name == "start" then
      options.start = value_of(line.value)
    elseif line.name == "path" then
      path = line.value
    elseif line.name == "headers" then
      for name, value in pairs(value_of(line.value)) do headers[name] = value end
    elseif line.name == "client" then
      for key, value in pairs(value_of(line.value)) do body[key] = value end
    else
      assert(answers[line.name], "nothing can be given for " .. line.name)
      answers[line.name] = line.value
    end
  end
  options.config = CONFIG:gsub("%$(%l+)", function(place)
    return more[place] and more[place] .. "," or ""
  end):gsub(", ,", ","):gsub(", }", " }")
  local world = testing.world(options)
  for name, script in pairs(answers) do
    world:upstream(name):answers(unpack(value_of("{" .. script .. "}")))
  end
  return world, { path = path, headers = headers, body = body }
end

-- ---- checking what it says -----------------------------------------------------------------

local check = {}


--- `200`, `200 "words"`, `200 { JSON }` or `403 code`.
function check.answer(value, answer)
  local status, rest = value:match("^(%d%d%d) ?(.*)$")
  assert.equal(tonumber(status), answer.status)
  if rest:sub(1, 1) == "\"" then
    local words = answer:text()
    assert.equal(value_of(rest), words ~= "" and words or answer.body)
  elseif rest:sub(1, 1) == "{" then
    assert.same(cjson.decode(rest), answer:json())
  elseif rest ~= "" then
    assert.equal(rest, answer:json().error.code)
  end
end

function check.calls(value, _, world)
  assert.equal(value, table.concat(world:called(), ", "))
end

function check.sent(value, _, world)
  local calls = world:calls()
  local sent = calls[#calls].json
  for key, expected in pairs(cjson.decode(value)) do
    if expected == cjson.null then expected = nil end
    assert.same(expected, sent[key])
  end
end

function check.log(value, _, world)
  local log = table.concat(world:log(), "\n")
  assert.is_truthy(log:find(value, 1, true), "the log has no \"" .. value .. "\": " .. log)
end

function check.header(value, answer)
  local name, text = value:match("^([%w-]+): (.*)$")
  assert.equal(text, answer.headers[name])
end

function check.events(value, answer)
  local data = {}
  for position, event in ipairs(answer:events()) do data[position] = event.data end
  assert.equal(value, table.concat(data, " "))
end

check["body has"] = function(value, answer)
  assert.is_truthy(answer.body:find(value, 1, true), "the body has no \"" .. value .. "\"")
end

function check.ended(value, answer)
  assert.equal(value, answer.ended)
end

function check.after(value, answer)
  assert.equal(tonumber(value), answer.duration_ms)
end

describe("policies/README.md", function()
  local examples, specs = read_examples()

  for _, source in ipairs(specs) do
    setfenv(assert(loadstring(source, "=README.md")), getfenv(1))()
  end

  it("shows what is run here", function()
    assert.is_true(#examples >= 40 and #specs >= 1)
  end)

  for _, example in ipairs(examples) do
    it("is right about " .. example.heading, function()
      assert.is_true(#example.expected > 0, "the example does not say what becomes of it")
      local world, request = make_world(example)
      local answer = world:request(request)
      local has_ended = false
      for _, line in ipairs(example.expected) do
        assert(check[line.name], "nothing can be expected of " .. line.name)
        check[line.name](line.value, answer, world)
        has_ended = has_ended or line.name == "ended"
      end
      if not has_ended then assert.equal("complete", answer.ended) end
    end)
  end
end)
