local cjson = require "cjson.safe"
local schema = require "perilune.schema"

--- Checks a value; gives the result and the problems as "path: message".
local function check(type_of, value)
  local problems = {}
  local result = schema.check(type_of, value, {}, function(path, message)
    table.insert(problems, schema.path_text(path) .. ": " .. message)
  end)
  return result, problems
end

local function refusal(type_of, value)
  local _, problems = check(type_of, value)
  assert.are.equal(1, #problems)
  return problems[1]
end

describe("schema.path_text", function()
  local function text(...)
    local path = {}
    for _, key in ipairs { ... } do
      path = schema.at(path, key)
    end
    return schema.path_text(path)
  end

  it("writes paths as Lua does", function()
    assert.are.equal("", text())
    assert.are.equal("routes[2].targets[1].weight", text("routes", 2, "targets", 1, "weight"))
    assert.are.equal('providers["eu-west"].url', text("providers", "eu-west", "url"))
    assert.are.equal('[1]["a\\"b"]', text(1, 'a"b'))
  end)
end)

describe("schema.show", function()
  it("writes values on one short line", function()
    assert.are.equal('"x"', schema.show("x"))
    assert.are.equal('"a\\"\\\\b\\010\\000"', schema.show('a"\\b\n\0'))
    assert.are.equal('"' .. ("y"):rep(60) .. '..."', schema.show(("y"):rep(61)))
    assert.are.equal("1.5", schema.show(1.5))
    assert.are.equal("true", schema.show(true))
    assert.are.equal("nil", schema.show(nil))
    assert.are.equal("a table", schema.show {})
    assert.are.equal("a function", schema.show(print))
  end)
end)

describe("schema.nearest", function()
  local known = { "weight", "priority", "provider", "on", "timeouts" }

  it("finds what was meant", function()
    for word, expected in pairs {
      wieght = "weight", weigth = "weight", Weight = "weight", priorty = "priority",
      providers = "provider", timeout = "timeouts", onn = "on", time_outs = "timeouts",
    } do
      assert.are.equal(expected, schema.nearest(word, known), word)
    end
  end)

  it("finds nothing when nothing is near", function()
    for _, word in ipairs { "health", "x", "", "off", ("weight"):rep(20) } do
      assert.is_nil(schema.nearest(word, known), word)
    end
  end)

  it("falls back to what is known in a hint", function()
    assert.are.equal('did you mean "weight"?', schema.hint("wieght", known))
    assert.are.equal("known here: a, b", schema.hint("something", { "a", "b" }))
    assert.are.equal("known here: a, b", schema.hint(1, { "a", "b" }))
  end)
end)

describe("schema.json", function()
  it("encodes values, objects in the order of their names", function()
    for expected, value in pairs {
      ['"a\\"b"'] = 'a"b', ["true"] = true, ["false"] = false, ["0.1"] = 0.1, ["-3"] = -3,
      ["9007199254740992"] = 2 ^ 53, ["1e+100"] = 1e100,
      ['["END",{"a":1,"b":[true]}]'] = { "END", { b = { true }, a = 1 } }, ["{}"] = {},
      ['{"a":{},"é":"é"}'] = { ["é"] = "é", a = {} },
    } do
      assert.are.equal(expected, schema.json(value))
    end
    assert.are.equal("null", schema.json(cjson.null))
  end)

  it("loses no digit of a number", function()
    for _, number in ipairs {
      0.1 + 0.2, 1 / 3, 123456789.123456789, 4.9e-324, 2 ^ 60, 1e15 + 0.5,
    } do
      assert.are.equal(number, tonumber((schema.json(number))))
    end
  end)

  it("gives what any JSON reader reads back", function()
    local text = "tab\t\1 / \195\169 \240\159\152\128"
    local value = { text = text, list = { 1, 2.5, false }, map = {} }
    assert.are.same(value, cjson.decode((schema.json(value))))
  end)

  it("says why a value has no JSON form", function()
    local cyclic = {}
    cyclic.self = cyclic
    local wide = {}
    for position = 1, 10001 do
      wide[position] = position
    end
    local mixed, sparse = { 1, a = 2 }, { 1, nil, 3 }
    for detail, value in pairs {
      ["holds a function, which has no JSON form"] = { print },
      ["holds a list with a hole in it"] = { deep = sparse },
      ["holds a table with both named fields and list items"] = mixed,
      ["holds a table with a key that is neither a string nor a position"] = { [true] = 1 },
      ["holds a number that is not finite"] = { 1 / 0 },
      ["holds a string that is not valid UTF-8"] = { "\255" },
      ["is nested more than 32 levels deep"] = cyclic,
      ["holds more than 10000 values"] = wide,
    } do
      assert.are.same({ nil, "invalid", detail }, { schema.json(value) })
    end
    assert.is_nil((schema.json(0 / 0)))
    assert.is_nil((schema.json { [1.5] = 1 }))
    assert.is_nil((schema.json { [0] = 1 }))
    assert.is_nil((schema.json { ["\192\128"] = 1 }))
  end)

  it("counts what is shared each time it is written, so that it ends", function()
    local value = { 1 }
    for _ = 1, 30 do
      value = { value, value }
    end
    assert.are.equal("holds more than 10000 values", select(3, schema.json(value)))
  end)

  it("takes exactly the valid UTF-8", function()
    for _, text in ipairs { "\194\128", "\223\191", "\224\160\128", "\237\159\191", "\238\128\128",
      "\240\144\128\128", "\244\143\191\191" } do
      assert.is_string(schema.json("a" .. text .. "b"))
    end
    for _, text in ipairs { "\128", "\193\191", "\224\159\191", "\237\160\128", "\240\143\191\191",
      "\244\144\128\128", "\245\128\128\128", "\194", "\224\160", "\194\194\128" } do
      assert.is_nil((schema.json("a" .. text)))
    end
  end)
end)

describe("schema.check", function()
  local integer = { kind = "integer", min = 1, max = 10 }
  local number = { kind = "number", min = 0 }
  local span = { kind = "duration", min = 1, max = 60000, whole = true }
  local size = { kind = "size", min = 512, max = 65536 }

  it("holds numbers to their bounds", function()
    assert.are.equal(10, (check(integer, 10)))
    for _, value in ipairs { 0, 11, -1, 1 / 0, -1 / 0 } do
      assert.are.equal(": must be a whole number from 1 to 10, got " .. schema.show(value),
        refusal(integer, value))
    end
    assert.are.equal(": must be a whole number from 1 to 10, got 1.5", refusal(integer, 1.5))
    assert.are.equal(': must be a whole number from 1 to 10, got "5"', refusal(integer, "5"))
    assert.are.equal(0.5, (check(number, 0.5)))
    assert.are.equal(': must be a number >= 0, got "x"', refusal(number, "x"))
    assert.are.equal(": must be a number >= 0, got -0.1", refusal(number, -0.1))
    assert.are.equal(": must be a number >= 0, got inf", refusal(number, 1 / 0))
    assert.is_nil((check(number, 0 / 0)))
  end)

  it("holds durations to theirs, rounding up to whole milliseconds", function()
    assert.are.equal(1500, (check(span, "1.5s")))
    assert.are.equal(13, (check(span, "12.5ms")))
    assert.are.equal(12.5, (check({ kind = "duration", min = 0, max = 100 }, "12.5ms")))
    assert.are.equal(': must be a duration from 1ms to 1m, got "0.5ms"', refusal(span, "0.5ms"))
    assert.are.equal(': must be a duration from 1ms to 1m, got "2m"', refusal(span, "2m"))
    assert.are.equal(': is ambiguous: write "10s" or "10ms"', refusal(span, 10))
    assert.are.equal(': must be a duration such as "10s" or "100ms", got "soon"',
      refusal(span, "soon"))
    assert.are.equal(': must be a duration such as "10s" or "100ms", got a table',
      refusal(span, {}))
  end)

  it("holds sizes to theirs", function()
    assert.are.equal(1024, (check(size, "1KiB")))
    assert.are.equal(600, (check(size, 600)))
    assert.are.equal(": must be a size from 512B to 64KiB, got 100", refusal(size, 100))
    assert.are.equal(': must be a size from 512B to 64KiB, got "1MiB"', refusal(size, "1MiB"))
    assert.are.equal(': must be a size such as "64KiB" or a whole number of bytes, got "big"',
      refusal(size, "big"))
  end)

  it("checks booleans and choices", function()
    assert.is_false((check({ kind = "boolean" }, false)))
    assert.are.equal(': must be true or false, got "yes"', refusal({ kind = "boolean" }, "yes"))
    local choice = { kind = "choice", choices = { "info", "warn" } }
    assert.are.equal("warn", (check(choice, "warn")))
    assert.are.equal(': must be "info", "warn", got "wran": did you mean "warn"?',
      refusal(choice, "wran"))
    assert.are.equal(': must be "info", "warn", got 1', refusal(choice, 1))
    assert.are.equal(': must be "info", "warn", got "silent"', refusal(choice, "silent"))
  end)

  it("gives the advice that a choice has for a word", function()
    local choice = { kind = "choice", choices = { "a", "b" }, advice = { c = "write d" } }
    assert.are.equal(': must be "a", "b", got "c": write d', refusal(choice, "c"))
    assert.are.equal(': must be "a", "b", got "zzz"', refusal(choice, "zzz"))
  end)

  it("checks texts, and repeats no secret", function()
    local text = { kind = "text", max = 5 }
    assert.are.equal("abc", (check(text, "abc")))
    assert.are.equal(": must be a string, got 5", refusal(text, 5))
    assert.are.equal(": must not be empty", refusal(text, ""))
    assert.are.equal(": must be at most 5 bytes long, got 6", refusal(text, "abcdef"))
    local function refuse()
      return nil, "invalid", "is odd"
    end
    assert.are.equal(': is odd, got "x"', refusal({ kind = "text", read = refuse }, "x"))
    local secret = { kind = "text", read = refuse, secret = true }
    assert.are.equal(": is odd", refusal(secret, "hunter2"))
    assert.are.equal(": must be a string, got a number", refusal(secret, 1234))
    assert.are.equal(3, (check({ kind = "text", read = function(t) return #t end }, "abc")))
  end)

  it("checks lists, keeping positions", function()
    local list = { kind = "list", item = integer, min = 1, max = 3 }
    assert.are.same({ 3, 1 }, (check(list, { 3, 1 })))
    assert.are.equal(": must be a list, got 1", refusal(list, 1))
    assert.are.equal(": must not be empty", refusal(list, {}))
    assert.are.equal(": must have at most 3 items, got 4", refusal(list, { 1, 2, 3, 4 }))
    assert.are.equal("[2]: is nil, with items after it: a list must not have holes",
      refusal(list, { 1, nil, 3 }))
    assert.are.equal("x: is not a position: this is a list", refusal(list, { 1, x = 2 }))
    assert.are.equal("[0]: is not a position: this is a list", refusal(list, { [0] = 1 }))
    assert.are.equal("[2]: is in the list already, got 1", refusal(list, { 1, 1 }))
    local result, problems = check(list, { 1, 99, 3 })
    assert.are.same({ "[2]: must be a whole number from 1 to 10, got 99" }, problems)
    assert.are.equal(schema.BROKEN, result[2])
    assert.are.equal(3, result[3])
  end)

  it("checks maps by name and value", function()
    local map = {
      kind = "map", min = 1, max = 2, value = integer,
      name = function(key)
        if type(key) == "string" and key:find("^%a+$") then return key:lower() end
        return nil, "invalid", "is not a word"
      end,
    }
    assert.are.same({ a = 1, B = 2 }, (check(map, { a = 1, B = 2 })))
    assert.are.equal(": must be a table, got true", refusal(map, true))
    assert.are.equal(": must not be empty", refusal(map, {}))
    assert.are.equal(": must have at most 2 entries, got 3", refusal(map, { a = 1, b = 2, c = 3 }))
    assert.are.equal('["1x"]: is not a word', refusal(map, { ["1x"] = 1 }))
    assert.are.equal("[1]: is not a word", refusal(map, { 5 }))
    assert.are.equal("a: is given twice: names are compared without case",
      refusal(map, { a = 1, A = 2 }))
    assert.are.equal("b: must be a whole number from 1 to 10, got 0", refusal(map, { b = 0 }))
  end)

  it("closes records, fills defaults and asks for what is required", function()
    local record = { kind = "record", fields = {
      { "count", { kind = "integer", min = 1, max = 10, default = 5 } },
      { "name", { kind = "text", required = true } },
      { "cert", { kind = "text", required = "a PEM file" } },
      { "note", { kind = "text" } },
    } }
    local whole = { count = 5, name = "n", cert = "c" }
    assert.are.same(whole, (check(record, { name = "n", cert = "c" })))
    local _, problems = check(record, { nam = "x", [1] = 2, coutn = 3 })
    assert.are.same({
      "name: is required", "cert: is required: a PEM file",
      "[1]: unknown key: known here: count, name, cert, note",
      'coutn: unknown key: did you mean "count"?', 'nam: unknown key: did you mean "name"?',
    }, problems)
    assert.are.equal(': must be a table, got "x"', refusal(record, "x"))
  end)

  it("tells one from many by the table", function()
    local either = {
      kind = "either", wanted = "a string or a list of strings", text = { kind = "text", max = 5 },
      table = { kind = "list", item = { kind = "text", max = 5 }, min = 1, max = 2 },
    }
    assert.are.equal("a", (check(either, "a")))
    assert.are.same({ "a", "b" }, (check(either, { "a", "b" })))
    assert.are.equal(": must be a string or a list of strings, got 1", refusal(either, 1))
    assert.are.equal("[1]: must be a string, got 1", refusal(either, { 1 }))
    assert.are.equal(": must not be empty", refusal(either, {}))
    assert.are.equal(": must be a string or a list of strings, got true", refusal(either, true))
  end)

  it("takes a table or false for a switch", function()
    local on = { kind = "record", fields = { { "count", { kind = "integer", min = 0, max = 9,
      default = 5 } } } }
    local plain = { kind = "switch", on = on }
    assert.is_false((check(plain, false)))
    assert.are.same({ count = 5 }, (check(plain, {})))
    assert.are.equal(": must be a table or false, got true", refusal(plain, true))
    assert.are.equal(': must be a table or false, got "off"', refusal(plain, "off"))
    assert.are.equal("count: must be a whole number from 0 to 9, got 10",
      refusal(plain, { count = 10 }))
    local off = { kind = "switch", on = on, off = { count = 0 } }
    local result = check(off, false)
    assert.are.same({ count = 0 }, result)
    assert.are_not.equal(off.off, result)
  end)

  it("keeps functions as they are", function()
    local type_of = { kind = "function", arguments = "res" }
    assert.are.equal(print, (check(type_of, print)))
    assert.are.equal(": must be a function(res), got true", refusal(type_of, true))
    assert.are.equal(": must be a function(res), got a table", refusal(type_of, {}))
    assert.are.equal("", schema.bounds(type_of))
  end)

  it("says what to write instead of an empty list", function()
    local some = { kind = "list", item = { kind = "text" }, min = 1, max = 2, if_empty = "write x" }
    assert.are.equal(": must not be empty: write x", refusal(some, {}))
  end)

  it("checks triggers", function()
    local trigger = { kind = "trigger", min = 300, max = 599, words = { "5xx", "timeout" } }
    assert.are.equal(503, (check(trigger, 503)))
    assert.are.equal("5xx", (check(trigger, "5xx")))
    assert.are.equal(": must be a status from 300 to 599, got 600", refusal(trigger, 600))
    assert.are.equal(": must be a status from 300 to 599, got 500.5", refusal(trigger, 500.5))
    assert.are.equal(': must be a status, such as 503, or a known word, got "timeuot": '
      .. 'did you mean "timeout"?', refusal(trigger, "timeuot"))
    assert.are.equal(": must be a status, such as 503, or a known word, got a table: "
      .. "known here: 5xx, timeout", refusal(trigger, {}))
  end)

  it("gives the raw text of json", function()
    assert.are.equal('{"a":[1]}', (check({ kind = "json" }, { a = { 1 } })))
    assert.are.equal(": holds a function, which has no JSON form",
      refusal({ kind = "json" }, { print }))
  end)

  it("changes nothing of what it is given", function()
    local value = { listen = {}, providers = { p = { url = "http://h" } }, routes = {
      { targets = { { provider = "p" } } } } }
    check(schema.GATEWAY, value)
    assert.are.same({ listen = {}, providers = { p = { url = "http://h" } }, routes = {
      { targets = { { provider = "p" } } } } }, value)
  end)
end)

describe("schema.bounds", function()
  it("writes bounds as the reference configuration does", function()
    assert.are.equal("0 to 256", schema.bounds { kind = "integer", min = 0, max = 256 })
    assert.are.equal("0 to 1000000", schema.bounds { kind = "integer", min = 0, max = 1000000 })
    assert.are.equal(">= 0", schema.bounds { kind = "number", min = 0 })
    assert.are.equal("1ms to 10m", schema.bounds { kind = "duration", min = 1, max = 600000 })
    assert.are.equal("512B to 64KiB", schema.bounds { kind = "size", min = 512, max = 65536 })
    assert.are.equal("a, b", schema.bounds { kind = "choice", choices = { "a", "b" } })
    assert.are.equal("true or false", schema.bounds { kind = "boolean" })
    assert.are.equal("", schema.bounds { kind = "text" })
  end)
end)

describe("schema.each", function()
  it("visits every type with its path", function()
    local seen = {}
    schema.each(schema.GATEWAY, function(path, type_of)
      seen[schema.path_text(path)] = type_of.kind
    end)
    assert.are.equal("record", seen[""])
    assert.are.equal("text", seen["listen.address"])
    assert.are.equal("duration", seen['providers["*"].timeouts.connect'])
    assert.are.equal("number", seen["routes[1].targets[1].weight"])
    assert.are.equal("duration", seen["routes[1].retry.backoff.floor"])
    assert.are.equal("json", seen['routes[1].targets[1].body.set["*"]'])
    assert.are.equal("function", seen['providers["*"].health.unhealthy'])
    assert.are.equal("integer", seen['providers["*"].health.retry_after.statuses[1]'])
    assert.are.equal("number", seen["routes[1].balance.load"])
    assert.are.equal("text", seen["routes[1].match.model[1]"])
  end)
end)

describe("the words of retry.on", function()
  it("are all understood by what acts on them", function()
    local retry = require "perilune.retry"
    local words
    schema.each(schema.GATEWAY, function(_, type_of)
      if type_of.kind == "trigger" then words = type_of.words end
    end)
    assert.is_true(#words > 20)
    for _, word in ipairs(words) do
      assert.is_truthy(retry.expand(word), word)
    end
    assert.is_truthy(retry.expand(300))
    assert.is_truthy(retry.expand(599))
  end)
end)
