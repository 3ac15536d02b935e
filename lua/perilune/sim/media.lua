--- POST /v1/images/generations and /v1/audio/transcriptions: small fixed answers that name the
-- model, so that these endpoints can be tried. Pure.
local errors = require "perilune.sim.errors"
local json = require "perilune.sim.json"
local concat = table.concat
local format = string.format

local media = {}

local MAX_IMAGES = 10
-- one transparent pixel
local PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6"
  .. "kgAAAABJRU5ErkJggg=="
local TRANSCRIPT = "This is a recording of someone testing a gateway."

media.images = {
  path = "/v1/images/generations",
  error_body = errors.openai_body,
}

--- Read a request for images.
function media.images.parse(reader)
  return {
    model = reader:string("model") or "",
    prompt = reader:string("prompt") or "",
    n = reader:integer("n") or 1,
  }
end

--- What is wrong with it.
function media.images.check(asked)
  if asked.prompt == "" then return errors.new(400, "prompt must not be empty", "prompt") end
  if asked.n < 1 or asked.n > MAX_IMAGES then
    return errors.new(400, format("n must be from 1 to %d", MAX_IMAGES), "n")
  end
  return nil
end

--- The answer.
function media.images.answer(_, asked, meta)
  local data = {}
  for index = 1, asked.n do data[index] = '{"b64_json":"' .. PNG .. '"}' end
  return concat { format('{"created":%d,"model":', meta.created), meta.model_json, ',"data":',
    json.array(data), "}" }
end

media.transcriptions = {
  path = "/v1/audio/transcriptions",
  error_body = errors.openai_body,
  is_form = true,
}

--- Read a request for a transcription, from form fields.
function media.transcriptions.parse(reader)
  return {
    model = reader:string("model") or "",
    response_format = reader:string("response_format") or "json",
  }
end

--- Every form that can be read is answered.
function media.transcriptions.check()
  return nil
end

--- The answer: JSON, or the bare text for response_format "text".
-- @treturn string body
-- @treturn string|nil content type, when it is not JSON
function media.transcriptions.answer(_, asked, meta)
  if asked.response_format == "text" then return TRANSCRIPT .. "\n", "text/plain" end
  return format('{"text":%s,"model":%s}', json.string(TRANSCRIPT), meta.model_json)
end

return media
