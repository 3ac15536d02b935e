--- Things that go wrong after a stream has begun, and what clients see of them where the route has
-- `rescue`: see scenes_spec.lua, and spec/clients/rescue.test.mjs for the official clients.

local cjson = require "cjson.safe"
local scenes = require "scenes"

local BIG, SMALL, WORD_COUNT = scenes.BIG, scenes.SMALL, scenes.WORD_COUNT
local ask, words = scenes.ask, scenes.words
local EVERY = "100ms"

-- ---- streams that are written event by event ------------------------------------------------

local STREAMS = {}

--- Events of a chat completion of the words, role, finish and mark included.
function STREAMS.chat()
  local events = {}
  local function add(delta, finish)
    events[#events + 1] = cjson.encode { id = "c-1", object = "chat.completion.chunk",
      model = "big", created = 1,
      choices = { { index = 0, delta = delta, finish_reason = finish } } }
  end
  add { role = "assistant", content = "" }
  for number = 1, WORD_COUNT do
    add { content = (number > 1 and " " or "") .. "word" .. number }
  end
  add({ content = "" }, "stop")
  return events, { "[DONE]" }
end

--- The same as Anthropic has it.
function STREAMS.messages()
  local events = {}
  local function add(name, members)
    members.type = name
    events[#events + 1] = { event = name, data = members }
  end
  add("message_start", { message = { id = "m-1", type = "message", role = "assistant",
    model = "big", content = setmetatable({}, cjson.array_mt),
    usage = { input_tokens = 1, output_tokens = 1 } } })
  add("content_block_start", { index = 0, content_block = { type = "text", text = "" } })
  add("ping", {})
  for number = 1, WORD_COUNT do
    add("content_block_delta", { index = 0, delta = { type = "text_delta",
      text = (number > 1 and " " or "") .. "word" .. number } })
  end
  add("content_block_stop", { index = 0 })
  add("message_delta", { delta = { stop_reason = "end_turn" }, usage = { output_tokens = 60 } })
  return events, { { event = "message_stop", data = { type = "message_stop" } } }
end

--- The primary's stream, with an event put in as its tenth.
local function with_tenth(name, event)
  local events, ending = STREAMS[name]()
  table.insert(events, 10, event)
  for _, last in ipairs(ending) do events[#events + 1] = last end
  return { events = events, every = EVERY, done = false }
end

-- ---- targets that go on ---------------------------------------------------------------------

--- What of the words a conversation has as the beginning of the answer; "" when nothing.
local function prefix_of(call)
  local messages = call.json.messages
  local last = messages[#messages]
  return last.role == "assistant" and last.content or ""
end

--- Goes on from the assistant's words, as a model does that takes a prefix.
local function going_on(call)
  local prefix, all = prefix_of(call), words()
  assert.equal(all:sub(1, #prefix), prefix)
  return { words = all:sub(#prefix + 1), first = "1s", every = EVERY }
end

local REFUSED = "This model does not support assistant message prefill."

--- Refuses a prefix, and otherwise begins afresh.
local function refusing(api)
  return function(call)
    if prefix_of(call) == "" then return { words = WORD_COUNT, first = "1s", every = EVERY } end
    return { status = 400, body = api.error("invalid_request_error", "invalid_request", REFUSED) }
  end
end

-- ---- what clients check ---------------------------------------------------------------------

--- The stream is well-formed: one answer with one id, its text in one block, a proper end.
local CHECKS = {}

function CHECKS.chat(events)
  local ids, finishes, roles = {}, 0, 0
  assert.equal("[DONE]", events[#events].data)
  for number = 1, #events - 1 do
    local chunk = assert(cjson.decode(events[number].data), events[number].data)
    assert.is_nil(chunk.error)
    ids[chunk.id] = true
    local choice = chunk.choices[1]
    if choice and choice.delta.role then roles = roles + 1 end
    if choice and type(choice.finish_reason) == "string" then finishes = finishes + 1 end
  end
  assert.same({ 1, 1 }, { roles, finishes })
  assert.is_string((next(ids)))
  assert.is_nil((next(ids, (next(ids)))))
end

function CHECKS.messages(events)
  local counts = {}
  for _, event in ipairs(events) do
    local data = assert(cjson.decode(event.data), event.data)
    assert.equal(event.event, data.type)
    counts[data.type] = (counts[data.type] or 0) + 1
    if data.index then assert.equal(0, data.index) end
  end
  assert.equal("message_start", events[1].event)
  assert.equal("message_stop", events[#events].event)
  assert.same({ 1, 1, 1, 1, 1 }, { counts.message_start, counts.content_block_start,
    counts.content_block_stop, counts.message_delta, counts.message_stop })
end

for name, api in pairs(scenes.APIS) do
  describe("with " .. api.path .. " and rescue,", function()
    local function new_world(rescue, more)
      local route = { rescue = rescue }
      for key, value in pairs(more or {}) do route[key] = value end
      local world = scenes.world { route = route }
      world:upstream("spare"):always(going_on)
      return world
    end

    --- The client has one whole answer; these targets wrote it.
    local function assert_whole(world, answer, called)
      assert.equal(200, answer.status)
      assert.equal("complete", answer.ended)
      assert.equal(words(), answer:text())
      CHECKS[name](answer:events())
      assert.same(called, world:called())
    end

    for _, mode in ipairs { "continue", "restart" } do
      it(("a cut after 40 of 60 words is not seen (%s)"):format(mode), function()
        local world = new_world(mode)
        world:upstream("primary"):always { words = WORD_COUNT, every = EVERY,
          cut_after = api.lead_count + 40 }
        local answer = ask(world, api)
        assert_whole(world, answer, { BIG, SMALL })
        local prefix = prefix_of(world:calls()[2])
        assert.equal(mode == "continue" and words(1, 40) or "", prefix)
      end)

      it(("a silence of 30 s after 20 words is not waited for (%s)"):format(mode), function()
        local world = new_world(mode)
        world:upstream("primary"):always { words = WORD_COUNT, every = EVERY,
          stall_after = api.lead_count + 20 }
        local answer = ask(world, api)
        assert_whole(world, answer, { BIG, SMALL })
        assert.is_true(answer.duration_ms < 2000 + 10000 + 1000 + 6000 + 500, answer.duration_ms)
      end)
    end

    it("a tenth event that is invalid JSON is dropped, and ends nothing", function()
      local world = new_world("continue", { malformed_events = "drop" })
      world:upstream("primary"):always(with_tenth(name, "{\"garbage"))
      local answer = ask(world, api)
      assert_whole(world, answer, { BIG })
      assert.falsy(answer.body:find("garbage", 1, true))
    end)

    it("a stream that lacks its last mark gets it", function()
      local world = new_world("continue")
      world:upstream("primary"):always { words = WORD_COUNT, every = EVERY, done = false }
      assert_whole(world, ask(world, api), { BIG })
    end)

    it("a cut is not seen when the next target refuses a prefix", function()
      local world = new_world("continue")
      world:upstream("primary"):always { words = WORD_COUNT, every = EVERY,
        cut_after = api.lead_count + 40 }
      world:upstream("spare"):always(refusing(api))
      assert_whole(world, ask(world, api), { BIG, SMALL, SMALL })
    end)

    it("a cut that nobody goes on from ends in an error event", function()
      local world = new_world("continue")
      world:upstream("primary"):always { words = WORD_COUNT, every = EVERY,
        cut_after = api.lead_count + 40 }
      world:upstream("spare"):always(503)
      local answer = ask(world, api)
      assert.equal("cut", answer.ended)
      assert.equal(words(1, 40), (answer:text():gsub("%s+$", "")))
      local events = answer:events()
      local last = events[#events]
      assert.equal(name == "messages" and "error" or nil, last.event)
      assert.is_table(cjson.decode(last.data).error)
    end)
  end)
end
