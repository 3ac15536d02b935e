--- TLS on both sides of the real gateway: upstreams that are verified or refused, and a listener
-- that serves HTTPS. Whatever is cut must never look whole.

local cjson = require "cjson.safe"
local ffi = require "ffi"
local support = require "support"

ffi.cdef [[
int shutdown(int fd, int how);
]]

local CHAT = "/v1/chat/completions"
local JSON_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
local LENGTH_BYTES = 8000000

local CONFIG = [[
return {
  listen = { address = "127.0.0.1:0", %s },
  admin = { address = "127.0.0.1:0" },
  providers = { %s },
  routes = { { match = { model = "*" }, targets = { %s },
    retry = { attempts = 2, backoff = { base = "1ms", max = "1ms", floor = "1ms" } } } },
  limits = { keepalive_idle = "400ms" },
}
]]

--- Starts a gateway whose targets are the given upstreams, in this order.
-- @param upstreams { { upstream, tls options as text }, ... }
-- @param options listen, files, expects_failure
local function start(upstreams, options)
  options = options or {}
  local providers, targets = {}, {}
  for number, entry in ipairs(upstreams) do
    providers[number] = ('p%d = { url = "%s/v1", health = false, %s }'):format(number,
      entry[1].url, entry[2] or "")
    targets[number] = ('{ provider = "p%d", priority = %d }'):format(number, number)
  end
  local files = options.files or {}
  files["ca.pem"] = support.read_file(support.certificates().ca)
  return support.gateway({
    workers = 1, files = files, scheme = options.listen and "https" or "http", env = options.env,
    config = CONFIG:format(options.listen or "", table.concat(providers, ", "),
      table.concat(targets, ", ")),
  })
end

local TRUSTED = 'tls = { ca = "ca.pem" }'

local function answering_over_tls(answer, tls)
  return support.answering(answer or function() return 200, { from = "tls" } end,
    { tls = tls or support.server_tls() })
end

local function answering_plainly()
  return support.answering(function() return 200, { from = "good" } end)
end

--- Ends a TLS connection as a crash would: TCP is closed, TLS is not.
local function cut(conn)
  ffi.C.shutdown(conn.stream.sock:getfd(), 2)
  conn:wait_closed(5)
end

--- Certificates of other kinds, by the specs' authority (`ca`) or by one that nobody knows.
local OTHERS = [[
set -e
cd "$0"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req $new -keyout other.key -out other.csr -subj "/CN=other.test"
echo "subjectAltName=DNS:other.test" > other.ext
sign="openssl x509 -req -in other.csr -CA $1 -CAkey $2 -CAcreateserial -CAserial serial"
$sign -days 1 -extfile other.ext -out other.pem
echo "subjectAltName=IP:127.0.0.1" > ip.ext
$sign -days -1 -extfile ip.ext -out expired.pem
openssl req -x509 $new -keyout self.key -out self.pem -days 1 -subj "/CN=127.0.0.1" \
  -addext subjectAltName=IP:127.0.0.1
openssl pkcs8 -topk8 -in other.key -out encrypted.key -passout pass:secret
]]

local others_folder

local function other_certificates()
  if others_folder and support.read_file(others_folder .. "/other.pem") then
    return others_folder
  end
  local folder, files = support.make_folder(), support.certificates()
  local made = support.run({ "sh", "-c", OTHERS, folder, files.ca,
    (files.ca:gsub("ca.pem$", "ca.key")) })
  assert(made.status == 0, made.stderr)
  others_folder = folder
  return folder
end

local function server_with(certificate, key)
  return { mode = "server", protocol = "any", certificate = certificate, key = key,
    options = "all" }
end

describe("a TLS upstream", function()
  teardown(support.finish) -- once: what ends together ends faster

  it("is verified by the authorities of its own file, and kept", function()
    local up = answering_over_tls()
    local gw = start({ { up, TRUSTED } })
    for _ = 1, 3 do
      local answer = gw:chat()
      assert.equal(200, answer.status)
      assert.equal("tls", answer:json().from)
    end
    assert.equal(1, #up.connections)
    assert.equal("127.0.0.1:" .. up.port, up.requests[1].headers.host)
  end)

  it("is refused when its certificate is not good, and the next target serves", function()
    local folder, key = other_certificates(), support.certificates().key
    local function other(name, key_name)
      return server_with(("%s/%s.pem"):format(folder, name), ("%s/%s.key"):format(folder, key_name))
    end
    for _, case in ipairs({
      { TRUSTED, other("other", "other") },
      { 'tls = { ca = "ca.pem", server_name = "wrong.test" }', support.server_tls() },
      { TRUSTED, other("expired", "other") },
      { TRUSTED, other("self", "self") },
      { "", server_with(support.certificates().cert, key) },
    }) do
      local up = answering_over_tls(nil, case[2])
      local gw = start({ { up, case[1] }, { answering_plainly() } })
      local answer = gw:chat()
      assert.equal("good", answer:json().from)
      assert.truthy(answer.headers["x-perilune-trail"]:find("^p1;tls;"))
      assert.equal(0, #up.requests)
    end
  end)

  it("that is refused is a 502 that says why", function()
    local folder = other_certificates()
    local up = answering_over_tls(nil, server_with(folder .. "/self.pem", folder .. "/self.key"))
    for _, case in ipairs({ { "", "self-signed certificate" },
      { 'tls = { ca = "ca.pem", server_name = "wrong.test" }', "self-signed certificate" } }) do
      local answer = start({ { up, case[1] } }):chat()
      assert.equal(502, answer.status)
      assert.equal("tls", answer:json().error.code)
      assert.truthy(answer:json().error.message:find("certificate verify failed: " .. case[2], 1,
        true), answer.body)
    end
    local answer = start({ { answering_over_tls(),
      'tls = { ca = "ca.pem", server_name = "wrong.test" }' } }):chat()
    assert.truthy(answer:json().error.message:find("hostname mismatch", 1, true), answer.body)
  end)

  it("is not verified where the operator says so", function()
    local folder = other_certificates()
    local up = answering_over_tls(nil,
      server_with(folder .. "/expired.pem", folder .. "/other.key"))
    local gw = start({ { up, "tls = { verify = false }" } })
    assert.equal("tls", gw:chat():json().from)
  end)

  it("is asked for, and verified, by the name that is configured", function()
    local names = {}
    local up = answering_over_tls(function(_, conn)
      names[#names + 1] = conn.stream.sock:getsniname() or "none"
      return 200, {}
    end)
    local gw = start({ { up, 'tls = { ca = "ca.pem", server_name = "upstream.test" }' } })
    assert.equal(200, gw:chat().status)
    gw = start({ { up, TRUSTED } }) -- by an address: no name
    assert.equal(200, gw:chat().status)
    gw = start({ { { url = "https://localhost:" .. up.port }, TRUSTED } })
    assert.equal(200, gw:chat().status)
    assert.same({ "upstream.test", "none", "localhost" }, names)
  end)

  it("may speak TLS 1.2 and 1.3, and nothing older", function()
    for protocol, is_good in pairs({ tlsv1_2 = true, tlsv1_3 = true, tlsv1_1 = false }) do
      local params = support.server_tls()
      params.protocol = protocol
      local gw = start({ { answering_over_tls(nil, params), TRUSTED } })
      local answer = gw:chat()
      assert.equal(is_good and 200 or 502, answer.status, protocol)
    end
  end)

  it("that does not shake hands is left", function()
    for _, case in ipairs({
      { "tls", function(conn) conn:write("HTTP/1.1 400 Bad Request\r\n\r\n") end },
      { "tls", function(conn) conn:read_exactly(5) end },
      { "[tc][lo][sn]n?e?c?t?", function(conn) conn:reset() end }, -- may well come before the hello
      { "timeout_connect", function(conn) conn:wait_closed(5) end },
      { "timeout_connect", function(conn) -- half of an answer
        conn:read_exactly(5)
        conn:write("\22\3\3\0\122\2")
        conn:wait_closed(5)
      end },
    }) do
      local up = support.upstream(case[2])
      local gw = start({
        { { url = "https://127.0.0.1:" .. up.port }, TRUSTED .. ', timeouts = { tls = "150ms" }' },
        { answering_plainly() },
      })
      local answer = gw:chat()
      assert.equal("good", answer:json().from, case[1])
      assert.truthy(answer.headers["x-perilune-trail"]:find("^p1;" .. case[1] .. ";%d"), case[1])
    end
  end)

  it("resumes its sessions", function()
    local files = support.certificates()
    local server = support.start({ name = "openssl s_server", expects_failure = true,
      command = { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", files.cert, "-key",
        files.key, "-www" } })
    local port = server:wait_output("stdout", "ACCEPT %S-:(%d+)")
    local gw = start({ { { url = "https://127.0.0.1:" .. port }, TRUSTED } })
    local seen = {}
    for number = 1, 3 do
      local answer = gw:request({ path = "/v1/" })
      assert.equal(200, answer.status)
      seen[number] = answer.body:match("(%a+), TLSv1%.%d, Cipher")
    end
    assert.same({ "New", "Reused", "Reused" }, seen)
  end)

  it("gets and gives large bodies exactly", function()
    local back = ("answer--"):rep(LENGTH_BYTES / 8)
    local up = answering_over_tls(function(_, conn)
      conn:write(("%sContent-Length: %d\r\n\r\n"):format(JSON_HEAD, #back))
      conn:write(back)
    end)
    local gw = start({ { up, TRUSTED } })
    local body = ("request\n"):rep(LENGTH_BYTES / 8)
    for _ = 1, 2 do
      local answer = gw:request({ path = "/v1/files", body = body,
        headers = { ["Content-Type"] = "application/octet-stream" } })
      assert.equal(200, answer.status)
      assert.is_true(up.requests[#up.requests].body == body)
      assert.is_true(answer.body == back)
    end
    assert.equal(1, #up.connections)
  end)

  it("streams event by event, and waits for a client that does not read", function()
    local sent_bytes, go_on = 0, false
    local piece = ("data: %s\n\n"):format(("y"):rep(64000))
    local up = support.upstream(function(conn)
      conn:read_request()
      conn:start_chunked()
      conn:event('"first"')
      support.wait_until("the client to have the first event", function() return go_on end)
      for _ = 1, 300 do
        if not conn:chunk(piece) then break end
        sent_bytes = sent_bytes + #piece
      end
      conn:finish_chunked()
    end, { tls = support.server_tls() })
    local gw = start({ { up, TRUSTED } })
    local head = gw:chat({ stream = true, streamed = true })
    assert.equal('"first"', head:next_event().data)
    go_on = true
    local last_bytes, since = -1, support.now()
    support.wait_until("the upstream to be held back", function()
      if sent_bytes ~= last_bytes then last_bytes, since = sent_bytes, support.now() end
      return support.now() - since > 0.2
    end)
    assert.is_true(sent_bytes < 250 * #piece, "sent " .. sent_bytes)
    local total = 0
    for data in function() return head:read_piece() end do total = total + #data end
    assert.equal(300 * #piece, total)
    assert.equal("complete", head.ended)
  end)

  it("that is cut without close_notify has not answered whole", function()
    local script
    local up = support.upstream(function(conn)
      while conn:read_request() do
        if script(conn) == "close" then return end
      end
    end, { tls = support.server_tls() })
    local gw = start({ { up, TRUSTED }, { answering_plainly() } })

    script = function(conn)
      conn:write(JSON_HEAD .. '\r\n{"from":"tls"}')
      cut(conn)
      return "close"
    end
    local answer = gw:chat()
    assert.equal(200, answer.status)
    assert.is_true(answer.ended == "cut" or answer.ended == "reset", answer.ended)
    gw:wait_log("answer of p1 broke off: truncated")

    script = function(conn)
      conn:write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n")
      cut(conn)
      return "close"
    end
    answer = gw:chat({ stream = true })
    assert.equal("good", answer:json().from)
    assert.truthy(answer.headers["x-perilune-trail"]:find("^p1;truncated;"))

    script = function(conn) -- said goodbye: whole
      conn:write(JSON_HEAD .. '\r\n{"from":"tls"}')
      return "close"
    end
    answer = gw:chat()
    assert.equal("complete", answer.ended)
    assert.equal("tls", answer:json().from)

    script = function(conn) -- whole by its length
      conn:write(JSON_HEAD .. 'Content-Length: 14\r\n\r\n{"from":"tls"}')
      cut(conn)
      return "close"
    end
    answer = gw:chat()
    assert.equal("complete", answer.ended)
    assert.equal("tls", answer:json().from)

    script = function(conn) -- not even a head
      cut(conn)
      return "close"
    end
    answer = gw:chat()
    assert.equal("good", answer:json().from)
    assert.truthy(answer.headers["x-perilune-trail"]:find("^p1;reset;"))
  end)

  it("that closes a kept connection just when it is used is asked again unseen", function()
    local up = support.upstream(function(conn)
      conn:read_request()
      conn:respond_json(200, { number = conn.number })
      conn:fill(10) -- a byte of the next request
      if conn.number % 2 == 1 then cut(conn) end
    end, { tls = support.server_tls() })
    local gw = start({ { up, TRUSTED } })
    for number = 1, 4 do
      local answer = gw:chat()
      assert.equal(number, answer:json().number)
      assert.equal("1", answer.headers["x-perilune-attempts"])
    end
  end)

  it("needs a file of authorities that can be read", function()
    local plain = answering_plainly()
    local folder = start({ { plain } }).folder_of_policies
    local function check(ca)
      support.write_file(folder .. "/gateway.lua",
        CONFIG:format("", ('p = { url = "https://a.test/v1", tls = { ca = "%s" } }'):format(ca),
          '{ provider = "p" }'))
      local result = support.perilune({ "check", folder })
      assert.equal(1, result.status)
      assert.truthy(result.stderr:find("gateway.lua: providers.p.tls: ", 1, true), result.stderr)
      assert.truthy(result.stderr:find(folder .. "/" .. ca, 1, true), result.stderr)
    end
    check("missing.pem")
    support.write_file(folder .. "/broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n")
    check("broken.pem")
    check("gateway.lua")
  end)
end)

describe("a TLS listener", function()
  local LISTEN = 'tls = { cert = "server.pem", key = "server.key" }'

  local function listener_files()
    local files = support.certificates()
    return { ["server.pem"] = support.read_file(files.cert),
      ["server.key"] = support.read_file(files.key) }
  end

  local function start_listener(up)
    return start({ { up } }, { listen = LISTEN, files = listener_files() })
  end

  teardown(support.finish) -- once: what ends together ends faster

  local function curl(...)
    return support.run({ "curl", "-sS", "--cacert", support.certificates().ca, "--max-time", "10",
      ... })
  end

  it("serves curl and other clients", function()
    local up = answering_plainly()
    local gw = start_listener(up)
    local result = curl("-d", '{"model":"m"}', gw.url .. CHAT, gw.url .. CHAT)
    assert.equal(0, result.status, result.stderr)
    assert.equal('{"from":"good"}{"from":"good"}', result.stdout, result.stderr)
    local connection = support.connect(gw, { tls = {} })
    for _ = 1, 3 do
      local answer = connection:request({ path = CHAT, json = { model = "m" } })
      assert.equal("good", answer:json().from)
    end
    assert.equal("list", gw:request({ path = "/v1/models", tls = {} }):json().object)
    assert.equal(5, #up.requests)
  end)

  it("speaks TLS 1.2 and 1.3, and nothing older", function()
    local gw = start_listener(answering_plainly())
    for _, case in ipairs({ { "--tlsv1.2", "1.2", 0 }, { "--tlsv1.3", "1.3", 0 },
      { "--tlsv1.1", "1.1", 35 } }) do
      local result = curl(case[1], "--tls-max", case[2], "--ciphers", "DEFAULT@SECLEVEL=0",
        gw.url .. "/v1/models")
      assert.equal(case[3], result.status, case[2] .. result.stderr)
    end
  end)

  it("takes and gives large bodies exactly", function()
    local back = ("answer--"):rep(LENGTH_BYTES / 8)
    local up = support.answering(function(_, conn)
      conn:write(("%sContent-Length: %d\r\n\r\n"):format(JSON_HEAD, #back))
      conn:write(back)
    end)
    local gw = start_listener(up)
    local body = ("request\n"):rep(LENGTH_BYTES / 8)
    local answer = gw:request({ path = "/v1/files", body = body, tls = {},
      headers = { ["Content-Type"] = "application/octet-stream" } })
    assert.equal(200, answer.status)
    assert.is_true(up.requests[1].body == body)
    assert.is_true(answer.body == back)
  end)

  it("streams event by event, and holds back for a client that does not read", function()
    local sent_bytes, go_on, is_closed = 0, false, false
    local piece = ("data: %s\n\n"):format(("y"):rep(64000))
    local up = support.upstream(function(conn)
      conn:read_request()
      conn:start_chunked()
      conn:event('"first"')
      support.wait_until("the client to have the first event", function() return go_on end)
      while conn:chunk(piece) do sent_bytes = sent_bytes + #piece end
      is_closed = true
    end)
    local gw = start_listener(up)
    local head = gw:chat({ stream = true, streamed = true, tls = {} })
    assert.equal('"first"', head:next_event().data)
    go_on = true
    local last_bytes, since = -1, support.now()
    support.wait_until("the upstream to be held back", function()
      if sent_bytes ~= last_bytes then last_bytes, since = sent_bytes, support.now() end
      return support.now() - since > 0.2
    end)
    local held_bytes = sent_bytes
    local total = 0
    while total < held_bytes do total = total + #assert(head:read_piece()) end
    support.wait_until("the upstream to go on", function() return sent_bytes > held_bytes end)
    head.connection:close()
    support.wait_until("the upstream to be closed", function() return is_closed end)
  end)

  it("never ends an answer that is cut as if it were whole", function()
    local content_type
    local up = support.upstream(function(conn)
      conn:read_request()
      conn:start_chunked(200, { ["Content-Type"] = content_type })
      conn:chunk("data: 1\n\n")
    end)
    local gw = start_listener(up)
    for _, version in ipairs({ "--http1.0", "--http1.1" }) do
      for _, kind in ipairs({ "text/event-stream", "audio/mpeg" }) do
        content_type = kind
        local result = curl(version, "-d", '{"model":"m"}', gw.url .. CHAT)
        assert.truthy(result.status == 18 or result.status == 56,
          ("%s %s: %d %s"):format(version, kind, result.status, result.stderr))
      end
    end
  end)

  it("tells a client that is still sending why it is refused", function()
    local gw = start_listener(answering_plainly())
    local connection = support.connect(gw, { tls = {} })
    connection:write("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    local chunk = ("%x\r\n%s\r\n"):format(1024 * 1024, ("x"):rep(1024 * 1024))
    for _ = 1, 51 do assert(connection:write(chunk)) end
    local answer = connection:read_response()
    assert.equal(413, answer.status)
    assert.equal("request_too_large", cjson.decode(answer.body).error.code)
    for _ = 1, 3 do assert(connection:write(chunk)) end -- no reset, which could take it back
  end)

  it("outlives whatever is sent to it instead of a handshake", function()
    local gw = start_listener(answering_plainly())
    local hello = "\22\3\1\2\0\1\0\1\252\3\3"
    for _, bytes in ipairs({ "", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\22", hello, "\0\0\0\0",
      hello .. ("\255"):rep(600), ("x"):rep(100000), "\128\46\1\3\1\0\21\0\0\0\16",
      "\21\3\1\0\2\2\40" }) do
      for _, leave in ipairs({ "close", "reset", "shutdown" }) do
        local connection = support.connect(gw)
        connection:write(bytes)
        connection[leave](connection)
        if leave == "shutdown" then assert.truthy(connection:wait_closed(5)) end
      end
    end
    assert.equal(200, gw:chat({ tls = {} }).status)
  end)

  it("does not wait for ever for a handshake", function()
    local gw = start_listener(answering_plainly())
    local silent, half = support.connect(gw), support.connect(gw)
    half:write("\22\3\1\2\0\1")
    assert.truthy(silent:wait_closed(5))
    assert.truthy(half:wait_closed(5))
  end)

  it("does not start with broken files, and says which", function()
    local others, files = other_certificates(), listener_files()
    local folder = support.make_folder()
    local function write(name, text) support.write_file(folder .. "/" .. name, text) end
    write("fallback.lua", support.read_file("policies/fallback.lua"))
    write("gateway.lua", CONFIG:format(LISTEN, 'p = { url = "http://a.test" }',
      '{ provider = "p" }'))
    local cases = {
      { nil, files["server.key"], "/server.pem" },
      { files["server.pem"], nil, "/server.key" },
      { "", files["server.key"], "/server.pem" },
      { files["server.key"], files["server.key"], "/server.pem" },
      { files["server.pem"], files["server.pem"], "/server.key" },
      { files["server.pem"]:sub(1, 100), files["server.key"], "/server.pem" },
      { files["server.pem"], support.read_file(others .. "/other.key"), "/server.key" },
      { support.read_file(others .. "/other.pem"),
        support.read_file(others .. "/encrypted.key"), "/server.key" },
    }
    for number, case in ipairs(cases) do
      os.remove(folder .. "/server.pem")
      os.remove(folder .. "/server.key")
      if case[1] then write("server.pem", case[1]) end
      if case[2] then write("server.key", case[2]) end
      for _, command in ipairs({ { "check", folder },
        { "run", folder, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0" } }) do
        local result = support.perilune(command)
        assert.equal(1, result.status, number .. result.stderr)
        assert.truthy(result.stderr:find("gateway.lua: listen.tls: ", 1, true), result.stderr)
        assert.truthy(result.stderr:find(folder .. case[3], 1, true), result.stderr)
        assert.equal(1, select(2, result.stderr:gsub("\n", "")), result.stderr)
      end
    end
  end)

  it("sends on to TLS upstreams, too", function()
    local up = answering_over_tls(function(request) return 200, request.body end)
    local gw = start({ { up, TRUSTED } }, { listen = LISTEN, files = listener_files() })
    local body = ("x"):rep(1000000)
    local answer = gw:request({ path = "/v1/files", body = body, tls = {},
      headers = { ["Content-Type"] = "application/octet-stream" } })
    assert.is_true(answer.body == body)
  end)
end)
