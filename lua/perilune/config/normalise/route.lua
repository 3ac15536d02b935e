--- Normalises routes and their targets. Pure.

local matching = require "perilune.route"
local sorted = require "perilune.sorted"
local providers = require "perilune.config.normalise.provider"

local route = {}

-- What `rescue = "continue"` stands for.
local RESCUE_ATTEMPTS, RESCUE_MAX_BYTES = 2, 256 * 1024

-- Names -------------------------------------------------------------------------------------------

--- A name that nobody has yet: the wanted one, or with "#2", "#3", ... after it. `taken` keeps for
-- each name how far its numbers have got.
local function unique(wanted, taken)
  local name, count = wanted, taken[wanted] or 0
  while taken[name] do
    count = count + 1
    name = wanted .. "#" .. count
  end
  taken[name] = 1
  taken[wanted] = math.max(count, 1)
  return name
end

--- What a route without a name is called: what it matches.
local function described(match)
  local model = match.model
  if type(model) == "table" then
    model = #model == 1 and model[1] or ("%s,+%d"):format(model[1], #model - 1)
  end
  return model or match.path or "*"
end

local function names_of(routes)
  local names, taken = {}, {}
  for _, entry in ipairs(routes) do
    if entry.name then taken[entry.name] = 1 end
  end
  for position, entry in ipairs(routes) do
    names[position] = entry.name or unique(described(entry.match), taken)
  end
  return names
end

-- Targets -----------------------------------------------------------------------------------------

local function normalise_target(target, provider)
  local limits, prefix = target.limits, provider.prefix
  if target.prefix ~= nil then prefix = providers.prefix(target.prefix) end
  return {
    name = target.model and target.provider .. "/" .. target.model or target.provider,
    provider = provider.index, provider_name = target.provider,
    model = target.model, priority = target.priority, weight = target.weight,
    context_tokens = target.context_tokens,
    set_headers = sorted.pairs(target.headers.set), remove_headers = target.headers.remove,
    set_body = sorted.pairs(target.body.set), unset_body = target.body.unset, prefix = prefix,
    timeouts = providers.timeouts(target.timeouts, provider.timeouts),
    limits = {
      concurrent_count = limits.concurrent, queue_count = limits.queue,
      queue_ms = limits.queue_timeout,
    },
  }
end

-- Routes ------------------------------------------------------------------------------------------

local function retry_of(retry, reserve_ms, within_ms)
  local budget = retry.budget
  return {
    attempts = retry.attempts, per_priority = retry.per_priority, on = retry.on,
    reactions = next(retry.reactions) and retry.reactions or nil,
    uncertain = retry.uncertain, partly_generated = retry.partly_generated,
    base_ms = retry.backoff.base, max_ms = retry.backoff.max, floor_ms = retry.backoff.floor,
    budget = budget and { ratio = budget.percent / 100, min_count = budget.min },
    reserve_ms = reserve_ms, within_ms = within_ms,
  }
end

--- One header, or a list of them, as a list; nil for none.
local function deadline_headers_of(headers)
  if headers.name then return { headers } end
  return headers[1] and headers or nil
end

local function balance_of(balance)
  if type(balance) == "string" then return { by = balance } end
  return {
    by = balance.by, header = balance.header, field = balance.field,
    client_key = balance.client_key or nil, load_ratio = balance.load,
  }
end

local function rescue_of(rescue)
  if not rescue then return nil end
  if type(rescue) == "string" then rescue = { mode = rescue } end
  return {
    mode = rescue.mode, attempts = rescue.attempts or RESCUE_ATTEMPTS,
    max_bytes = rescue.bytes or RESCUE_MAX_BYTES,
  }
end

local function response_of(response)
  if not response then return nil end
  local headers = response.headers
  return {
    set = sorted.pairs(headers.set), add = sorted.pairs(headers.add), remove = headers.remove,
  }
end

local function hedge_of(hedge)
  return hedge and {
    after = hedge.after, at_least_ms = hedge.at_least, until_known_ms = hedge.until_known,
    budget_ratio = hedge.budget_percent / 100, burst_count = hedge.burst, paths = hedge.paths,
  }
end

local function normalise_route(entry, name, defaults)
  return {
    name = name, match = entry.match, policy = entry.policy, targets = {},
    on_policy_error = entry.on_policy_error or defaults.on_policy_error,
    balance = balance_of(entry.balance), panic = entry.panic,
    max_ejection_ratio = entry.max_ejection_percent / 100,
    retry = retry_of(entry.retry, entry.reserve, entry.retry_within),
    classes = entry.classes, deadline_ms = entry.deadline,
    deadline_headers = deadline_headers_of(entry.deadline_header or defaults.deadline_header),
    malformed_events = entry.malformed_events, rescue = rescue_of(entry.rescue),
    gate = { on = entry.gate.on, max_bytes = entry.gate.bytes,
      heartbeat_ms = entry.gate.heartbeat },
    check_body = entry.check_body,
    hedge = hedge_of(entry.hedge),
    response = response_of(entry.response), models = matching.models_of(entry),
  }
end

--- Normalise all routes.
-- @tparam {table,...} routes checked
-- @tparam table by_name provider's name -> { index, timeouts, prefix }
-- @tparam table defaults what holds for routes that do not say otherwise: on_policy_error,
-- deadline_header
-- @treturn {table,...} routes; their `targets` are indices into
-- @treturn {table,...} the targets of all routes, in order
function route.all(routes, by_name, defaults)
  local result, targets = {}, {}
  local names = names_of(routes)
  for position, entry in ipairs(routes) do
    local normalised = normalise_route(entry, names[position], defaults)
    for _, target in ipairs(entry.targets) do
      table.insert(targets, normalise_target(target, by_name[target.provider]))
      table.insert(normalised.targets, #targets)
    end
    result[position] = normalised
  end
  return result, targets
end

return route
