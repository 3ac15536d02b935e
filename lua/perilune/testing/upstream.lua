--- An upstream's script: which answer comes next.

local answers = require "perilune.testing.answers"
local given = require "perilune.testing.given"

local upstream = {}

local Upstream = {}
Upstream.__index = Upstream

--- One answer per call, the last one for ever. Replaces what was said before.
function Upstream:answers(...)
  local list, count = { ... }, select("#", ...)
  if count == 0 then given.fail("upstream %s: answers: none is given", self.name) end
  for number = 1, count do
    answers.check(("upstream %s: answer %d"):format(self.name, number), list[number])
  end
  self.list, self.count = list, 0
  return self
end

--- The same answer for ever. Replaces what was said before.
function Upstream:always(answer)
  return self:answers(answer)
end

--- An answer for calls from one time to another, ahead of the script.
-- @tparam string from since the world began
-- @tparam string to when it is over
function Upstream:between(from, to, answer)
  local what = ("upstream %s: between"):format(self.name)
  local span = { from_ms = given.ms(what, from), to_ms = given.ms(what, to), answer = answer }
  if span.to_ms <= span.from_ms then given.fail("%s: %s is not after %s", what, to, from) end
  answers.check(what, answer)
  table.insert(self.spans, span)
  return self
end

--- The answer to a call that comes now.
-- @treturn answer
-- @treturn number the call's, among those of this upstream
function Upstream:next(at_ms)
  self.call_count = self.call_count + 1
  for _, span in ipairs(self.spans) do
    if at_ms >= span.from_ms and at_ms < span.to_ms then return span.answer, self.call_count end
  end
  self.count = self.count + 1
  return self.list[math.min(self.count, #self.list)], self.call_count
end

function upstream.new(name)
  return setmetatable({ name = name, list = { 200 }, spans = {}, count = 0, call_count = 0 },
    Upstream)
end

return upstream
