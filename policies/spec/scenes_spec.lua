--- Things that go wrong with answers, and what clients see of them: with the default policy, for a
-- client of OpenAI's and one of Anthropic's, in the times that they take. The official clients play
-- the same scenes in spec/clients/scenes.test.mjs.

local cjson = require "cjson.safe"
local scenes = require "scenes"

local APIS, BIG, SMALL, WORD_COUNT = scenes.APIS, scenes.BIG, scenes.SMALL, scenes.WORD_COUNT
local ask, new_world, words = scenes.ask, scenes.world, scenes.words

--- The answer is whole, with each word once and in order, and was written by these targets.
local function assert_whole(world, answer, called)
  assert.equal(200, answer.status)
  assert.equal("complete", answer.ended)
  assert.equal(words(), answer:text())
  assert.same(called, world:called())
end

local function assert_rescued(world, api, called)
  for _, stream in ipairs { true, false } do
    local count = #world:called()
    local answer = ask(world, api, stream)
    assert.equal(200, answer.status)
    assert.equal("complete", answer.ended)
    assert.equal(words(), answer:text())
    assert.same(called, { unpack(world:called(), count + 1) })
  end
end

for name, api in pairs(APIS) do
  describe("with " .. api.path .. ",", function()
    local world

    before_each(function() world = new_world() end)

    -- ---- refused, and failed before anything came ----

    describe("429 with Retry-After, once,", function()
      local BUSY = { status = 429, headers = { ["Retry-After"] = "7" } }

      it("is not seen: the other target answers", function()
        world:upstream("primary"):answers(BUSY, 200)
        assert_whole(world, ask(world, api), { BIG, SMALL })
      end)

      it("is heeded where there is no other", function()
        world = new_world { route = { targets = { { provider = "primary", model = "big" } } } }
        world:upstream("primary"):answers(BUSY, { words = WORD_COUNT })
        local answer = ask(world, api)
        assert_whole(world, answer, { BIG, BIG })
        assert.is_true(world:calls()[2].at_ms >= 7000)
        assert.is_true(answer.duration_ms < 9000, answer.duration_ms)
      end)
    end)

    describe("429 for ever", function()
      local BUSY = { status = 429, headers = { ["Retry-After"] = "60" } }

      it("is asked no more until it wants to be", function()
        world:upstream("primary"):always(BUSY)
        assert_whole(world, ask(world, api), { BIG, SMALL })
        for _ = 1, 5 do ask(world, api) end
        assert.same({ BIG, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL }, world:called())
      end)

      it("is what the client gets in the end when all say so", function()
        world:upstream("primary"):always(BUSY)
        world:upstream("spare"):always(BUSY)
        local answer = ask(world, api)
        assert.equal(429, answer.status)
        assert.equal("60", answer.headers["retry-after"])
        assert.is_true(answer.duration_ms < 120000, answer.duration_ms)
        assert.same({ BIG, SMALL }, { unpack(world:called(), 1, 2) })
        assert.is_true(#world:called() <= 3) -- attempts
      end)
    end)

    it("500, once, is not seen", function()
      world:upstream("primary"):answers(500, { words = WORD_COUNT })
      assert_whole(world, ask(world, api), { BIG, SMALL })
      assert_whole(world, ask(world, api), { BIG, SMALL, BIG })
    end)

    it("503 for ever is not seen, and soon not asked for any more", function()
      world:upstream("primary"):always(503)
      world:upstream("spare"):always { words = WORD_COUNT }
      for _ = 1, 10 do
        local answer = ask(world, api)
        assert.equal(words(), answer:text())
      end
      local primary_count = 0
      for _, target in ipairs(world:called()) do
        if target == BIG then primary_count = primary_count + 1 end
      end
      assert.equal(5, primary_count) -- consecutive_5xx
    end)

    it("a reset before the headers is not seen", function()
      world:upstream("primary"):always "reset"
      assert_rescued(world, api, { BIG, SMALL })
    end)

    it("a target that accepts and says nothing is left after its time", function()
      world:upstream("primary"):always "hang"
      local answer = ask(world, api)
      assert_whole(world, answer, { BIG, SMALL })
      assert.equal(10000, world:calls()[2].at_ms)
      assert.is_true(answer.duration_ms < 18000, answer.duration_ms)
    end)

    it("a first token after 20 s is not waited for: all is there within 15 s", function()
      world:upstream("primary"):always { words = "too late", first = "20s" }
      local answer = ask(world, api)
      assert_whole(world, answer, { BIG, SMALL })
      assert.is_true(answer.duration_ms <= 15000, answer.duration_ms)
      assert.falsy(answer.body:find("too late", 1, true))
    end)

    -- ---- the request is at fault ----

    it("a context that is too long is tried once, and by the next target", function()
      world:upstream("primary"):always { status = 400, body = api.error("invalid_request_error",
        "context_length_exceeded", "prompt is too long: 250000 tokens > 200000 maximum") }
      assert_rescued(world, api, { BIG, SMALL })
    end)

    it("a content policy's refusal is tried once, and reaches the client untouched", function()
      local body = api.error("invalid_request_error", "content_policy_violation",
        "Output blocked by content filtering policy")
      world:upstream("primary"):always { status = 400, body = body }
      for number, stream in ipairs { true, false } do
        local answer = ask(world, api, stream)
        assert.equal(400, answer.status)
        assert.same(body, answer:json())
        assert.equal(number, #world:called())
      end
    end)

    -- ---- an outage ----

    describe("an outage of 60 s", function()
      local FROM_MS, TO_MS, EVERY_MS, REQUEST_COUNT = 60000, 120000, 4000, 60
      local HEALTH = { consecutive_5xx = 3, consecutive_connection = 3, base_ejection = "10s",
        max_ejection = "20s" }

      -- The first try of the primary that went well after the outage.
      local function recovered_ms()
        for _, call in ipairs(world:calls()) do
          if call.provider == "primary" and call.at_ms >= TO_MS and call.outcome == "ok" then
            return call.at_ms
          end
        end
      end

      for _, failure in ipairs { 503, "connect", "hang" } do
        it(("of %s is seen by nobody, and over 30 s after it ends"):format(failure), function()
          world = new_world { health = HEALTH }
          world:upstream("primary"):between("60s", "120s", failure)
          world:upstream("primary"):always { words = WORD_COUNT }
          local answers, primary_count = {}, 0
          for number = 1, REQUEST_COUNT do
            answers[number] = world:start { path = api.path, stream = true, model = "any" }
            world:advance(EVERY_MS .. "ms")
          end
          world:run()
          for number = 1, REQUEST_COUNT do
            assert.equal(200, answers[number].status)
            assert.equal(words(), answers[number]:text())
          end
          for _, call in ipairs(world:calls()) do
            if call.provider == "primary" then primary_count = primary_count + 1 end
          end
          assert.is_true(primary_count <= REQUEST_COUNT)
          assert.is_true(world:calls()[FROM_MS / EVERY_MS].provider == "primary")
          assert.is_true(recovered_ms() <= TO_MS + 30000, recovered_ms())
        end)
      end
    end)

    -- ---- who wrote it ----

    it("the model's name is that of the target that wrote the answer", function()
      local function models_of(answer)
        if not answer.headers["content-type"]:find("event-stream", 1, true) then
          return { answer:json().model }
        end
        local found = {}
        for _, event in ipairs(answer:events()) do
          local data = cjson.decode(event.data) or {}
          local model = data.model or type(data.message) == "table" and data.message.model
          if model then found[#found + 1] = model end
        end
        return found
      end
      for _, stream in ipairs { true, false } do
        for _, case in ipairs { { 200, "big" }, { 503, "small" } } do
          world:upstream("primary"):always(case[1])
          local models = models_of(ask(world, api, stream))
          assert.is_true(#models > 0)
          for _, model in ipairs(models) do assert.equal(case[2], model) end
        end
      end
    end)

    -- ---- what cannot be rescued ----

    it("a cut that nobody goes on from ends in an error event, never well", function()
      world:upstream("primary"):always { words = WORD_COUNT, every = "100ms", cut_after = 40 }
      local answer = ask(world, api)
      assert.equal("cut", answer.ended)
      local events = answer:events()
      local last = assert(cjson.decode(events[#events].data))
      assert.equal(name == "messages" and "error" or nil, events[#events].event)
      assert.matches("ended early", last.error.message, 1, true)
      assert.same({ BIG }, world:called())
    end)
  end)
end
