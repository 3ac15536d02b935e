local url = require "perilune.url"

local function refusal(text)
  local result, code, detail = url.parse(text)
  assert.is_nil(result, tostring(text))
  assert.are.equal("invalid", code)
  return detail
end

describe("url.parse", function()
  it("splits a URL", function()
    assert.are.same({
      text = "http://127.0.0.1:8000/v1", scheme = "http", tls = false, host = "127.0.0.1",
      port = 8000, path = "/v1",
    }, url.parse("http://127.0.0.1:8000/v1"))
    assert.are.same({
      text = "https://api.example.com", scheme = "https", tls = true, host = "api.example.com",
      port = 443, path = "",
    }, url.parse("https://api.example.com"))
  end)

  it("knows the default ports", function()
    assert.are.equal(80, url.parse("http://h/").port)
    assert.are.equal(443, url.parse("https://h").port)
    assert.are.equal(65535, url.parse("http://h:65535").port)
  end)

  it("drops slashes at the end and lowers scheme and host", function()
    local parsed = url.parse("HTTPS://API.Example.COM/V1//")
    assert.are.equal("api.example.com", parsed.host)
    assert.are.equal("/V1", parsed.path)
    assert.is_true(parsed.tls)
    assert.are.equal("", url.parse("http://h/").path)
  end)

  it("takes the brackets off an IPv6 address", function()
    for text, host in pairs {
      ["http://[::1]:8000/v1"] = "::1", ["http://[::]"] = "::", ["http://[FE80::1]"] = "fe80::1",
      ["http://[1:2:3:4:5:6:7:8]"] = "1:2:3:4:5:6:7:8", ["http://[::ffff:10.0.0.1]"] =
      "::ffff:10.0.0.1", ["http://[1::8]"] = "1::8", ["http://[1:2:3:4:5:6:1.2.3.4]"] =
      "1:2:3:4:5:6:1.2.3.4", ["http://[::1.2.3.4]"] = "::1.2.3.4",
    } do
      assert.are.equal(host, assert(url.parse(text), text).host)
    end
    assert.are.equal(8000, url.parse("http://[::1]:8000/v1").port)
  end)

  it("refuses broken IPv6 addresses", function()
    for _, host in ipairs {
      "", ":", ":::", "1", "1:2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::",
      "g::", "fe80::1%25eth0", "1:2:3:4:5:6:7::8:9", "::1.2.3", "::1.2.3.256", "1.2.3.4::",
      "1:2:3:4:5:6:7:1.2.3.4", "1:", ":1", "::1.2.3.4:5", "1.2.3.4", "::a1.2.3.4",
    } do
      assert.are.equal("has a broken IPv6 address in brackets", refusal("http://[" .. host .. "]"))
    end
    assert.are.equal('has something other than ":port" after the brackets',
      refusal("http://[::1]8000"))
    assert.are.equal('has an IPv6 address without brackets: write "http://[::1]:8000"',
      refusal("http://::1:8000/v1"))
  end)

  it("accepts host names, container names and IPv4 addresses", function()
    for _, host in ipairs {
      "localhost", "my_service", "a-b.c", "h2o", "10.0.0.255", "x.1a", "0.0.0.0",
    } do
      assert.are.equal(host, url.parse("http://" .. host).host)
    end
  end)

  it("refuses hosts that are not names, or addresses in disguise", function()
    for _, host in ipairs {
      "-a", "a-", "a..b", "a.", ".a", "a$b", "127.1", "0x7f000001", "2130706433", "1.2.3.256",
      "010.0.0.1", "1.2.3.4.5", "a.0x1", ("a"):rep(64), ("a."):rep(127) .. "ab",
    } do
      assert.are.equal("has a host that is not a valid name or address", refusal("http://" .. host))
    end
    assert.are.equal("has no host", refusal("http://"))
    assert.are.equal("has no host", refusal("http:///v1"))
    assert.are.equal("has no host", refusal("http://:80/v1"))
  end)

  it("refuses bad ports", function()
    for _, port in ipairs { "", "0", "65536", "-1", "8x", "000080", "1e3" } do
      assert.are.equal("has a port that is not a number from 1 to 65535",
        refusal("http://h:" .. port .. "/v1"))
    end
  end)

  it("refuses other schemes", function()
    for _, text in ipairs {
      "h/v1", "//h", "ftp://h", "file:///etc/passwd", "https:/h", "http:h", "1://h",
    } do
      assert.are.equal("must start with http:// or https://", refusal(text))
    end
    for _, value in ipairs { "", 5, true, {} } do
      assert.are.equal('must be a URL such as "https://api.example.com/v1"', refusal(value))
    end
    assert.are.equal("must be at most 2048 bytes long", refusal("http://h/" .. ("a"):rep(2048)))
  end)

  it("refuses user, query and fragment, and repeats no credential", function()
    local detail = refusal("https://bob:hunter2@h/v1")
    assert.are.equal(
      "must not hold a user name or password: use key or headers for credentials", detail)
    assert.are.equal('must not have a query ("?")', refusal("http://h/v1?x=1"))
    assert.are.equal('must not have a query ("?")', refusal("http://h?x=1"))
    assert.are.equal('must not have a fragment ("#")', refusal("http://h/v1#x"))
  end)

  it("refuses bytes that do not belong in a URL", function()
    for _, text in ipairs {
      "http://h/a b", "http://h\r\n", "http://h/\0", "http://h/\195\169", "http://h/\127",
    } do
      assert.are.equal("must not hold spaces, control characters or non-ASCII characters",
        refusal(text))
    end
    for _, text in ipairs { "http://h/a\\b", "http://h/a|b", 'http://h/"', "http://h/{x}" } do
      assert.are.equal("has a path with a character that must be percent-encoded", refusal(text))
    end
    assert.are.equal('has a path with a "%" that is not followed by two hexadecimal digits',
      refusal("http://h/a%2"))
    assert.are.equal("/a%2F", url.parse("http://h/a%2F").path)
    for _, text in ipairs { "http://h/../v1", "http://h/a/./b", "http://h/a/.." } do
      assert.are.equal('has a path with a "." or ".." segment', refusal(text))
    end
  end)
end)

describe("url.address", function()
  it("reads a numeric address and a port", function()
    for text, expected in pairs {
      ["0.0.0.0:8080"] = { address = "0.0.0.0", port = 8080 },
      ["127.0.0.1:0"] = { address = "127.0.0.1", port = 0 },
      ["localhost:9901"] = { address = "127.0.0.1", port = 9901 },
      ["[::]:8080"] = { address = "::", port = 8080 },
      ["[FE80::1]:65535"] = { address = "fe80::1", port = 65535 },
    } do
      assert.are.same(expected, url.address(text))
    end
  end)

  it("refuses everything else", function()
    local form = 'must be "address:port", such as "127.0.0.1:8080" or "[::1]:8080"'
    for _, value in ipairs { "127.0.0.1", "8080", "", 8080, false, "[::1]" } do
      assert.are.equal(form, select(3, url.address(value)))
    end
    for _, value in ipairs { ":8080", "*:8080", "example.com:80", "1.2.3:80", "[::g]:80", "[]:80",
      "[127.0.0.1]:80", "localhost.:1", "127.0.0.1 :80" } do
      assert.are.equal(form .. " with a numeric address", select(3, url.address(value)))
    end
    assert.are.equal('needs brackets around the IPv6 address: write "[::1]:8080"',
      select(3, url.address("::1:8080")))
    for _, value in ipairs { "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "[::]:-1" } do
      assert.are.equal("has a port that is not a number from 0 to 65535",
        select(3, url.address(value)))
    end
  end)
end)

describe("url.admin_address", function()
  it("takes a unix socket, too", function()
    assert.are.same({ address = "unix:/run/p.sock", port = 0 },
      url.admin_address("unix:/run/p.sock"))
    assert.are.same({ address = "127.0.0.1", port = 1 }, url.admin_address("127.0.0.1:1"))
    assert.is_true(url.is_loopback("unix:/run/p.sock"))
    local long = "unix:/" .. ("x"):rep(107)
    for _, text in ipairs { "unix:", "unix:p.sock", "unix:/a\nb", long, "x" } do
      local value, code = url.admin_address(text)
      assert.is_nil(value)
      assert.are.equal("invalid", code)
    end
    assert.is_not_nil(url.admin_address("unix:/" .. ("x"):rep(106)))
    assert.are.equal("invalid", select(2, url.admin_address(1)))
  end)
end)

describe("url.is_host", function()
  it("takes names and IPv4 addresses only", function()
    assert.is_true(url.is_host("api.example.com"))
    assert.is_true(url.is_host("10.0.0.1"))
    assert.is_false(url.is_host(""))
    assert.is_false(url.is_host("::1"))
    assert.is_false(url.is_host("a b"))
  end)
end)

describe("url.is_loopback", function()
  it("is true only where no other machine can connect", function()
    for _, address in ipairs { "127.0.0.1", "127.9.9.9", "::1", "0:0:0:0:0:0:0:1", "0000::0001",
      "::ffff:127.0.0.1" } do
      assert.is_true(url.is_loopback(address), address)
    end
    for _, address in ipairs {
      "0.0.0.0", "10.127.0.1", "128.0.0.1", "::", "::11", "1::1", "fe80::1", "::ffff:10.0.0.1",
      "::1:1",
    } do
      assert.is_false(url.is_loopback(address), address)
    end
  end)
end)
