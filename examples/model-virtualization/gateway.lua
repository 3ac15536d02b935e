-- Names for models that no provider knows: one shares its requests among three models, one stands
-- for a model and what takes its place when it is away.
--
-- Every option is explained in policies/gateway.lua.

-- Each provider serves one model, under its own name and no other.
local function serving(port)
  return {
    url = "http://127.0.0.1:" .. port .. "/v1",
    -- Per try: how long the answer may take to begin.
    timeouts = { connect = "1s", head = "30s", first_token = "30s" },
    -- One failure is enough, for five seconds; ten when it fails again, and so on.
    health = {
      consecutive_5xx = 1, consecutive_connection = 1,
      base_ejection = "5s", max_ejection = "30s",
    },
  }
end

-- The first try and five more, one at each priority before the next one's turn.
local RETRY = { attempts = 6, per_priority = 1, backoff = { base = "100ms", max = "10s" } }

return {
  listen = { address = "127.0.0.1:8080" },
  admin = { address = "127.0.0.1:9901" },

  providers = {
    large = serving(env("LARGE_PORT", "8000")),
    medium = serving(env("MEDIUM_PORT", "8001")),
    small = serving(env("SMALL_PORT", "8002")),
  },

  routes = {
    {
      match = { model = "virtual-qwen-model" },
      targets = {
        { provider = "large", model = "qwen2.5:7b", weight = 50 },
        { provider = "medium", model = "qwen2.5:1.5b", weight = 30 },
        { provider = "small", model = "qwen2.5:0.5b", weight = 20 },
      },
      balance = "smooth_weighted",
      policy = "virtual",
      retry = RETRY,
      deadline = "120s",
    },
    {
      match = { model = "qwen-with-fallback" },
      targets = {
        { provider = "large", model = "qwen2.5:7b", priority = 0 },
        { provider = "small", model = "qwen2.5:0.5b", priority = 1 },
      },
      policy = "virtual",
      retry = RETRY,
      deadline = "120s",
    },
  },
}
