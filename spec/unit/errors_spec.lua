local cjson = require "cjson.safe"
local classify = require "perilune.classify"
local errors = require "perilune.errors"

describe("perilune.errors", function()
  describe("from_failure", function()
    it("gives each failure its status, and names the target", function()
      local statuses = {
        dns = 502, connect = 502, tls = 502, reset = 502, truncated = 502, malformed = 502,
          empty = 502,
        timeout_connect = 504, timeout_head = 504, timeout_first_token = 504, timeout_idle = 504,
        timeout_try = 504, timeout_deadline = 504,
      }
      for class, expected in pairs(statuses) do
        assert.is_true(classify.CLASSES[class])
        local status, code, message = errors.from_failure { class = class,
          target = { name = "openai/gpt-4" }, detail = "because" }
        assert.equal(expected, status)
        assert.equal(class, code)
        assert.matches("`openai/gpt-4`", message, 1, true)
        assert.matches(": because$", message)
      end
    end)

    it("gives errors that came under status 200 the status that they stand for", function()
      local statuses = { rate_limited = 429, overloaded = 503, context_length = 400,
        content_filter = 400, client_fault = 400, auth = 502, billing = 502, server_error = 502 }
      for class, expected in pairs(statuses) do
        local status, code = errors.from_failure { class = class, detail = "said" }
        assert.same({ expected, class }, { status, code })
      end
    end)

    it("copes with failures that a policy made up", function()
      local status, code, message = errors.from_failure { class = "odd",
        target = { name = "100%d" } }
      assert.equal(502, status)
      assert.equal("odd", code)
      assert.equal("Target `100%d` failed", message)
      status, code, message = errors.from_failure {}
      assert.equal(502, status)
      assert.equal("upstream_error", code)
      assert.equal("Target `unknown` failed", message)
    end)

    it("says when there was no target", function()
      local status, code = errors.from_failure(nil)
      assert.same({ 503, "no_target" }, { status, code })
    end)
  end)

  it("says which model is not there, and what is at fault", function()
    assert.same({ 404, "model_not_found", "The model `gpt-9` does not exist or is not configured "
      .. "in the gateway", { param = "model", is_own = true } },
      { errors.model_not_found("gpt-9") })
  end)

  it("says which path is not there", function()
    assert.same({ 404, "unknown_url", "Unknown request URL: GET /foo", { is_own = true } },
      { errors.unknown_url("GET", "/foo") })
  end)

  it("says why no target could take a request", function()
    assert.same({ 503, "queue_full", "All targets of this route are busy, and the queue is full" },
      { errors.given_up("queue_full") })
    assert.same({ 503, "odd", "No target of this route can be tried" },
      { errors.given_up("odd") })
  end)

  describe("clean", function()
    it("takes out what looks like a credential", function()
      assert.equal("Authorization: Bearer ***", errors.clean("Authorization: Bearer abc.def-1"))
      assert.equal("key sk-*** refused", errors.clean("key sk-proj-12_ab refused"))
      assert.equal("GET /x?key=***&a=1&api_key=***",
        errors.clean("GET /x?key=s3cret&a=1&api_key=t"))
      assert.equal("http://***@host/", errors.clean("http://user:password@host/"))
    end)

    it("keeps valid UTF-8 and replaces the rest", function()
      assert.equal("ü€😀", errors.clean("ü€😀"))
      assert.equal("a?b", errors.clean("a\255b"))
      for _, broken in ipairs { "\192\128", "\237\160\128", "\244\144\128\128", "\226\130", "\128",
        "\240\128\128\128", "\245\128\128\128" } do
        assert.equal(("?"):rep(#broken), errors.clean(broken))
      end
    end)

    it("cuts long text between two characters", function()
      assert.equal("aaaa...", errors.clean("aaaaaaaa", 4))
      assert.equal("aaa...", errors.clean("aaaüüü", 4))
      assert.equal("aa...", errors.clean("aa😀😀", 5))
      assert.equal("aaaa", errors.clean("aaaa", 4))
      local _, _, message = errors.model_not_found(("x"):rep(10000000))
      assert.is_true(#message < 600)
      assert.matches("does not exist", message, 1, true)
    end)

    it("takes anything", function()
      assert.equal("7", errors.clean(7))
      assert.equal("nil", errors.clean(nil))
    end)
  end)

  it("escapes what JSON needs escaped, and no more", function()
    assert.equal("\"a/b\\\\/c\\\"\\n\"", errors.quote("a/b\\/c\"\n"))
    assert.equal("a/b\\/c\"\n\1", cjson.decode("[" .. errors.quote("a/b\\/c\"\n\1") .. "]")[1])
  end)
end)
