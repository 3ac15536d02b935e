local retry = require "perilune.retry"
local support = require "spec.unit.support"

describe("perilune.retry", function()
  it("has defaults, and takes options over them", function()
    assert.equal(5, retry.new({}).attempts)
    assert.is_nil(retry.new({}).per_priority)
    local object = retry.new { attempts = 2, per_priority = 3 }
    assert.equal(2, object.attempts)
    assert.equal(3, object.per_priority)
  end)

  it("is read-only", function()
    local object = retry.new {}
    assert.has_error(function() object.attempts = 100 end,
      "perilune.retry is read-only: cannot set \"attempts\"")
    assert.equal("perilune.retry", getmetatable(object))
  end)

  describe("wants", function()
    it("matches statuses, hundreds, classes and groups", function()
      local object = retry.new { on = { 429, "5xx", "billing", "connect", "reset" } }
      assert.is_true(object:wants("rate_limited", 429))
      assert.is_true(object:wants("overloaded", 503))
      assert.is_true(object:wants("server_error", 599))
      assert.is_true(object:wants("billing", 400))
      for _, class in ipairs { "dns", "connect", "tls", "timeout_connect", "reset", "truncated" } do
        assert.is_true(object:wants(class, nil), class)
      end
      assert.is_false(object:wants("client_fault", 400))
      assert.is_false(object:wants("server_error", 302))
      assert.is_false(object:wants("timeout_head", nil))
      assert.is_false(object:wants("empty", nil))
    end)

    it("knows 3xx and 4xx", function()
      local object = retry.new { on = { "3xx", "4xx" } }
      assert.is_true(object:wants("server_error", 302))
      assert.is_true(object:wants("client_fault", 418))
      assert.is_false(object:wants("server_error", 500))
    end)

    it("means the group by timeout", function()
      local object = retry.new { on = { "timeout" } }
      for _, class in ipairs { "timeout_connect", "timeout_head", "timeout_first_token",
        "timeout_idle", "timeout_try" } do
        assert.is_true(object:wants(class), class)
      end
      assert.is_false(object:wants("timeout_deadline"))
    end)

    it("never wants ok or a passed deadline", function()
      local object = retry.new { on = { "3xx", "timeout" } }
      assert.is_false(object:wants("ok", 304))
      assert.is_false(object:wants("ok", 200))
      assert.is_false(object:wants("timeout_deadline", nil))
    end)

    it("prefers the route's list to the policy's, and that to the library's", function()
      local own, none = retry.new { on = { 500 } }, retry.new {}
      assert.is_false(own:wants("rate_limited", 429, { 429 }))
      assert.is_true(own:wants("server_error", 500, { 429 }))
      assert.is_true(none:wants("rate_limited", 429, { 429 }))
      assert.is_false(none:wants("server_error", 500, { 429 }))
      assert.is_true(none:wants("server_error", 500))
      assert.is_false(retry.new({ on = {} }):wants("server_error", 500, { 500 }))
    end)

    it("hears reactions before all lists", function()
      local object = retry.new { on = { "5xx", 400 }, reactions = { [503] = "give_up",
        content_filter = "next", ["4xx"] = "give_up", timeout = "again" } }
      assert.is_false(object:wants("overloaded", 503))
      assert.is_true(object:wants("server_error", 500))
      assert.is_true(object:wants("content_filter", 400))
      assert.is_false(object:wants("client_fault", 400, { 400 }))
      assert.is_true(object:wants("timeout_head", nil))
      assert.equal("again", object:reaction("timeout_idle", nil))
      assert.is_nil(object:reaction("server_error", 500))
      assert.is_false(object:wants("ok", 200))
    end)

    it("takes a status before a class, a class before a group, hundreds last", function()
      local object = retry.new { reactions = { ["5xx"] = "next", [503] = "again",
        server_error = "give_up", timeout = "next", timeout_head = "give_up" } }
      assert.equal("again", object:reaction("server_error", 503))
      assert.equal("give_up", object:reaction("server_error", 500))
      assert.equal("next", object:reaction("overloaded", 529))
      assert.equal("give_up", object:reaction("timeout_head", nil))
      assert.equal("next", object:reaction("timeout_try", nil))
    end)

    it("refuses reactions to what it does not know", function()
      assert.has_error(function() retry.new { reactions = { overlaoded = "next" } } end)
      assert.has_error(function() retry.new { reactions = { ok = "next" } } end)
    end)

    it("does not take a policy's statuses for filtered content", function()
      local none, own = retry.new {}, retry.new { on = { 403 } }
      assert.is_false(none:wants("content_filter", 403, { 403, "4xx" }))
      assert.is_true(none:wants("content_filter", 403, { "content_filter" }))
      assert.is_true(own:wants("content_filter", 403))
      assert.is_true(none:wants("client_fault", 404, { 404 }))
    end)

    it("never repeats work that must not be", function()
      local work
      local function last_work() return work end
      local careful = retry.new({ uncertain = false, reactions = { reset = "again" } }, last_work)
      local strict = retry.new({ uncertain = false, partly_generated = false }, last_work)
      local free = retry.new({}, last_work)
      local expected = { not_sent = { true, true }, refused = { true, true },
        uncertain = { false, false }, partly_generated = { true, false } }
      for name, wanted in pairs(expected) do
        work = name
        assert.equal(wanted[1], careful:wants("reset", nil), name)
        assert.equal(wanted[2], strict:wants("server_error", 500, { "5xx" }), name)
        assert.same(wanted, { careful:allows(), strict:allows() })
        assert.is_true(free:wants("reset", nil))
      end
      work = nil
      assert.is_true(strict:allows())
      assert.same({ false, true, true, true }, { careful.uncertain, careful.partly_generated,
        free.uncertain, free.partly_generated })
    end)

    it("by default leaves the client's mistakes and filtered content alone", function()
      local object = retry.new {}
      for _, class in ipairs { "client_fault", "content_filter", "ok" } do
        assert.is_false(object:wants(class, 400), class)
      end
      for _, class in ipairs { "auth", "billing", "context_length", "overloaded", "dns",
        "truncated",
        "timeout_idle", "malformed" } do
        assert.is_true(object:wants(class, nil), class)
      end
    end)

    it("compiles a policy's list once", function()
      local object, list = retry.new {}, { 429 }
      assert.is_true(object:wants("rate_limited", 429, list))
      list[1] = 500
      assert.is_true(object:wants("rate_limited", 429, list))
      assert.is_true(retry.new({}):wants("rate_limited", 429, list))
    end)

    it("takes a nil class for no reason to try again", function()
      assert.is_false(retry.new({}):wants(nil, nil))
    end)

    it("names the mistake when the status was lost", function()
      assert.has_error(function() retry.new({}):wants("ok", { 429 }) end)
      local _, message = pcall(function() return (retry.new({}):wants("ok", { 429 })) end)
      assert.matches("write local class, status = gw.classify", message, 1, true)
      assert.matches("retry_spec.lua", message, 1, true)
    end)

    it("refuses lists with mistakes, and says where", function()
      local mistakes = {
        { { 200 }, "trigger 1: status 200 is not within 300 to 599" },
        { { 429, 600 }, "trigger 2: status 600" }, { { 429.5 }, "trigger 1: status 429.5" },
        { { "5XX" }, "\"5XX\" is neither" }, { { "2xx" }, "\"2xx\" is neither" },
        { { "503" }, "\"503\" is neither" }, { { true }, "not a boolean" },
        { { "ok" }, "\"ok\" can never be tried again" },
        { { "timeout_deadline" }, "\"timeout_deadline\" can never" },
      }
      for _, mistake in ipairs(mistakes) do
        local ok, message = pcall(retry.new, { on = mistake[1] })
        assert.is_false(ok)
        assert.matches(mistake[2], message, 1, true)
        ok, message = pcall(function() return (retry.new({}):wants("ok", 200, mistake[1])) end)
        assert.is_false(ok)
        assert.matches(mistake[2], message, 1, true)
      end
      assert.has_error(function() retry.new({}):wants("ok", 200, 429) end)
    end)
  end)

  describe("backoff_ms", function()
    local function fixed(value) return function() return value end end

    it("doubles up to the limit", function()
      local object = retry.new { base_ms = 100, max_ms = 1000, floor_ms = 25 }
      local highest = {}
      for n = 1, 6 do highest[n] = object:backoff_ms(n, fixed(1)) end
      assert.same({ 100, 200, 400, 800, 1000, 1000 }, highest)
      assert.equal(1000, object:backoff_ms(5000, fixed(1)))
    end)

    it("is jittered over the whole range down to the floor", function()
      local object = retry.new { base_ms = 100, max_ms = 1000, floor_ms = 20 }
      assert.equal(20, object:backoff_ms(1, fixed(0)))
      assert.equal(60, object:backoff_ms(1, fixed(0.5)))
      assert.equal(20, object:backoff_ms(4, fixed(0)))
    end)

    it("copes with a floor above the base, and above the limit", function()
      assert.equal(50, retry.new({ base_ms = 10, max_ms = 1000, floor_ms = 50 }):backoff_ms(1,
        fixed(0.9)))
      assert.equal(30, retry.new({ base_ms = 10, max_ms = 30, floor_ms = 50 }):backoff_ms(1,
        fixed(0.9)))
    end)

    it("is uniform", function()
      local object, random = retry.new { base_ms = 1000, max_ms = 1000, floor_ms = 0 },
        support.random(7)
      local counts, total = {}, 20000
      for _ = 1, total do
        local bin = math.floor(object:backoff_ms(1, random) / 100) + 1
        counts[bin] = (counts[bin] or 0) + 1
      end
      local chi = 0
      for bin = 1, 10 do chi = chi + (counts[bin] - total / 10) ^ 2 / (total / 10) end
      assert.is_true(chi < 27.9, "chi-square " .. chi) -- 9 degrees of freedom, p = 0.001
    end)
  end)

  it("keeps the budget, read-only", function()
    assert.is_nil(retry.new({}).budget)
    local budget = retry.new({ budget = { ratio = 0.2, min_count = 3 } }).budget
    assert.same({ 0.2, 3 }, { budget.ratio, budget.min_count })
    assert.has_error(function() budget.ratio = 1 end)
  end)
end)
