local health = require "perilune.health"
local support = require "spec.unit.support"

local NO_RULES = { base_ejection_ms = 30000, max_ejection_ms = 300000, jitter_ratio = 0.1 }

local function rules(fields)
  local own = {}
  for key, value in pairs(NO_RULES) do own[key] = value end
  for key, value in pairs(fields or {}) do own[key] = value end
  return own
end

--- A world with the providers given as { auth =, health = }, one target each ("t1", "t2", ...), and
-- one route "r" with that `response`.
local function world_of(providers, response)
  local world = { clock = support.clock(), log = {}, done = {}, luck = 0 }
  function world.random() return world.luck end
  local config = { providers = {}, targets = {}, routes = { { name = "r", response = response },
    { name = "plain" } } }
  local fields = {}
  for index, provider in ipairs(providers) do
    config.providers[index] = { name = "p" .. index, auth = provider.auth or "key",
      health = provider.health or rules() }
    config.targets[index] = { name = "t" .. index, provider = index }
    fields[index] = { name = "t" .. index }
  end
  world.targets = support.targets(fields)
  local native = support.native(world)
  function native.eject(target, ms, reason)
    table.insert(world.done, { "eject", target.name, ms, reason })
  end
  function native.refuse_key() table.insert(world.done, { "refuse_key" }) end
  function native.pause_key(_, ms)
    if world.has_keys then table.insert(world.done, { "pause_key", ms }) end
    return world.has_keys or false
  end
  function native.change_response_header(req, name, value, add)
    table.insert(world.done, { req, name, value, add })
    if world.headers and value then world.headers[name:lower()] = value end
  end
  world.after_send = health.new { config = config, targets = world.targets, native = native }
  world.req = { route = "r" }
  return world
end

--- What an answer of target `number` has led to.
local function after(world, script, number)
  world.done = {}
  local res = support.res(script, world.targets[number or 1])
  world.after_send(world.req, res, nil)
  return world.done
end

local function asking(status, seconds)
  return { status, headers = { ["Retry-After"] = tostring(seconds) } }
end

describe("perilune.health", function()
  it("has nothing to do without rules", function()
    assert.is_nil(world_of({ {} }).after_send)
    assert.is_nil(world_of({ { auth = "passthrough",
      health = rules { auth_statuses = { 401 } } } }).after_send)
  end)

  it("has nothing to do with failures", function()
    local world = world_of({ { health = rules { unhealthy = error } } })
    world.after_send(world.req, nil, { class = "connect", target = world.targets[1] })
    assert.same({}, world.done)
    assert.same({}, world.log)
  end)

  it("looks at no more than the status of an answer that concerns no rule", function()
    local world = world_of { { health = rules { retry_after = { statuses = { 429 }, cap_ms = 9 },
      auth_statuses = { 401 } } } }
    local read = {}
    local res = setmetatable({}, { __index = function(_, key)
      table.insert(read, key)
      return key == "status" and 200
    end })
    world.after_send(world.req, res)
    assert.same({ "status" }, read)
  end)

  describe("retry_after", function()
    local RULE = { retry_after = { statuses = { 429, 529 }, cap_ms = 3600000 } }

    it("keeps the target out for as long as it asks", function()
      local world = world_of { { health = rules(RULE) } }
      assert.same({ { "eject", "t1", 60000, "retry_after" } }, after(world, asking(429, 60)))
      assert.same({ { "eject", "t1", 60000, "retry_after" } }, after(world, asking(529, 60)))
      assert.same({ { "eject", "t1", 150000, "retry_after" } },
        after(world, { 429, headers = { ["x-ratelimit-reset-tokens"] = "2m30s" } }))
    end)

    it("is for the statuses of its list", function()
      local world = world_of { { health = rules(RULE) } }
      for _, status in ipairs { 200, 401, 500, 503 } do
        assert.same({}, after(world, asking(status, 60)))
      end
    end)

    it("does nothing without a time, or with none", function()
      local world = world_of { { health = rules(RULE) } }
      assert.same({}, after(world, 429))
      assert.same({}, after(world, asking(429, "soon")))
      assert.same({}, after(world, asking(429, 0)))
    end)

    it("is capped", function()
      local world = world_of { { health = rules(RULE) } }
      assert.same({ { "eject", "t1", 3600000, "retry_after" } }, after(world, asking(429, 86400)))
    end)

    it("is each provider's own", function()
      local world = world_of { { health = rules(RULE) }, {} }
      assert.same({}, after(world, asking(429, 60), 2))
      assert.equal(1, #after(world, asking(429, 60), 1))
    end)

    it("is said of the key where there are others, when it is a rate limit", function()
      local world = world_of { { health = rules(RULE) } }
      world.has_keys = true
      assert.same({ { "pause_key", 60000 } }, after(world, asking(429, 60)))
      assert.same({ { "pause_key", 3600000 } }, after(world, asking(429, 86400)))
      assert.same({ { "eject", "t1", 60000, "retry_after" } }, after(world, asking(529, 60)))
    end)

    it("reads no header when there can be none", function()
      local world = world_of { { health = rules(RULE) } }
      local res = { status = 429, target = world.targets[1], has_wait_hint = false }
      world.after_send(world.req, res)
      assert.same({}, world.done)
    end)
  end)

  describe("auth", function()
    local RULE = { auth_statuses = { 401, 402, 403 } }

    it("keeps out the key that is refused", function()
      local world = world_of { { health = rules(RULE) } }
      for _, status in ipairs { 401, 402, 403 } do
        assert.same({ { "refuse_key" } }, after(world, status))
      end
      assert.same({}, after(world, 400))
    end)

    it("knows a refused key without a list, but not from what only concerns the model", function()
      local world = world_of { { health = rules { auth_statuses = {} } } }
      local refused = {
        401, { 401, body = { error = { message = "Incorrect API key provided" } } },
        { 403, body = { error = { code = "invalid_api_key" } } },
        { 400, body = { error = { code = 400, message = "API key not valid." } } },
        { 400, body = { { error = { details = { { reason = "API_KEY_INVALID" } } } } } },
        { 403, headers = { ["x-amzn-errortype"] = "UnrecognizedClientException" } },
        { 403, body = { __type = "com.amazon.coral.service#ExpiredTokenException" } },
      }
      for number, script in ipairs(refused) do
        assert.same({ { "refuse_key" } }, after(world, script), number)
      end
      local accepted = {
        200, 400, 402, 403, 404, 429, 500,
        { 401, body = { error = { code = "401", type = "key_model_access_denied" } } },
        { 403, body = { error = { type = "permission_error" } } },
        { 403, body = { error = { code = "model_not_found" } } },
        { 403, headers = { ["x-amzn-errortype"] = "AccessDeniedException" } },
        { 400, body = { error = { message = "what is an API key?" } } },
      }
      for number, script in ipairs(accepted) do
        assert.same({}, after(world, script), number)
      end
    end)

    it("knows one under status 200, too", function()
      local world = world_of { { health = rules { auth_statuses = {} } } }
      local function err(class, status)
        world.done = {}
        world.after_send(world.req, nil, { class = class, status = status,
          target = world.targets[1] })
        return #world.done
      end
      assert.same({ 1, 0, 0, 0 }, { err("auth", 401), err("auth", 403), err("overloaded", 503),
        err("connect", nil) })
    end)

    it("is not for keys that clients bring", function()
      local world = world_of { { auth = "passthrough", health = rules(RULE) },
        { health = rules(RULE) }, { auth = "none", health = rules(RULE) } }
      assert.same({}, after(world, 401, 1))
      assert.equal(1, #after(world, 401, 2))
      assert.same({}, after(world, 401, 3))
    end)
  end)

  describe("unhealthy", function()
    local function rule(predicate) return { { health = rules { unhealthy = predicate } } } end

    it("ejects when it says so", function()
      local seen = {}
      local world = world_of(rule(function(res)
        table.insert(seen, res.status)
        return res.headers["x-degraded"] == "yes"
      end))
      assert.same({}, after(world, 200))
      assert.same({ { "eject", "t1", 30000, "unhealthy" } },
        after(world, { 200, headers = { ["x-degraded"] = "yes" } }))
      assert.same({}, after(world, 500))
      assert.same({ 200, 200, 500 }, seen)
    end)

    it("ejects for longer each time, up to the maximum, jittered", function()
      local world = world_of(rule(function() return true end))
      world.health:slot("t1").ejections = 2
      assert.same({ { "eject", "t1", 90000, "unhealthy" } }, after(world, 500))
      world.health:slot("t1").ejections = 99
      assert.same({ { "eject", "t1", 300000, "unhealthy" } }, after(world, 500))
      world.luck = 0.5
      assert.same({ "eject", "t1", 315000, "unhealthy" }, after(world, 500)[1])
    end)

    it("may look into an error", function()
      local world = world_of(rule(function(res)
        local body = res:json()
        return body and body.overloaded
      end))
      assert.equal(1, #after(world, { 500, body = { overloaded = true } }))
      assert.same({}, after(world, { 500, body = "oops" }))
    end)

    it("counts as healthy when it fails, and says so once a second", function()
      local world = world_of(rule(function(res) return res.json().no.such.field end))
      for _ = 1, 3 do assert.same({}, after(world, 200)) end
      assert.equal(1, #world.log)
      assert.equal("error", world.log[1].level)
      assert.matches("^provider p1: health%.unhealthy: .*health_spec%.lua:%d+: ",
        world.log[1].text)
      world.clock.advance(1000)
      after(world, 200)
      assert.equal(2, #world.log)
    end)

    it("survives any error", function()
      for _, problem in ipairs { "text", {}, 7, false } do
        local world = world_of(rule(function() error(problem, 0) end))
        assert.same({}, after(world, 200))
        assert.equal(1, #world.log)
      end
    end)

    it("has its say after the other rules", function()
      local world = world_of { { health = rules { auth_statuses = { 401 },
        retry_after = { statuses = { 401 }, cap_ms = 1000 },
        unhealthy = function() return true end } } }
      assert.same({ { "eject", "t1", 1000, "retry_after" },
        { "refuse_key" },
        { "eject", "t1", 30000, "unhealthy" } }, after(world, asking(401, 5)))
    end)

    it("leaves other providers alone", function()
      local world = world_of { { health = rules { unhealthy = function() return true end } }, {} }
      assert.same({}, after(world, 500, 2))
    end)
  end)

  describe("response headers", function()
    local CHANGES = { remove = { "server" }, set = { { "x-a", "1" } }, add = { { "x-b", "2" } } }

    it("are changed for every answer of the route", function()
      local world = world_of({ {} }, CHANGES)
      local expected = { { world.req, "server" }, { world.req, "x-a", "1" },
        { world.req, "x-b", "2", true } }
      assert.same(expected, after(world, 200))
      assert.same(expected, after(world, 503))
    end)

    it("are left as they are on other routes", function()
      local world = world_of({ {} }, CHANGES)
      world.req.route = "plain"
      assert.same({}, after(world, 200))
      world.req.route = nil
      assert.same({}, after(world, 200))
    end)

    it("may be changed in one way only", function()
      for key, list in pairs(CHANGES) do
        assert.equal(1, #after(world_of({ {} }, { [key] = list }), 200))
      end
    end)

    it("count for the rules that follow", function()
      local world = world_of({ { health = rules { retry_after = { statuses = { 429 },
        cap_ms = 3600000 } } } }, { add = { { "Retry-After", "60" } } })
      world.headers = {}
      world.after_send(world.req,
        { status = 429, target = world.targets[1], headers = world.headers })
      assert.same({ "eject", "t1", 60000, "retry_after" }, world.done[2])
    end)
  end)

  it("knows only targets of its configuration", function()
    local world = world_of { { health = rules { unhealthy = function() return true end } } }
    world.after_send(world.req, support.res(500, support.target(1, { name = "t1" })))
    assert.same({}, world.done)
  end)
end)
