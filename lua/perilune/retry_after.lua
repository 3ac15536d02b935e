--- How long a provider asks to be left alone, from its answer's headers, or its body.
--
-- The first header that holds a usable value wins:
--
--  1. Retry-After: whole seconds, or an HTTP-date that lies ahead (RFC 9110 10.2.3)
--  2. retry-after-ms, x-ms-retry-after-ms (Azure): whole milliseconds
--  3. x-ratelimit-reset: whole seconds; from 30 days on it is a Unix time, which must lie ahead
--  4. the smallest of x-ratelimit-reset-requests, -tokens, -requests-day, -tokens-minute, each a Go
--     duration ("2m30s") or a bare number of seconds ("11.1")
--
-- Where no header does, the body of a 429 or 503 may, as Gemini's: an error detail of the type
-- google.rpc.RetryInfo with retryDelay = "34.07s".
--
-- A value that cannot be used ("120s", "", a date in the past) counts as absent. Pure.

local date = require "perilune.date"

local retry_after = {}

local U64_MAX = 18446744073709551615
local EPOCH_FROM_S = 30 * 24 * 3600
local VALUE_MAX_BYTES = 64
local DETAILS_MAX = 8
local IN_BODY = { [429] = true, [503] = true }

local MONTHS = {
  Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10,
  Nov = 11, Dec = 12,
}
-- RFC 9110 5.6.7: IMF-fixdate, RFC 850, asctime. Captures in the order of DATE_FIELDS.
local IMF_FIXDATE = "^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
local RFC_850 = "^%a+day, (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT$"
local ASCTIME = "^%a%a%a (%a%a%a) ([ %d]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)$"

local GO_UNIT_MS = {
  h = 3600000, m = 60000, s = 1000, ms = 1, us = 1e-3, ["\194\181s"] = 1e-3, ["\206\188s"] = 1e-3,
  ns = 1e-6,
}
local RESET_HEADERS = {
  "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", -- OpenAI
  "x-ratelimit-reset-requests-day", "x-ratelimit-reset-tokens-minute", -- Cerebras
}

local function whole_number(text)
  if not text:find("^%d+$") then return nil end
  local number = tonumber(text)
  return number < U64_MAX and number or nil
end

local function to_wall_ms(year, month_name, day, hour, minute, second)
  local month = MONTHS[month_name]
  if not month then return nil end
  return date.wall_ms(tonumber(year), month, tonumber(day), tonumber(hour), tonumber(minute),
    tonumber(second))
end

--- Reads an HTTP-date in any of the three forms of RFC 9110 5.6.7.
-- @tparam string text
-- @treturn ?number milliseconds since the epoch, nil when it is no date
function retry_after.http_date_ms(text)
  local day, month, year, hour, minute, second = text:match(IMF_FIXDATE)
  if day then return to_wall_ms(year, month, day, hour, minute, second) end
  day, month, year, hour, minute, second = text:match(RFC_850)
  if day then
    year = tonumber(year) + (tonumber(year) < 70 and 2000 or 1900)
    return to_wall_ms(year, month, day, hour, minute, second)
  end
  month, day, hour, minute, second, year = text:match(ASCTIME)
  if month then return to_wall_ms(year, month, day, hour, minute, second) end
  return nil
end

local function decimal(text)
  if text:find("^%d+%.?%d*$") or text:find("^%.%d+$") then return tonumber(text) end
  return nil
end

--- Reads a Go duration ("2m30s", "1.5h", "0") or a bare number of seconds. No sign is allowed.
-- @tparam string text
-- @treturn ?number milliseconds, rounded; nil when it is neither
function retry_after.go_duration_ms(text)
  local seconds = decimal(text)
  if seconds then return math.floor(seconds * 1000 + 0.5) end
  local total_ms, position = 0, 1
  while position <= #text do
    local number, unit, next_position = text:match("^([%d.]+)([^%d.]+)()", position)
    local amount, unit_ms = number and decimal(number), GO_UNIT_MS[unit]
    if not amount or not unit_ms then return nil end
    total_ms, position = total_ms + amount * unit_ms, next_position
  end
  return position > 1 and math.floor(total_ms + 0.5) or nil
end

local function from_retry_after(value, now_wall_ms)
  local seconds = whole_number(value)
  if seconds then return seconds * 1000 end
  local at_ms = retry_after.http_date_ms(value)
  return at_ms and at_ms > now_wall_ms and at_ms - now_wall_ms or nil
end

local function from_reset(value, now_wall_ms)
  local seconds = whole_number(value)
  if not seconds then return nil end
  if seconds < EPOCH_FROM_S then return seconds * 1000 end
  local at_ms = seconds * 1000
  return at_ms > now_wall_ms and at_ms - now_wall_ms or nil
end

local function value_of(headers, name)
  local value = headers[name]
  return type(value) == "string" and #value <= VALUE_MAX_BYTES and value or nil
end

local function smallest_reset(headers)
  local smallest_ms
  for i = 1, #RESET_HEADERS do
    local value = value_of(headers, RESET_HEADERS[i])
    local wait_ms = value and retry_after.go_duration_ms(value)
    if wait_ms and (not smallest_ms or wait_ms < smallest_ms) then smallest_ms = wait_ms end
  end
  return smallest_ms
end

--- How long to leave the sender of these headers alone.
-- @param headers indexable by lower-case names
-- @tparam number now_wall_ms the wall clock, against which dates are read
-- @treturn ?number milliseconds from now, 0 included; nil when the headers do not say
function retry_after.parse(headers, now_wall_ms)
  local value = value_of(headers, "retry-after")
  local wait_ms = value and from_retry_after(value, now_wall_ms)
  if wait_ms then return wait_ms end
  value = value_of(headers, "retry-after-ms")
  wait_ms = value and whole_number(value)
  if wait_ms then return wait_ms end
  value = value_of(headers, "x-ms-retry-after-ms")
  wait_ms = value and whole_number(value)
  if wait_ms then return wait_ms end
  value = value_of(headers, "x-ratelimit-reset")
  wait_ms = value and from_reset(value, now_wall_ms)
  return wait_ms or smallest_reset(headers)
end

--- The delay that an error names in its details.
-- @param body decoded; of any shape
-- @treturn ?number milliseconds
function retry_after.in_body(body)
  if type(body) == "table" and body.error == nil then body = body[1] end -- Gemini: an array
  local inner = type(body) == "table" and body.error
  local details = type(inner) == "table" and inner.details
  for position = 1, type(details) == "table" and DETAILS_MAX or 0 do
    local detail = details[position]
    local delay = type(detail) == "table" and detail.retryDelay
    if type(delay) == "string" and #delay <= VALUE_MAX_BYTES then
      return retry_after.go_duration_ms(delay)
    end
  end
  return nil
end

--- The same for an answer, with one look at it when it cannot say anything.
-- @param res `.status`, `.headers`, `:json()`, and `.has_wait_hint`: false when none of the headers
-- above is there, nor a delay in the body; nil when that is not known
-- @tparam function now_wall_ms asked only when there is a header to read
-- @treturn ?number milliseconds from now
function retry_after.of(res, now_wall_ms)
  if res.has_wait_hint == false then return nil end
  local wait_ms = retry_after.parse(res.headers, now_wall_ms())
  if wait_ms or not IN_BODY[res.status] then return wait_ms end
  return retry_after.in_body((res:json()))
end

return retry_after
