local cjson = require "cjson.safe"
local estimate = require "perilune.estimate"

local function tokens(body)
  local text = type(body) == "string" and body or cjson.encode(body)
  return estimate.tokens(assert(cjson.decode(text)), #text)
end

--- What a message is charged beside its text: the names of its fields and its role.
local MESSAGE_BYTES = #"role" + #"user" + #"content"

describe("perilune.estimate", function()
  it("counts four bytes of text as a token, and what goes with a message", function()
    local prompt, answer = tokens { messages = { { role = "user", content = ("x"):rep(4000) } } }
    assert.equal(math.ceil((4000 + MESSAGE_BYTES + #"messages") / 4), prompt)
    assert.equal(0, answer)
  end)

  it("agrees with the rule of thumb that 100 tokens are 75 words of English prose", function()
    local prose = "The gateway keeps a health state for each of its targets. When a provider fails "
      .. "several times in a row it is left out for a while, and its requests go to the others. "
      .. "After that, one request finds out whether it is well again. If so, it takes its share "
      .. "of the requests back; if not, it stays away for a longer time, up to a limit."
    local prompt = tokens { messages = { { role = "user", content = prose } } }
    local _, words = prose:gsub("%S+", "")
    local expected = words / 0.75
    assert.is_true(prompt > expected * 0.8 and prompt < expected * 1.2,
      prompt .. " against " .. expected)
  end)

  it("finds text wherever it stands", function()
    local text = ("word "):rep(800) -- 1000 tokens
    for name, body in pairs {
      system = { system = text }, prompt = { prompt = text }, prompts = { prompt = { text } },
      input = { input = { { content = { { type = "input_text", text = text } } } } },
      parts = { messages = { { content = { { type = "text", text = text } } } } },
      tools = { tools = { { ["function"] = { description = text } } } },
      schema = { tools = { { ["function"] = { parameters = { [text] = { type = "string" } } } } } },
      calls = { messages = { { tool_calls = { { ["function"] = { arguments = text } } } } } },
    } do
      local prompt = tokens(body)
      assert.is_true(prompt >= 1000 and prompt < 1020, name .. ": " .. prompt)
    end
  end)

  it("counts a prompt of token numbers one by one", function()
    local list = {}
    for i = 1, 500 do list[i] = 100000 + i end
    local prompt = tokens { input = list }
    assert.is_true(prompt >= 500 and prompt < 505, prompt)
  end)

  it("does not take an image for text", function()
    local image = "data:image/png;base64," .. ("A"):rep(400000)
    for _, part in ipairs {
      { type = "image_url", image_url = { url = image } },
      { type = "input_image", image_url = image },
      { type = "input_audio", input_audio = { data = image, format = "wav" } },
      { type = "file", file = { file_data = image } },
    } do
      local prompt = tokens { messages = { { role = "user", content = { part } } } }
      assert.is_true(prompt >= 1000 and prompt < 1030, part.type .. ": " .. prompt)
    end
  end)

  it("knows the fields that limit the answer", function()
    for _, key in ipairs { "max_tokens", "max_completion_tokens", "max_output_tokens" } do
      assert.equal(700, select(2, tokens { [key] = 700 }))
    end
    assert.equal(700, select(2, tokens { max_completion_tokens = 700, max_tokens = 16 }))
  end)

  it("survives every shape", function()
    for _, text in ipairs {
      "{}", "[]", '{"messages":null}', '{"messages":7}', '{"messages":[null,1,true,"x",[],{}]}',
      '{"max_tokens":"many"}', '{"max_tokens":-5}', '{"max_tokens":null}', '[[[[[1]]]]]',
    } do
      local prompt, answer = tokens(text)
      assert.is_true(prompt >= 0 and prompt < 20, text)
      assert.equal(0, answer, text)
    end
  end)

  it("judges a body of very many parts by its length", function()
    local text = "[" .. ("1,"):rep(60000) .. "1]"
    assert.equal(math.ceil(#text / 4), (tokens(text)))
    assert.equal(50, estimate.of_bytes(200))
    assert.equal(51, estimate.of_bytes(201))
  end)
end)
