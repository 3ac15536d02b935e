local floor = require "perilune.floor"
local retry = require "perilune.retry"

--- A route, and candidates that give its targets in order and keep what they were called with.
local function make(names, options)
  local seen = {}
  local route = { targets = names, retry = retry.new(options or {}), balance = { by = "p2c" },
    panic = "fail", max_ejection_ratio = 0.5 }
  local function candidates(given)
    seen[#seen + 1] = given
    local position = 0
    return function()
      position = position + 1
      return given.targets[position]
    end
  end
  return floor.new(route, candidates), seen, route
end

local function request(answers)
  local req = { sent = {} }
  function req.send(self, target)
    self.sent[#self.sent + 1] = target
    local answer = answers[target]
    if type(answer) == "string" then return nil, { class = answer } end
    return { status = answer, headers = {}, json = function() return nil end }
  end
  function req.relay(self, res, err)
    self.relayed = res and res.status or err and err.class or "nothing"
    return true
  end
  return req
end

describe("perilune.floor", function()
  it("relays the first good answer", function()
    local policy = make { "a", "b", "c" }
    local req = request { a = 503, b = "reset", c = 200 }
    policy(req)
    assert.same({ "a", "b", "c" }, req.sent)
    assert.equal(200, req.relayed)
  end)

  it("stops at what would fail elsewhere, too", function()
    local policy = make { "a", "b" }
    local req = request { a = 400, b = 200 }
    policy(req)
    assert.same({ "a" }, req.sent)
    assert.equal(400, req.relayed)
  end)

  it("relays the last failure when all fail", function()
    local policy = make { "a", "b" }
    local req = request { a = 503, b = "timeout_head" }
    policy(req)
    assert.equal("timeout_head", req.relayed)
  end)

  it("says that there was none to try", function()
    local policy = make {}
    local req = request {}
    policy(req)
    assert.equal("nothing", req.relayed)
  end)

  it("heeds the route's own triggers", function()
    local policy = make({ "a", "b" }, { on = { 418 } })
    local req = request { a = 503, b = 200 }
    policy(req)
    assert.same({ "a" }, req.sent)
  end)

  it("goes by weight whatever the route's balance, and else by the route", function()
    local policy, seen, route = make { "a" }
    local req = request { a = 200 }
    policy(req)
    policy(req)
    assert.equal("weighted", seen[1].balance)
    assert.equal(route.retry, seen[1].retry)
    assert.equal("fail", seen[1].panic)
    assert.equal(0.5, seen[1].max_ejection_ratio)
    assert.equal(seen[1], seen[2]) -- so that its plan is made once
  end)
end)
