--- How many tokens a request may be, roughly and without a tokenizer.
--
-- Four bytes of text count as one token: of every string in the body and of every field's name,
-- which makes up for what a model's chat format adds to each message and for the names in schemas.
-- A number counts as one token: prompts may be lists of them. An image, a sound or a file counts
-- as 1000, whatever its size. For English prose that is about right; source code and most other
-- languages take more tokens, by up to a half, so leave room.
--
-- Pure. Costs a look at each part of the body; a body of more parts than MAX_PARTS is judged by its
-- length.

local estimate = {}

local BYTES_PER_TOKEN = 4
local ATTACHMENT_BYTES = 1000 * BYTES_PER_TOKEN
local MAX_PARTS = 50000 -- some 3 ms

-- Fields whose strings are no text: images and the like, encoded or by address.
local ATTACHMENT_KEYS = {
  url = true, image_url = true, data = true, b64_json = true, file_data = true, file_url = true,
  file_id = true,
}
-- Fields that say how long the answer may become.
local LIMIT_KEYS = { "max_completion_tokens", "max_tokens", "max_output_tokens" }

local weigh

local function weigh_table(value, parts_left)
  local bytes = 0
  for key, item in next, value do
    local is_named = type(key) == "string"
    local item_bytes
    item_bytes, parts_left = weigh(item, is_named and key, parts_left)
    if not item_bytes then return nil, 0 end
    bytes = bytes + item_bytes + (is_named and #key or 0)
  end
  return bytes, parts_left
end

--- Bytes of text in a decoded value; nil when it has too many parts.
-- @param value
-- @param key the name of its field, or false
-- @tparam number parts_left
-- @treturn ?number bytes
-- @treturn number parts left
function weigh(value, key, parts_left)
  if parts_left <= 0 then return nil, 0 end
  local kind = type(value)
  if kind == "table" then return weigh_table(value, parts_left - 1) end
  if kind == "number" then return BYTES_PER_TOKEN, parts_left - 1 end
  if kind ~= "string" then return 0, parts_left - 1 end
  return key and ATTACHMENT_KEYS[key] and ATTACHMENT_BYTES or #value, parts_left - 1
end

--- Tokens of a text of so many bytes.
-- @tparam number bytes
-- @treturn number whole
function estimate.of_bytes(bytes)
  return math.ceil(bytes / BYTES_PER_TOKEN)
end

local function answer_tokens(body)
  for _, key in ipairs(LIMIT_KEYS) do
    local tokens = body[key]
    if type(tokens) == "number" and tokens >= 0 then return tokens end
  end
  return 0
end

--- Estimates a request.
-- @tparam table body decoded
-- @tparam number body_bytes its length as it came, for a body of very many parts
-- @treturn number tokens of the prompt, whole
-- @treturn number tokens that the answer may have at most, 0 when the request does not say
function estimate.tokens(body, body_bytes)
  local bytes = weigh(body, false, MAX_PARTS)
  return estimate.of_bytes(bytes or body_bytes), answer_tokens(body)
end

return estimate
