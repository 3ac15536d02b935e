--- What can go wrong with an answer, by name: the outcome classes of perilune.classify, the kit's
-- names for failures, and plain statuses. Each is a plan, the form in which the simulation says how
-- an upstream answers a call:
--
--     failure      no answer: "connect", "dns", "tls", "reset", "hang", "malformed"
--     status       of the answer; from 400 on its body is the usual one for that status
--     code         what the error's body names as its code instead of the usual
--     after_ms     until the head, or until the failure shows
--     first_ms     from the head to the first token
--     every_ms     from one token to the next; as long as these three are open: `after`, `first`
--                  and `every`, as distributions
--     tokens       how many; of a streamed answer each is an event
--     cut_after    the connection breaks after so many tokens; a share of them if below 1
--     stall_after  silence after so many tokens; a share of them if below 1
--     headers      more headers of the answer
--     body         the answer's body as it is, instead of tokens or of the usual error
--     done         false: a stream that ends without its end mark
--
-- Plain data, pure.

local distribution = require "perilune.simulate.distribution"
local sorted = require "perilune.sorted"

local faults = {}

local NEVER_MS = 1e9 -- longer than any limit may be

local PLANS = {
  -- no connection
  connect = { failure = "connect" },
  refuse = { failure = "connect" },
  dns = { failure = "dns" },
  tls = { failure = "tls" },
  timeout_connect = { failure = "connect", after = distribution.fixed(NEVER_MS) },
  -- a connection, and no whole answer
  reset = { failure = "reset" },
  malformed = { failure = "malformed" },
  hang = { failure = "hang" },
  timeout_head = { failure = "hang" },
  timeout_try = { failure = "hang" },
  timeout_deadline = { failure = "hang" },
  timeout_first_token = { status = 200, stall_after = 0 },
  timeout_idle = { status = 200, stall_after = 0.5 },
  truncated = { status = 200, cut_after = 0.5 },
  empty = { status = 200, body = "" },
  -- an error as the answer
  rate_limited = { status = 429 },
  auth = { status = 401 },
  billing = { status = 402 },
  model_not_found = { status = 404, code = "model_not_found" },
  context_length = { status = 400, code = "context_length_exceeded" },
  content_filter = { status = 400, code = "content_filter" },
  client_fault = { status = 400 },
  overloaded = { status = 503 },
  server_error = { status = 500 },
}

--- All names, sorted.
faults.NAMES = sorted.keys(PLANS)

--- The plan for a name or a status.
-- @tparam string|number what one of NAMES, or a status
-- @treturn ?table a plan, not to be changed; nil when the name is unknown
function faults.plan(what)
  if type(what) == "number" then return { status = what } end
  return PLANS[what]
end

return faults
