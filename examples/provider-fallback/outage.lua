-- Twenty minutes of traffic. From the fifth to the tenth the primary answers 503, and the fallback,
-- which then has all of it, takes no more than thirty requests at once.
--
-- For `perilune simulate`; what may be said is in policies/README.md.

return {
  requests = {
    rate = 8, -- a second
    duration = "20m",
    mix = {
      {
        model = "gpt-4", share = 3, stream = 0.7, -- of ten requests, seven ask for a stream
        input_tokens = { p50 = 600, p99 = 6000 },
        output_tokens = { p50 = 120, p99 = 600 },
        patience = "60s", -- then the client leaves
      },
      { model = "gpt-4-shared", input_tokens = 200, output_tokens = 50 },
    },
  },

  upstreams = {
    primary = {
      head = { p50 = "120ms", p99 = "900ms" }, first_token = { p50 = "250ms", p99 = "2s" },
      per_token = "15ms",
      errors = { [429] = 0.01, reset = 0.002 },
      price = { input = 2.50, output = 10 }, -- for a million tokens
    },
    fallback = {
      head = "80ms", first_token = { p50 = "150ms", p99 = "1s" }, per_token = "25ms",
      concurrent = 30, -- more are answered 429
      price = { input = 0.50, output = 1.50 },
    },
  },

  outages = {
    { upstream = "primary", from = "5m", to = "10m", answer = 503 },
  },
}
