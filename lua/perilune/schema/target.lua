--- What may be said of a target: which provider and model, in which turn, with which changes to the
-- request, how many requests at once. Plain data.

local texts = require "perilune.schema.texts"
local types = require "perilune.schema.types"

local list, map, section, with = types.list, types.map, types.section, types.with

local MAX_BODY_CHANGES = 64

return types.record {
  { "provider", with(texts.name(), { required = true }) },
  { "model", texts.MODEL },
  { "priority", types.integer(0, 1000, 0) },
  { "weight", types.number(0, nil, 1) },
  { "context_tokens", types.integer(1, 1000000000) },
  { "headers", section {
    { "set", texts.HEADERS },
    { "remove", texts.HEADER_NAMES },
  } },
  { "body", section {
    { "set", with(map(texts.named(texts.printable), { kind = "json" }, 0, MAX_BODY_CHANGES),
      { default = {} }) },
    { "unset", with(list(texts.FIELD_NAME, 0, MAX_BODY_CHANGES), { default = {} }) },
  } },
  { "timeouts", texts.timeouts {} },
  { "prefix", texts.PREFIX },
  { "limits", section {
    { "concurrent", types.integer(0, 1000000, 0) },
    { "queue", types.integer(0, 1000000, 0) },
    { "queue_timeout", types.span("1ms", "1h", "1s") },
  } },
}
