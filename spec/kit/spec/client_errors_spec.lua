--- What clients get of answers that cannot be passed on, in the form that their library reads.

local cjson = require "cjson.safe"
local testing = require "perilune.testing"

local CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
local ENV = { PRIMARY_KEY = "sk-test" }

describe("errors of the gateway's own", function()
  local world

  before_each(function() world = testing.world { env = ENV } end)

  local function ask(path, stream)
    return world:request { path = path, model = "alone", stream = stream,
      headers = { ["x-request-id"] = "req-7" }, body = { max_tokens = 9 } }
  end

  describe("in place of an answer", function()
    local function assert_both(status, anthropic, openai, code)
      local answer = ask(MESSAGES)
      assert.equal(status, answer.status)
      local body = answer:json()
      assert.same({ "error", anthropic, code, "req-7" },
        { body.type, body.error.type, body.error.details.error_code, body.request_id })
      assert.equal("req-7", answer.headers["request-id"])
      for _, path in ipairs { CHAT, RESPONSES } do
        answer = ask(path)
        assert.equal(status, answer.status)
        assert.same({ openai, code }, { answer:json().error.type, answer:json().error.code })
        assert.is_nil(answer.headers["request-id"])
      end
    end

    it("tell of a target that cannot be reached", function()
      world:upstream("primary"):always "connect"
      assert_both(502, "api_error", "upstream_error", "connect")
    end)

    it("tell of a target that says nothing", function()
      world:upstream("primary"):always "hang"
      assert_both(504, "timeout_error", "timeout_error", "timeout_head")
    end)

    it("tell when all targets are out of service", function()
      world = testing.world { config = [[return {
        providers = { primary = { url = "http://127.0.0.1:1/v1" } },
        routes = { { targets = { { provider = "primary" } }, panic = "fail" } },
      }]] }
      world:eject("primary", "1h")
      local answer = ask(MESSAGES)
      assert.equal(503, answer.status)
      assert.same({ "overloaded_error", "all_ejected" },
        { answer:json().error.type, answer:json().error.details.error_code })
      assert.is_true(tonumber(answer.headers["retry-after"]) >= 3600)
    end)
  end)

  describe("within a stream", function()
    local function last_event(path)
      local answer = ask(path, true)
      assert.equal(200, answer.status)
      assert.equal("cut", answer.ended)
      local events = answer:events()
      local last = events[#events]
      return last, assert(cjson.decode(last.data)), answer
    end

    local function assert_all(code, anthropic, openai)
      local event, data = last_event(CHAT)
      assert.is_nil(event.event)
      assert.same({ openai, code, cjson.null },
        { data.error.type, data.error.code, data.error.param })

      event, data = last_event(MESSAGES)
      assert.equal("error", event.event)
      assert.same({ "error", anthropic, code, "req-7" },
        { data.type, data.error.type, data.error.details.error_code, data.request_id })

      event, data = last_event(RESPONSES)
      assert.equal("error", event.event)
      assert.same({ "error", code, cjson.null, code, openai },
        { data.type, data.code, data.param, data.error.code, data.error.type })
      assert.equal(data.error.message, data.message)
    end

    it("tell of a cut", function()
      world:upstream("primary"):always { words = 60, every = "100ms", cut_after = 20 }
      assert_all("truncated", "api_error", "upstream_error")
    end)

    it("tell of silence", function()
      world:upstream("primary"):always { words = 60, every = "100ms", stall_after = 20 }
      assert_all("timeout_idle", "timeout_error", "timeout_error")
    end)

    it("tell of the deadline", function()
      world:upstream("primary"):always { words = 60, every = "1s" }
      assert_all("timeout_deadline", "timeout_error", "timeout_error")
    end)

    it("are numbered on where events are numbered", function()
      world:upstream("primary"):always { words = 60, every = "100ms", cut_after = 20 }
      local _, data, answer = last_event(RESPONSES)
      local events = answer:events()
      assert.equal(cjson.decode(events[#events - 1].data).sequence_number + 1,
        data.sequence_number)
    end)
  end)
end)
