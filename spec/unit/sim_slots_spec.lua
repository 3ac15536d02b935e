local slots = require "perilune.sim.slots"

describe("perilune.sim.slots", function()
  local clock, waiting, gone, limiter

  local function run(request)
    local thread = coroutine.create(function()
      local ok, code = limiter:acquire(request)
      request.outcome = ok and "running" or code
    end)
    table.insert(waiting, { thread = thread, request = request, wake_ms = clock.ms })
  end

  local function advance(ms)
    local until_ms = clock.ms + ms
    while clock.ms <= until_ms do
      for _, entry in ipairs(waiting) do
        if entry.wake_ms <= clock.ms and not gone[entry.request]
          and coroutine.status(entry.thread) ~= "dead" then
          local ok, sleep_ms = coroutine.resume(entry.thread)
          assert(ok, sleep_ms)
          entry.wake_ms = clock.ms + (sleep_ms or 0)
        end
      end
      clock.ms = clock.ms + 1
    end
  end

  local function start(limit, queue_limit)
    limiter = slots.new({ limit = limit, queue_limit = queue_limit }, {
      now_ms = function() return clock.ms end,
      sleep_ms = function(ms) coroutine.yield(ms) end,
      is_over = function(request) return gone[request] == true end,
    })
  end

  local function requests(count)
    local list = {}
    for index = 1, count do
      list[index] = {}
      run(list[index])
    end
    return list
  end

  before_each(function() clock, waiting, gone = { ms = 0 }, {}, {} end)

  it("lets as many run as there are places, the others in order of arrival", function()
    start(2, 10)
    local list = requests(4)
    advance(50)
    assert.equal("running", list[1].outcome)
    assert.equal("running", list[2].outcome)
    assert.is_nil(list[3].outcome)
    assert.equal(2, limiter:waiting_count())
    limiter:release(list[2])
    advance(10)
    assert.equal("running", list[3].outcome)
    assert.is_nil(list[4].outcome)
    limiter:release(list[1])
    limiter:release(list[1])
    advance(10)
    assert.equal("running", list[4].outcome)
    assert.equal(2, limiter.running_count)
    assert.equal(0, limiter:waiting_count())
  end)

  it("does not let a newcomer overtake the line", function()
    start(1, 10)
    local list = requests(2)
    advance(20)
    limiter:release(list[1])
    local late = {}
    run(late)
    table.insert(waiting, 1, table.remove(waiting)) -- it runs first in the next turn
    advance(20)
    assert.equal("running", list[2].outcome)
    assert.is_nil(late.outcome)
  end)

  it("refuses when the line is full", function()
    start(1, 2)
    local list = requests(4)
    advance(5)
    assert.equal("queue_full", list[4].outcome)
    assert.is_nil(list[3].outcome)
  end)

  it("takes back the places of those whose client has left", function()
    start(1, 2)
    local list = requests(3)
    advance(5)
    gone[list[1]] = true
    gone[list[2]] = true
    advance(20)
    assert.equal("running", list[3].outcome)
    assert.equal(1, limiter.running_count)
  end)

  it("takes back places in the middle of a full line", function()
    start(1, 2)
    local list = requests(3)
    advance(5)
    gone[list[3]] = true
    local late = {}
    run(late)
    advance(5)
    assert.is_nil(late.outcome)
    assert.equal(2, limiter:waiting_count())
    limiter:release(list[1])
    advance(5)
    limiter:release(list[2])
    advance(10)
    assert.equal("running", late.outcome)
  end)

  it("serves a long line at the speed of those who run", function()
    start(5, 1000)
    local list = requests(300)
    local finished = 0
    while finished < 300 do
      local before = finished
      for _, request in ipairs(list) do
        if request.outcome == "running" then
          limiter:release(request)
          request.outcome, finished = "done", finished + 1
        end
      end
      advance(25)
      assert.is_true(finished > before or clock.ms < 200)
    end
    assert.is_true(clock.ms < 3500, clock.ms)
  end)
end)
