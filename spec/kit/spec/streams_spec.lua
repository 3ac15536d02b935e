--- What becomes of a stream once it is the client's: how it ends well, and how it does not.

local cjson = require "cjson"
local testing = require "perilune.testing"

local MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"

local function chunk(text, finish)
  return { data = { id = "a", choices = { { index = 0, delta = { content = text },
    finish_reason = finish or cjson.null } } } }
end

local function typed(type_of, fields)
  local data = fields or {}
  data.type = type_of
  return { event = type_of, data = data }
end

local FINISH = chunk("", "stop")
local USAGE = '{"id":"a","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
local TEXT = typed("content_block_delta", { index = 0,
  delta = { type = "text_delta", text = "one" } })
local MESSAGE_END = typed("message_delta", { delta = { stop_reason = "end_turn" },
  usage = { output_tokens = 1 } })

local function new_world(route_options)
  local route = { targets = { { provider = "primary" } }, deadline = "5m" }
  for key, value in pairs(route_options or {}) do route[key] = value end
  return testing.world { directory = false, files = { ["fallback.lua"] = [[
    return function(req, route)
      local whole, class = req:relay(req:send(route.targets[1]))
      req:log(tostring(whole or class))
    end]] },
    config = { routes = { route }, providers = {
      primary = { url = "http://127.0.0.1:1/v1", timeouts = { idle = "10s" } },
    } } }
end

--- The answer to a request whose upstream sends these events, and its world.
local function relay(events, more, options)
  local world = new_world((options or {}).route)
  local answer = { events = events, done = false }
  for key, value in pairs(more or {}) do answer[key] = value end
  world:upstream("primary"):always(answer)
  return world:request { path = (options or {}).path, stream = true, model = "any" }, world
end

local function last_event(answer)
  local events = answer:events()
  return events[#events]
end

local function log_of(world)
  return table.concat(world:log(), "\n")
end

-- Read or unread, the rules are the same.
for name, route in pairs { ["unread"] = {}, ["read"] = { malformed_events = "drop" } } do
  describe("a stream that is passed on " .. name, function()
    local function assert_well(answer, world, terminal)
      assert.equal("complete", answer.ended)
      assert.equal(1, select(2, answer.body:gsub(terminal or "%[DONE%]", "")))
      assert.matches(": true$", log_of(world))
    end

    local function assert_cut(answer, world, class)
      assert.equal("cut", answer.ended)
      assert.is_table(cjson.decode(last_event(answer).data).error)
      assert.matches(": " .. class .. "$", log_of(world))
    end

    it("gets its end when the answer is complete without it", function()
      for _, events in ipairs { { chunk "one", FINISH }, { chunk("one", "length") },
        { chunk "one", FINISH, USAGE }, { chunk "one", FINISH, { raw = ": bye\n\n" } } } do
        local answer, world = relay(events, nil, { route = route })
        assert_well(answer, world)
        assert.equal("one", answer:text())
      end
      local answer, world = relay({ TEXT, MESSAGE_END }, nil, { route = route, path = MESSAGES })
      assert_well(answer, world, "event: message_stop")
      assert.equal("message_stop", last_event(answer).event)
    end)

    it("gets no second end", function()
      assert_well(relay({ chunk "one", FINISH, "[DONE]" }, nil, { route = route }))
      local answer, world = relay({ TEXT, MESSAGE_END, typed "message_stop" }, nil,
        { route = route, path = MESSAGES })
      assert_well(answer, world, "event: message_stop")
    end)

    it("ends well when its connection breaks after all has been said", function()
      assert_well(relay({ chunk "one", FINISH }, { cut_after = 2 }, { route = route }))
      assert_well(relay({ chunk "one", FINISH, "[DONE]" }, { cut_after = 3 }, { route = route }))
      assert_well(relay({ chunk "one", FINISH }, { stall_after = 2 }, { route = route }))
    end)

    it("was cut when it ends without a word of its end", function()
      local answer, world = relay({ chunk "one" }, nil, { route = route })
      assert_cut(answer, world, "truncated")
      assert.equal("one", answer:text())
      for path, event in pairs { [MESSAGES] = TEXT,
        [RESPONSES] = typed("response.output_text.delta", { delta = "one" }) } do
        answer, world = relay({ event }, nil, { route = route, path = path })
        assert.equal("cut", answer.ended)
        assert.equal("error", last_event(answer).event)
        assert.matches(": truncated$", log_of(world))
      end
    end)

    it("is what its connection says where its API is not known", function()
      local answer = relay({ { data = { token = "one" } } }, nil, { route = route })
      assert.equal("complete", answer.ended)
      assert.is_nil(answer.body:find("DONE", 1, true))
    end)

    it("ends in the error that it says, never well", function()
      local said = { error = { message = "no more memory", type = "server_error" } }
      for _, events in ipairs { { chunk "one", { data = said } },
        { chunk "one", { data = said }, "[DONE]" },
        { chunk "one", { event = "error", data = said } } } do
        local answer, world = relay(events, nil, { route = route })
        assert.equal("cut", answer.ended)
        assert.equal(1, select(2, answer.body:gsub('"error":', "")))
        assert.matches("no more memory", answer.body, 1, true)
        assert.matches(": server_error$", log_of(world))
      end
    end)

    it("may pause for less than its limit", function()
      local events = {}
      for number = 1, 5 do
        events[number] = chunk("one ")
        events[number].after = "9s"
      end
      events[6] = FINISH
      local answer, world = relay(events, nil, { route = route })
      assert_well(answer, world)
      assert.equal(("one "):rep(5), answer:text())
    end)

    it("is left when nothing comes, or nothing but comments", function()
      local comments = { chunk "one" }
      for number = 2, 20 do comments[number] = { raw = ": keep-alive\n\n", after = "3s" } end
      for _, events in ipairs { comments, { chunk "one" } } do
        local answer, world = relay(events, { stall_after = #events }, { route = route })
        assert_cut(answer, world, "timeout_idle")
        assert.is_true(answer.duration_ms <= 12000, answer.duration_ms)
      end
    end)

    it("lives as long as events come between the comments", function()
      local events = {}
      for number = 1, 10 do
        events[2 * number - 1] = { raw = ": keep-alive\n\n", after = "6s" }
        events[2 * number] = chunk("one ")
        events[2 * number].after = "3s"
      end
      events[21] = FINISH
      assert_well(relay(events, nil, { route = route }))
    end)

    it("may be written in any way", function()
      local whole = 'data:{"choices":[{"index":0,"delta":{"content":"one"}}]}'
      local finish = 'data: {"choices":\ndata: [{"index":0,"delta":{},"finish_reason":"stop"}]}'
      for _, line_end in ipairs { "\n", "\r\n", "\r" } do
        local text = "\xEF\xBB\xBF" .. whole .. "\n\nid: 7\n" .. finish .. "\n\n"
        text = text:gsub("\n", line_end)
        for _, step in ipairs { 1, 7, #text } do
          local events = {}
          for from = 1, #text, step do
            events[#events + 1] = { raw = text:sub(from, from + step - 1) }
          end
          local answer, world = relay(events, nil, { route = route })
          assert_well(answer, world)
        end
      end
    end)

    it("may hold an event that is too large to be read", function()
      local big = ("x"):rep(200000)
      local answer, world = relay({ chunk "one", chunk(big), chunk "two", FINISH }, nil,
        { route = route })
      assert_well(answer, world)
      assert.equal("one" .. big .. "two", answer:text())
    end)
  end)
end

describe("an event that is no JSON", function()
  local EVENTS = { chunk "one ", { raw = "data: {\"choices\":[{\n\n" }, chunk "two", FINISH }

  it("is passed on by default", function()
    local answer = relay(EVENTS)
    assert.equal("complete", answer.ended)
    assert.matches('data: {"choices":[{\n\n', answer.body, 1, true)
  end)

  it("is left out where the route says so, and the stream goes on", function()
    local answer = relay(EVENTS, nil, { route = { malformed_events = "drop" } })
    assert.equal("complete", answer.ended)
    assert.equal("one two", answer:text())
    assert.is_nil(answer.body:find('"choices":[{\n', 1, true))
  end)
end)

describe("at a seam", function()
  local function new_seam(source)
    local world = testing.world { directory = false, files = { ["fallback.lua"] = ([[
      local gw = require "perilune"
      return function(req, route)
        local whole, class, is_open = req:relay(req:send(route.targets[1]), nil, route.rescue)
        %s
      end]]):format(source) },
      config = { routes = { { rescue = "continue", targets = { { provider = "primary" } } } },
        providers = { primary = { url = "http://127.0.0.1:1/v1" } } } }
    world:upstream("primary"):answers({ words = "one two three", cut_after = 3 },
      { words = " three" })
    return world, world:request { stream = true, model = "any" }
  end

  local function assert_error(answer)
    assert.equal("cut", answer.ended)
    assert.equal("truncated", cjson.decode(last_event(answer).data).error.code)
  end

  it("a policy that ends ends the stream in an error", function()
    local world, answer = new_seam("req:log(('%s %s %s'):format(tostring(whole), class, "
      .. "tostring(is_open)))")
    assert_error(answer)
    assert.matches("nil truncated true", log_of(world), 1, true)
  end)

  it("a policy that fails ends the stream in an error, too", function()
    local _, answer = new_seam("error 'no'")
    assert_error(answer)
    assert_error(select(2, new_seam("while true do end")))
  end)

  it("nothing can be answered but by going on", function()
    for _, call in ipairs { "req:respond(200, 'x')", "req:fail(500, 'x', 'y')", "req:start(200)",
      "req:relay(req.last)" } do
      local _, answer = new_seam(call)
      assert_error(answer)
    end
  end)

  it("the policy may wait, and change the request", function()
    local world, answer = new_seam([[
      gw.sleep("3s")
      req:set("user", "rescue")
      req:unset("temperature")
      assert(req:json().stream)
      req:relay(req:send(route.targets[1]))]])
    assert.equal("complete", answer.ended)
    assert.equal("one two three", answer:text())
    assert.equal("rescue", world:calls()[2].json.user)
  end)

  it("an answer that is no stream is refused", function()
    local world = testing.world { directory = false, files = { ["fallback.lua"] = [[
      return function(req, route)
        req:relay(req:send(route.targets[1]), nil, route.rescue)
        local whole, class, is_open = req:relay(req:send(route.targets[1]))
        req:log(("%s %s"):format(class, tostring(is_open)))
      end]] },
      config = { routes = { { rescue = "continue", targets = { { provider = "primary" } } } },
        providers = { primary = { url = "http://127.0.0.1:1/v1" } } } }
    world:upstream("primary"):answers({ words = "one two three", cut_after = 3 },
      { body = { choices = { { message = { content = "one two three" } } } } })
    local answer = world:request { stream = true, model = "any" }
    assert_error(answer)
    assert.matches("malformed true", log_of(world), 1, true)
  end)

  it("the connection may be broken", function()
    local _, answer = new_seam("req:abort()")
    assert.is_true(answer.ended == "cut" or answer.ended == "reset")
  end)
end)
