local hedge = require "perilune.hedge"

describe("perilune.hedge", function()
  describe("parse_after", function()
    it("reads times and shares", function()
      assert.same({ delay_ms = 2000 }, hedge.parse_after("2s"))
      assert.same({ delay_ms = 1.5 }, hedge.parse_after("1.5ms"))
      assert.same({ ratio = 0.5 }, hedge.parse_after("p50"))
      assert.same({ ratio = 0.95 }, hedge.parse_after("p95"))
      local ratio = hedge.parse_after("p99.9").ratio
      assert.is_true(math.abs(ratio - 0.999) < 1e-12)
    end)

    it("refuses the rest, and says why", function()
      for _, value in ipairs { "", "p", "p5", "p100", "p99.99", "95", "p95 ", "P95", "0s", "-1s",
        "soon" } do
        local delay, code, detail = hedge.parse_after(value)
        assert.is_nil(delay, value)
        assert.is_truthy(code == "invalid" or code == "ambiguous", value)
        assert.is_truthy(detail:find("^must be") or detail:find("^is ambiguous"), value)
      end
      for _, value in ipairs { {}, true, 5 } do
        assert.is_nil((hedge.parse_after(value)))
      end
      assert.is_nil((hedge.parse_after(nil)))
    end)
  end)

  describe("a plan", function()
    it("has defaults for what is not said", function()
      local plan = hedge.plan {}
      assert.same({ ratio = 0.95 }, plan.delay)
      assert.same({ 0.1, 10, 10, 50 },
        { plan.budget_ratio, plan.burst_count, plan.left, plan.at_least_ms })
      assert.is_nil(plan.until_known_ms)
      assert.is_true(plan.takes_path["/v1/chat/completions"])
      assert.is_nil(plan.takes_path["/v1/responses"])
    end)

    it("takes all that is said", function()
      local plan = hedge.plan { after = "1s", at_least_ms = 0, until_known_ms = 5,
        budget_ratio = 0.5, burst_count = 1, paths = { "/v1/x" } }
      assert.same({ delay_ms = 1000 }, plan.delay)
      assert.same({ 0.5, 1, 1, 0, 5 }, { plan.budget_ratio, plan.burst_count, plan.left,
        plan.at_least_ms, plan.until_known_ms })
      assert.same({ ["/v1/x"] = true }, plan.takes_path)
    end)
  end)

  describe("a request", function()
    local calls, req, route, target, second, targets, open

    --- The core, which notes what is asked of it; `open` says when nothing can be judged yet.
    local function native(answers)
      local function note(name) return function() calls[#calls + 1] = name end end
      return {
        hedge_share = function() return true end,
        hedge_begin = note "begin", hedge_wait = note "wait", hedge_decide = note "decide",
        hedge_start = note "start", hedge_next = note "next",
        hedge_is_open = function() return table.remove(open, 1) end,
        hedge_count = function(_, result) calls[#calls + 1] = result end,
        take_answer = function()
          calls[#calls + 1] = "take"
          return unpack(table.remove(answers, 1))
        end,
        wait_quantile_ms = function() end,
      }
    end

    local function make(answers)
      return hedge.new {
        native = native(answers), classify = function() calls[#calls + 1] = "classify" end,
        candidates = { is_walk = function() return false end },
      }
    end

    before_each(function()
      calls, open = {}, {}
      target, second = { name = "a" }, { name = "b" }
      req = { method = "POST", path = "/v1/chat/completions", stream = true,
        send = function() calls[#calls + 1] = "send" return "sent" end }
      route = { hedge = { after = "1s" } }
      targets = function() return second end
    end)

    it("is sent as ever where nothing is said of hedging", function()
      route.hedge = nil
      assert.equal("sent", make {} (req, route, target, targets))
      route.hedge = false
      assert.equal("sent", make {} (req, route, target, targets))
      assert.same({ "send", "send" }, calls)
    end)

    it("is sent as ever when it is not of the kind, or its target's tail is not known", function()
      for _, change in ipairs { { method = "GET" }, { path = "/v1/responses" } } do
        for key, value in pairs(change) do req[key] = value end
        assert.equal("sent", make {} (req, route, target, targets))
      end
      req.method, req.path = "POST", "/v1/messages"
      route.hedge = {}
      assert.equal("sent", make {} (req, route, target, targets))
    end)

    it("is sent as ever where the same must not be asked of two", function()
      route.retry = { uncertain = false }
      assert.equal("sent", make {} (req, route, target, targets))
      assert.equal("sent", make {} (req, route, target, targets, "1s"))
      assert.same({ "send", "send" }, calls)
    end)

    it("asks nobody else when there is something to judge at the delay", function()
      open = { false }
      local res = { status = 500 }
      assert.equal(res, (make { { res } } (req, route, target, targets)))
      assert.same({ "begin", "take" }, calls)
    end)

    it("takes the second one's good answer", function()
      open = { true }
      local res = { status = 200, target = second }
      assert.equal(res, (make { { res } } (req, route, target, targets)))
      assert.same({ "begin", "start", "take", "decide", "second" }, calls)
    end)

    it("drops a failure while the other runs, and counts who was good", function()
      open = { true }
      local res = { status = 200, target = target }
      assert.equal(res, (make { { nil, { class = "reset" } }, { res } }(
        req, route, target, targets)))
      assert.same({ "begin", "start", "take", "classify", "next", "take", "decide", "first" },
        calls)
    end)

    it("waits for the first when there is no second", function()
      open = { true, true }
      targets = function() end
      local res = { status = 200, target = target }
      assert.equal(res, (make { { res } } (req, route, target, targets)))
      assert.same({ "begin", "no_target", "decide", "wait", "take" }, calls)
    end)

    it("does not ask the same target twice at once", function()
      open = { true, true }
      second = target
      make { { { status = 200, target = target } } } (req, route, target, targets)
      assert.same({ "begin", "no_target", "decide", "wait", "take" }, calls)
    end)

    it("waits for the first when the budget is used up", function()
      route.hedge = { after = "1s", burst_count = 1, budget_ratio = 0.5 }
      local res = { status = 200, target = second }
      local send = make { { res }, { res }, { res } }
      open = { true, true, true }
      send(req, route, target, targets) -- full: its own share adds nothing
      send(req, route, target, targets) -- a half
      send(req, route, target, targets) -- one again
      assert.same({ "begin", "start", "take", "decide", "second",
        "begin", "no_budget", "wait", "take",
        "begin", "start", "take", "decide", "second" }, calls)
    end)
  end)
end)
