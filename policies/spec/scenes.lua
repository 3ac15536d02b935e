--- What the scenes share: two targets that are asked to say sixty words, by a client of OpenAI's or
-- one of Anthropic's.

local testing = require "perilune.testing"

local scenes = {}

scenes.WORD_COUNT = 60
scenes.BIG, scenes.SMALL = "primary/big", "spare/small"

--- What differs between the two APIs.
scenes.APIS = {
  chat = {
    path = "/v1/chat/completions",
    lead_count = 1, -- events before the first word
    error = function(_, code, message)
      return { error = { message = message, type = "invalid_request_error", code = code } }
    end,
  },
  messages = {
    path = "/v1/messages",
    lead_count = 3,
    error = function(kind, _, message)
      return { type = "error", error = { type = kind, message = message } }
    end,
  },
}

--- Different words, so that one that is missing, or there twice, shows.
function scenes.words(first, last)
  local list = {}
  for number = first or 1, last or scenes.WORD_COUNT do list[#list + 1] = "word" .. number end
  return table.concat(list, " ")
end

--- A gateway in front of two providers; the second is for when the first fails.
-- @tparam[opt] table options `route` (fields), `health` of the first provider
function scenes.world(options)
  options = options or {}
  local timeouts = { connect = "1s", head = "10s", first_token = "5s", idle = "10s" }
  local route = { policy = "fallback", deadline = "2m", targets = {
    { provider = "primary", model = "big" }, { provider = "spare", model = "small", priority = 1 },
  } }
  for key, value in pairs(options.route or {}) do route[key] = value end
  local world = testing.world { config = {
    providers = {
      primary = { url = "http://127.0.0.1:1/v1", timeouts = timeouts, health = options.health },
      spare = { url = "http://127.0.0.1:2/v1", timeouts = timeouts },
    },
    routes = { route },
  } }
  world:upstream("spare"):always { words = scenes.WORD_COUNT, first = "1s", every = "100ms" }
  return world
end

--- Asks for the words, streamed unless `stream` is false.
function scenes.ask(world, api, stream)
  return world:request { path = api.path, stream = stream ~= false, model = "any",
    body = { max_tokens = 1000 } }
end

return scenes
