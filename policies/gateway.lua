-- The gateway's configuration, and the reference of every option there is.
--
-- Lines that begin with "-- " explain. Lines that begin with "--" and a name are options that are
-- not in force: options with a default show it, the others show an example. Take the two dashes
-- away to set one. Behind an option stand its bounds and its meaning.
--
--   durations   a string with a unit: "100ms", "12.5ms", "10s", "2m", "1h"; no bare numbers.
--   sizes       a string with a unit ("512B", "64KiB", "50MiB", "1GiB") or a whole number of bytes.
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
-- error, never ignored. `perilune check policies` reports all of them with their lines. A changed
-- file takes effect by SIGHUP or POST /admin/reload, and only when there is no error in it.

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

  -- Dashboard, metrics, health and POST /admin/reload. A token is required when other machines can
  -- reach the address.
  admin = {
    address = "127.0.0.1:9901",
    --token = env "PERILUNE_ADMIN_TOKEN",
  },

  --workers = 0,               -- 0 to 256; threads that carry traffic, 0: one per core
  --drain = "30s",             -- 0ms to 1h; at the end, how long open requests may take to finish
  --log_level = "info",        -- error, warn, info, debug
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

  -- Providers -------------------------------------------------------------------------------------

  -- Who can answer: 1 to 256, each under a name of letters, digits, "-", "_" and ".".

  providers = {
    primary = { url = "http://127.0.0.1:8000/v1" },
    fallback = { url = "http://127.0.0.1:8001/v1" },

    -- All that can be said of a provider:
    --hosted = {
      --api = "openai",                      -- openai; the dialect it speaks
      --url = "https://api.example.com/v1",  -- http or https; an IPv6 address in brackets

      -- Its credential, sent as "Authorization: Bearer ...". Without one, none is sent: a client's
      -- own never reaches a provider, unless auth = "passthrough" says so.
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
    --},

    -- Clients bring their own credential, which is handed on as it is. Not together with key.
    --shared = {
      --url = "https://api.example.org/v1",
      --auth = "passthrough",                -- passthrough
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
      -- Its name in logs, metrics and headers. Without one it is called after what it matches.
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
          -- As above; what is not given here is the provider's.
          --timeouts = {
            --connect = "1s",                -- 1ms to 10m
            --tls = "1s",                    -- 1ms to 10m
            --head = "30s",                  -- 0ms to 24h
            --first_token = "10s",           -- 0ms to 24h
            --idle = "30s",                  -- 0ms to 24h
            --try = "2m",                    -- 0ms to 24h
          --},
        --},
      --},

      -- The file NAME.lua beside this one that decides. The default needs no mention.
      --policy = "fallback",

      --retry = {
        --attempts = 3,                      -- 1 to 64; tries in all, the first one included
        --per_priority = 1,                  -- 1 to 100; tries at one priority before the
                                             -- next; default: as many as it has targets
        -- What calls for another try: statuses (300 to 599), "4xx", "5xx", outcomes such as
        -- "rate_limited", "overloaded" or "timeout_head", and the groups "connect", "reset" and
        -- "timeout". Default: the list in the policy's file. An empty list: nothing does.
        --on = { 429, 500, 502, 503, 504, "connect", "reset", "timeout" },
        -- Waits between tries, only when no other target is free: random, up to base, then up to
        -- twice that, and so on.
        --backoff = {
          --base = "100ms",                  -- 0ms to 1h; not more than max
          --max = "10s",                     -- 0ms to 1h
          --floor = "25ms",                  -- 0ms to 1h; never less; not more than max
        --},
      --},

      --deadline = "10m",                    -- 1ms to 24h; for the whole request

      -- Names to list in GET /v1/models beside those that match.model names in full.
      --models = { "llama-3.3-70b" },
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
