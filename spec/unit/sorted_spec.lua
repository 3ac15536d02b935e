local sorted = require "perilune.sorted"

describe("sorted.keys", function()
  it("orders names and positions", function()
    assert.are.same({ "a", "b", "c" }, sorted.keys { c = 1, a = 2, b = 3 })
    assert.are.same({ 1, 2, 10 }, sorted.keys { [10] = "x", [2] = "y", [1] = "z" })
    assert.are.same({}, sorted.keys {})
  end)

  it("orders keys of several types, whatever they are", function()
    assert.are.same({ true, 9, 10, "5x", "a" },
      sorted.keys { ["5x"] = 1, [true] = 1, a = 1, [9] = 1, [10] = 1 })
  end)
end)

describe("sorted.pairs", function()
  it("gives entries in the order of their keys", function()
    assert.are.same({ { "a", 1 }, { "b", false } }, sorted.pairs { b = false, a = 1 })
    assert.are.same({}, sorted.pairs {})
  end)
end)
