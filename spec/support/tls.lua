--- Certificates for specs: one authority and one server certificate (127.0.0.1, localhost,
-- upstream.test), made by openssl once and valid for a day; and what lua-sec wants to hear of them.

local process = require "support.process"

local tls = {}

local made

local SCRIPT = [[
set -e
cd "$0"
new_key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new_key -keyout ca.key -out ca.pem -days 1 -subj "/CN=Perilune specs" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req $new_key -keyout server.key -out server.csr -subj "/CN=upstream.test"
cat > server.ext <<END
subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:upstream.test
END
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
  -extfile server.ext -out server.pem
]]

--- Paths of the files: ca, cert, key. Made when first asked for.
function tls.files()
  if not made or not process.read_file(made.ca) then
    local folder = process.make_folder()
    local result = process.run({ "sh", "-c", SCRIPT, folder })
    if result.status ~= 0 then
      error("openssl could not make certificates: " .. result.stderr, 2)
    end
    made = {
      ca = folder .. "/ca.pem",
      cert = folder .. "/server.pem",
      key = folder .. "/server.key",
    }
  end
  return made
end

--- For `upstream.start(handler, { tls = tls.server() })`.
function tls.server()
  local files = tls.files()
  return { mode = "server", protocol = "any", certificate = files.cert, key = files.key,
    options = "all" }
end

--- For a client; the server is verified against `options.cafile`, by default the specs' own.
function tls.client(options)
  return { mode = "client", protocol = "any", cafile = options.cafile or tls.files().ca,
    verify = "peer", options = "all" }
end

return tls
