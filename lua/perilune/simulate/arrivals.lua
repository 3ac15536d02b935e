--- The requests of a scenario, one after the other, in the order of their arrival. Pure.
--
-- A request, wherever it comes from:
--
--     number         from 1 on, in the order of arrival
--     at_ms          when it comes, from the start of the simulation
--     model, stream  as its body says
--     input_tokens, output_tokens   of the prompt, and of the answer if nobody cuts it short
--     headers, body  more of both: name -> value, field -> raw JSON
--     path           when it is not that of chat completions
--     patience_ms    when the client leaves without an answer; nil: never

local distribution = require "perilune.simulate.distribution"
local random = require "perilune.simulate.random"

local arrivals = {}

local PURPOSE_TIMES, PURPOSE_REQUEST = 1, 2
local MAX_TOKENS = 1000000

--- An entry of the mix, by share.
local function choose(mix, sum, unit)
  local left = unit * sum
  for position = 1, #mix do
    left = left - mix[position].share
    if left < 0 then return mix[position] end
  end
  return mix[#mix]
end

local function tokens_of(quantity, luck)
  local count = math.floor(distribution.sample(quantity, luck) + 0.5)
  return math.max(1, math.min(count, MAX_TOKENS))
end

--- The texts of a map with the user's number in them.
local function for_user(texts, number)
  local result = {}
  for name, text in pairs(texts) do
    result[name] = text:gsub("{user}", ("%d"):format(number))
  end
  return result
end

--- Headers and fields of the body, of one of the users, if there are several.
local function own_texts(entry, luck)
  if not entry.user_count then return entry.headers, entry.body end
  local user = luck:below(entry.user_count)
  return for_user(entry.headers, user), for_user(entry.body, user)
end

local function make(number, at_ms, entry, luck)
  local headers, body = own_texts(entry, luck)
  return {
    number = number, at_ms = at_ms, model = entry.model,
    stream = luck:unit() < entry.stream_share,
    input_tokens = tokens_of(entry.input_tokens, luck),
    output_tokens = tokens_of(entry.output_tokens, luck),
    headers = headers, body = body, patience_ms = entry.patience_ms,
  }
end

--- Requests as a scenario describes them.
-- @tparam table requests count, rate, arrival and mix (see perilune.simulate.scenario)
-- @tparam number seed
-- @treturn function next() gives the next request, nil after the last
function arrivals.new(requests, seed)
  local times = random.stream(seed, PURPOSE_TIMES)
  local gap_ms, is_even = 1000 / requests.rate, requests.arrival == "even"
  local number, at_ms, sum = 0, 0, 0
  for _, entry in ipairs(requests.mix) do sum = sum + entry.share end
  return function()
    if number == requests.count then return nil end
    if is_even then
      at_ms = number * gap_ms
    else
      at_ms = at_ms - gap_ms * math.log(times:unit())
    end
    number = number + 1
    local luck = random.stream(seed, PURPOSE_REQUEST, number)
    return make(number, at_ms, choose(requests.mix, sum, luck:unit()), luck)
  end
end

return arrivals
