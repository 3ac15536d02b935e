--- What the simulated model says: the prompt again, or random sentences of a plausible length.
-- Lengths follow llm-d-inference-sim. Pure, given a generator.
local errors = require "perilune.sim.errors"
local tokens = require "perilune.sim.tokens"
local concat = table.concat
local floor, max, min = math.floor, math.max, math.min
local format = string.format

local text = {}

local SENTENCES = {
  "The moon has no weather, so footprints on it last for ages.",
  "A gateway that never fails is one that nobody uses.",
  "Today the queue is short; tomorrow it may not be.",
  "Every answer takes time, and some take more than others.",
  "Small waves reach the shore long after the storm has passed.",
  "If the first door is locked, try the next one.",
  "Nobody counts the stars twice and gets the same number.",
  "The train left at noon, three minutes late.",
  "Good maps show the roads; better ones show the bridges that are out.",
  "Tea is best when it is neither boiling nor cold.",
  "An orbit is a fall that keeps missing the ground.",
  "Who waits long enough will see the tide turn.",
  "Bread, salt and patience: that is the whole recipe.",
  "The lamp in the window means that someone is still at work.",
  "Paper remembers what people forget.",
  "Rain is expected in the evening, with clear skies after midnight.",
}

local SENTENCE_TOKENS = {}
for index, sentence in ipairs(SENTENCES) do
  SENTENCE_TOKENS[index] = tokens.split(sentence .. " ")
  for _, token in ipairs(SENTENCE_TOKENS[index]) do
    tokens.remember(token)
    tokens.remember((token:gsub("%s+$", "")))
  end
end

local WIDE = 120       -- with a larger limit, only the fourth of the six buckets grows
local WIDE_BUCKET = 20
local BUCKET_ENDS = { 20, 50, 70, 75, 85, 100 } -- cumulative percentages
local USUAL_MEAN, USUAL_DEVIATION = 40, 20

local function bucket_of(random)
  local percent = random:integer(1, 100)
  for bucket = 1, #BUCKET_ENDS do
    if percent <= BUCKET_ENDS[bucket] then return bucket end
  end
end

-- The first and last length of a bucket under a limit.
local function bucket_range(bucket, limit)
  if limit <= WIDE then
    local last = max(floor(bucket * limit / 6), 1)
    return min(floor((bucket - 1) * limit / 6) + 1, last), last
  end
  if bucket <= 3 then return (bucket - 1) * WIDE_BUCKET + 1, bucket * WIDE_BUCKET end
  if bucket == 4 then return 3 * WIDE_BUCKET + 1, limit - 2 * WIDE_BUCKET end
  return limit - (7 - bucket) * WIDE_BUCKET + 1, limit - (6 - bucket) * WIDE_BUCKET
end

-- A length when the request sets no limit. The clamp of random:normal would cut at 70 %.
local function usual_length(random, room)
  if room < WIDE_BUCKET then return random:integer(1, room) end
  local sum = 0
  for _ = 1, 12 do sum = sum + random:unit() end -- variance 1, and never far out
  return max(1, min(room, floor(USUAL_MEAN + (sum - 6) * USUAL_DEVIATION)))
end

local function random_tokens(random, length)
  local list, count = {}, 0
  while count < length do
    local sentence = SENTENCE_TOKENS[random:integer(1, #SENTENCE_TOKENS)]
    for index = 1, min(#sentence, length - count) do
      count = count + 1
      list[count] = sentence[index]
    end
  end
  list[count] = list[count]:gsub("%s+$", "")
  return list
end

local function window_error(window, prompt_count, completion_count)
  return errors.new(400, format("This model's maximum context length is %d tokens. However, you "
    .. "requested %d tokens (%d in the messages, %d in the completion). Please reduce the length "
    .. "of the messages or completion", window, prompt_count + completion_count, prompt_count,
    completion_count))
end

local function echo(asked, prompt)
  local list = tokens.split(prompt.echo)
  local limit = asked.max_tokens or #list
  if limit >= #list then return list, "stop" end
  for index = #list, limit + 1, -1 do list[index] = nil end
  return list, "length"
end

local function invent(asked, prompt, window, random)
  local room = window - prompt.count
  local limit = min(asked.max_tokens or room, room)
  local length = limit
  if not asked.ignore_eos then
    length = asked.max_tokens and random:integer(bucket_range(bucket_of(random), limit))
      or usual_length(random, room)
  end
  return random_tokens(random, length), length == limit and "length" or "stop"
end

--- One answer to one prompt.
-- @tparam table config
-- @tparam table asked the request: max_tokens, ignore_eos
-- @tparam table prompt count (tokens) and echo (the text that echo mode repeats)
-- @tparam table random
-- @treturn[1] table tokens, text, finish ("stop" or "length")
-- @treturn[2] nil
-- @treturn[2] table the error: it does not fit the context window
function text.answer(config, asked, prompt, random)
  local window, needed = config.max_model_len, 1
  if config.mode == "echo" then
    needed = tokens.count(prompt.echo)
    needed = min(asked.max_tokens or needed, needed)
  end
  if prompt.count + needed > window then return nil, window_error(window, prompt.count, needed) end
  local list, finish
  if config.mode == "echo" then
    list, finish = echo(asked, prompt)
  else
    list, finish = invent(asked, prompt, window, random)
  end
  return { tokens = list, text = concat(list), finish = finish }
end

--- All answers a request asks for: `n` to each prompt.
-- @treturn[1] table choices, prompt_tokens, completion_tokens
-- @treturn[2] nil
-- @treturn[2] table the error
function text.answers(config, asked, random)
  local result = { choices = {}, prompt_tokens = 0, completion_tokens = 0 }
  for _, prompt in ipairs(asked.prompts) do
    result.prompt_tokens = result.prompt_tokens + prompt.count
    for _ = 1, asked.n or 1 do
      local choice, err = text.answer(config, asked, prompt, random)
      if not choice then return nil, err end
      result.choices[#result.choices + 1] = choice
      result.completion_tokens = result.completion_tokens + #choice.tokens
    end
  end
  return result
end

return text
