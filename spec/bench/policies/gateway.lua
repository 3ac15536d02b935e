-- The gateway's configuration under measurement; policies/fallback.lua comes from the shipped ones.
-- spec/bench/run fills in the words between at signs. Health is off: the row failover measures
-- three tries per request; the failing targets would be left out after the first few.

local stream_usage = "@STREAM_USAGE@" == "true"

local retry = {
  attempts = 3,
  on = { 429, 500, 502, 503, 504, "connect", "reset", "timeout" },
}

return {
  log_level = "error",
  -- @SETTINGS@
  providers = {
    ok_a = { api = "openai", url = "http://127.0.0.1:@OK_A@/v1", health = false,
      stream_usage = stream_usage },
    ok_b = { api = "openai", url = "http://127.0.0.1:@OK_B@/v1", health = false,
      stream_usage = stream_usage },
    fail_503_a = { api = "openai", url = "http://127.0.0.1:@FAIL_503_A@/v1", health = false },
    fail_503_b = { api = "openai", url = "http://127.0.0.1:@FAIL_503_B@/v1", health = false },
  },
  routes = {
    {
      match = { model = "bench-model" },
      targets = {
        { provider = "ok_a", model = "upstream-model", weight = 50 },
        { provider = "ok_b", model = "upstream-model", weight = 50 },
      },
      retry = retry,
    },
    {
      match = { model = "bench-head" },
      targets = {
        { provider = "ok_a", model = "upstream-model", weight = 50 },
        { provider = "ok_b", model = "upstream-model", weight = 50 },
      },
      retry = retry,
      gate = { on = "head" },
    },
    {
      match = { model = "bench-failover" },
      targets = {
        { provider = "fail_503_a", model = "upstream-model", priority = 0 },
        { provider = "fail_503_b", model = "upstream-model", priority = 1 },
        { provider = "ok_a", model = "upstream-model", priority = 2 },
      },
      retry = retry,
    },
  },
}
