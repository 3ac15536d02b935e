--- Streams that break off over real connections, and go on from another target. The rules are in
-- policies/spec/rescue_spec.lua and spec/kit/spec/streams_spec.lua.

local cjson = require "cjson.safe"
local support = require "support"

local CONFIG = [[
return {
  workers = 1,
  admin = { address = "127.0.0.1:0" },
  providers = {
    one = { url = "%s/v1", timeouts = { idle = "%s" } },
    two = { url = "%s/v1" },
  },
  routes = { {
    name = "main", rescue = "continue", deadline = "20s",
    targets = { { provider = "one", model = "m-1" }, { provider = "two", model = "m-2",
      priority = 1 } },
    retry = { attempts = 4, backoff = { base = "1ms", max = "2ms", floor = "1ms" } },
  } },
}
]]

local function chunk(id, text, finish)
  return { id = id, object = "chat.completion.chunk", created = 1, model = id,
    choices = { { index = 0, delta = { content = text }, finish_reason = finish or cjson.null } } }
end

local function start(one, two, idle)
  return support.gateway({ config = CONFIG:format(one.url, idle or "5s", two.url) })
end

--- Streams words and lets `ending(conn)` say how that ends.
local function streaming(id, words, ending)
  local seen = {}
  local up = support.upstream(function(conn)
    local request = conn:read_request()
    while request do
      seen[#seen + 1] = cjson.decode(request.body)
      conn:start_chunked(200)
      for _, word in ipairs(words) do conn:event(chunk(id, word)) end
      if ending(conn) == "closed" then return end
      request = conn:read_request()
    end
  end)
  return up, seen
end

local function finish(conn)
  conn:event(chunk("two", "", "stop"))
  conn:event("[DONE]")
  conn:finish_chunked()
end

local function text_of(body)
  local words = {}
  for line in body:gmatch("data: ({[^\n]*})\n") do
    local data = cjson.decode(line)
    words[#words + 1] = data.choices and data.choices[1] and data.choices[1].delta.content
  end
  return table.concat(words)
end

local function record(gw)
  return support.wait_until("the request's record", function()
    local answer = gw:admin({ path = "/admin/requests/recent" })
    return (cjson.decode(answer.body).records or {})[1]
  end)
end

describe("a stream that breaks off", function()
  after_each(support.finish)

  for name, ending in pairs {
    ["is cut"] = function(conn) conn:reset() return "closed" end,
    ["ends without a word"] = function(conn) conn:finish_chunked() end,
    ["falls silent"] = function(conn) conn:wait_closed(10) return "closed" end,
  } do
    it("goes on from another target when it " .. name, function()
      local one = streaming("one", { "The ", "cat ", "sat " }, ending)
      local two, seen = streaming("two", { "on ", "the mat" }, finish)
      local gw = start(one, two, name == "falls silent" and "200ms" or "5s")
      local answer = gw:chat({ stream = true })
      assert.equal(200, answer.status)
      assert.equal("complete", answer.ended)
      assert.equal("The cat sat on the mat", text_of(answer.body))
      assert.equal("The cat sat", seen[1].messages[#seen[1].messages].content)
      assert.truthy(answer.body:find(": perilune resumed by two/m-2 after cut of one/m-1", 1, true))
      assert.falsy(answer.body:find('"id":"two"', 1, true))

      local told = record(gw)
      assert.equal("complete", told["end"])
      assert.equal("two/m-2", told.target)
      assert.equal(2, #told.attempts)
      assert.is_nil(told.attempts[1].resumes)
      assert.equal("continue", told.attempts[2].resumes)
      assert.is_true(told.attempts[1].class ~= "ok")
      local metrics = gw:admin({ path = "/metrics" }).body
      assert.truthy(metrics:find('perilune_rescues_total{route="main",end="complete"} 1', 1, true))
    end)
  end

  it("ends in an error when nobody goes on, and keeps no connection open", function()
    local one = streaming("one", { "The " }, function(conn) conn:reset() return "closed" end)
    local two = support.answering(function() return 503, "{}" end)
    local gw = start(one, two)
    local answer = gw:chat({ stream = true })
    assert.equal(200, answer.status)
    assert.is_true(answer.ended ~= "complete")
    assert.truthy(answer.body:find('"code":"', 1, true))
    local told = record(gw)
    assert.equal("cut", told["end"])
    local metrics = gw:admin({ path = "/metrics" }).body
    assert.truthy(metrics:find('perilune_rescues_total{route="main",end="cut"} 1', 1, true))
  end)

  it("hides the token counts that only the gateway has asked for, and tells them", function()
    local one = streaming("one", { "The ", "cat " }, function(conn)
      conn:reset()
      return "closed"
    end)
    local two = streaming("two", { "sat" }, function(conn)
      conn:event(chunk("two", "", "stop"))
      conn:event('{"id":"two","object":"chat.completion.chunk","choices":[],'
        .. '"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}')
      conn:event("[DONE]")
      conn:finish_chunked()
    end)
    local config = CONFIG:format(one.url, "5s", two.url):gsub('/v1"', '/v1", stream_usage = true')
    local gw = support.gateway({ config = config })
    local answer = gw:chat({ stream = true })
    assert.equal("complete", answer.ended)
    assert.equal("The cat sat", text_of(answer.body))
    assert.falsy(answer.body:find("_tokens", 1, true))
    local told = record(gw)
    assert.equal(2 + 3, told["gen_ai.usage.output_tokens"])
  end)

  it("counts the tokens that were told when nobody goes on", function()
    local has_answered = false
    local one = support.upstream(function(conn)
      conn:read_request()
      if has_answered then return conn:reset() end
      has_answered = true
      conn:start_chunked(200)
      for _, event in ipairs {
        { type = "message_start", message = { id = "m", type = "message", role = "assistant",
          model = "m-1", content = {}, usage = { input_tokens = 7, output_tokens = 1 } } },
        { type = "content_block_start", index = 0, content_block = { type = "text", text = "" } },
        { type = "content_block_delta", index = 0, delta = { type = "text_delta", text = "The " } },
      } do
        conn:event(event)
      end
      conn:reset()
    end)
    local two = support.upstream(function(conn)
      conn:read_request()
      conn:start_chunked(200)
      conn:event({ type = "message_start", message = { id = "n", type = "message",
        role = "assistant", model = "m-2", usage = { input_tokens = 99, output_tokens = 50 } } })
      conn:reset()
    end)
    local gw = start(one, two)
    local answer = gw:request({ path = "/v1/messages", json = { model = "m", stream = true,
      max_tokens = 9, messages = { { role = "user", content = "Hello" } } } })
    assert.is_true(answer.ended ~= "complete")
    local told = record(gw)
    assert.equal("cut", told["end"])
    assert.equal(7, told["gen_ai.usage.input_tokens"])
    assert.equal(1, told["gen_ai.usage.output_tokens"])
  end)

  it("goes on upon the configuration that it began with, through a reload", function()
    local go_on = false
    local one = streaming("one", { "The ", "cat " }, function(conn)
      support.wait_until("the reload", function() return go_on end)
      conn:reset()
      return "closed"
    end)
    local two = streaming("two", { "sat" }, finish)
    local gw = start(one, two)
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true,
      messages = { { role = "user", content = "Hello" } } } })
    local head = assert(connection:read_head())
    assert(head:next_event())
    assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    go_on = true
    local body = ""
    while true do
      local event = head:next_event(10)
      if not event then break end
      body = body .. "data: " .. (event.data or tostring(event)) .. "\n"
    end
    assert.truthy(body:find("sat", 1, true))
    assert.truthy(body:find("[DONE]", 1, true))
    assert.equal("complete", head.ended)
  end)

  it("is given up when its client leaves while another target is asked", function()
    local asked, left = false, false
    local one = streaming("one", { "The " }, function(conn) conn:reset() return "closed" end)
    local two = support.upstream(function(conn)
      conn:read_request()
      asked = true
      left = conn:wait_closed(10)
    end)
    local gw = start(one, two)
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "m", stream = true,
      messages = { { role = "user", content = "Hello" } } } })
    assert(connection:read_head())
    support.wait_until("the second target to be asked", function() return asked end)
    connection:close()
    support.wait_until("the second target to be left", function() return left end)
    assert.equal("client_gone", record(gw)["end"])
  end)
end)
