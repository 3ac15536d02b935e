local cjson = require "cjson.safe"
local config = require "perilune.config"
local show = require "perilune.config.show"

local SOURCE = [[
return {
  admin = { token = "0123456789abcdef" },
  providers = {
    a = { url = "http://127.0.0.1:8000/v1", key = secret "KEY",
      headers = { ["x-auth"] = "Bearer abcdefghijklmnopqrst", ["x-team"] = "blue" } },
  },
  routes = { { match = { model = { "m", "gpt-*" } },
    targets = { { provider = "a", weight = 2, body = { set = { user = env "KEY" .. '"', n = {} } } } },
  } } }]]

describe("perilune.config.show", function()
  local KEY = 'sk-"quoted"-0123456789-4f2a'

  local function texts(source, answers)
    local helpers = {}
    for _, name in ipairs { "env", "secret", "file" } do
      helpers[name] = function(what) return (answers or { KEY = KEY })[what] end
    end
    local watched, secrets = show.watch(helpers)
    local loaded, _, problems = config.load(source, "gateway.lua", watched)
    assert(loaded, problems and problems[1] and problems[1].message)
    return show.texts(loaded, source, secrets)
  end

  it("masks the ends of long secrets and all of short ones", function()
    assert.are.equal("sk-…4f2a", show.mask("sk-aaaaaaaaaaaaaaa4f2a"))
    assert.are.equal("012…cdef", show.mask("0123456789abcdef"))
    assert.are.equal("…", show.mask("0123456789abcde"))
    assert.are.equal("…", show.mask(""))
    assert.are.equal("???…????", show.mask("\240\159\152\128aaaaaaaaaaaa\0\1\2\255"))
  end)

  it("shows what is in force, with its lines, and none of the secrets", function()
    local shown = texts(SOURCE)
    local all = assert(cjson.decode(shown.config))
    assert.are.equal("gateway.lua", all.file)
    assert.are.equal("012…cdef", all.admin.token)
    local provider = all.providers[1]
    assert.are.equal("sk-…4f2a", provider.key)
    assert.are.equal("Bearer abc…qrst", provider.headers["x-auth"])
    assert.are.equal("blue", provider.headers["x-team"])
    assert.are.equal(4, provider.line)
    assert.are.equal("a", all.targets[1].provider)
    assert.are.equal('sk-…4f2a"', all.targets[1].set_body.user)
    assert.are.same({}, all.targets[1].set_body.n)
    assert.is_nil(shown.config:find("0123456789", 1, true))
    assert.is_nil(shown.config:find("abcdefghij", 1, true))
  end)

  it("shows routes by themselves", function()
    local route = assert(cjson.decode(texts(SOURCE).routes)).routes[1]
    assert.are.same({ "m", "gpt-*" }, route.match.model)
    assert.are.equal("fallback", route.policy)
    assert.are.same({ { name = "a", provider = "a", priority = 0, weight = 2 } }, route.targets)
    assert.are.equal(7, route.line)
  end)

  it("finds secrets within other texts, but not by chance", function()
    local shown = texts([[
return {
  providers = { a = { url = "http://127.0.0.1/" .. env "PATH_TOKEN", headers = {
    ["x-a"] = "one " .. secret "KEY" .. " two", ["x-b"] = env "REGION", ["x-c"] = "a1b" } } },
  routes = { { match = { model = "*" }, targets = { { provider = "a" } } } } }]],
      { KEY = "0123456789abcdefgh", PATH_TOKEN = "v1-abcdefghijklmnop", REGION = "a1" })
    local provider = assert(cjson.decode(shown.config)).providers[1]
    assert.are.equal("http://127.0.0.1/v1-…mnop", provider.url)
    assert.are.equal("/v1-…mnop", provider.path)
    assert.are.equal("one 012…efgh two", provider.headers["x-a"])
    assert.are.equal("a1", provider.headers["x-b"])
    assert.are.equal("a1b", provider.headers["x-c"])
  end)

  it("writes empty lists as lists", function()
    assert.are.equal('{"candidates":[],"other":{}}', show.json({ candidates = {}, other = {} }, {}))
    assert.are.equal('{"n":null}', show.json({ n = 1 / 0 }, {}))
  end)
end)

describe("show.hide", function()
  local function assert_hidden(expected, message, ...)
    assert.equal(expected, show.hide(message, { ... }))
  end

  it("leaves out what a message quotes of a secret", function()
    local key = "sk-0123456789"
    assert_hidden('must be "a", "b", got "…"', 'must be "a", "b", got "sk-0123456789"', key)
    assert_hidden('got "…"', 'got "sk-01234..."', key)
    assert_hidden('the host "…" is none', 'the host "456789" is none', key)
    assert_hidden('got "…", not "x"', 'got "https://sk-0123456789/", not "x"', key)
    assert_hidden('got "…"', 'got "short"', "short")
  end)

  it("knows escapes", function()
    assert_hidden('got "…", "b"', [[got "a\"bc\\def", "b"]], 'a"bc\\def')
    assert_hidden('got "…"', [[got "abc\010def"]], "abc\ndef")
  end)

  it("leaves out a secret that is not quoted", function()
    assert_hidden("there is no file ….lua", "there is no file sk-012345.lua", "sk-012345")
  end)

  it("changes nothing else", function()
    for _, message in ipairs { 'must be "a" or "b"', 'an open " quote', '""', 'sk-01 "sk-01"' } do
      assert_hidden(message, message, "sk-0123456789", "")
    end
  end)
end)
