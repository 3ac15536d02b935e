local cjson = require "cjson"
local testing = require "perilune.testing"

local STORY = "Once upon a time there was a gateway that never let a story end in the middle of a"
  .. " sentence, however often its upstreams did."

describe("the route unbroken", function()
  local world
  before_each(function() world = testing.world {} end)

  --- Goes on from where the assistant is, as vLLM does when it is told so.
  local function going_on(call)
    local messages = call.json.messages
    local start = messages[#messages].role == "assistant" and messages[#messages].content or ""
    assert(start == "" or call.json.continue_final_message)
    assert(STORY:sub(1, #start) == start, start)
    return { words = STORY:sub(#start + 1), every = "100ms" }
  end

  local function broken(how, count)
    return function(call)
      local answer = going_on(call)
      answer[how] = count
      return answer
    end
  end

  local function ask()
    return world:request { model = "storyteller", stream = true, body = { max_tokens = 200 } }
  end

  it("tells the story to its end, whoever breaks off", function()
    world:upstream("own"):always(broken("cut_after", 9))
    world:upstream("spare"):always(going_on)
    local answer = ask()
    assert.equal("complete", answer.ended)
    assert.equal(STORY, answer:text())
    assert.same({ "own/small", "spare/small" }, world:called())
    assert.is_true(world:calls()[2].json.max_tokens < 200)
  end)

  it("does not wait for ever where nothing more is said", function()
    world:upstream("own"):always(broken("stall_after", 9))
    world:upstream("spare"):always(going_on)
    local answer = ask()
    assert.equal(STORY, answer:text())
    assert.is_true(answer.duration_ms < 15000, answer.duration_ms)
  end)

  it("asks the hosted model afresh, as long as it tells the same story", function()
    world:upstream("own"):always(broken("cut_after", 5))
    world:upstream("spare"):always(503)
    world:upstream("hosted"):always { words = STORY }
    local answer = ask()
    assert.equal("complete", answer.ended)
    assert.equal(STORY, answer:text())
    assert.equal(1, #world:calls()[3].json.messages)
    assert.is_nil(world:calls()[3].json.continue_final_message)
  end)

  it("ends in an error rather than in another story", function()
    world:upstream("own"):always(broken("cut_after", 5))
    world:upstream("spare"):always(503)
    world:upstream("hosted"):always { words = "It was a dark and stormy night." }
    local answer = ask()
    local events = answer:events()
    assert.equal("cut", answer.ended)
    assert.is_nil(answer.body:find("stormy", 1, true))
    assert.is_table(cjson.decode(events[#events].data).error)
  end)

  it("leaves out what is no JSON", function()
    world:upstream("own"):always { events = {
      { data = { choices = { { index = 0, delta = { content = "Once " } } } } }, "{oops",
      { data = { choices = { { index = 0, delta = { content = "more" },
        finish_reason = "stop" } } } },
    } }
    assert.equal("Once more", ask():text())
  end)
end)
