local frozen = require "perilune.frozen"

describe("perilune.frozen", function()
  local view = frozen.view("thing", { name = "x" })

  it("reads through", function()
    assert.equal("x", view.name)
    assert.is_nil(view.other)
    assert.equal(6, frozen.view("thing", function(_, key) return #key end).letter)
  end)

  it("refuses writes, with the name of what was written", function()
    assert.has_error(function() view.name = "y" end, "thing is read-only: cannot set \"name\"")
    assert.has_error(function() view[1] = "y" end, "thing is read-only: cannot set \"1\"")
    assert.equal("x", view.name)
  end)

  it("cannot be unmasked", function()
    assert.equal("thing", getmetatable(view))
    assert.has_error(function() setmetatable(view, {}) end)
    assert.is_nil(next(view))
  end)
end)
