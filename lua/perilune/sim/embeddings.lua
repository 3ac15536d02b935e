--- POST /v1/embeddings: unit vectors that depend on the input alone. Pure.
local completions = require "perilune.sim.completions"
local errors = require "perilune.sim.errors"
local json = require "perilune.sim.json"
local random = require "perilune.sim.random"
local tokens = require "perilune.sim.tokens"
local char, format = string.char, string.format
local concat = table.concat
local floor, frexp, ldexp, sqrt = math.floor, math.frexp, math.ldexp, math.sqrt

local embeddings = {
  path = "/v1/embeddings",
  error_body = errors.openai_body,
}

local MAX_INPUTS = 2048
local MAX_DIMENSIONS = 8192
local MAX_VALUES = 262144 -- of one answer
local SEED_LIMIT = 2147483647
local INPUT_FORMS = "a string, an array of strings, an array of token ids or an array of those"
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- Read a request.
function embeddings.parse(reader)
  local input = reader:any("input")
  local list = input == nil and {} or completions.read_prompts(input)
  if not list then reader:refuse("input", INPUT_FORMS) end
  return {
    model = reader:string("model") or "",
    dimensions = reader:integer("dimensions"),
    encoding_format = reader:string("encoding_format") or "float",
    inputs = list or {},
  }
end

local function check_dimensions(asked, config)
  local dimensions = asked.dimensions or config.default_embedding_dimensions
  if dimensions < 1 or dimensions > MAX_DIMENSIONS then
    return errors.new(400, format("dimensions must be from 1 to %d", MAX_DIMENSIONS),
      "dimensions")
  end
  if dimensions * #asked.inputs > MAX_VALUES then
    return errors.new(400, "the embeddings would be too large", "input")
  end
  return nil
end

--- What is wrong with a request that could be read.
function embeddings.check(asked, config)
  if #asked.inputs == 0 or #asked.inputs > MAX_INPUTS then
    return errors.new(400, format("input must hold 1 to %d inputs", MAX_INPUTS), "input")
  end
  for _, input in ipairs(asked.inputs) do
    if input.count == 0 then return errors.new(400, "input must not be empty", "input") end
  end
  if asked.encoding_format ~= "float" and asked.encoding_format ~= "base64" then
    return errors.new(400, "encoding_format must be float or base64", "encoding_format")
  end
  return check_dimensions(asked, config)
end

local function vector(text, dimensions)
  local generator = random.new(tokens.hash(text, SEED_LIMIT))
  local values, squares = {}, 0
  for index = 1, dimensions do
    local value = generator:unit() * 2 - 1
    values[index], squares = value, squares + value * value
  end
  local length = sqrt(squares)
  for index = 1, dimensions do values[index] = values[index] / length end
  return values
end

-- The bytes of a float (IEEE 754 binary32, little endian) with 0 < |value| <= 1.
local function float_bytes(value)
  local sign = 0
  if value < 0 then sign, value = 128, -value end
  local fraction, exponent = frexp(value)
  local mantissa = floor(ldexp(fraction, 24) + 0.5)
  if mantissa == 2 ^ 24 then mantissa, exponent = 2 ^ 23, exponent + 1 end
  exponent = exponent + 126
  if exponent < 1 then return "\0\0\0\0" end
  mantissa = mantissa - 2 ^ 23
  return char(mantissa % 256, floor(mantissa / 256) % 256,
    exponent % 2 * 128 + floor(mantissa / 65536), sign + floor(exponent / 2))
end

--- Encode bytes in base64.
function embeddings.base64(bytes)
  local out = {}
  for index = 1, #bytes, 3 do
    local first, second, third = bytes:byte(index, index + 2)
    local bits = first * 65536 + (second or 0) * 256 + (third or 0)
    for shift = 1, 4 do
      local digit = floor(bits / 64 ^ (4 - shift)) % 64 + 1
      out[#out + 1] = ALPHABET:sub(digit, digit)
    end
    if not third then out[#out] = "=" end
    if not second then out[#out - 1] = "=" end
  end
  return concat(out)
end

local function vector_json(values, encoding_format)
  local items = {}
  if encoding_format == "base64" then
    for index = 1, #values do items[index] = float_bytes(values[index]) end
    return '"' .. embeddings.base64(concat(items)) .. '"'
  end
  for index = 1, #values do items[index] = format("%.8g", values[index]) end
  return json.array(items)
end

--- The whole answer.
function embeddings.answer(config, asked, meta)
  local data, count = {}, 0
  for index, input in ipairs(asked.inputs) do
    local values = vector(input.echo, asked.dimensions or config.default_embedding_dimensions)
    data[index] = format('{"object":"embedding","index":%d,"embedding":%s}', index - 1,
      vector_json(values, asked.encoding_format))
    count = count + input.count
  end
  return concat { '{"object":"list","data":', json.array(data), ',"model":', meta.model_json,
    format(',"usage":{"prompt_tokens":%d,"total_tokens":%d}}', count, count) }
end

--- Tokens of all inputs, for the latency.
function embeddings.prompt_tokens(asked)
  local count = 0
  for _, input in ipairs(asked.inputs) do count = count + input.count end
  return count
end

return embeddings
