--- Sticky: requests with the same key go to the same target, for the sake of its prompt cache.
--
-- Rendezvous hashing: each target's name is hashed together with the key, and the highest wins, by
-- weight. A target that is lost moves only its own share, a target that comes takes its share from
-- all. Nothing is kept, so that all workers, and all gateways with this configuration, agree.
--
-- Bounded load: a target that has more under way than `load_ratio` times its share of the whole,
-- and one more, is passed over for the next one of that key.
--
-- The key is a header, a top-level field of the body (a string, a number or a boolean), or the
-- client's credential. A request without one is drawn by weight.

local weighted = require "perilune.balance.weighted"

local bxor, rshift, tobit = bit.bxor, bit.rshift, bit.tobit
local byte = string.byte

local hash = {}

local MODULUS = 2147483647 -- 2^31 - 1, a prime
local FACTOR = 1566083     -- times the modulus still exact in a double
local DEFAULT_LOAD_RATIO = 1.25

--- A text as a whole number below 2^31: a polynomial, three bytes a step.
-- @tparam string text
-- @treturn number
function hash.text(text)
  local value = #text % MODULUS
  for i = 1, #text, 3 do
    local a, b, c = byte(text, i, i + 2)
    value = (value * FACTOR + a * 65536 + (b or 0) * 256 + (c or 0)) % MODULUS
  end
  return value
end

local function times(a, b)
  local high, low = rshift(a, 16), a % 65536
  return tobit(high * b % 65536 * 65536 + low * b)
end

--- Murmur3's last step: every bit of the input changes every bit of the output.
local function mixed(value)
  value = bxor(value, rshift(value, 16))
  value = times(value, 0x85ebca6b)
  value = bxor(value, rshift(value, 13))
  value = times(value, 0xc2b2ae35)
  return bxor(value, rshift(value, 16))
end

--- Where a key and a target meet, evenly within (0, 1).
local function meet(key_hash, name_hash)
  return (mixed(bxor(key_hash, name_hash)) % 4294967296 + 0.5) / 4294967296
end

--- Prepares the targets' hashes; targets of one name are told apart by their order.
function hash.prepare(group)
  local times_seen = {}
  group.name_hashes = {}
  for position = 1, group.count do
    local name = group.targets[position].name
    times_seen[name] = (times_seen[name] or 0) + 1
    group.name_hashes[position] = mixed(hash.text(name .. "#" .. times_seen[name]))
  end
end

local function key_of(rule, req)
  if rule.header then return req.headers[rule.header] end
  if rule.client_key then return req.headers["authorization"] or req.headers["x-api-key"] end
  local body = req:json()
  local value = body and body[rule.field]
  local kind = type(value)
  return (kind == "string" or kind == "number" or kind == "boolean") and tostring(value) or nil
end

--- The key's hash, or false; found once per request.
local function key_hash_of(rule, req, memo)
  if memo and memo.key_hash ~= nil then return memo.key_hash end
  local key = key_of(rule, req)
  local key_hash = key ~= nil and key ~= "" and hash.text(key)
  if memo then memo.key_hash = key_hash end
  return key_hash
end

--- Among last resorts, which are left to themselves, all weigh the same.
local function weight_of(group, position)
  local weight = group.weights[position]
  return weight > 0 and weight or 1
end

--- How many requests a target of weight 1 should have under way, at most.
local function fill_of(group, eligible, count, load, load_ratio)
  local in_flight, weight = 0, 0
  for i = 1, count do
    local position = eligible[i]
    in_flight = in_flight + load(group.targets[position])
    weight = weight + weight_of(group, position)
  end
  return load_ratio * in_flight / weight
end

--- See perilune.balance.weighted.
-- @param req the request, for its key
-- @tparam ?table memo kept for the request; the key's hash is noted there
function hash.choose(group, eligible, count, deps, req, memo)
  local rule, load = group.rule, deps.load
  local key_hash = key_hash_of(rule, req, memo)
  if not key_hash then return weighted.choose(group, eligible, count, deps) end
  local fill = fill_of(group, eligible, count, load, rule.load_ratio or DEFAULT_LOAD_RATIO)
  local chosen, highest = nil, -math.huge
  for i = 1, count do
    local position = eligible[i]
    local in_flight, _, _, ramp = load(group.targets[position])
    local weight = weight_of(group, position)
    -- weighted rendezvous: the weight over the waiting time of an exponential clock
    local unit = meet(key_hash, group.name_hashes[position])
    local score = weight * ramp / -math.log(unit)
    if in_flight <= fill * weight + 1 and score > highest then
      chosen, highest = position, score
    end
  end
  return chosen or weighted.choose(group, eligible, count, deps)
end

return hash
