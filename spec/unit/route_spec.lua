local route = require "perilune.route"

--- Compiles routes given by their matches; gives a function that matches.
local function matcher(...)
  local routes = {}
  for position, match in ipairs { ... } do
    routes[position] = { match = match }
  end
  local compiled = route.compile(routes)
  return function(...)
    return route.match(compiled, ...)
  end
end

describe("route.pattern", function()
  it("tells the four kinds apart", function()
    assert.are.same({ "exact", "gpt-4" }, { route.pattern("gpt-4") })
    assert.are.same({ "prefix", "gpt-" }, { route.pattern("gpt-*") })
    assert.are.same({ "suffix", "-mini" }, { route.pattern("*-mini") })
    assert.are.same({ "any", "" }, { route.pattern("*") })
  end)

  it("refuses other uses of the star", function()
    assert.are.same({ nil, "invalid", 'may hold a "*" only at its start or its end' },
      { route.pattern("gpt-*-mini") })
    for _, pattern in ipairs { "**", "*gpt*", "a*b*c" } do
      assert.are.same({ nil, "invalid", 'may hold only one "*"' }, { route.pattern(pattern) })
    end
  end)
end)

describe("route.match", function()
  it("finds exact names, case included", function()
    local match = matcher({ model = "gpt-4" }, { model = "qwen2.5:1.5b" })
    assert.are.equal(1, match("gpt-4"))
    assert.are.equal(2, match("qwen2.5:1.5b"))
    assert.is_nil(match("GPT-4"))
    assert.is_nil(match("gpt-4o"))
    assert.is_nil(match("qwen2x5:1x5b"))
    assert.is_nil(match(nil))
  end)

  it("finds prefixes and suffixes, taking no character for a pattern", function()
    local match = matcher({ model = "gpt-4.*" }, { model = "*%-a.c" }, { model = "[x]+*" })
    assert.are.equal(1, match("gpt-4."))
    assert.are.equal(1, match("gpt-4.1-mini"))
    assert.is_nil(match("gpt-4o"))
    assert.is_nil(match("my-gpt-4.1"))
    assert.are.equal(2, match("x%-a.c"))
    assert.are.equal(2, match("%-a.c"))
    assert.is_nil(match("x%-abc"))
    assert.is_nil(match(".c"))
    assert.is_nil(match("%-a.c%-a.cx"))
    assert.are.equal(2, match("%-a.cx%-a.c"))
    assert.are.equal(3, match("[x]+y"))
    assert.is_nil(match("x"))
  end)

  it("takes everything for a star, requests without a model included", function()
    local match = matcher { model = "*" }
    assert.are.equal(1, match("anything"))
    assert.are.equal(1, match(""))
    assert.are.equal(1, match(nil))
  end)

  it("takes any of a list", function()
    local match = matcher { model = { "gpt-4", "o1-*", "*-mini" } }
    for _, model in ipairs { "gpt-4", "o1-preview", "gpt-4o-mini" } do
      assert.are.equal(1, match(model), model)
    end
    assert.is_nil(match("gpt-4o"))
    assert.is_nil(match(nil))
  end)

  it("takes everything for a route without conditions", function()
    assert.are.equal(1, matcher {} (nil, nil, nil, nil))
    assert.are.equal(1, route.match(route.compile { {} }, "x"))
    assert.is_nil(route.match(route.compile {}, "x"))
  end)

  it("matches paths on whole segments", function()
    local match = matcher { path = "/v1/embeddings" }
    assert.are.equal(1, match("m", "/v1/embeddings"))
    assert.are.equal(1, match("m", "/v1/embeddings/x"))
    assert.are.equal(1, match("m", "/v1/embeddings/"))
    assert.is_nil(match("m", "/v1/embeddingsfoo"))
    assert.is_nil(match("m", "/v1/embedding"))
    assert.is_nil(match("m", "/x/v1/embeddings"))
    assert.is_nil(match("m", nil))
  end)

  it("reads no pattern in a path, and ignores a slash at its end", function()
    local match = matcher({ path = "/v1.0/" }, { path = "/" })
    assert.are.equal(1, match("m", "/v1.0"))
    assert.are.equal(1, match("m", "/v1.0/chat"))
    assert.are.equal(2, match("m", "/v1x0/chat"))
  end)

  it("matches the method exactly", function()
    local match = matcher { method = "POST" }
    assert.are.equal(1, match("m", "/", "POST"))
    assert.is_nil(match("m", "/", "GET"))
    assert.is_nil(match("m", "/", nil))
  end)

  it("matches headers: names without case, values exactly, all of them", function()
    local match = matcher { headers = { ["X-Team"] = "a", ["x-TIER"] = "gold" } }
    assert.are.equal(1, match("m", "/", "GET", { ["x-team"] = "a", ["x-tier"] = "gold" }))
    assert.is_nil(match("m", "/", "GET", { ["x-team"] = "a", ["x-tier"] = "Gold" }))
    assert.is_nil(match("m", "/", "GET", { ["x-team"] = "a" }))
    assert.is_nil(match("m", "/", "GET", nil))
  end)

  it("asks all conditions of one route together", function()
    local match = matcher(
      { model = "gpt-4", path = "/v1/chat", method = "POST", headers = { ["x-a"] = "1" } },
      { model = "gpt-4" })
    local headers = { ["x-a"] = "1" }
    assert.are.equal(1, match("gpt-4", "/v1/chat/completions", "POST", headers))
    assert.are.equal(2, match("gpt-4", "/v1/chat/completions", "POST", {}))
    assert.are.equal(2, match("gpt-4", "/v1/chat/completions", "GET", headers))
    assert.are.equal(2, match("gpt-4", "/v1/completions", "POST", headers))
    assert.is_nil(match("gpt-5", "/v1/chat/completions", "POST", headers))
  end)

  it("lets the first match win, looked up or scanned", function()
    assert.are.equal(1, matcher({ model = "gpt-*" }, { model = "gpt-4" })("gpt-4"))
    assert.are.equal(1, matcher({ model = "gpt-4" }, { model = "gpt-*" })("gpt-4"))
    assert.are.equal(2, matcher({ model = "gpt-4" }, { model = "gpt-*" })("gpt-5"))
    assert.are.equal(1, matcher({ model = "gpt-4" }, { model = "gpt-4" })("gpt-4"))
    assert.are.equal(1, matcher({ model = { "a*", "x" } }, { model = "x" })("x"))
    assert.are.equal(1, matcher({ model = { "a*", "x" } }, { model = "ab" })("ab"))
    assert.are.equal(1, matcher({ model = "*" }, { model = "x" })("x"))
    assert.are.equal(2, matcher({ model = "x", method = "GET" }, { model = "x" })("x", "/", "PUT"))
  end)

  it("agrees with a plain walk over the routes", function()
    local patterns = { "a", "b", "ab", "a*", "*b", "*", { "a", "b*" }, { "ab", "b" } }
    local models = { "a", "b", "ab", "ba", "abb", "c" }
    local function says_yes(pattern, model)
      return matcher { model = pattern } (model) == 1
    end
    local state = 1
    for _ = 1, 500 do
      local chosen = {}
      for position = 1, 4 do
        state = (state * 1103515245 + 12345) % 2147483648
        chosen[position] = patterns[math.floor(state / 65536) % #patterns + 1]
      end
      local match = matcher({ model = chosen[1] }, { model = chosen[2], method = "POST" },
        { model = chosen[3] }, { model = chosen[4] })
      for _, model in ipairs(models) do
        local expected
        for position = 4, 1, -1 do
          if position ~= 2 and says_yes(chosen[position], model) then expected = position end
        end
        assert.are.equal(expected, match(model, "/", "GET"))
      end
    end
  end)

  it("names the pattern that a model has matched", function()
    local find = route.pattern_finder({ "gpt-4", "gpt-*", "*-mini", "gpt-5" })
    assert.are.equal("gpt-4", find("gpt-4"))
    assert.are.equal("gpt-*", find("gpt-5")) -- the first that matches
    assert.are.equal("*-mini", find("phi-mini"))
    assert.is_nil(find("phi"))
    assert.is_nil(find(nil))
    assert.are.equal("*", route.pattern_finder({ "a", "*" })(nil))
    assert.are.equal("gpt-*", route.pattern_finder("gpt-*")("gpt-4"))
    assert.is_nil(route.pattern_finder(nil)("gpt-4"))
  end)

  it("allocates nothing", function()
    local match = route.match
    local compiled = route.compile {
      { match = { model = { "o1-*", "*-mini" }, path = "/v1/chat", method = "POST",
        headers = { ["x-a"] = "1" } } },
      { match = { model = "gpt-4" } },
      { match = { model = "*" } },
    }
    local headers = { ["x-a"] = "1" }
    local function run()
      for _ = 1, 1000 do
        match(compiled, "gpt-4", "/v1/chat/completions", "POST", headers)
        match(compiled, "gpt-4o-mini", "/v1/chat/completions", "POST", headers)
        match(compiled, "other", "/v1/embeddings", "POST", headers)
      end
    end
    local function grown_kb()
      local before = collectgarbage("count")
      run()
      return collectgarbage("count") - before
    end
    run()
    collectgarbage()
    collectgarbage("stop")
    finally(function() collectgarbage("restart") end)
    -- the first of a few rounds may still compile something
    local least = math.min(grown_kb(), grown_kb(), grown_kb(), grown_kb())
    assert.are.equal(0, least)
  end)
end)

describe("route.models_of", function()
  it("gives exact names and the route's own, once each", function()
    assert.are.same({ "a", "b", "c" },
      route.models_of { match = { model = { "a", "x*", "b" } }, models = { "b", "c" } })
    assert.are.same({ "a" }, route.models_of { match = { model = "a" } })
    assert.are.same({}, route.models_of { match = { model = "*" } })
    assert.are.same({ "m" }, route.models_of { models = { "m" } })
  end)
end)

describe("route.models", function()
  it("lists the whole configuration in its order, once each", function()
    assert.are.same({ "z", "b", "a" }, route.models { routes = {
      { match = { model = "z" }, models = {} },
      { match = { model = { "b", "gpt-*" } }, models = { "z", "a" } },
      { match = { model = "*" }, models = { "a" } },
    } })
    assert.are.same({}, route.models { routes = {} })
  end)
end)

describe("route.covers", function()
  local covers = route.covers

  local function assert_covers(expected, outer, inner)
    assert.are.equal(expected, covers(outer, inner))
  end

  it("compares models by their patterns", function()
    assert_covers(true, {}, { model = "a" })
    assert_covers(true, { model = "*" }, {})
    assert_covers(false, { model = "a*" }, {})
    assert_covers(true, { model = "a" }, { model = "a" })
    assert_covers(false, { model = "a" }, { model = "b" })
    assert_covers(true, { model = "gpt-*" }, { model = "gpt-4" })
    assert_covers(true, { model = "gpt-*" }, { model = "gpt-4*" })
    assert_covers(false, { model = "gpt-4*" }, { model = "gpt-*" })
    assert_covers(false, { model = "gpt-4" }, { model = "gpt-4*" })
    assert_covers(true, { model = "*-mini" }, { model = "gpt-mini" })
    assert_covers(true, { model = "*-mini" }, { model = "*x-mini" })
    assert_covers(false, { model = "*-mini" }, { model = "gpt-*" })
    assert_covers(false, { model = "gpt-*" }, { model = "*" })
    assert_covers(true, { model = { "a", "b*" } }, { model = { "b", "bc", "a" } })
    assert_covers(false, { model = { "a", "b*" } }, { model = { "b", "c" } })
  end)

  it("compares paths by their segments", function()
    assert_covers(true, { path = "/v1" }, { path = "/v1/chat" })
    assert_covers(true, { path = "/v1/" }, { path = "/v1" })
    assert_covers(true, { path = "/" }, {})
    assert_covers(false, { path = "/v1" }, { path = "/v11" })
    assert_covers(false, { path = "/v1/chat" }, { path = "/v1" })
    assert_covers(false, { path = "/v1" }, {})
  end)

  it("wants each of its conditions within the other's", function()
    assert_covers(true, { headers = { ["X-A"] = "1" } }, { headers = { ["x-a"] = "1", b = "2" } })
    assert_covers(false, { headers = { a = "1", b = "2" } }, { headers = { a = "1" } })
    assert_covers(false, { headers = { a = "1" } }, { headers = { a = "2" } })
    assert_covers(true, {}, { method = "GET" })
    assert_covers(false, { method = "GET" }, {})
    assert_covers(false, { method = "GET" }, { method = "POST" })
    assert_covers(false, { model = "*", method = "GET" }, { model = "a" })
  end)
end)
