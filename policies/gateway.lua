-- The gateway's configuration, and the reference of every option there is.
--
-- Lines that begin with "-- " explain. Lines that begin with "--" and a name are options that are
-- not in force: options with a default show it, the others show an example. Take the two dashes
-- away to set one. Behind an option stand its bounds and its meaning.
--
--   durations   a string with a unit: "100ms", "12.5ms", "10s", "2m", "1h"; no bare numbers.
--   sizes       a string with a unit ("512B", "64KiB", "50MiB", "1GiB") or a whole number of bytes.
--   shares      a number from 0 to 1; options named percent take 0 to 100, fractions are fine.
--   files       paths are relative to the directory of this file.
--
-- This file is Lua: locals, functions and expressions are fine, but there are no libraries, only
--
--   env "NAME"               the environment variable, or nil when it is not set
--   env("NAME", "default")   the same with a default; a number: env("NAME", "4") + 0
--   secret "NAME"            the variable NAME, or the content of the file that NAME_FILE names;
--                            one of them must exist
--   file "path"              the content of a file, without white space at its end
--
-- It must end by returning one table. An unknown key, a wrong type or a value out of bounds is an
-- error, never ignored. `perilune check policies` reports all of them with their lines.
--
-- The files are read at start and by a reload: SIGHUP, POST /admin/reload, `run --watch`. A reload
-- takes over all but listen, admin.address, admin.recent, admin.metrics, access_log.path and
-- workers, which wait for a restart.

return {

  -- Process ---------------------------------------------------------------------------------------

  -- Where clients connect: base_url = "http://127.0.0.1:8080/v1". Write "0.0.0.0:8080" for all IPv4
  -- addresses, "[::]:8080" for IPv6. Port 0 lets the system choose.
  listen = {
    address = "127.0.0.1:8080",
    -- Serve HTTPS instead of HTTP. Both files are PEM; the certificate comes first in its chain.
    --tls = {
      --cert = "tls/gateway.crt",
      --key = "tls/gateway.key",
    --},
  },

  -- The operators' listener: the dashboard at http://127.0.0.1:9901/, /healthz, /readyz, /metrics,
  -- /admin/... A token is required when other machines can reach the address. Instead of it, a unix
  -- socket that this user alone may open: "unix:/run/perilune.sock".
  admin = {
    address = "127.0.0.1:9901",
    --token = env "PERILUNE_ADMIN_TOKEN",
    --recent = 200,            -- 0 to 10000; the last requests that are kept to be looked at
    --metrics = true,          -- true or false; false: nothing is counted, /metrics is 404
  },

  --workers = 0,               -- 0 to 256; threads that carry traffic, 0: one per core
  --drain = "30s",             -- 0ms to 1h; at the end, how long open requests may take to finish

  -- Reloads: requests end on the configuration they began with.
  reload = {
    --drain = "15m",             -- 0ms to 24h; how long those of an old configuration may take
    -- So many failures of policies within the window bring the one before back, by itself.
    strikes = {
      --count = 5,               -- 0 to 64; 0: never
      --window = "60s",          -- 1s to 1h
    },
    -- How much worse than the rest a canary may do. A difference must also be more than chance.
    canary = {
      --policy_errors = 0.5,     -- 0 to 100; points of percent; 100: no matter
      --failures = 2,            -- 0 to 100; the same of failed requests
      --unfinished = 25,         -- 0 to 100; the same of requests that do not come to an end
      --client_faults = 10,      -- 0 to 100; the same of 4xx answers, and of clients that leave
      --first_token_ratio = 1.5, -- 1 to 1000; so many times the time to the first token ...
      --first_token_margin = "100ms", -- 0ms to 10m; ... or so much longer, whichever is more
      --min_requests = 20,       -- 1 to 1000000; with fewer there is nothing to compare
    },
  },

  --log_level = "info",        -- error, warn, info, debug
  -- One line per request, whatever becomes of it, on standard output ("-") or in a file, which is
  -- opened anew on SIGUSR1. access_log = false: none. Its fields: docker/README.md.
  access_log = {
    --path = "-",              -- takes a restart to change; relative to the directory of this file
    --format = "json",         -- json, text
    bodies = {                 -- so much of them is kept, with credentials taken out; headers never
      --request = "0B",          -- 0B to 64KiB
      --response = "0B",         -- 0B to 64KiB; may hold what people wrote and were told
    },
    -- Members of bodies whose values are taken out, besides api_key, authorization, token,
    -- password, secret and the like.
    --redact = { "ssn" },
  },
  --response_headers = true,   -- true or false; tell clients which target answered (x-perilune-*)

  -- What clients may send, and how slowly.
  limits = {
    --request_line = "8KiB",     -- 512B to 64KiB; not more than head
    --head = "64KiB",            -- 1KiB to 1MiB; request line and headers together
    --header_count = 100,        -- 1 to 1000
    --body = "50MiB",            -- 1KiB to 256MiB
    --connections = 10000,       -- 1 to 1000000; per worker
    --head_timeout = "10s",      -- 10ms to 1h; from a request's first byte to the end of its head
    --body_idle = "30s",         -- 10ms to 1h; between two pieces of a request's body
    --keepalive_idle = "75s",    -- 10ms to 1h; between two requests on one connection
    --write_stall = "30s",       -- 10ms to 1h; a client that takes nothing of what waits for it
  },

  -- What policies may use up; beyond that, on_policy_error says what becomes of the request. See
  -- README.md.
  budgets = {
    --burst = "50ms",            -- 1ms to 10s; CPU without a pause; not more than request
    --request = "500ms",         -- 100ms to 1m; CPU of one request, all its bursts together
    --memory = "256MiB",         -- 8MiB to 1GiB; all policies of a worker together
    --log_lines = 100,           -- 0 to 10000; lines in the log per request
  },
  -- When a policy fails before anything was sent to the client: serve the request by priority and
  -- weight, without the policy, or answer 500.
  --on_policy_error = "floor",   -- floor, fail

  -- Headers in which clients say how much time a request has; routes may name others. The earlier
  -- of client's and route's deadline holds, for all there is to a request. A value that is no time
  -- is answered 400; 0 says nothing. One header, or a list of at most 8. The unit of names that end
  -- in "-ms", and of x-portkey-request-timeout, x-stainless-timeout, x-stainless-read-timeout and
  -- grpc-timeout, is known. Default: none. See README.md.
  --deadline_header = {
    --"x-envoy-expected-rq-timeout-ms",
    --{
      --name = "x-budget",
      --unit = "s",              -- ms, s, grpc
    --},
  --},

  -- Traces of requests, as OpenTelemetry spans to a collector that speaks OTLP/HTTP. Without this
  -- table none are made, and what clients send (traceparent) is passed on as it is. What is in them
  -- is told in docker/README.md.
  --tracing = {
    --endpoint = "http://127.0.0.1:4318/v1/traces", -- http or https; without a path: /v1/traces
    --sample = 0.1,              -- 0 to 1; of the traces that begin here; clients decide on theirs
    --headers = { ["x-api-key"] = secret "COLLECTOR_KEY" }, -- at most 64, for the collector
    --service_name = "perilune", -- up to 256 bytes
    --resource = { ["deployment.environment.name"] = "production" }, -- at most 32 attributes
    --timeout = "10s",           -- 10ms to 1m; of one request to the collector
    --queue = "4MiB",            -- 64KiB to 64MiB; spans that wait; beyond it they are dropped
    --tls = {
      --verify = true,           -- true or false; false accepts any certificate
      --ca = "tls/ca.crt",       -- PEM; instead of the system's
      --server_name = "collector.internal", -- in the certificate, if not the host of the URL
    --},
  --},

  -- Providers -------------------------------------------------------------------------------------

  -- Who can answer: 1 to 256, each under a name of letters, digits, "-", "_" and ".".

  providers = {
    primary = { url = "http://127.0.0.1:8000/v1" },
    fallback = { url = "http://127.0.0.1:8001/v1" },

    -- All that can be said of a provider:
    --hosted = {
      --api = "openai",                      -- openai, anthropic; how it gets its key
      --url = "https://api.example.com/v1",  -- http or https; an IPv6 address in brackets

      -- Its credential, sent as "Authorization: Bearer ..."; to api = "anthropic" as "x-api-key",
      -- and with an "anthropic-version" where the client has none. Nothing is translated.
      -- Without a key none is sent: a client's own credential never reaches a provider, unless
      -- auth = "passthrough" says so.
      --key = secret "HOSTED_API_KEY",

      -- Headers that every request to it carries, at most 64.
      --headers = { ["x-organisation"] = "example" },

      -- For https only.
      --tls = {
        --verify = true,                     -- true or false; false accepts any certificate
        --ca = "tls/private-ca.pem",         -- instead of the system's authorities
        --server_name = "api.example.com",   -- instead of the URL's host, to ask for and to verify
      --},

      -- Connections kept open between requests, per worker.
      --connections = {
        --idle = 64,                         -- 0 to 4096
        --idle_timeout = "60s",              -- 10ms to 1h
      --},

      -- Ask for token counts in streams of chat completions whose clients have not, for the log and
      -- the metrics; what comes of it is taken out again.
      --stream_usage = false,                -- true or false

      -- How targets are asked to go on with an answer that broke off elsewhere (a route's rescue):
      -- the words so far are the last message, the assistant's. What that message and the body
      -- need besides, at most 64 fields each; false: they cannot, and are asked afresh.
      --prefix = {
        --message = { prefix = true },
        --body = { continue_final_message = true, add_generation_prompt = false },
      --},

      -- How long each stage of one try may take. "0ms" means no limit where it is allowed; the
      -- route's deadline holds in any case.
      --timeouts = {
        --connect = "5s",                    -- 1ms to 10m; name lookup and TCP
        --tls = "5s",                        -- 1ms to 10m; the handshake
        --head = "5m",                       -- 0ms to 24h; until status and headers of the answer
        --first_token = "5m",                -- 0ms to 24h; streams: until the first real event
        --idle = "60s",                      -- 0ms to 24h; silence within the answer
        --try = "0ms",                       -- 0ms to 24h; the whole try
      --},

      -- When the provider, or one of its targets, is left out (ejected). The rules count for each
      -- of them on its own, and for all workers together; a count of 0 switches its rule off.
      -- health = false switches all of them off.
      --health = {
        -- So many failures in a row, without a good answer between them:
        --consecutive_5xx = 5,               -- 0 to 10000; 5xx answers, broken answers, time limits
        --consecutive_gateway = 0,           -- 0 to 10000; 502, 503 and 504 among them, so it must
                                             -- not be more than consecutive_5xx
        --consecutive_connection = 5,        -- 0 to 10000; no connection, or lost before an answer
        --split_connection = false,          -- true or false; true: these do not count as 5xx, too

        -- So many among all requests of the last window, 0: off.
        --failure_percent = 0,               -- 0 to 100
        --failure_min_requests = 20,         -- 1 to 1000000; with fewer in the window it waits
        --window = "30s",                    -- 100ms to 1h; sliding

        -- A moving average of success, 1 at the start, of which each request is 30 %. 0: off.
        --success_ewma_below = 0,            -- 0 to 1; less ejects

        -- An answer of these statuses that says when to come back (Retry-After or one of its
        -- relatives) ejects until then. retry_after = false: it does not.
        --retry_after = {
          --statuses = { 429 },              -- 300 to 599, at most 64
          --cap = "1h",                      -- 1ms to 24h; never longer than this
        --},

        -- A key of ours that is refused is out, and with the last one the whole provider. That is
        -- a 401, and what names the credential in its code, such as "invalid_api_key". Here are
        -- further statuses, 400 to 499, that mean it; auth = false: no key is ever out. A client's
        -- own credential says nothing about the provider.
        --auth = { 402, 403 },

        -- A judgement of your own: what gives true ejects at once. It sees what send gives to
        -- policies (res), and nothing else: env, secret and file are for this file's own run.
        --unhealthy = function(res)
          --return res.status == 200 and res.headers["x-degraded"] == "true"
        --end,

        -- How long: base times the number of ejections so far, at most max, and more at random.
        --base_ejection = "30s",             -- 1ms to 24h; not more than max_ejection
        --max_ejection = "300s",             -- 1ms to 24h
        --jitter = 0.1,                      -- 0 to 1; at most this share is added
        --decay = "30s",                     -- 0ms to 24h; each so long in health takes one off
                                             -- the number of ejections; 0ms: never

        -- After that, one request at a time finds out whether it is well again.
        --probe_timeout = "30s",             -- 1ms to 1h; without a result by then, the next may
        --slow_start = "0s",                 -- 0ms to 1h; its share of the requests grows so long

        -- Ask it from time to time, too; without this table nobody does.
        --active = {
          --path = "/v1/models",             -- on the provider's host; not below the url's path
          --method = "GET",                  -- GET, HEAD, OPTIONS, POST
          --statuses = { 200 },              -- 200 to 599, at most 64; these are well
          --headers = { ["x-check"] = "1" }, -- at most 64
          --interval = "10s",                -- 10ms to 1h
          --timeout = "3s",                  -- 1ms to 10m; not more than interval
          --jitter = 0.1,                    -- 0 to 1; so much of interval is left to chance
          --unhealthy_after = 3,             -- 1 to 100; so many bad ones in a row eject
          --healthy_after = 2,               -- 1 to 100; so many good ones in a row bring it back
          --readmits = true,                 -- true or false; also from what the rules above did
        --},
      --},
    --},

    -- Several keys of one provider.
    --pooled = {
      --url = "https://api.example.net/v1",
      -- 1 to 16: requests take them in turn. One that is refused, or told to wait, is passed over
      -- for a while, and the request goes on with another one. Not together with key.
      --keys = { secret "POOLED_KEY_A", secret "POOLED_KEY_B" },
    --},

    -- Clients bring their own credential, which is handed on as it is. Not together with key.
    --shared = {
      --url = "https://api.example.org/v1",
      --auth = "passthrough",                -- passthrough
      --health = false,
    --},
  },

  -- Routes ----------------------------------------------------------------------------------------

  -- Which requests go where: 1 to 1024. The first one that matches serves the request.

  routes = {

    -- The primary answers; when it fails, the fallback does.
    {
      match = { model = "gpt-4" },
      targets = {
        { provider = "primary", priority = 0 },
        { provider = "fallback", priority = 1 },
      },
      policy = "fallback",
    },

    -- One name for two models, which share its requests by weight.
    {
      match = { model = "virtual-qwen-model" },
      targets = {
        { provider = "primary", model = "qwen2.5:1.5b", weight = 50 },
        { provider = "fallback", model = "qwen2.5:0.5b", weight = 50 },
      },
      policy = "weighted",
    },

    -- A large model, and a smaller one when the large one fails or is too slow.
    {
      match = { model = "smart" },
      targets = {
        { provider = "primary", model = "qwen2.5:7b", priority = 0,
          timeouts = { head = "60s", first_token = "10s" } },
        { provider = "fallback", model = "qwen2.5:0.5b", priority = 1 },
      },
      policy = "degrade",
    },

    -- All that can be said of a route:
    --{
      -- Its name. Without one it is called after what it matches.
      --name = "everything",

      -- All that is given must hold. Nothing given: every request.
      --match = {
        -- A name, or a list of names. One "*" may stand at the start or at the end; "*" alone also
        -- takes requests that name no model.
        --model = { "llama-*", "*-instruct", "mistral-small" },
        -- This path and everything below it: "/v1/embeddings/x", but not "/v1/embeddings-x".
        --path = "/v1/chat",
        --method = "POST",
        -- Names without case, values exactly.
        --headers = { ["x-team"] = "research" },
      --},

      -- Who may serve it, 1 to 64.
      --targets = {
        --{
          --provider = "hosted",             -- one of the above
          --model = "llama-3.3-70b",         -- asked for; default: what the client asks for
          --priority = 0,                    -- 0 to 1000; lower ones are tried first
          --weight = 1,                      -- >= 0; share of the requests within its priority
          --context_tokens = 131072,         -- 1 to 1000000000; how long a request may be. When it
                                             -- is too long for one target, those with no more
                                             -- room are not asked
          -- Changes to the headers sent, at most 64 each. The gateway sets Host, Content-Length and
          -- the like itself.
          --headers = {
            --set = { ["x-tier"] = "gold" },
            --remove = { "x-debug" },
          --},
          -- Changes to top-level fields of the request's JSON body, at most 64 each; the model has
          -- its own option. Tables become objects or lists, an empty table becomes {}.
          --body = {
            --set = { temperature = 0.2, stop = { "END" } },
            --unset = { "user" },
          --},
          -- As above; a target's own replaces the provider's.
          --prefix = {
            --message = { partial = true },
            --body = { continue_final_message = true },
          --},
          -- As above; what is not given here is the provider's.
          --timeouts = {
            --connect = "1s",                -- 1ms to 10m
            --tls = "1s",                    -- 1ms to 10m
            --head = "30s",                  -- 0ms to 24h
            --first_token = "10s",           -- 0ms to 24h
            --idle = "30s",                  -- 0ms to 24h
            --try = "2m",                    -- 0ms to 24h
          --},
          -- How many requests it gets at once, in all workers together. 0: no limit.
          --limits = {
            --concurrent = 0,                -- 0 to 1000000
            --queue = 0,                     -- 0 to 1000000; so many wait when no target is free;
                                             -- needs concurrent
            --queue_timeout = "1s",          -- 1ms to 1h; how long they wait
          --},
        --},
        --{ provider = "primary", priority = 1 },
      --},

      -- The file NAME.lua beside this one that decides. The default needs no mention.
      --policy = "fallback",
      -- What to do when it fails; default: as above.
      --on_policy_error = "fail",            -- floor, fail

      -- How a target is chosen among those of one priority:
      --   weighted         at random, by weight
      --   smooth_weighted  in turn, by weight
      --   round_robin      in turn
      --   least_busy       with the fewest open requests
      --   least_latency    with the shortest time to the first token
      --   p2c              the better one of two at random: sound, fast, not busy
      -- and { by = "hash" }, always the same one for the same client: see below.
      --balance = "weighted",

      -- How many of the route's targets may be out at once; beyond that, none is left out any more.
      --max_ejection_percent = 100,          -- 0 to 100
      -- When all are out: use them nevertheless, highest priority first, or answer 503.
      --panic = "use",                       -- use, fail

      --retry = {
        --attempts = 3,                      -- 1 to 64; tries in all, the first one included
        --per_priority = 1,                  -- 1 to 100; tries at one priority before the
                                             -- next; default: as many as it has targets
        -- What calls for another try: statuses (300 to 599), "4xx", "5xx", outcomes such as
        -- "rate_limited", "overloaded" or "timeout_head", and the groups "connect", "reset" and
        -- "timeout". Default: the list in the policy's file. An empty list: nothing does.
        --on = { 429, 500, 502, 503, 504, "connect", "reset", "timeout" },
        -- What to do about some outcomes, whatever the list says, at most 64: "again" (the same
        -- target once more after a wait, then the next), "next", "give_up".
        --reactions = {
          --["overloaded"] = "again",        -- again, next, give_up
          --[409] = "next",
        --},
        -- Whether a request is sent once more whose work may have been done, and billed: after it
        -- was sent, and no answer or a broken one came; after a part of the answer has come.
        --uncertain = true,                  -- true or false
        --partly_generated = true,           -- true or false
        -- Waits between tries, only when no other target is free: random, up to base, then up to
        -- twice that, and so on.
        --backoff = {
          --base = "100ms",                  -- 0ms to 1h; not more than max
          --max = "10s",                     -- 0ms to 1h
          --floor = "25ms",                  -- 0ms to 1h; never less; not more than max
        --},
        -- How many of the open requests may be retries, so that they do not become the load.
        -- Without this table: any number. Not both 0.
        --budget = {
          --percent = 20,                    -- 0 to 100; of the requests that are open
          --min = 3,                         -- 0 to 10000; but always so many
        --},
      --},

      -- Other names for what comes of a try; all that follows goes by them: health, retries, log,
      -- metrics, policies. ok, rate_limited, auth, billing, model_not_found, context_length,
      -- content_filter, client_fault, overloaded and server_error can be given. The first one that
      -- has a say decides.
      --classes = {
        -- A judgement of your own: a class, or nil. res and err are what send gives to policies.
        --decide = function(res, err, class)
          --if res and res.headers["x-shed"] then return "overloaded" end
        --end,
        -- Codes and types of errors, without case, at most 64.
        --code = { ["insufficient_quota"] = "rate_limited" },
        -- Statuses from 200 to 599, at most 64.
        --status = { [418] = "overloaded" },
        -- Classes, at most 64.
        --class = { ["timeout_head"] = "overloaded" },
      --},

      --deadline = "10m",                    -- 1ms to 24h; for the whole request
      -- As above, for this route; an empty list: none.
      --deadline_header = {
        --"x-request-timeout-ms",
        --{
          --name = "x-budget",
          --unit = "s",                      -- ms, s, grpc
        --},
      --},
      -- So much of the time is kept for each target that may still be tried: until its answer
      -- begins, a try gets what the deadline leaves without that. A try that had so much time and
      -- no answer counts for the target's health. Default: nothing is kept.
      --reserve = "5s",                      -- 1ms to 24h; less than deadline
      -- How long after the request's start another try may begin. Default: any time.
      --retry_within = "20s",                -- 0ms to 24h; less than deadline

      -- When an answer that streams counts as one; until then it can still be left for the next
      -- target, unseen by the client:
      --   content  at its first text, reasoning, tool call or refusal. Comments, pings and chunks
      --            that only say who speaks are waited through; errors and ends without content
      --            are failures
      --   event    at its first event, whatever that says
      --   head     at its status and headers
      -- timeouts.first_token says how long that may take.
      --gate = {
        --on = "content",                    -- content, event, head
        --bytes = "64KiB",                   -- 1KiB to 1MiB; with so many a stream is passed
                                             -- on, whatever it says
        -- How often a client that waits for a stream gets a comment meanwhile, for what stands
        -- between and closes silent connections. Default: never. The first one commits the answer
        -- to status 200: from then on failures are events in the stream, see README.md.
        --heartbeat = "15s",                 -- 100ms to 1h
      --},
      -- Look into answers that do not stream, too: one without content is "empty", one that is not
      -- JSON is "malformed". For completions, responses, messages and embeddings of at most 1 MiB.
      --check_body = false,                  -- true or false

      -- What becomes of an event that is no JSON in a stream that is passed on: "relay" passes it
      -- on, unread; "drop" leaves it out, for which every event is read.
      --malformed_events = "relay",          -- relay, drop
      -- Another target goes on with a stream that breaks off in the client's hands: "continue" asks
      -- it for what follows, "restart" afresh, and drops what the client has. The table's options
      -- can be had by a name alone: rescue = "continue". false: nobody does, which is the default.
      --rescue = {
        --mode = "continue",                 -- continue, restart
        --attempts = 2,                      -- 1 to 16; targets asked to go on; retry.attempts
                                             -- counts them, too
        --bytes = "256KiB",                  -- 1KiB to 16MiB; of text, which is kept for it; an
                                             -- answer that is longer is not rescued
      --},

      -- When a target is slow, ask the next one as well, and take what comes first: the first good
      -- answer (of a stream: its first content). The other is cancelled; it may bill what it has
      -- done. Without this table nothing is hedged, unless the policy's file says so. The default
      -- policy and `weighted` heed it; in others it is what gw.hedge goes by.
      --hedge = {
        -- So long after the first was asked: a time of at least 1ms, or a share from "p50" to
        -- "p99.9" of the target's last answers, by the time to the first token, streams apart from
        -- others.
        --after = "p95",
        --at_least = "50ms",                 -- 0ms to 1h; a share never means less
        --until_known = "2s",                -- 1ms to 1h; while a share of fewer than 20 answers
                                             -- would be meant; default: nothing is hedged then
        -- The most of the requests that are hedged, but for the first ones, for each worker.
        --budget_percent = 10,               -- 0.1 to 100
        --burst = 10,                        -- 1 to 10000; so many are saved up, and there at first
        -- POST to these paths only, in full. Default: those whose answers leave nothing behind.
        --paths = { "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/embeddings" },
      --},

      -- Changes to the headers of targets' answers, at most 64 each. They are made before an answer
      -- is judged: a Retry-After that is set here counts.
      --response = {
        --headers = {
          --set = { ["cache-control"] = "no-store" },
          --add = { ["x-served-by"] = "perilune" },
          --remove = { "server" },
        --},
      --},

      -- Names to list in GET /v1/models beside those that match.model names in full.
      --models = { "llama-3.3-70b" },
    --},

    -- The same target for the same client, which finds its prompts in the cache there. Exactly one
    -- of header, field and client_key says who is the same; a request without it goes to any.
    --{
      --match = { model = "by-header" },
      --targets = { { provider = "primary" }, { provider = "hosted" } },
      --balance = {
        --by = "hash",                       -- hash
        --header = "x-user",                 -- a header of the request
        --load = 1.25,                       -- 1 to 100; a target with more than so many times the
                                             -- average of open requests passes them to the next
      --},
    --},
    --{
      --match = { model = "by-field" },
      --targets = { { provider = "primary" }, { provider = "hosted" } },
      --balance = {
        --by = "hash",
        --field = "user",                    -- a top-level field of the request's JSON body
      --},
    --},
    --{
      --match = { model = "by-key" },
      --targets = { { provider = "primary" }, { provider = "hosted" } },
      --balance = {
        --by = "hash",
        --client_key = true,                 -- true or false; Authorization or x-api-key
      --},
    --},

    -- The rest of these families; what no route takes is answered 404.
    {
      match = { model = { "gpt-*", "text-embedding-*", "dall-e-*", "whisper-*", "tts-*" } },
      targets = {
        { provider = "primary", priority = 0 },
        { provider = "fallback", priority = 1 },
      },
    },
  },
}
