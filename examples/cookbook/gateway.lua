-- The cookbook: one route per recipe. Take the routes and files you want into your own policies.
--
-- What configuration alone does best is done here, in the first half; each route of the second half
-- has a policy in a file of its own. Every option is explained in policies/gateway.lua.

return {
  listen = { address = "127.0.0.1:8080" },
  admin = { address = "127.0.0.1:9901" },

  providers = {
    -- Bought: good, and paid for by the token.
    hosted = {
      url = env("HOSTED_URL", "http://127.0.0.1:8000/v1"), key = env "HOSTED_API_KEY" or nil,
      timeouts = { head = "60s", first_token = "20s" },
    },
    -- Your own machines: cheap, and small.
    own = {
      url = env("OWN_URL", "http://127.0.0.1:8001/v1"),
      timeouts = { head = "60s", first_token = "20s" },
    },
    -- One account with two keys, which take turns: while one is refused, or has reached its limit,
    -- the other serves.
    pooled = {
      url = env("POOLED_URL", "http://127.0.0.1:8003/v1"),
      keys = { env("POOLED_KEY_A", "key-a"), env("POOLED_KEY_B", "key-b") },
    },
    -- A second pair of them.
    spare = { url = env("SPARE_URL", "http://127.0.0.1:8002/v1") },
  },

  routes = {

    -- Recipes without a policy --------------------------------------------------------------------

    -- By header: what says that it can wait goes to the cheap model, whatever model it asks for.
    {
      name = "batch",
      match = { headers = { ["x-priority"] = "batch" } },
      targets = { { provider = "own", model = "small" } },
    },

    -- Aliases: names that clients have in their code, and what serves them today.
    {
      name = "aliases",
      match = { model = { "gpt-4o", "gpt-4", "gpt-4-turbo" } },
      targets = { { provider = "hosted", model = "large" } },
    },

    -- Fall back on certain statuses and outcomes only, by priority: twice at the first, 100 ms to
    -- 10 s apart, then the next. Everything else goes to the client as it is.
    {
      name = "statuses",
      match = { model = "reliable" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "own", model = "small", priority = 1 },
      },
      retry = {
        attempts = 4, per_priority = 2,
        on = { 429, 500, 502, 503, 504, "connect", "reset", "timeout" },
        backoff = { base = "100ms", max = "10s" },
      },
    },

    -- Too long for the small model, as it says itself: the large one, but not another small one.
    -- All other errors are final.
    {
      name = "window",
      match = { model = "reader" },
      targets = {
        { provider = "own", model = "small", priority = 0, context_tokens = 8192 },
        { provider = "spare", model = "small", priority = 1, context_tokens = 8192 },
        { provider = "hosted", model = "large", priority = 2, context_tokens = 131072 },
      },
      retry = { on = { "context_length" } },
    },

    -- In time: clients say how much they have, 3 s of it are kept for each target that may still be
    -- tried, and who waits for a stream hears so every 5 s.
    {
      name = "in_time",
      match = { model = "punctual" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "own", model = "small", priority = 1 },
      },
      deadline = "30s",
      deadline_header = "x-request-timeout-ms",
      reserve = "3s",
      gate = { heartbeat = "5s" },
    },

    -- Keys: requests take turns with both keys of the account.
    {
      name = "keys",
      match = { model = "pooled" },
      targets = { { provider = "pooled", model = "large" } },
    },

    -- Paid once: what may have been served, and billed, is not asked for again; the client gets the
    -- error and decides. What was refused, or never sent, goes on to the next.
    {
      name = "paid_once",
      match = { model = "costly" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "pooled", model = "large", priority = 1 },
      },
      retry = { uncertain = false, partly_generated = false },
    },

    -- Canary: one request in a hundred goes to the new model, always those of the same users. When
    -- it fails, the old one answers. Without `balance` it is one in a hundred of everybody's.
    {
      name = "canary",
      match = { model = "assistant" },
      targets = {
        { provider = "hosted", model = "large", weight = 99 },
        { provider = "hosted", model = "large-next", weight = 1 },
      },
      balance = { by = "hash", header = "x-user", load = 100 }, -- whatever the load
    },

    -- Sticky: each user's requests go to the same machine, which has their prompts in its cache.
    {
      name = "sticky",
      match = { model = "chat" },
      targets = {
        { provider = "own", model = "small" },
        { provider = "spare", model = "small" },
      },
      balance = { by = "hash", field = "user" },
    },

    -- JSON: the answers of one model name are always JSON, whatever the client asks for.
    {
      name = "json",
      match = { model = "extractor" },
      targets = {
        { provider = "hosted", model = "large", body = {
          set = { response_format = { type = "json_object" } },
        } },
      },
    },

    -- Streams that survive: when one breaks off, or falls silent for ten seconds, another target
    -- goes on with it. The own machines run vLLM, which wants to be told that the last message is
    -- the beginning of the answer; what the hosted model does with such a message nobody promises,
    -- so it is asked afresh, and serves as long as it says the same.
    {
      name = "unbroken",
      match = { model = "storyteller" },
      targets = {
        { provider = "own", model = "small", priority = 0, timeouts = { idle = "10s" },
          prefix = { body = { continue_final_message = true, add_generation_prompt = false } } },
        { provider = "spare", model = "small", priority = 0, timeouts = { idle = "10s" },
          prefix = { body = { continue_final_message = true, add_generation_prompt = false } } },
        { provider = "hosted", model = "large", priority = 1, prefix = false },
      },
      balance = "smooth_weighted",
      rescue = { mode = "continue", attempts = 3 },
      malformed_events = "drop",
      retry = { attempts = 5 },
    },

    -- Recipes with a policy -----------------------------------------------------------------------

    {
      name = "by_tokens",
      match = { model = "auto" },
      targets = {
        { provider = "own", model = "small", priority = 0 },
        { provider = "hosted", model = "large", priority = 1 },
      },
      policy = "by_tokens",
    },
    {
      name = "by_tenant",
      match = { model = "team-*" },
      targets = {
        { provider = "own", model = "small" },
        { provider = "hosted", model = "large" },
      },
      models = { "team-chat" },
      policy = "by_tenant",
      on_policy_error = "fail", -- better no answer than one from another tenant's target
    },
    {
      name = "by_field",
      match = { model = "plans" },
      targets = {
        { provider = "hosted", model = "large" },
        { provider = "own", model = "small" },
      },
      policy = "by_field",
    },
    {
      name = "by_phrase",
      match = { model = "helpful" },
      targets = {
        { provider = "own", model = "small", priority = 0 },
        { provider = "hosted", model = "large", priority = 1 },
      },
      retry = { attempts = 2 }, -- each once: a refusal is paid for, too
      policy = "by_phrase",
    },
    {
      name = "by_class",
      match = { model = "careful" },
      targets = {
        { provider = "own", model = "small", priority = 0 },
        { provider = "spare", model = "small", priority = 1 },
        { provider = "hosted", model = "large", priority = 2 },
        { provider = "hosted", model = "lenient", priority = 3 },
      },
      policy = "by_class",
    },
    {
      name = "at_night",
      match = { model = "thrifty" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "own", model = "small", priority = 1 },
      },
      policy = "at_night",
    },
    {
      name = "hedge",
      match = { model = "quick" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "spare", model = "large", priority = 1 },
      },
      hedge = { after = "p95", until_known = "2s", budget_percent = 5, burst = 5 },
      policy = "hedge",
    },
    {
      name = "cap_tokens",
      match = { model = "capped", path = "/v1/chat" },
      targets = { { provider = "hosted", model = "large" } },
      policy = "cap_tokens",
      on_policy_error = "fail", -- without it nothing is capped
    },
    {
      name = "deny",
      match = { model = { "guarded", "guarded-2023", "guarded-internal" } },
      targets = { { provider = "hosted", model = "large" } },
      policy = "deny",
      on_policy_error = "fail", -- without it nobody is refused
    },
    {
      name = "ladder",
      match = { model = "prompt" },
      targets = {
        { provider = "hosted", model = "large", priority = 0 },
        { provider = "hosted", model = "medium", priority = 1 },
        { provider = "own", model = "small", priority = 2 },
      },
      deadline = "30s",
      deadline_header = "x-request-timeout-ms",
      policy = "deadline_ladder",
    },
    {
      name = "pin",
      match = { model = "lab" },
      targets = {
        { provider = "hosted", model = "large" },
        { provider = "own", model = "small" },
        { provider = "spare", model = "small" },
      },
      policy = "pin",
    },

    -- The default of the aliases: a model that no route above knows is served by the small one.
    -- It must be the last route. Without it such a request is answered 404.
    {
      name = "default",
      match = { model = "*", path = "/v1/chat" },
      targets = { { provider = "own", model = "small" } },
    },
  },
}
