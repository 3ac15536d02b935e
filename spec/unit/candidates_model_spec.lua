--- perilune.candidates against a world that changes under its feet: whatever happens, it keeps what
-- it promises.

local support = require "spec.unit.support"

local STATUSES = { 500, 503, 429, 400 }
local WAYS = { "weighted", "smooth_weighted", "round_robin", "least_busy", "least_latency", "p2c",
  "hash" }
local CASES = 4000

-- ---- random worlds -------------------------------------------------------------------------

local function random_targets(random)
  local targets = {}
  for position = 1, random(5) do
    targets[position] = { name = "t" .. position, priority = random(3) - 1, weight = random(4) - 1 }
  end
  return targets
end

local function random_slot(random)
  return {
    first_token_ms = random(3) == 1 and 0 or random(900), ramp = random(3) == 1 and random() or 1,
    success = random(), queue_count = random(3) - 1, queue_ms = random(400),
  }
end

--- Targets go out and come back, fill up and empty; or nothing happens.
local function shake(health, random)
  for _, slot in pairs(health.slots) do
    local dice, now_ms = random(12), health.clock.ms
    if dice == 1 then slot.out_until_ms = now_ms + random(800) end
    if dice == 2 then slot.out_until_ms = 0 end
    if dice == 3 then slot.busy_until_ms = now_ms + random(300) end
    if dice == 4 then slot.busy_until_ms = 0 end
    slot.probe_taken = dice == 5
  end
end

local function make_world(random)
  local targets = random_targets(random)
  local per_priority = random(3) == 1 and random(3) or nil
  local world = { clock = support.clock(), random = random, log = {}, given = {}, asked_ms = {} }
  world.route = support.route { targets = targets, balance = { by = WAYS[random(#WAYS)],
    header = "x" }, panic = random(3) == 1 and "fail" or "use",
    max_ejection_ratio = random(3) == 1 and random(100) / 100 or 1,
    retry = { attempts = random(12), per_priority = per_priority, base_ms = random(200),
      max_ms = 500, floor_ms = random(25) - 1 } }
  world.req = support.req { clock = world.clock, deadline_ms = random(6000),
    headers = { x = random(2) == 1 and "key" or nil } }
  local slots, at = {}, {}
  for _, target in ipairs(world.route.targets) do
    slots[target.name] = random_slot(random)
    at[target.priority] = (at[target.priority] or 0) + 1
  end
  world.health = support.health(world.clock, slots)
  -- more tries than targets at a priority are the operator's explicit choice
  world.repeats = false
  for _, count in pairs(at) do world.repeats = world.repeats or (per_priority or 0) > count end
  return world
end

-- ---- what is true at a moment --------------------------------------------------------------

local function is_out(world, target)
  local slot = world.health:slot(target.name)
  return slot.probe_taken or slot.out_until_ms > world.clock.ms
end

local function is_busy(world, target)
  return world.health:slot(target.name).busy_until_ms > world.clock.ms
end

local function is_ready(world, target)
  return (world.asked_ms[target.name] or 0) <= world.clock.ms
end

--- Whether it could be given this instant.
local function is_free(world, target)
  return not is_out(world, target) and not is_busy(world, target) and is_ready(world, target)
end

local function any(world, holds)
  for _, target in ipairs(world.route.targets) do
    if holds(target) then return true end
  end
  return false
end

local function count_out(world)
  local count = 0
  for _, target in ipairs(world.route.targets) do
    if world.health:slot(target.name).out_until_ms > world.clock.ms then count = count + 1 end
  end
  return count
end

-- ---- what must hold ------------------------------------------------------------------------

local function check_sleep(world, ms, where)
  assert.is_true(ms > 0, where)
  assert.is_true(world.req:remaining_ms() - ms >= 100, where .. ": a wait that ends too late")
  if world.repeats then return end
  assert.is_false(any(world, function(target)
    return not world.given[target.name] and is_free(world, target)
  end), where .. ": a wait while a fit, untried target exists")
end

local function check_given(world, target, where)
  assert.is_false(is_busy(world, target), where .. ": a busy target")
  assert.is_true(is_ready(world, target), where .. ": a target that asked for time")
  if is_out(world, target) then
    local max_out = math.floor(#world.route.targets * world.route.max_ejection_ratio)
    local too_many = count_out(world) > max_out
    local a_fit_one = any(world, function(other) return not is_out(world, other) end)
    assert.is_true(too_many or not a_fit_one, where .. ": an unfit target while a fit one exists")
    assert.is_true(too_many or world.route.panic == "use", where .. ": panic against orders")
  end
  if world.repeats or target ~= world.last then return end
  assert.is_false(any(world, function(other)
    return other ~= target and is_free(world, other)
  end), where .. ": the same target again while another is fit")
end

local function check_end(world, count, where)
  assert.is_true(count <= world.route.retry.attempts, where .. ": too many tries")
  for _, slot in pairs(world.health.slots) do assert.equal(0, slot.waiting, where) end
  local gave_up = world.health.gave_up
  if not gave_up then return end
  assert.is_false(any(world, function(target)
    return not world.given[target.name] and is_free(world, target)
  end), where .. ": gave up while a fit, untried target exists")
  if gave_up[1] == "all_ejected" then assert.equal("fail", world.route.panic, where) end
end

-- ---- one case ------------------------------------------------------------------------------

--- The policy's part: sends, fails, and time goes by.
local function try(world, target, random)
  world.given[target.name], world.last = true, target
  world.clock.advance(random(120) - 1)
  local seconds = random(6) == 1 and tostring(random(3) - 1) or nil
  local status = STATUSES[random(#STATUSES)]
  world.req.last = support.res({ status, headers = { ["retry-after"] = seconds } }, target)
  local asks = (status == 429 or status == 503) and seconds
  if status == 429 or status == 503 then
    world.asked_ms[target.name] = asks and world.clock.ms + seconds * 1000 or nil
  end
  shake(world.health, random)
end

local function run_case(number, random)
  local world = make_world(random)
  local where = "case " .. number
  local native = support.native(world)
  local sleeps = 0
  function native.sleep_ms(ms)
    check_sleep(world, ms, where)
    sleeps = sleeps + 1
    assert.is_true(sleeps < 5000, where .. ": no end")
    world.clock.sleep_ms(ms)
    if random(4) == 1 then shake(world.health, random) end
  end
  shake(world.health, random)
  local count = 0
  for target in support.public_module(native).candidates(world.route) do
    count = count + 1
    check_given(world, target, where)
    try(world, target, random)
  end
  check_end(world, count, where)
  return count
end

describe("perilune.candidates, whatever happens", function()
  it("keeps its promises", function()
    local random, total = support.random(31), 0
    for number = 1, CASES do total = total + run_case(number, random) end
    assert.is_true(total > CASES)
  end)
end)
