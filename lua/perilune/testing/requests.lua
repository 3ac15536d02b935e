--- What clients of the played gateway send.

local cjson = require "cjson.safe"
local given = require "perilune.testing.given"

local requests = {}

local KEYS = given.set("model", "stream", "messages", "body", "headers", "path", "method", "peer")
local METHODS = given.set("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
local CHAT = "/v1/chat/completions"
local HELLO = "Hello"

-- What each endpoint asks for, when the spec does not say.
local function add_prompt(body, path)
  if path == CHAT or path == "/v1/messages" then
    body.messages = body.messages or { { role = "user", content = HELLO } }
  elseif path == "/v1/completions" then
    body.prompt = body.prompt or HELLO
  elseif path == "/v1/embeddings" or path == "/v1/responses" then
    body.input = body.input or HELLO
  end
end

local function body_of(options, path)
  if type(options.body) == "string" then return options.body end
  local body = {}
  for key, value in pairs(options.body or {}) do body[key] = value end
  for _, key in ipairs { "model", "stream", "messages" } do
    if options[key] ~= nil then body[key] = options[key] end
  end
  add_prompt(body, path:match("^[^?]*"))
  local text, problem = cjson.encode(body)
  return text or given.fail("request.body: cannot be encoded: %s", problem)
end

local function header_list(options, has_body)
  local list, has_type = given.headers("request.headers", options.headers), false
  for _, pair in ipairs(list) do has_type = has_type or pair[1]:lower() == "content-type" end
  if has_body and not has_type then list[#list + 1] = { "Content-Type", "application/json" } end
  return list
end

local function check(options)
  given.keys("request", given.type("request", options, "table"), KEYS)
  given.type("request.model", options.model, "string", true)
  given.type("request.stream", options.stream, "boolean", true)
  given.type("request.messages", options.messages, "table", true)
  given.type("request.peer", options.peer, "string", true)
  if options.body ~= nil and type(options.body) ~= "string" then
    given.type("request.body", options.body, "table")
  end
  local path = given.type("request.path", options.path or CHAT, "string")
  if path:sub(1, 1) ~= "/" then given.fail("request.path: must begin with a slash") end
  local method = options.method or "POST"
  if not METHODS[method] then
    given.fail("request.method: %s is none of them", given.show(method))
  end
  return method, path
end

--- A request as perilune.stage takes it.
-- @tparam table options those of world:request
function requests.of(options)
  local method, path = check(options)
  local bodiless = method == "GET" or method == "HEAD" or method == "OPTIONS"
  local body = (bodiless and options.body == nil) and "" or body_of(options, path)
  return { method = method, target = path, body = body, peer = options.peer or "127.0.0.1",
    headers = header_list(options, body ~= "") }
end

return requests
