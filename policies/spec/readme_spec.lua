--- The policies that README.md shows do what it says.

local gateways = require "gateways"
local testing = require "perilune.testing"

--- The Lua blocks of the README that hold some text, in order.
local function blocks_with(text)
  local file = assert(io.open(testing.directory .. "/README.md"))
  local readme, sources = file:read("*a"), {}
  file:close()
  for source in readme:gmatch("```lua\n(.-)```") do
    if source:find(text, 1, true) then sources[#sources + 1] = source end
  end
  return sources
end

local function documented_policies()
  return blocks_with("return function(req")
end

local function world_of(number, targets)
  return gateways.world("documented", targets or { { provider = "a" },
    { provider = "b", priority = 1 } }, { files = {
      ["documented.lua"] = documented_policies()[number] } })
end

describe("policies/README.md", function()
  it("shows a loop that falls back", function()
    local world = world_of(1)
    world:upstream("a"):always(503)
    world:request { model = "any" }
    assert.same({ "a", "b" }, world:called())
  end)

  it("shows a choice of targets", function()
    local world = world_of(2, { { provider = "batch-1" }, { provider = "live", priority = 1 } })
    world:request { model = "any", stream = true }
    assert.same({ "live" }, world:called())
  end)

  it("shows answers of the gateway's own", function()
    local world = world_of(3)
    assert.equal(403, world:request({ model = "any" }).status)
    local answer = world:request { model = "any", headers = { ["X-Team"] = "blue" } }
    assert.equal("ok", answer:json().status)
  end)

  it("shows a look into an error", function()
    local world = world_of(4)
    world:upstream("a"):answers(gateways.error(400, nil, "unsupported parameter"),
      gateways.error(400, nil, "bad"))
    assert.equal(200, world:request({ model = "any" }).status)
    assert.equal(400, world:request({ model = "any" }).status)
    assert.same({ "a", "b", "a" }, world:called())
  end)

  for _, source in ipairs(blocks_with("perilune.testing")) do
    setfenv(assert(loadstring(source, "=README.md")), getfenv(1))()
  end

  it("shows nothing that is not run here", function()
    assert.equal(4, #documented_policies())
    assert.equal(1, #blocks_with("perilune.testing"))
  end)
end)
