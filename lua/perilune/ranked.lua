--- Routes in another order: the same targets with other priorities, or only some of them.
--
-- What a policy decides per request ("long prompts to the large model first") comes in few kinds,
-- so each kind is made once per route and kept as long as the route lives. Ways to balance that
-- take turns go on where they were, and the plan of perilune.candidates is not made again.

local frozen = require "perilune.frozen"

local ranked = {}

local KEPT_MAX = 64 -- per route; further kinds are made anew each time
local COPIED = {
  "name", "policy", "deadline_ms", "retry", "balance", "panic", "max_ejection_ratio", "reserve_ms",
  "retry_within_ms", "hedge",
}

local function check_rank(rank, target)
  if type(rank) == "number" and rank == rank then return end
  error(("perilune.ranked: the rank of target %s must be a number, nil or false, not %s"):format(
    tostring(target.name), tostring(rank)), 4)
end

--- Asks for each target's rank.
-- @treturn {target,...} those that have one
-- @treturn table target.index -> rank
-- @treturn string what tells this kind from others
local function rank_all(targets, rank_of)
  local kept, ranks, key = {}, {}, {}
  for position, target in ipairs(targets) do
    local rank = rank_of(target)
    if rank then
      check_rank(rank, target)
      kept[#kept + 1], ranks[target.index] = target, rank
    end
    key[position] = rank and ("%.17g"):format(rank) or "-"
  end
  return kept, ranks, table.concat(key, " ")
end

local function make(route, targets, ranks)
  local fields = { ranks = frozen.view("perilune.ranks", ranks) }
  for _, name in ipairs(COPIED) do fields[name] = route[name] end
  setmetatable(fields, { __index = function(_, key)
    return key == "targets" and { unpack(targets) } or nil
  end })
  return frozen.view("perilune.route", fields)
end

--- Makes the `ranked` function of the public module.
-- @treturn function
function ranked.new()
  local kinds_of = setmetatable({}, { __mode = "k" })

  --- A route with its targets in another order, for gw.candidates.
  -- @tparam table route
  -- @tparam function rank_of(target) -> its priority in the new route, lower ones first; nil or
  -- false leaves it out
  -- @treturn table a route like the given one
  return function(route, rank_of)
    local all = type(route) == "table" and route.targets
    if type(all) ~= "table" then error("perilune.ranked: a route is expected", 2) end
    if type(rank_of) ~= "function" then
      error("perilune.ranked: a function(target) is expected, not a " .. type(rank_of), 2)
    end
    local targets, ranks, key = rank_all(all, rank_of)
    local kinds = kinds_of[route]
    if not kinds then
      kinds = { count = 0, by_key = {} }
      kinds_of[route] = kinds
    end
    local kind = kinds.by_key[key]
    if kind then return kind end
    kind = make(route, targets, ranks)
    if kinds.count < KEPT_MAX then
      kinds.count, kinds.by_key[key] = kinds.count + 1, kind
    end
    return kind
  end
end

return ranked
