local cjson = require "cjson.safe"
local completion = require "perilune.completion"

local function decode(text)
  local value = cjson.decode(text)
  return type(value) == "table" and value or nil
end

local function text_of(body, content_type)
  local text = type(body) == "string" and body or cjson.encode(body)
  return completion.text(text, content_type, decode)
end

local function streamed(events, line_end)
  line_end = line_end or "\n"
  local out = {}
  for position, event in ipairs(events) do
    local data = type(event) == "string" and event or cjson.encode(event)
    out[position] = "data: " .. data .. line_end .. line_end
  end
  return text_of(table.concat(out), "text/event-stream; charset=utf-8")
end

local function piece(content, index)
  return { choices = { { index = index or 0, delta = { content = content } } } }
end

describe("perilune.completion", function()
  it("gives the words of a whole answer", function()
    for expected, body in pairs {
      ["chat"] = { choices = { { message = { role = "assistant", content = "chat" } } } },
      ["one\ntwo"] = { choices = { { message = { content = "one" } }, { message =
        { content = "two" } } } },
      ["parts"] = { choices = { { message = { content = { { type = "text", text = "par" },
        { type = "text", text = "ts" } } } } } },
      ["refused"] = { choices = { { message = { content = cjson.null, refusal = "refused" } } } },
      ["old"] = { choices = { { text = "old" } } },
      ["response"] = { object = "response", error = cjson.null, output = {
        { type = "message", content = { { type = "output_text", text = "response" } } } } },
      ["message"] = { type = "message", content = { { type = "text", text = "message" } } },
      [""] = { choices = { { message = { content = cjson.null, tool_calls = { {} } } } } },
    } do
      assert.equal(expected, text_of(body))
    end
  end)

  it("gives the message of an error", function()
    assert.equal("no", text_of { error = { message = "no", code = "x" } })
    assert.equal("no", text_of { error = "no" })
    assert.equal("no", text_of { message = "no", object = "error" })
    assert.equal("no", text_of { type = "error", error = { type = "api_error", message = "no" } })
  end)

  it("gives what has no such form as it came", function()
    for _, body in ipairs { "upstream connect error", "<html>Bad Gateway</html>", "", "7", "[]",
      '{"object":"list","data":[]}' } do
      assert.equal(body, text_of(body))
    end
  end)

  it("puts the pieces of a stream together", function()
    local events = { { choices = { { index = 0, delta = { role = "assistant" } } } },
      piece("I'm "), piece("sorry"), { choices = {}, usage = {} }, "[DONE]" }
    assert.equal("I'm sorry", streamed(events))
    assert.equal("I'm sorry", streamed(events, "\r\n"))
    assert.equal("I'm sorry", streamed(events, "\r"))
    assert.equal("I'm sorry", streamed { {
      type = "response.output_text.delta", delta = "I'm " }, {
      type = "response.refusal.delta", delta = "sorry" }, { type = "response.completed" } })
    assert.equal("I'm sorry", streamed { { type = "message_start" }, {
      type = "content_block_delta", delta = { type = "text_delta", text = "I'm sorry" } } })
    assert.equal("old", streamed { { choices = { { text = "o" } } },
      { choices = { { text = "ld" } } } })
  end)

  it("keeps the choices of a stream apart", function()
    assert.equal("ac\nb", streamed { piece("a", 0), piece("b", 1), piece("c", 0) })
    assert.equal("\nb", streamed { piece("b", 1) })
    assert.equal("xyz", streamed { piece("x", -1), piece("y", 1e9), piece("z", "0") })
  end)

  it("reads events of several lines, comments, and an end without an empty line", function()
    assert.equal("ab", text_of(": keep-alive\n\nevent: x\nid: 1\ndata:{\"choices\":\ndata: "
      .. "[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}", "text/event-stream"))
    assert.equal("", text_of("", "text/event-stream"))
    assert.equal("", text_of("data\n\nfoo\n", "TEXT/event-stream"))
  end)

  it("survives every shape", function()
    for _, text in ipairs {
      "null", "[null]", '{"choices":7}', '{"choices":[]}', '{"choices":[null,1,"x",[]]}',
      '{"choices":[{"message":7}]}', '{"choices":[{"message":{"content":[1,null,{"text":2}]}}]}',
      '{"output":[null,{"content":7}]}', '{"error":[]}', '{"error":{"message":{}}}',
      '{"content":[[]]}', '{"choices":[{"delta":{"content":{"a":1}}}]}',
      '{"type":"content_block_delta","delta":7}', '{"type":"response.output_text.delta"}',
      '{"type":{}}', "not json",
    } do
      assert.equal("string", type(text_of(text)), text)
      assert.equal("", streamed { text }, text)
    end
  end)

  it("gives up on very many events", function()
    local text, code = streamed((function()
      local events = {}
      for i = 1, 10001 do events[i] = "1" end
      return events
    end)())
    assert.is_nil(text)
    assert.equal("too_large", code)
  end)
end)
