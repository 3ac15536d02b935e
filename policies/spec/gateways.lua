--- Small gateways for the specs of this directory's policies.

local assert = require "luassert"
local testing = require "perilune.testing"

local gateways = {}

-- Nobody is left out for having failed before: each request is tried on its own.
local function provider(options)
  local fields = { url = "http://127.0.0.1:1/v1", health = false }
  for key, value in pairs(options or {}) do fields[key] = value end
  return fields
end

--- A gateway with one route.
-- @tparam string policy
-- @tparam {table,...} targets as in gateway.lua; each provider that they name is made
-- @tparam[opt] table options `providers` (name -> fields), `route` (fields) and those of
-- testing.world
function gateways.world(policy, targets, options)
  options = options or {}
  local providers, given = {}, options.providers or {}
  for _, target in ipairs(targets) do
    providers[target.provider] = provider(given[target.provider])
  end
  local route = { policy = policy, targets = targets }
  for key, value in pairs(options.route or {}) do route[key] = value end
  return testing.world { config = { providers = providers, routes = { route } },
    seed = options.seed, files = options.files }
end

--- Two targets, one for when the other fails.
function gateways.pair(policy, options)
  return gateways.world(policy,
    { { provider = "first", priority = 0 }, { provider = "second", priority = 1 } }, options)
end

--- An error as OpenAI writes it.
function gateways.error(status, code, message)
  return { status = status, body = { error = { message = message or "no", code = code } } }
end

-- What the first target does, and whether a request moves on to the second. Streams can fail in
-- more ways before they have begun.
local MOVES = {
  { 401, true }, { 402, true }, { 403, true }, { 404, true }, { 408, true }, { 429, true },
  { 500, true }, { 502, true }, { 503, true }, { 504, true }, { 529, true },
  { gateways.error(400, "context_length_exceeded"), true, "context_length" },
  { gateways.error(400, nil, "Your credit balance is too low"), true, "billing" },
  { gateways.error(400, nil, "API key not valid."), true, "key" },
  { 413, true }, { 400, false }, { 409, false }, { 422, false }, { 200, false },
  { "dns", true }, { "connect", true }, { "tls", true }, { "reset", true }, { "malformed", true },
  { "truncated", true }, { "hang", true },
  { { failure = "connect", after = "1m" }, true, "timeout_connect" },
  { { first = "1h" }, true, "timeout_first_token" },
  { { events = {}, done = false }, true, "empty" },
}

--- Checks what a policy goes on for.
-- @tparam string policy
-- @tparam[opt] table exceptions outcome's name -> moves
function gateways.check_moves(policy, exceptions)
  local world, count = gateways.pair(policy), 0
  for _, case in ipairs(MOVES) do
    local outcome, moves, name = case[1], case[2], case[3] or case[1]
    if exceptions and exceptions[name] ~= nil then moves = exceptions[name] end
    world:upstream("first"):always(outcome)
    local answer = world:request { model = "any", stream = true }
    local called = { unpack(world:called(), count + 1) }
    assert.same(moves and { "first", "second" } or { "first" }, called, tostring(name))
    assert.equal("complete", answer.ended)
    count = count + #called
  end
end

return gateways
