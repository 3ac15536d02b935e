--- Checks what concerns several keys of one route and of its targets, or several routes.

local duration = require "perilune.duration"
local given = require "perilune.config.given"
local sorted = require "perilune.sorted"
local wording = require "perilune.schema.wording"

local route = {}

local at, show = wording.at, wording.show
local ROOT = {}
local NONE = {} -- what is read where an optional table is absent; never written
local HASHED = { "header", "field", "client_key" }

-- Targets -----------------------------------------------------------------------------------------

local function lower_names(map)
  local names = {}
  for name in pairs(map or NONE) do
    names[name:lower()] = name
  end
  return names
end

--- Changes of headers that contradict each other: one header is set, added to or removed.
local function check_headers(headers, path, report)
  local set, add = lower_names(headers.set), lower_names(headers.add)
  for _, name in ipairs(sorted.keys(headers.add or NONE)) do
    if set[name:lower()] then
      report(at(at(path, "add"), name), "is also in set: " .. show(set[name:lower()]))
    end
  end
  for position, name in ipairs(headers.remove or NONE) do
    local where = set[name] and "set" or add[name] and "add"
    if where then
      report(at(at(path, "remove"), position),
        ("is also in %s: %s"):format(where, show(set[name] or add[name])))
    end
  end
end

local function check_body(body, path, report)
  local set, advice = body.set or NONE, "cannot be changed here: write model = ... in the target"
  if set.model then report(at(at(path, "set"), "model"), advice) end
  for position, key in ipairs(body.unset or NONE) do
    if key == "model" then
      report(at(at(path, "unset"), position), advice)
    elseif set[key] then
      report(at(at(path, "unset"), position), "is also in set: " .. show(key))
    end
  end
end

local function check_limits(limits, path, report)
  if limits.concurrent == 0 and limits.queue and limits.queue > 0 then
    report(at(path, "queue"), "has no effect without concurrent: nothing is ever full")
  end
end

local function check_target(target, path, providers, report)
  if target.provider and not providers.is_known[target.provider] then
    report(at(path, "provider"), ("there is no provider %s: %s"):format(
      show(target.provider), wording.hint(target.provider, providers.names)))
  end
  check_headers(target.headers or NONE, at(path, "headers"), report)
  check_body(target.body or NONE, at(path, "body"), report)
  check_limits(target.limits or NONE, at(path, "limits"), report)
end

--- Refuse a priority in which no target could ever be drawn.
local function check_weights(targets, path, report)
  local priorities, total = {}, {}
  for _, target in ipairs(targets) do
    local priority, weight = target.priority, target.weight
    if not priority or not weight then return end
    if not total[priority] then table.insert(priorities, priority) end
    total[priority] = (total[priority] or 0) + weight
  end
  for _, priority in ipairs(priorities) do
    if total[priority] == 0 then
      report(path, ("all weights of priority %d are 0: at least one must be more"):format(priority))
    end
  end
end

-- The route ---------------------------------------------------------------------------------------

local function check_retry(retry, path, report)
  if retry.per_priority and retry.attempts and retry.per_priority > retry.attempts then
    report(at(path, "per_priority"), ("must not be more than attempts (%d), got %d"):format(
      retry.attempts, retry.per_priority))
  end
  local backoff = retry.backoff or NONE
  for _, name in ipairs { "base", "floor" } do
    if backoff[name] and backoff.max and backoff[name] > backoff.max then
      report(at(at(path, "backoff"), name), ("must not be more than max (%s), got %s"):format(
        duration.format(backoff.max), duration.format(backoff[name])))
    end
  end
  local budget = retry.budget or NONE
  if budget.percent == 0 and budget.min == 0 then
    report(at(path, "budget"), "leaves nothing: to try once only, write attempts = 1")
  end
end

--- What can have no effect was meant to have one.
local function check_hedge(entry, value, path, report)
  local hedge = entry.hedge
  if not hedge then return end
  if entry.targets and #entry.targets < 2 then
    report(path, "has no effect: the route has only one target")
  elseif (entry.retry or NONE).attempts == 1 then
    report(path, "has no effect with retry.attempts = 1: a second target is a second attempt")
  elseif (entry.retry or NONE).uncertain == false then
    report(path, "asks two targets for the same, which retry.uncertain = false forbids")
  end
  if not hedge.after or hedge.after:sub(1, 1) == "p" then return end
  for _, name in ipairs { "at_least", "until_known" } do
    if given.at(value, at(path, name)) then
      report(at(path, name), ("has no effect when after is a time, %s"):format(show(hedge.after)))
    end
  end
end

--- Times that leave nothing for what they are for.
local function check_times(entry, path, report)
  local deadline_ms = entry.deadline or math.huge
  if entry.reserve and entry.reserve >= deadline_ms then
    report(at(path, "reserve"), ("must be less than deadline (%s), got %s"):format(
      duration.format(deadline_ms), duration.format(entry.reserve)))
  end
  if entry.retry_within and entry.retry_within >= deadline_ms then
    report(at(path, "retry_within"), ("must be less than deadline (%s), got %s"):format(
      duration.format(deadline_ms), duration.format(entry.retry_within)))
  end
end

--- Headers that are named twice.
function route.check_deadline_headers(headers, path, report)
  local seen = {}
  for position, header in ipairs(headers or NONE) do
    if header.name and seen[header.name] then
      report(at(path, position), "is in the list already: " .. show(header.name))
    end
    if header.name then seen[header.name] = true end
  end
end

--- Counts what was written, so that a key that was refused already does not count as missing.
local function check_balance(balance, value, path, report)
  if type(balance) ~= "table" then return end
  local count = 0
  for _, key in ipairs(HASHED) do
    if given.at(value, at(path, key)) then count = count + 1 end
  end
  if count ~= 1 then
    report(path, ("needs exactly one of header, field and client_key = true, got %s"):format(
      count == 0 and "none" or tostring(count)))
  end
end

local function check_route(entry, value, path, report)
  check_weights(entry.targets or NONE, at(path, "targets"), report)
  check_retry(entry.retry or NONE, at(path, "retry"), report)
  check_hedge(entry, value, at(path, "hedge"), report)
  check_balance(entry.balance, value, at(path, "balance"), report)
  check_times(entry, path, report)
  route.check_deadline_headers(entry.deadline_header, at(path, "deadline_header"), report)
  local headers = (entry.response or NONE).headers or NONE
  check_headers(headers, at(at(path, "response"), "headers"), report)
end

--- Check all routes.
-- @tparam {table,...} routes what the schema's check gave for them
-- @tparam table value the whole configuration as the operator wrote it
-- @tparam table providers { names = array, is_known = set }
-- @tparam function report report(path, message) for each problem
function route.check(routes, value, providers, report)
  local position_of = {}
  for position, entry in ipairs(routes) do
    local path = at(at(ROOT, "routes"), position)
    if entry.name and position_of[entry.name] then
      report(at(path, "name"), ("is the name of routes[%d] already, got %s"):format(
        position_of[entry.name], show(entry.name)))
    elseif entry.name then
      position_of[entry.name] = position
    end
    for target_position, target in ipairs(entry.targets or NONE) do
      check_target(target, at(at(path, "targets"), target_position), providers, report)
    end
    check_route(entry, value, path, report)
  end
end

return route
