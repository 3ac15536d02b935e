--- What a scenario may say (see perilune.schema for the kinds of types). Plain data.

local faults = require "perilune.simulate.faults"
local rfc3339 = require "perilune.rfc3339"
local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"

local integer, list, map, number = types.integer, types.list, types.map, types.number
local record, span, with = types.record, types.span, types.with

local MAX_REQUESTS = 1000000
local MAX_TOKENS = 1000000

-- Quantities --------------------------------------------------------------------------------------

--- A time that is always the same, or lognormal.
local function latency(default)
  local exact = types.exact_span("0ms", "1h")
  local positive = with(types.exact_span("0.001ms", "1h"), { required = true })
  return {
    kind = "either", text = exact, default = default,
    table = record { { "p50", positive }, { "p99", positive } },
    wanted = 'a duration such as "200ms", or { p50 = "200ms", p99 = "2s" }',
  }
end

--- A count that is always the same, or lognormal.
local function size(default)
  local bound = with(integer(1, MAX_TOKENS), { required = true })
  return {
    kind = "either", number = integer(1, MAX_TOKENS), default = default,
    table = record { { "p50", bound }, { "p99", bound } },
    wanted = "a whole number, or { p50 = 400, p99 = 4000 }",
  }
end

-- Answers -----------------------------------------------------------------------------------------

local STATUS = { kind = "integer", min = 200, max = 599 }

local ANSWER = record {
  { "status", with(STATUS, { default = 200 }) },
  { "headers", texts.HEADERS },
  { "body", {
    kind = "either", text = { kind = "text", min = 0, max = 65536 }, table = { kind = "json" },
    wanted = "a string or a table",
  } },
  { "after", latency() },
  { "words", integer(0, MAX_TOKENS) },
  { "first", latency() },
  { "every", latency() },
  { "cut_after", integer(0, MAX_TOKENS) },
  { "stall_after", integer(0, MAX_TOKENS) },
  { "done", types.boolean(true) },
}

local ANSWER_FORM = {
  kind = "either", required = "what it answers then", number = STATUS, table = ANSWER,
  text = types.choice(faults.NAMES), wanted = "a status, the name of a failure, or a table",
}

--- A status or a name of a failure, as the key of its share.
local function fault_name(key)
  local is_status = type(key) == "number" and key % 1 == 0 and key >= 400 and key <= 599
  if is_status or type(key) == "string" and faults.plan(key) then return key end
  return nil, "invalid", "is neither a status from 400 to 599 nor the name of a failure: "
    .. table.concat(faults.NAMES, ", ")
end

-- The parts ---------------------------------------------------------------------------------------

local MIX = record {
  { "model", with(texts.MODEL, { required = true }) },
  { "share", number(0, 1000000, 1) },
  { "stream", types.share(0) },
  { "input_tokens", size(500) },
  { "output_tokens", size(200) },
  { "headers", texts.HEADERS },
  { "body", with(map(texts.named(texts.printable), { kind = "json" }, 0, 64), { default = {} }) },
  { "users", integer(1, 1000000) },
  { "patience", span("1ms", "24h") },
}

local REQUESTS = record {
  { "count", integer(1, MAX_REQUESTS) },
  { "rate", number(0.001, 100000) },
  { "duration", span("1ms", "240h") },
  { "arrival", types.choice({ "poisson", "even" }, "poisson") },
  { "mix", with(list(MIX, 1, 64), { required = "which models are asked for" }) },
}

-- A provider's entry holds for all of its targets: what a target's own entry leaves open is taken
-- from it, so there are no defaults here.
local UPSTREAM = record {
  { "head", latency() },
  { "first_token", latency() },
  { "per_token", latency() },
  { "errors", map(fault_name, types.share(), 0, 64) },
  { "price", record {
    { "input", number(0, 1000000, 0) },
    { "output", number(0, 1000000, 0) },
  } },
  { "concurrent", integer(1, 1000000) },
  { "retry_after", span("1s", "24h") },
}

local OUTAGE = record {
  { "upstream", { kind = "text", required = "which provider or target it strikes" } },
  { "from", span("0ms", "240h", "0ms") },
  { "to", span("1ms", "240h") },
  { "answer", ANSWER_FORM },
  { "share", types.share(1) },
}

return record {
  { "seed", integer(0, nil, 1) },
  { "start", {
    kind = "text", max = 64, read = rfc3339.parse, default = "2026-01-05T12:00:00Z",
  } },
  { "requests", REQUESTS }, -- required, unless they come from a log
  { "upstreams", with(map(texts.named(texts.printable), UPSTREAM, 0, 1024), { default = {} }) },
  { "outages", with(list(OUTAGE, 0, 1024), { default = {} }) },
}
