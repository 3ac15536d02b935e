--- The time that a client gives a request, as it says so in a header that the operator has named.
--
-- Units of such a header:
--
--     ms    whole milliseconds: "1500"
--     s     seconds, fractions allowed: "30", "1.5"
--     grpc  as in gRPC's own header: at most eight digits and one of H M S m u n: "1500m"
--
-- Nothing else is a time, not even with white space in it: who states a limit and is not understood
-- would wait for the route's, so that is an error of the client's. 0 says nothing: the SDKs send it
-- for times under a second, which they cut to whole ones, and Envoy takes it for "none". Of several
-- headers the least time counts. Pure.

local deadline = {}

local MAX_BYTES = 20 -- of a value: the largest 64-bit number has as many digits
local GRPC_UNIT_MS = { H = 3600000, M = 60000, S = 1000, m = 1, u = 1e-3, n = 1e-6 }
local SUFFIX = "%-ms$"
local KNOWN = {
  ["grpc-timeout"] = "grpc", ["x-portkey-request-timeout"] = "ms", ["x-stainless-timeout"] = "s",
  ["x-stainless-read-timeout"] = "s",
}

local READ = {}

function READ.ms(text)
  return text:find("^%d+$") and tonumber(text)
end

function READ.s(text)
  return (text:find("^%d+$") or text:find("^%d+%.%d+$")) and tonumber(text) * 1000
end

function READ.grpc(text)
  local digits, unit = text:match("^(%d+)(%a)$")
  return digits and #digits <= 8 and GRPC_UNIT_MS[unit] and tonumber(digits) * GRPC_UNIT_MS[unit]
end

local EXPECTED = {
  ms = "whole milliseconds, such as 1500", s = "seconds, such as 30 or 1.5",
  grpc = "a number of at most eight digits with a unit, such as 1500m or 30S",
}

--- The units there are.
deadline.UNITS = { "ms", "s", "grpc" }

--- The unit of a header that is well known, or that says so by its name.
-- @tparam string name in lower case
-- @treturn ?string one of UNITS
function deadline.unit_of(name)
  return KNOWN[name] or name:find(SUFFIX) and "ms" or nil
end

--- Reads a header's value.
-- @tparam string unit
-- @tparam string text
-- @treturn ?number milliseconds, > 0 and rounded up; math.huge for 0; nil when it is no time
function deadline.parse(unit, text)
  local ms = #text <= MAX_BYTES and READ[unit](text)
  if not ms then return nil end
  return ms > 0 and math.ceil(ms) or math.huge
end

--- The deadline of one request.
-- @tparam {table,...} list { name, unit }: the headers to look at
-- @param headers indexable by lower-case names
-- @treturn[1] number milliseconds; math.huge when none says anything
-- @treturn[2] nil
-- @treturn[2] string "invalid_deadline"
-- @treturn[2] string what is wrong
-- @treturn[2] string the header's name
function deadline.of(list, headers)
  local least_ms = math.huge
  for position = 1, #list do
    local name, unit = list[position].name, list[position].unit
    local text = headers[name]
    if text then
      local ms = deadline.parse(unit, text)
      if not ms then
        return nil, "invalid_deadline", ("The header %s must be %s"):format(name, EXPECTED[unit]),
          name
      end
      least_ms = math.min(least_ms, ms)
    end
  end
  return least_ms
end

return deadline
