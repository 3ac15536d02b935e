-- A primary, and a fallback that answers when the primary does not.
--
-- Every option is explained in policies/gateway.lua.

local function at(port)
  return "http://127.0.0.1:" .. port .. "/v1"
end

-- Per try: how long the answer may take to begin. What has begun may take its time.
local PER_TRY = { connect = "1s", head = "30s", first_token = "30s" }

-- The first try and five more; waits only when both have been tried.
local RETRY = { attempts = 6, per_priority = 1, backoff = { base = "100ms", max = "10s" } }

return {
  listen = { address = "127.0.0.1:8080" },
  admin = { address = "127.0.0.1:9901" },

  providers = {
    primary = {
      url = at(env("PRIMARY_PORT", "8000")),
      timeouts = PER_TRY,
      health = {
        -- The circuit breaker: five failures in a row, and it is left alone for ten seconds, then
        -- twenty, thirty... Then one request finds out whether it is well again.
        consecutive_5xx = 5,
        consecutive_connection = 5,
        base_ejection = "10s",
        max_ejection = "60s",
        -- And it is asked from time to time, whether there are requests or not.
        active = {
          path = "/v1/models", interval = "10s", timeout = "3s",
          unhealthy_after = 3, healthy_after = 2,
        },
      },
    },
    fallback = { url = at(env("FALLBACK_PORT", "8001")), timeouts = PER_TRY },
  },

  routes = {
    -- All requests to the primary, as long as it answers.
    {
      match = { model = "gpt-4" },
      targets = {
        { provider = "primary", model = "gpt-4", priority = 0 },
        { provider = "fallback", model = "gpt-4", priority = 1 },
      },
      retry = RETRY,
      deadline = "120s",
    },

    -- Four requests of five to the primary, and each takes over for the other.
    {
      match = { model = "gpt-4-shared" },
      targets = {
        { provider = "primary", model = "gpt-4", weight = 80 },
        { provider = "fallback", model = "gpt-4", weight = 20 },
      },
      balance = "smooth_weighted",
      retry = RETRY,
      deadline = "120s",
    },
  },
}
