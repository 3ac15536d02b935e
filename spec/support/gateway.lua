--- The real binary for specs: `perilune run` and `perilune sim`, on ports of the system's choice.

local client = require "support.client"
local process = require "support.process"

local gateway = {}

gateway.BINARY = os.getenv("PERILUNE_BIN") or "build/perilune"

--- The shipped default policy comes along, unless the spec has one of its own.
local function write_policies(folder, options)
  process.write_file(folder .. "/gateway.lua", options.config)
  process.write_file(folder .. "/fallback.lua", process.read_file("policies/fallback.lua"))
  for name, source in pairs(options.policies or {}) do
    process.write_file(("%s/%s.lua"):format(folder, name), source)
  end
  for name, text in pairs(options.files or {}) do
    process.write_file(folder .. "/" .. name, text)
  end
end

local Gateway = {}

--- A process (signal, stop, kill, wait_exit, wait_log, stderr...) with more methods of its own.
local function extend(handle, methods)
  local base = getmetatable(handle).__index
  return setmetatable(handle, {
    __index = function(_, key)
      return methods[key] or base[key]
    end,
  })
end

--- Writes a file of its policies folder, for a reload.
function Gateway:write_policy(name, source)
  process.write_file(("%s/%s.lua"):format(self.folder_of_policies, name), source)
end

--- One request to the gateway; see client.request.
function Gateway:request(options)
  options.to = self
  return client.request(options)
end

--- One chat completion; see client.chat.
function Gateway:chat(options)
  options = options or {}
  options.to = self
  return client.chat(options)
end

--- One request to the admin listener, which serves its own names only.
function Gateway:admin(options)
  options.to = self.admin_port
  options.host = options.host or "127.0.0.1:" .. self.admin_port
  return client.request(options)
end

--- Starts a gateway and waits until it listens.
-- @tparam table options config (source of gateway.lua), policies = {name = source},
--   files = {name = text}, or folder (of policies that exist); env, args, workers, prelude
-- @treturn Process with url, port, admin_url, admin_port, folder_of_policies; request(), chat(),
--   admin(), write_policy()
function gateway.start(options)
  local folder = options.folder or process.make_folder()
  if options.config then
    write_policies(folder, options)
  end
  local command = { gateway.BINARY, "run", folder, "--listen", "127.0.0.1:0",
    "--admin", "127.0.0.1:0", "--workers", options.workers or 2 }
  for _, argument in ipairs(options.args or {}) do
    command[#command + 1] = argument
  end
  local self = process.start({
    command = command,
    env = options.env,
    prelude = options.prelude,
    expects_failure = options.expects_failure,
    name = "perilune run",
  })
  local port, admin_port = self:wait_output("stdout",
    "perilune: listening on %S-:(%d+), admin on %S-:(%d+)")
  self.port, self.admin_port = tonumber(port), tonumber(admin_port)
  self.scheme = options.scheme or "http"
  self.url = ("%s://127.0.0.1:%s"):format(self.scheme, port)
  self.admin_url = "http://127.0.0.1:" .. admin_port
  self.folder_of_policies = folder
  return extend(self, Gateway)
end

--- Starts a simulated provider and waits until it listens.
-- @tparam {string,...} arguments of `perilune sim`, without --port; field `port` asks for one
-- @treturn Process with url, port; request(), chat()
function gateway.start_sim(arguments)
  local command = { gateway.BINARY, "sim", "--port", arguments.port or 0 }
  for _, argument in ipairs(arguments) do
    command[#command + 1] = argument
  end
  local self = process.start({ command = command, name = "perilune sim" })
  self.port = tonumber((self:wait_output("stdout", "perilune sim: listening on %S-:(%d+)")))
  self.url = "http://127.0.0.1:" .. self.port
  return extend(self, { request = Gateway.request, chat = Gateway.chat })
end

--- Runs a command of the binary to its end: gateway.run{"check", folder}.
function gateway.run(arguments, options)
  return process.run({ gateway.BINARY, unpack(arguments) }, options)
end

return gateway
