--- What may be said of a route: which requests it takes, how it chooses among its targets, what is
-- tried again, what is changed in the answer. Plain data.

local classes = require "perilune.classes"
local classify = require "perilune.classify"
local hedge = require "perilune.hedge"
local retry = require "perilune.retry"
local route = require "perilune.route"
local sorted = require "perilune.sorted"
local target = require "perilune.schema.target"
local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"
local wording = require "perilune.schema.wording"

local integer, list, section, with = types.integer, types.list, types.section, types.with
local exact_span, matching = types.exact_span, texts.matching

-- What matches ------------------------------------------------------------------------------------

local ROUTE_NAME = texts.name(matching(
  '^[^%c%s"\\\128-\255]+$', "must not hold spaces, quotes, backslashes or non-ASCII characters"))
local METHOD = matching("^[A-Z]+$", "must be in capital letters")

local function model_pattern(text)
  local kind, code, detail = route.pattern(text)
  if not kind then return nil, code, detail end
  return texts.printable(text)
end

local MODEL_PATTERN = { kind = "text", read = model_pattern }

local function path_prefix(text)
  if not text:find("^/[^%c%s?#]*$") then
    return nil, "invalid", 'must be a path: start with "/", without spaces, "?" or "#"'
  end
  if text:find("*", 1, true) then
    return nil, "invalid", 'must not hold "*": it matches everything below it anyway'
  end
  return text
end

local MATCH = section {
  { "model", {
    kind = "either", text = MODEL_PATTERN, table = list(MODEL_PATTERN, 1, 256),
    wanted = "a string or a list of strings",
  } },
  { "path", { kind = "text", read = path_prefix } },
  { "method", { kind = "text", max = 16, read = METHOD } },
  { "headers", types.map(texts.header_name, texts.HEADER_VALUE, 0, 16) },
}

-- Which target ------------------------------------------------------------------------------------

local HASH_EXAMPLE = '{ by = "hash", header = "x-user" }'

local BALANCES = {
  "weighted", "round_robin", "least_busy", "least_latency", "p2c", "smooth_weighted",
}

--- What to say to who writes as a table what is a name.
local function names_advice()
  local advice = {}
  for _, name in ipairs(BALANCES) do
    advice[name] = ('write balance = "%s"'):format(name)
  end
  return advice
end

local BALANCE_BY_HASH = types.record {
  { "by", with(types.choice { "hash" }, {
    required = 'write by = "hash"', advice = names_advice(),
  }) },
  { "header", { kind = "text", read = texts.header_name } },
  { "field", texts.FIELD_NAME },
  { "client_key", types.boolean() },
  { "load", types.number(1, 100, 1.25) },
}

local BALANCE = {
  kind = "either", default = "weighted", wanted = "a name, or a table such as " .. HASH_EXAMPLE,
  text = with(types.choice(BALANCES), { advice = { hash = "write " .. HASH_EXAMPLE } }),
  table = BALANCE_BY_HASH,
}

-- What is tried again -----------------------------------------------------------------------------

--- The words a list of triggers may hold. What perilune.retry can never act on is left out.
local function trigger_words()
  local words = { ["4xx"] = true, ["5xx"] = true }
  for name in pairs(classify.CLASSES) do
    words[name] = true
  end
  for name in pairs(classify.GROUPS) do
    words[name] = true
  end
  words.ok, words.timeout_deadline = nil, nil
  return sorted.keys(words)
end

local TRIGGER = { kind = "trigger", min = 300, max = 599, words = trigger_words() }

--- Reads the key of a reaction.
local function trigger(key)
  local set, code, detail = retry.expand(key)
  if set then return tostring(key) end
  return nil, code, detail
end

local REACTIONS = with(types.map(trigger, types.choice(retry.REACTIONS), 0, 64), { default = {} })

local RETRY = section {
  { "attempts", integer(1, 64, 3) },
  { "per_priority", integer(1, 100) },
  { "on", list(TRIGGER, 0, 64) },
  { "reactions", REACTIONS },
  { "uncertain", types.boolean(true) },
  { "partly_generated", types.boolean(true) },
  { "backoff", section {
    { "base", exact_span("0ms", "1h", "100ms") },
    { "max", exact_span("0ms", "1h", "10s") },
    { "floor", exact_span("0ms", "1h", "25ms") },
  } },
  { "budget", types.record {
    { "percent", types.percent(20) },
    { "min", integer(0, 10000, 3) },
  } },
}

-- What outcomes are called ------------------------------------------------------------------------

local function status_key(key)
  if type(key) == "number" and key % 1 == 0 and key >= 200 and key <= 599 then return key end
  return nil, "invalid", "is not a status from 200 to 599"
end

local function class_key(key)
  if classify.CLASSES[key] and key ~= "timeout_deadline" then return key end
  return nil, "invalid", "is no outcome class that can be changed: "
    .. wording.hint(key, classify.CLASS_NAMES)
end

local OWN_CLASS = types.choice(classes.CHOICES)

local CLASSES = types.record {
  { "decide", { kind = "function", arguments = "res, err, class" } },
  { "code", types.map(texts.named(texts.printable), OWN_CLASS, 0, 64) },
  { "status", types.map(status_key, OWN_CLASS, 0, 64) },
  { "class", types.map(class_key, OWN_CLASS, 0, 64) },
}

-- The route ---------------------------------------------------------------------------------------

local POLICY = texts.name(matching("^[a-z0-9_-]+$", "must be made of a-z, 0-9, _ and - only"))

local RESPONSE = types.record {
  { "headers", section {
    { "set", texts.HEADERS },
    { "add", texts.HEADERS },
    { "remove", texts.HEADER_NAMES },
  } },
}

local GATE = section {
  { "on", types.choice({ "content", "event", "head" }, "content") },
  { "bytes", types.bytes("1KiB", "1MiB", "64KiB") },
  { "heartbeat", types.span("100ms", "1h") },
}

local RESCUES = types.choice({ "continue", "restart" }, "continue")

local RESCUE = { kind = "switch", on = {
  kind = "either", wanted = 'a table, "continue", "restart"', text = RESCUES,
  table = types.record {
    { "mode", RESCUES },
    { "attempts", integer(1, 16, 2) },
    { "bytes", types.bytes("1KiB", "16MiB", "256KiB") },
  },
} }

local function hedge_delay(text)
  local delay, code, detail = hedge.parse_after(text)
  if not delay then return nil, code, detail end
  return text
end

local HEDGE = types.record {
  { "after", { kind = "text", max = 16, read = hedge_delay, default = "p95" } },
  { "at_least", types.span("0ms", "1h", "50ms") },
  { "until_known", types.span("1ms", "1h") },
  { "budget_percent", types.number(0.1, 100, 10) },
  { "burst", integer(1, 10000, 10) },
  { "paths", with(list({ kind = "text", read = path_prefix }, 1, 16), {
    default = hedge.DEFAULTS.paths,
  }) },
}

return types.record {
  { "name", ROUTE_NAME },
  { "match", MATCH },
  { "targets", with(list(target, 1, 64), { required = true }) },
  { "policy", with(POLICY, { default = "fallback" }) },
  { "on_policy_error", types.choice { "floor", "fail" } },
  { "balance", BALANCE },
  { "panic", types.choice({ "use", "fail" }, "use") },
  { "max_ejection_percent", types.percent(100) },
  { "retry", RETRY },
  { "classes", CLASSES },
  { "deadline", types.span("1ms", "24h", "10m") },
  { "deadline_header", texts.DEADLINE_HEADERS },
  { "reserve", types.span("1ms", "24h") },
  { "retry_within", types.span("0ms", "24h") },
  { "gate", GATE },
  { "check_body", types.boolean(false) },
  { "malformed_events", types.choice({ "relay", "drop" }, "relay") },
  { "rescue", RESCUE },
  { "hedge", HEDGE },
  { "response", RESPONSE },
  { "models", with(list(texts.MODEL, 0, 256), { default = {} }) },
}
