--- The simulator's options: one table of flags, from which the command line, the request headers,
-- /admin/config and the help text follow.
-- Names, defaults and bounds are those of llm-d-inference-sim where it has the flag. Pure.
local failures = require "perilune.sim.failures"
local go_duration = require "perilune.sim.go_duration"
local kinds = require "perilune.sim.kinds"
local concat = table.concat
local format = string.format

local options = {}

-- admin: may be changed by POST /admin/config. header: may be set per request as x-sim-<flag>.
local LISTENING = {
  { flag = "port", kind = "integer", default = 8000, min = 0, max = 65535,
    help = "port to listen on; 0 lets the system choose" },
  { flag = "host", kind = "text", default = "127.0.0.1", meta = "ADDR",
    help = "address to listen on" },
  { flag = "listen", kind = "text", meta = "ADDR:PORT",
    help = "both in one" },
  { flag = "ssl-certfile", kind = "text", meta = "FILE",
    help = "PEM certificate chain: serve HTTPS" },
  { flag = "ssl-keyfile", kind = "text", meta = "FILE",
    help = "PEM key for it" },
  { flag = "max-request-body-size-mb", kind = "integer", default = 4, min = 1, max = 512,
    help = "larger request bodies get 413" },
}

local MODEL = {
  { flag = "model", kind = "text", meta = "NAME",
    help = "the model served; default: SIM_MODEL from the environment, or any name" },
  { flag = "served-model-name", kind = "list", default = {}, meta = "NAME...",
    help = "names it is served under; answers carry the first" },
  { flag = "max-model-len", kind = "integer", default = 1024, min = 1, max = 10000000,
    help = "context window in tokens, prompt and answer together" },
  { flag = "mode", kind = "choice", default = "random", values = { "random", "echo" },
    help = "random sentences, or the last message, from where the assistant has got to" },
  { flag = "refuse-prefix", kind = "boolean", default = false, admin = true,
    help = "400 to conversations that end in a message of the assistant's" },
  { flag = "default-embedding-dimensions", kind = "integer", default = 384, min = 1, max = 8192,
    help = "length of embeddings when the request does not say" },
  { flag = "seed", kind = "integer",
    help = "same seed, same answers; default: a different one at each start" },
}

local LOAD = {
  { flag = "max-num-seqs", kind = "integer", default = 5, min = 1, max = 1000000,
    help = "requests worked on at the same time; others wait" },
  { flag = "max-waiting-queue-length", kind = "integer", default = 1000, min = 1, max = 1000000,
    help = "requests that may wait; more get 429" },
  { flag = "startup-duration", kind = "duration", default = 0,
    help = "how long /health/ready says 503 after the start" },
}

local LATENCY = {
  { flag = "latency-calculator", kind = "choice", default = "", admin = true,
    values = { "constant", "per-token", "" },
    help = "how the first token is timed; default: constant if --time-to-first-token is set" },
  { flag = "time-to-first-token", kind = "duration", default = 0, admin = true, header = true,
    help = "wait before the first token" },
  { flag = "time-to-first-token-std-dev", kind = "duration", default = 0, admin = true,
    help = "its standard deviation, at most 30 % of it" },
  { flag = "inter-token-latency", kind = "duration", default = 0, admin = true, header = true,
    help = "wait before each further token" },
  { flag = "inter-token-latency-std-dev", kind = "duration", default = 0, admin = true,
    help = "its standard deviation, at most 30 % of it" },
  { flag = "prefill-overhead", kind = "duration", default = 0, admin = true,
    help = "per-token: fixed part of the wait for the first token" },
  { flag = "prefill-time-per-token", kind = "duration", default = 0, admin = true,
    help = "per-token: part for each token of the prompt" },
  { flag = "prefill-time-std-dev", kind = "duration", default = 0, admin = true,
    help = "per-token: standard deviation of the sum, at most 30 % of --prefill-time-per-token" },
  { flag = "time-factor-under-load", kind = "number", default = 1, min = 1, max = 1000,
    admin = true, help = "waits grow up to this factor when --max-num-seqs requests run" },
}

local FAILURES = {
  { flag = "failure-injection-rate", kind = "integer", default = 0, min = 0, max = 100,
    admin = true, help = "percentage of requests that fail" },
  { flag = "failure-types", kind = "list", default = {}, values = failures.TYPES, admin = true,
    meta = "TYPE...", help = "how they fail; default: the six kinds of error answer" },
  { flag = "fail-first", kind = "integer", default = 0, min = 0, max = 1000000000, admin = true,
    help = "the first N requests fail, with the types in turn" },
  { flag = "fail-pattern", kind = "pattern", default = "", admin = true, meta = "PATTERN",
    help = 'which requests fail, over and over: "xx." fails two of three, types in turn' },
  { flag = "retry-after", kind = "header_value", default = "", admin = true, header = true,
    meta = "SECONDS", help = "Retry-After on 429 and 503 answers" },
  { flag = "slow-first-token", kind = "duration", default = 10000, admin = true, header = true,
    help = "slow_first_token: wait before the first token" },
  { flag = "cut-after", kind = "integer", default = 3, min = 0, max = 1000000000, admin = true,
    header = true, help = "cut: tokens before the connection breaks" },
  { flag = "stall-after", kind = "integer", default = 3, min = 0, max = 1000000000, admin = true,
    header = true, help = "stall: tokens before the silence" },
  { flag = "stall-duration", kind = "duration", default = 0, admin = true, header = true,
    help = "stall and hang: length of the silence, then all goes on; 0: until the client leaves" },
  { flag = "garbage-after", kind = "integer", default = 3, min = 0, max = 1000000000,
    admin = true, header = true, help = "garbage: tokens before the event that is not JSON" },
}

local OTHERS = {
  { flag = "enable-request-id-headers", kind = "boolean", default = false,
    help = "answer with the request's X-Request-Id, or a new one" },
  { flag = "log-http", kind = "boolean", default = false,
    help = "log method, path, peer and the start of the body of each request" },
}

local GROUPS = {
  { "Listening", LISTENING }, { "Model", MODEL }, { "Load", LOAD }, { "Latency", LATENCY },
  { "Failures", FAILURES }, { "Others", OTHERS },
}

--- Every option in order.
options.all = {}
--- Options by flag, without the dashes.
options.by_flag = {}

local METAVARS = {
  integer = "N", number = "X", duration = "DURATION", choice = nil, text = "TEXT",
}

for _, group in ipairs(GROUPS) do
  for _, option in ipairs(group[2]) do
    option.key = option.flag:gsub("%-", "_") .. (option.kind == "duration" and "_ms" or "")
    options.all[#options.all + 1] = option
    options.by_flag[option.flag] = option
  end
end

-- Flags of llm-d-inference-sim that change nothing here; true: a value follows.
options.ignored = {
  ["force-dummy-tokenizer"] = false, ["enforce-eager"] = false, ["no-enforce-eager"] = false,
  ["enable-prefix-caching"] = false, ["no-enable-prefix-caching"] = false,
  ["tensor-parallel-size"] = true, ["v"] = true,
}

-- Flags of llm-d-inference-sim for things that this simulator does not do.
options.unsupported = {}
for _, flag in ipairs {
  "config", "lora-modules", "max-loras", "max-cpu-loras", "enable-sleep-mode",
  "no-enable-sleep-mode", "strict", "omni", "no-omni", "image-emission-rate", "mm-encoder-only",
  "no-mm-encoder-only", "kv-cache-transfer-latency", "kv-cache-transfer-latency-std-dev",
  "kv-cache-transfer-time-per-token", "kv-cache-transfer-time-std-dev", "time-to-generate-image",
  "time-to-generate-image-std-dev", "max-tool-call-integer-param", "min-tool-call-integer-param",
  "max-tool-call-number-param", "min-tool-call-number-param", "max-tool-call-array-param-length",
  "min-tool-call-array-param-length", "tool-call-not-required-param-probability",
  "object-tool-call-not-required-field-probability", "skip-tool-validation",
  "tool-call-extra-call-probability", "enable-kvcache", "kv-cache-size",
  "global-cache-hit-threshold", "block-size", "hash-seed", "zmq-endpoint", "event-batch-size",
  "data-parallel-size", "data-parallel-rank", "dataset-path", "dataset-url", "dataset-in-memory",
  "dataset-table-name", "render-url", "render-timeout", "self-signed-certs", "fake-metrics",
  "fake-metrics-refresh-interval",
} do
  options.unsupported[flag] = true
end

--- The configuration when nothing is given.
function options.defaults()
  local config = {}
  for _, option in ipairs(options.all) do config[option.key] = option.default end
  return config
end

local DEVIATIONS = {
  { "time-to-first-token-std-dev", "time-to-first-token" },
  { "inter-token-latency-std-dev", "inter-token-latency" },
  { "prefill-time-std-dev", "prefill-time-per-token" },
}

--- Check what spans several options.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string why
function options.validate(config)
  for _, pair in ipairs(DEVIATIONS) do
    local deviation, mean = options.by_flag[pair[1]].key, options.by_flag[pair[2]].key
    if config[deviation] > 0.3 * config[mean] + 1e-9 then
      return nil, "invalid", format("%s cannot be more than 30%% of %s", pair[1], pair[2])
    end
  end
  if (config.ssl_certfile == nil) ~= (config.ssl_keyfile == nil) then
    return nil, "invalid", "ssl-certfile and ssl-keyfile must be given together"
  end
  return true
end

local function default_text(option)
  local value = option.default
  if option.kind == "duration" and value > 0 then return go_duration.format(value) end
  if type(value) == "number" and value ~= 0 or option.kind == "choice" and value ~= "" then
    return tostring(value)
  end
  return option.flag == "host" and value or nil
end

local function meta_text(option)
  if option.kind == "boolean" then return "" end
  if option.kind == "choice" then
    local shown = {}
    for _, value in ipairs(option.values) do
      if value ~= "" then shown[#shown + 1] = value end
    end
    return " " .. concat(shown, "|")
  end
  return " " .. (option.meta or METAVARS[option.kind])
end

local function option_help(option)
  local default = default_text(option)
  return format("  --%s%s\n      %s%s", option.flag, meta_text(option), option.help,
    default and format(" [%s]", default) or "")
end

local HELP_HEAD = [[
Usage: perilune sim [FLAG VALUE | FLAG=VALUE]...

A provider that answers without a model: OpenAI chat completions, completions, responses,
embeddings, images and transcriptions, and Anthropic messages. Flags that llm-d-inference-sim has
mean the same here. Durations: 100ms, 1.5s, 2m.
]]

local HELP_TAIL = [[
Failure types
  error answers:  rate_limit invalid_api_key context_length server_error invalid_request
                  model_not_found
  only by name:   reset_before_headers reset_after_headers hang slow_first_token cut stall garbage
                  no_done empty content_filter

Per request, by header: X-Return-Error: STATUS, x-sim-failure: TYPE|none, and x-sim-FLAG for
retry-after, time-to-first-token, inter-token-latency, slow-first-token, cut-after, stall-after,
stall-duration and garbage-after. While it runs: GET and POST /admin/config, GET /admin/stats.
]]

--- The text of --help.
function options.help()
  local parts = { HELP_HEAD }
  for _, group in ipairs(GROUPS) do
    local lines = { group[1] }
    for index, option in ipairs(group[2]) do lines[index + 1] = option_help(option) end
    parts[#parts + 1] = concat(lines, "\n") .. "\n"
  end
  parts[#parts + 1] = HELP_TAIL
  return concat(parts, "\n")
end

--- Read one value of an option from text.
-- @treturn[1] any the value
-- @treturn[2] nil
-- @treturn[2] string what it must be
function options.from_text(option, text)
  return kinds[option.kind].from_text(text, option)
end

--- Read one value of an option from decoded JSON.
function options.from_json(option, value)
  return kinds[option.kind].from_json(value, option)
end

--- An option's value as JSON; null when it has none.
function options.to_json(option, value)
  if value == nil then return "null" end
  return kinds[option.kind].to_json(value)
end

--- Whether an option takes several values.
function options.is_list(option)
  return kinds[option.kind].is_list == true
end

return options
