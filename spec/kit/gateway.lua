-- Two targets, the second for when the first fails; all of it is explained in policies/gateway.lua.

local HEALTH = { consecutive_5xx = 3, base_ejection = "30s", jitter = 0 }

return {
  providers = {
    primary = {
      url = env("PRIMARY_URL", "http://127.0.0.1:1/v1"), key = secret "PRIMARY_KEY",
      timeouts = { connect = "1s", head = "10s", first_token = "5s", idle = "20s", try = "60s" },
      health = HEALTH,
    },
    spare = { url = "https://spare.example/api", health = HEALTH },
  },
  routes = {
    {
      match = { model = "alone" }, targets = { { provider = "primary", model = "solo" } },
      retry = { attempts = 1 }, deadline = "30s",
    },
    {
      targets = { { provider = "primary", model = "gpt-4" },
        { provider = "spare", model = "gpt-4", priority = 1 } },
      retry = { attempts = 2 },
    },
  },
}
