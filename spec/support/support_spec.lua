local support = require "support"

describe("support", function()
  after_each(support.finish)

  describe("upstream and client", function()
    it("exchange whole messages", function()
      local up = support.answering(function(request)
        return 200, { method = request.method, body = request.body }, { ["X-Test"] = "yes" }
      end)
      local response = support.request({ to = up, path = "/a?b", body = "hello" })
      assert.equal(200, response.status)
      assert.equal("yes", response.headers["x-test"])
      assert.same({ method = "POST", body = "hello" }, response:json())
      assert.equal("complete", response.ended)
      assert.equal("/a?b", up.requests[1].target)
    end)

    it("keep a connection for more than one request", function()
      local up = support.answering(function(request) return 200, request.target end)
      local connection = support.connect(up)
      assert.equal("/1", connection:request({ path = "/1" }).body)
      assert.equal("/2", connection:request({ path = "/2" }).body)
      assert.equal(1, #up.connections)
    end)

    it("pass events one by one", function()
      local seen = false
      local up = support.upstream(function(connection)
        connection:read_request()
        connection:start_chunked()
        connection:event({ n = 1 })
        support.wait_until("the client to see the first event", function() return seen end)
        connection:chunk("data: a\nda")
        connection:chunk("ta: b\n\n: note\n\n")
        connection:finish_chunked()
      end)
      local response = support.request({ to = up, streamed = true })
      assert.equal('{"n":1}', response:next_event().data)
      seen = true
      assert.equal("a\nb", response:next_event().data)
      assert.equal(" note", response:next_event().comment)
      assert.same({ nil, "complete" }, { response:next_event() })
    end)

    local function ended_by(act)
      local up = support.upstream(function(connection)
        connection:read_request()
        connection:start_chunked()
        connection:event("x")
        act(connection)
      end)
      local response = support.request({ to = up, streamed = true })
      response:read_body()
      return response.ended
    end

    it("tell a clean end from a cut and from a reset", function()
      assert.equal("complete", ended_by(function(connection) connection:finish_chunked() end))
      assert.equal("cut", ended_by(function(connection) connection:close() end))
      assert.equal("cut", ended_by(function(connection) connection:write("5\r\nab") end))
      assert.equal("reset", ended_by(function(connection) connection:reset() end))
    end)

    it("tell a reset behind bytes that were not read yet", function()
      local done = false
      local up = support.upstream(function(connection)
        connection:write(("x"):rep(50000))
        connection:read_exactly(1)
        connection:reset()
        done = true
      end)
      local connection = support.connect(up)
      connection:write("x")
      support.wait_until("the reset", function() return done end)
      local bytes, how = connection:read_all()
      assert.equal("reset", how)
      assert.equal(50000, #bytes)
    end)

    it("let the upstream see how the client left", function()
      local how = {}
      local up = support.upstream(function(connection)
        connection:read_request()
        how[#how + 1] = connection:wait_closed()
      end)
      for _, leave in ipairs({ "close", "reset", "shutdown" }) do
        local connection = support.connect(up)
        connection:send({ path = "/" })
        up:wait_requests(#up.connections)
        connection[leave](connection)
      end
      support.wait_until("three ends", function() return #how == 3 end)
      assert.same({ "closed", "reset", "closed" }, how)
    end)

    it("send in pieces", function()
      local up = support.answering(function() return 200, "ok" end)
      local connection = support.connect(up)
      local pieces = 0
      connection:write_in_pieces("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5, function()
        pieces = pieces + 1
      end)
      assert.equal("ok", connection:read_response().body)
      assert.equal(5, pieces)
    end)

    it("speak TLS", function()
      local up = support.answering(function() return 200, "secret" end,
        { tls = support.server_tls() })
      assert.equal("secret", support.request({ to = up, tls = {} }).body)
    end)

    it("work for many at the same time", function()
      local up = support.answering(function(request) return 200, request.target end)
      local calls = {}
      for index = 1, 50 do
        calls[index] = function()
          return support.request({ to = up, path = "/" .. index }).body
        end
      end
      local bodies = support.together(calls)
      for index = 1, 50 do
        assert.equal("/" .. index, bodies[index])
      end
    end)
  end)

  describe("strictness", function()
    local BAD = {
      ["two lengths"] =
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      ["a length that is none"] = "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
      ["a repeated length"] =
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
      ["a space before the colon"] = "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
      ["a bare line feed"] = "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
      ["a chunk without CRLF"] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n",
      ["a status line of its own"] = "HTTP/1.1 OK\r\n\r\n",
    }
    for what, bytes in pairs(BAD) do
      it("refuses " .. what, function()
        local up = support.upstream(function(connection)
          connection:read_request()
          connection:write(bytes)
        end)
        assert.has.error.match(function()
          support.request({ to = up })
        end, "invalid HTTP")
      end)
    end

    it("raises the error of a task in the spec", function()
      local up = support.upstream(function() error("handler broke") end)
      assert.has.error.match(function()
        support.request({ to = up })
      end, "handler broke")
    end)

    it("says what was awaited in vain", function()
      assert.has.error.match(function()
        support.wait_until("the moon", function() return false end, 0.01)
      end, "in vain for: the moon")
    end)
  end)

  describe("processes", function()
    it("run to their end", function()
      local result = support.run({ "sh", "-c", 'echo "$A"; echo b >&2; exit 3' },
        { env = { A = "it's" } })
      assert.same({ status = 3, stdout = "it's\n", stderr = "b\n" }, result)
    end)

    it("hold none of the spec's sockets", function()
      local up = support.upstream(function(connection) connection:read_request() end)
      local connection = support.connect(up)
      support.start({ command = { "sleep", "60" } }):signal("TERM")
      connection:send({ path = "/" })
      assert.equal("closed", connection:wait_closed(2))
      pcall(support.finish)
    end)

    it("fail the spec when they end badly", function()
      local crashed = support.start({ command = { "sh", "-c", "echo oops >&2; kill -SEGV $$" } })
      assert.equal(139, crashed:wait_exit())
      assert.has.error.match(support.finish, "ended with status 139.*oops")
    end)

    it("fail the spec when a sanitizer reported", function()
      local reported = support.start({
        command = { "sh", "-c", "echo '==1==ERROR: AddressSanitizer: x' >&2" },
      })
      reported:wait_exit()
      assert.has.error.match(support.finish, "reported:.*AddressSanitizer")
    end)

    it("are waited for by what they print", function()
      local talker = support.start({ command = { "sh", "-c", "echo port 42; exec sleep 60" } })
      assert.equal("42", talker:wait_output("stdout", "port (%d+)"))
      talker:kill()
      local mute = support.start({ command = { "sh", "-c", "exit 7" }, expects_failure = true })
      assert.has.error.match(function()
        mute:wait_output("stdout", "never")
      end, "ended with status 7")
    end)

    it("do not outlive the spec's process", function()
      local result = support.run({ "luajit", "-e", [[
        package.path = "spec/?.lua;spec/?/init.lua;" .. package.path
        local child = require("support").start({ command = { "sleep", "600" } })
        print(child.pid)
        os.exit(9, false)
      ]] })
      local pid = result.stdout:match("%d+")
      support.wait_until("the end of the orphan", function()
        return not support.read_file("/proc/" .. pid .. "/stat")
          or support.read_file("/proc/" .. pid .. "/stat"):find(") Z")
      end, 5)
    end)
  end)
end)
