--- Providers with several keys: they take turns, one that is refused or told to wait is out, and
-- the request goes on with another one.

local testing = require "perilune.testing"

local A, B, C = "sk-aaaaaaaaaaaaaaaa0001", "sk-bbbbbbbbbbbbbbbb0002", "sk-cccccccccccccccc0003"

--- A gateway whose provider `many` has these keys, and, where wanted, another one to fall back to.
local function world_of(keys, options)
  options = options or {}
  local health = { base_ejection = "30s", jitter = 0 }
  for key, value in pairs(options.health or {}) do health[key] = value end
  local targets = { { provider = "many", model = "m" } }
  if options.spare then targets[2] = { provider = "spare", priority = 1 } end
  if options.two_models then targets[#targets + 1] = { provider = "many", model = "n",
    priority = 2 } end
  return testing.world { config = {
    providers = {
      many = { url = "http://many.test/v1", keys = keys, health = options.off and { auth = false }
        or health },
      spare = { url = "http://spare.test/v1" },
    },
    routes = { { targets = targets, policy = "fallback", retry = options.retry
      or { attempts = 5 }, panic = options.panic } },
  } }
end

--- Answers by key: what is not named is good.
local function answer_by_key(world, answers)
  world:upstream("many"):always(function(call)
    local answer = answers[call.headers.authorization:match("^Bearer (.*)$")] or 200
    if type(answer) == "function" then return answer(call) end
    return answer
  end)
end

--- The keys that were used, in order, by their letters; "-" for calls without any.
local function used(world, from)
  local letters = {}
  for number, call in ipairs(world:calls()) do
    local letter = (call.headers.authorization or ""):match("^Bearer sk%-(%a)")
    if number >= (from or 1) then letters[#letters + 1] = letter or "-" end
  end
  return table.concat(letters)
end

local function ask(world, count)
  local answer
  for _ = 1, count or 1 do answer = world:request { model = "x" } end
  return answer
end

describe("keys", function()
  it("take turns", function()
    local world = world_of { A, B, C }
    ask(world, 7)
    assert.equal("abcabca", used(world))
  end)

  it("are left out while they are refused, and the request goes on at once", function()
    local world = world_of { A, B }
    answer_by_key(world, { [A] = 401 })
    local answer = ask(world)
    assert.same({ 200, 0 }, { answer.status, answer.duration_ms })
    assert.equal("ab", used(world))
    ask(world, 3)
    assert.equal("abbbb", used(world))
    assert.is_true(world:health("many/m").fit)
  end)

  it("come back after the ejection time, longer each time, by one try", function()
    local world = world_of { A, B }
    answer_by_key(world, { [A] = 401 })
    ask(world)
    world:advance("29s")
    ask(world, 2)
    assert.equal("abbb", used(world))
    world:advance("2s")
    ask(world, 2)
    assert.equal("abbbabb", used(world))
    world:advance("58s")
    ask(world, 2)
    assert.equal("bb", used(world, 8))
    answer_by_key(world, {})
    world:advance("3s")
    ask(world, 4)
    assert.equal("abab", used(world, 10))
  end)

  it("are out for all models of the provider, and the targets with the last of them", function()
    local world = world_of({ A, B }, { spare = true, two_models = true })
    answer_by_key(world, { [A] = 401, [B] = 401 })
    assert.equal(200, ask(world).status)
    assert.same({ "many/m", "many/m", "spare" }, world:called())
    assert.is_false(world:health("many/m").fit)
    assert.is_false(world:health("many/n").fit)
    ask(world)
    assert.equal("spare", world:called()[4])
  end)

  it("hold for one key, too", function()
    local world = world_of({ A }, { spare = true })
    answer_by_key(world, { [A] = 401 })
    ask(world, 2)
    assert.same({ "many/m", "spare", "spare" }, world:called())
    world:advance("31s")
    answer_by_key(world, {})
    ask(world, 2)
    assert.equal("a-" .. "-aa", used(world))
  end)

  it("are not blamed for what concerns the model or the request", function()
    local world = world_of({ A, B }, { spare = true })
    answer_by_key(world, { [A] = 403, [B] = 403 })
    ask(world, 2)
    assert.same({ "many/m", "spare", "many/m", "spare" }, world:called())
    assert.is_true(world:health("many/m").fit)
  end)

  it("are blamed for statuses that health.auth lists", function()
    local world = world_of({ A, B }, { health = { auth = { 403 } } })
    answer_by_key(world, { [A] = 403 })
    assert.equal(200, ask(world).status)
    assert.equal("ab", used(world))
  end)

  it("are never out where nobody wants that", function()
    local world = world_of({ A, B }, { off = true })
    answer_by_key(world, { [A] = 401, [B] = 401 })
    ask(world)
    assert.is_true(world:health("many/m").fit)
  end)

  it("are the first to wait for a rate limit", function()
    local world = world_of({ A, B }, { spare = true })
    answer_by_key(world, { [A] = { status = 429, headers = { ["retry-after"] = "10" } } })
    local answer = ask(world)
    assert.same({ 200, 0 }, { answer.status, answer.duration_ms })
    assert.equal("ab", used(world))
    ask(world, 2)
    assert.equal("abbb", used(world))
    answer_by_key(world, {})
    world:advance("11s")
    ask(world, 2)
    assert.equal("ab", used(world, 5))
  end)

  it("leave the target when all of them must wait, until the first need not", function()
    local world = world_of({ A, B }, { spare = true })
    answer_by_key(world, {
      [A] = { status = 429, headers = { ["retry-after"] = "60" } },
      [B] = { status = 429, headers = { ["retry-after"] = "20" } },
    })
    assert.equal(200, ask(world).status)
    assert.same({ "many/m", "many/m", "spare" }, world:called())
    answer_by_key(world, {})
    world:advance("19s")
    ask(world)
    world:advance("2s")
    ask(world)
    assert.same({ "spare", "many/m" }, { unpack(world:called(), 4) })
    assert.equal("b", used(world, 5))
  end)

  it("are waited for when there is nobody else and it is soon", function()
    local world = world_of { A, B }
    local late = { status = 429, headers = { ["retry-after"] = "2" } }
    answer_by_key(world, {
      [A] = function(call) return call.at_ms < 2000 and late or 200 end,
      [B] = function(call) return call.at_ms < 2000 and late or 200 end,
    })
    local answer = ask(world)
    assert.equal(200, answer.status)
    assert.equal("ab", used(world):sub(1, 2))
    assert.is_true(answer.duration_ms >= 2000 and answer.duration_ms < 2200)
  end)

  it("do not make more tries than the route allows", function()
    local world = world_of({ A, B, C }, { retry = { attempts = 2 } })
    answer_by_key(world, { [A] = 401, [B] = 401, [C] = 401 })
    assert.equal(401, ask(world).status)
    assert.equal("ab", used(world))
  end)

  it("are used in spite of it in panic, the one first that is back first", function()
    local world = world_of({ A, B }, { retry = { attempts = 2 } })
    answer_by_key(world, { [A] = 401, [B] = 401 })
    ask(world)
    answer_by_key(world, {})
    assert.equal(200, ask(world).status)
    assert.equal("aba", used(world))
  end)

  it("come before the same target by another reaction, and after what an error event says",
    function()
    local world = world_of { A, B }
    answer_by_key(world, { [A] = { events = { { data = { type = "error",
      error = { type = "authentication_error", message = "no" } } } } } })
    assert.equal(200, world:request({ model = "x", stream = true }).status)
    assert.equal("ab", used(world))
    ask(world, 2)
    assert.equal("abbb", used(world))
  end)

  it("are named in the log without their secret", function()
    local world = world_of { A, B }
    answer_by_key(world, { [A] = 401 })
    ask(world)
    local log = table.concat(world:log(), "\n")
    assert.is_truthy(log:find("provider many: key 1 of 2 (sk-…0001) is out: refused", 1, true), log)
    assert.is_nil(log:find("aaaa", 1, true))
  end)
end)
