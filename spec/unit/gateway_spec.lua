local cjson = require "cjson.safe"
local gateway = require "perilune.gateway"
local support = require "spec.unit.support"

local NOW_MS = 1750000000999

--- A configuration with the fields that the gateway reads.
local function config_of(routes)
  for position, route in ipairs(routes) do
    route.name = route.name or "route-" .. position
    route.match = route.match or {}
    route.targets = route.targets or { 1 }
    route.policy = route.policy or "record"
    route.retry = route.retry or { attempts = 3, base_ms = 100, max_ms = 1000, floor_ms = 25 }
    route.deadline_ms = route.deadline_ms or 120000
    route.models = route.models or {}
  end
  return { routes = routes }
end

--- A gateway whose policy `record` keeps what it was called with.
local function make(routes, policies)
  local seen = {}
  policies = policies or {
    record = function(req, route)
      seen[#seen + 1] = { req = req, route = route }
      return "returned"
    end,
  }
  local handle, code, detail = gateway.new {
    config = config_of(routes), policies = policies, now_wall_ms = function() return NOW_MS end,
    targets = support.targets { { name = "a" }, { name = "b", priority = 1 }, { name = "c" } },
  }
  return handle, seen, code, detail
end

local ROUTES = {
  { name = "chat", match = { model = "gpt-4" }, targets = { 3, 2 } },
  { name = "wild", match = { model = "gpt-*" }, models = { "gpt-4o", "org/gpt-x" } },
  { name = "tenant", match = { model = "claude", headers = { ["x-tenant"] = "blue" } } },
}

local function ask(handle, method, path, options)
  options = options or {}
  options.method, options.path = method, path
  local req = support.req(options)
  local returned = handle(req)
  return req.answer, req, returned
end

describe("perilune.gateway", function()
  describe("GET /v1/models", function()
    it("lists the models of all routes in OpenAI's form", function()
      local handle = make(ROUTES)
      local answer = ask(handle, "GET", "/v1/models")
      assert.equal(200, answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      local body = cjson.decode(answer.body)
      assert.equal("list", body.object)
      local names = {}
      for position, model in ipairs(body.data) do
        names[position] = model.id
        assert.equal("model", model.object)
        assert.equal("perilune", model.owned_by)
        assert.equal(1750000000, model.created)
      end
      assert.same({ "gpt-4", "gpt-4o", "org/gpt-x", "claude" }, names)
      assert.same(answer.body, ask(handle, "GET", "/v1/models/").body)
      assert.is_nil(answer.body:find("1.75e", 1, true))
    end)

    it("keeps an empty list a list", function()
      assert.equal("{\"object\":\"list\",\"data\":[]}",
        ask(make({ { match = { model = "gpt-*" } } }), "GET", "/v1/models").body)
    end)

    it("gives one model", function()
      local handle = make(ROUTES)
      for path, name in pairs { ["/v1/models/gpt-4o"] = "gpt-4o",
        ["/v1/models/org/gpt-x"] = "org/gpt-x",
        ["/v1/models/org%2Fgpt-x"] = "org/gpt-x" } do
        local answer = ask(handle, "GET", path)
        assert.equal(200, answer.status)
        assert.equal(name, cjson.decode(answer.body).id)
      end
    end)

    it("refuses models that are not listed", function()
      local answer = ask(make(ROUTES), "GET", "/v1/models/nothing")
      assert.equal(404, answer.status)
      assert.equal("model_not_found", answer.code)
      assert.equal("model", answer.param)
    end)

    it("answers HEAD like GET, so that the lengths agree", function()
      local answer = ask(make(ROUTES), "HEAD", "/v1/models")
      assert.equal(200, answer.status)
      assert.equal(ask(make(ROUTES), "GET", "/v1/models").body, answer.body)
    end)

    it("asks no policy, whatever the routes match", function()
      local handle, seen = make { {} }
      ask(handle, "GET", "/v1/models")
      ask(handle, "GET", "/v1/models/x")
      assert.equal(0, #seen)
    end)

    it("leaves other methods and paths to the routes", function()
      local handle, seen = make { {} }
      ask(handle, "DELETE", "/v1/models/ft-1")
      ask(handle, "GET", "/v1/modelsx")
      assert.equal(2, #seen)
    end)
  end)

  describe("refuses", function()
    it("paths outside /v1/", function()
      for _, path in ipairs { "/", "/foo", "/v1", "/v2/chat/completions", "/v1x", "" } do
        local answer = ask(make(ROUTES), "GET", path)
        assert.equal(404, answer.status)
        assert.equal("unknown_url", answer.code)
        assert.equal("Unknown request URL: GET " .. path, answer.message)
      end
    end)

    it("methods that mean nothing here", function()
      for _, method in ipairs { "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND" } do
        local answer, _, _ = ask(make { {} }, method, "/v1/chat/completions")
        assert.equal(405, answer.status)
        assert.equal("method_not_allowed", answer.code)
        assert.equal("GET, HEAD, POST, PUT, PATCH, DELETE", answer.headers.allow)
      end
    end)

    it("models that no route serves", function()
      local answer = ask(make(ROUTES), "POST", "/v1/chat/completions", { model = "llama\255" })
      assert.equal(404, answer.status)
      assert.equal("The model `llama?` does not exist or is not configured in the gateway",
        answer.message)
    end)

    it("requests without a model where one is needed", function()
      for _, path in ipairs { "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
        "/v1/responses", "/v1/images/generations" } do
        for _, model in ipairs { "", false } do
          local answer = ask(make(ROUTES), "POST", path, { model = model or nil })
          assert.equal(400, answer.status)
          assert.equal("missing_model", answer.code)
        end
      end
    end)

    it("other paths that no route serves", function()
      local answer = ask(make(ROUTES), "POST", "/v1/files")
      assert.equal(404, answer.status)
      assert.equal("unknown_url", answer.code)
    end)

    it("HEAD like GET", function()
      local message = ask(make(ROUTES), "GET", "/v1/files").message
      assert.equal((message:gsub("GET", "HEAD")), ask(make(ROUTES), "HEAD", "/v1/files").message)
    end)
  end)

  describe("routes", function()
    it("to the first route that matches, with its deadline and name", function()
      local handle, seen = make(ROUTES)
      local answer, req, returned = ask(handle, "POST", "/v1/chat/completions", { model = "gpt-4" })
      assert.is_nil(answer)
      assert.equal("returned", returned)
      assert.equal("chat", req.route_name)
      assert.equal(120000, req.deadline_ms)
      assert.equal(req, seen[1].req)
      ask(handle, "POST", "/v1/chat/completions", { model = "gpt-5" })
      assert.equal("wild", seen[2].route.name)
    end)

    it("by headers", function()
      local handle, seen = make(ROUTES)
      ask(handle, "POST", "/v1/messages", { model = "claude", headers = { ["X-Tenant"] = "blue" } })
      assert.equal("tenant", seen[1].route.name)
      assert.equal(404, ask(handle, "POST", "/v1/messages", { model = "claude" }).status)
    end)

    it("requests without a model, when a route has no condition on it", function()
      local handle, seen = make { { match = { model = "gpt-4" } }, { name = "rest" } }
      ask(handle, "POST", "/v1/chat/completions")
      ask(handle, "GET", "/v1/files/file-1")
      assert.equal("rest", seen[1].route.name)
      assert.equal("rest", seen[2].route.name)
    end)

    it("lets errors of policies pass", function()
      local handle = make({ { policy = "broken" } }, { broken = function() error("oops", 0) end })
      assert.has_error(function() ask(handle, "POST", "/v1/chat/completions") end, "oops")
    end)

    it("lets policies yield", function()
      local handle = make({ { policy = "slow" } }, { slow = function()
        return coroutine.yield("waiting")
      end })
      local thread = coroutine.create(handle)
      assert.same({ true, "waiting" }, { coroutine.resume(thread, support.req {}) })
      assert.same({ true, "done" }, { coroutine.resume(thread, "done") })
    end)

    it("refuses a route whose policy is not there", function()
      local handle, _, code, detail = make({ { name = "x", policy = "missing" } })
      assert.is_nil(handle)
      assert.equal("unknown_policy", code)
      assert.equal("route \"x\": there is no policy \"missing\"", detail)
    end)

    it("says under which route, policy and pattern a request goes on", function()
      local handle, seen = make(ROUTES)
      ask(handle, "POST", "/v1/chat/completions", { model = "gpt-99" })
      local req = seen[1].req
      assert.same({ "wild", "record", "gpt-*" }, { req.route_name, req.policy_name, req.pattern })
    end)

    it("uses fallback when a route names no policy", function()
      local called = 0
      local config = config_of { {} }
      config.routes[1].policy = nil
      local handle = gateway.new { config = config, targets = support.targets { {} },
        now_wall_ms = function() return NOW_MS end,
        policies = { fallback = function() called = called + 1 end } }
      handle(support.req {})
      assert.equal(1, called)
    end)
  end)

  describe("route objects", function()
    local function route_object()
      local handle, seen = make(ROUTES)
      ask(handle, "POST", "/v1/chat/completions", { model = "gpt-4" })
      ask(handle, "POST", "/v1/chat/completions", { model = "gpt-4" })
      assert.equal(seen[1].route, seen[2].route)
      return seen[1].route
    end

    it("have what policies are promised", function()
      local route = route_object()
      assert.equal("chat", route.name)
      assert.equal("record", route.policy)
      assert.equal(120000, route.deadline_ms)
      assert.equal(3, route.retry.attempts)
      assert.equal(2, #route.targets)
      assert.equal("c", route.targets[1].name)
      assert.equal("b", route.targets[2].name)
      assert.is_nil(route.nothing)
    end)

    it("cannot be changed by one request for the others", function()
      local route = route_object()
      assert.has_error(function() route.name = "x" end)
      assert.has_error(function() route.retry.attempts = 99 end)
      table.remove(route.targets)
      assert.equal(2, #route.targets)
      assert.equal("perilune.route", getmetatable(route))
    end)
  end)
end)
