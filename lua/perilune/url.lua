--- URLs of upstreams and addresses to listen on: strict readers for the two forms that the
-- configuration knows. Pure. Error texts never repeat the URL, which may hold a password.

local url = {}

local DEFAULT_PORT = { http = 80, https = 443 }
local MAX_URL_BYTES = 2048
local MAX_SOCKET_PATH_BYTES = 107 -- of sockaddr_un
local MAX_HOST_BYTES = 253
local MAX_LABEL_BYTES = 63
local ADDRESS_EXPECTED = 'must be "address:port", such as "127.0.0.1:8080" or "[::1]:8080"'

local function invalid(detail)
  return nil, "invalid", detail
end

local function is_ipv4(text)
  local count = 0
  for part in (text .. "."):gmatch("(.-)%.") do
    count = count + 1
    local plain = part:find("^%d%d?%d?$") and (part == "0" or part:byte() ~= 48) -- 010 is not 10
    if not plain or tonumber(part) > 255 then return false end
  end
  return count == 4
end

--- Count the 16-bit groups of one side of "::"; nil when one of them is broken.
local function ipv6_groups(text)
  if text == "" then return 0 end
  local count = 0
  local head, ipv4 = text:match("^(.-)([%d]+%.[%d.]+)$")
  if ipv4 then
    if not is_ipv4(ipv4) or not (head == "" or head:find(":$")) then return nil end
    count, text = 2, head:sub(1, -2)
    if text == "" then return head == "" and count or nil end
  end
  for group in (text .. ":"):gmatch("(.-):") do
    if not group:find("^%x%x?%x?%x?$") then return nil end
    count = count + 1
  end
  return count
end

local function is_ipv6(text)
  local left, right = text:match("^(.-)::(.*)$")
  if not left then return ipv6_groups(text) == 8 end
  if right:find("::", 1, true) or left:find(".", 1, true) then return false end
  local left_count, right_count = ipv6_groups(left), ipv6_groups(right)
  return left_count ~= nil and right_count ~= nil and left_count + right_count <= 7
end

--- Whether a text is a host name or a dotted IPv4 address. Underscores are allowed: container
-- names have them. A name that ends in a number and is no address (127.1, 0x7f.1) is refused,
-- because resolvers read such names as addresses.
-- @tparam string text
-- @treturn boolean
function url.is_host(text)
  if #text == 0 or #text > MAX_HOST_BYTES then return false end
  local last
  for label in (text .. "."):gmatch("(.-)%.") do
    local shaped = label:find("^[%w_][%w_-]*$") and not label:find("-$")
    if not shaped or #label > MAX_LABEL_BYTES then return false end
    last = label
  end
  if last:find("^%d+$") or last:find("^0[xX]%x*$") then return is_ipv4(text) end
  return true
end

local function read_port(text, lowest)
  local port = text:find("^%d%d?%d?%d?%d?$") and tonumber(text)
  if port and port >= lowest and port <= 65535 then return port end
  return nil
end

local function read_path(text)
  if text:find("[^%w%-%._~!$&'()*+,;=:@/%%]") then
    return invalid("has a path with a character that must be percent-encoded")
  end
  if text:gsub("%%%x%x", ""):find("%%") then
    return invalid('has a path with a "%" that is not followed by two hexadecimal digits')
  end
  for segment in text:gmatch("/([^/]*)") do
    if segment == "." or segment == ".." then
      return invalid('has a path with a "." or ".." segment')
    end
  end
  return (text:gsub("/+$", ""))
end

--- Split "host", "host:port", "[v6]" or "[v6]:port" into the host and the text of the port.
local function read_authority(authority)
  if authority == "" or authority:find("^:[^:]*$") then return invalid("has no host") end
  local bracketed, after = authority:match("^%[(.-)%](.*)$")
  if bracketed then
    if not is_ipv6(bracketed) then return invalid("has a broken IPv6 address in brackets") end
    if after ~= "" and not after:find("^:") then
      return invalid('has something other than ":port" after the brackets')
    end
    return bracketed:lower(), after
  end
  local host, rest = authority:match("^([^:]*)(.*)$")
  if rest:find(":", 2, true) then
    return invalid('has an IPv6 address without brackets: write "http://[::1]:8000"')
  end
  if not url.is_host(host) then return invalid("has a host that is not a valid name or address") end
  return host:lower(), rest
end

local function refuse_parts(rest, authority)
  if rest:find("[%z\1-\32\127-\255]") then
    return "must not hold spaces, control characters or non-ASCII characters"
  end
  if authority:find("@", 1, true) then
    return "must not hold a user name or password: use key or headers for credentials"
  end
  if rest:find("#", 1, true) then return 'must not have a fragment ("#")' end
  if rest:find("?", 1, true) then return 'must not have a query ("?")' end
  return nil
end

--- Read the base URL of an upstream.
-- @param text "http://host:port/path" or https; an IPv6 address in brackets
-- @treturn[1] table { text, scheme, tls (boolean), host (lower case, no brackets), port, path };
-- text and path are without trailing slash, so that the path may be ""
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function url.parse(text)
  if type(text) ~= "string" or text == "" then
    return invalid('must be a URL such as "https://api.example.com/v1"')
  end
  if #text > MAX_URL_BYTES then
    return invalid(("must be at most %d bytes long"):format(MAX_URL_BYTES))
  end
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  scheme = scheme and scheme:lower()
  if not DEFAULT_PORT[scheme or ""] then return invalid("must start with http:// or https://") end

  local authority, path = rest:match("^([^/?#]*)([^?#]*)")
  local refusal = refuse_parts(rest, authority)
  if refusal then return invalid(refusal) end
  local host, port_text, detail = read_authority(authority)
  if not host then return nil, port_text, detail end
  local port = port_text == "" and DEFAULT_PORT[scheme] or read_port(port_text:sub(2), 1)
  if not port then return invalid("has a port that is not a number from 1 to 65535") end
  local code
  path, code, detail = read_path(path)
  if not path then return nil, code, detail end
  return {
    text = (text:gsub("/+$", "")), scheme = scheme, tls = scheme == "https",
    host = host, port = port, path = path,
  }
end

--- Read an address to listen on: a numeric address (or "localhost") and a port; port 0 lets the
-- system choose.
-- @param text "127.0.0.1:8080", "[::]:8080" or "localhost:8080"
-- @treturn[1] table { address (numeric, without brackets), port }
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function url.address(text)
  if type(text) ~= "string" then return invalid(ADDRESS_EXPECTED) end
  local host, port_text = text:match("^(.*):([^:%]]*)$")
  if not host then return invalid(ADDRESS_EXPECTED) end
  local bracketed = host:match("^%[(.*)%]$")
  if host == "localhost" then host = "127.0.0.1" end
  if not bracketed and is_ipv6(host) then
    return invalid('needs brackets around the IPv6 address: write "[::1]:8080"')
  end
  if not (bracketed and is_ipv6(bracketed) or is_ipv4(host)) then
    return invalid(ADDRESS_EXPECTED .. " with a numeric address")
  end
  local port = read_port(port_text, 0)
  if not port then return invalid("has a port that is not a number from 0 to 65535") end
  return { address = bracketed and bracketed:lower() or host, port = port }
end

--- Read an address of the admin listener: as `url.address`, or a unix socket.
-- @param text "127.0.0.1:9901" or "unix:/run/perilune.sock"
-- @treturn[1] table { address, port }; of a socket { address = "unix:/...", port = 0 }
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string what is wrong, to be put after the name of the option
function url.admin_address(text)
  local path = type(text) == "string" and text:match("^unix:(.*)$")
  if not path then return url.address(text) end
  if not path:find("^/") or path:find("[%z\1-\31\127]") then
    return invalid('must have an absolute path after "unix:"')
  end
  if #path > MAX_SOCKET_PATH_BYTES then
    return invalid(("must have a path of at most %d bytes"):format(MAX_SOCKET_PATH_BYTES))
  end
  return { address = text, port = 0 }
end

--- Whether only this machine can reach an address.
-- @tparam string address numeric, as `url.address` gives it
-- @treturn boolean
function url.is_loopback(address)
  if address:find("^unix:") then return true end
  if is_ipv4(address) then return address:find("^127%.") ~= nil end
  return address:find("^[0:]*:0*1$") ~= nil or address:find("^[0:]*:ffff:127%.") ~= nil
end

return url
