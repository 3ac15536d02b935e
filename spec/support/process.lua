--- Processes of specs: started in the background, watched, and never left behind.
--
-- Each runs under spec/support/supervise, which keeps what it prints and its exit status in files,
-- and kills it when this process ends, however it ends. A process that crashes, or that a sanitizer
-- has something to say about, fails the spec (see `process.stop_all`).

local sched = require "support.sched"

local Process = {}
Process.__index = Process

local process = {}

local START_TIMEOUT_S = 10
local STOP_TIMEOUT_S = 20

--- What must never be on stderr, whatever the exit status.
local REPORTS = {
  "ERROR: %a+Sanitizer", "WARNING: %a+Sanitizer", "runtime error: ", "Assertion .- failed",
  "stack smashing detected", "PANIC: unprotected error", "double free or corruption",
  "malloc%(%): ", "free%(%): invalid",
}

local running = {}

local function quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

process.quote = quote

--- Text of a file, or nil.
function process.read_file(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text
end

function process.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  assert(file:close())
end

local folders = {}

--- A new empty folder; removed by `process.stop_all`.
function process.make_folder()
  local pipe = assert(io.popen("mktemp -d"))
  local path = assert(pipe:read("*l"), "mktemp failed")
  pipe:close()
  folders[#folders + 1] = path
  return path
end

local function command_line(options, folder)
  local words = { "exec", "spec/support/supervise", quote(folder), "env" }
  local names = {}
  for name in pairs(options.env or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    words[#words + 1] = quote(name .. "=" .. options.env[name])
  end
  for _, argument in ipairs(options.command) do
    words[#words + 1] = quote(argument)
  end
  return table.concat(words, " ")
end

--- Starts a program.
-- @tparam table options command = {path, argument...}, env = {NAME = value}, name for messages,
--   prelude = shell text run before it ("ulimit -n 64"), expects_failure = any exit status is well
-- @treturn Process
function process.start(options)
  local folder = process.make_folder()
  local line = command_line(options, folder)
  if options.prelude then
    line = options.prelude .. " && " .. line
  end
  local self = setmetatable({
    name = options.name or options.command[1],
    folder = folder,
    pipe = assert(io.popen(line, "w")),
    expects_failure = options.expects_failure or false, -- any exit status is well
    was_asked = false,
    was_killed = false,
  }, Process)
  running[self] = true
  local pid = sched.wait_until("a process id of " .. self.name, function()
    return process.read_file(folder .. "/pid")
  end, START_TIMEOUT_S)
  self.pid = tonumber(pid)
  return self
end

--- What it has printed so far.
function Process:stdout()
  return process.read_file(self.folder .. "/stdout") or ""
end

function Process:stderr()
  return process.read_file(self.folder .. "/stderr") or ""
end

local function tail(text)
  return #text > 4000 and "..." .. text:sub(-4000) or text
end

--- Exit status (128 + n after signal n), or nil while it runs.
function Process:exit_status()
  if not self.status then
    self.status = tonumber(process.read_file(self.folder .. "/status") or "")
    if self.status then
      self.pipe:close()
    end
  end
  return self.status
end

--- Waits for its end.
-- @treturn number exit status
function Process:wait_exit(timeout_s)
  return sched.wait_until("the end of " .. self.name, function()
    return self:exit_status()
  end, timeout_s or STOP_TIMEOUT_S)
end

--- Waits until its stdout ("stdout") or its log on stderr ("stderr") has a match; raises when it
-- ends first.
-- @treturn string the captures, or the whole match
function Process:wait_output(which, pattern, timeout_s)
  local captures
  sched.wait_until(("%q on the %s of %s; it says:\n%s"):format(pattern, which, self.name,
    tail(self:stderr())), function()
    captures = { self[which](self):match(pattern) }
    if #captures == 0 and self:exit_status() then
      captures = { self[which](self):match(pattern) }
      if #captures == 0 then
        error(("%s ended with status %d before it said %q; it says:\n%s"):format(self.name,
          self.status, pattern, tail(self:stdout() .. self:stderr())), 0)
      end
    end
    return #captures > 0
  end, timeout_s or START_TIMEOUT_S)
  return unpack(captures)
end

--- Waits for a line of its log.
function Process:wait_log(pattern, timeout_s)
  return self:wait_output("stderr", pattern, timeout_s)
end

--- Sends a signal ("TERM", "HUP", "KILL"...); nothing happens when it has ended.
function Process:signal(name)
  self.was_killed = self.was_killed or name == "KILL"
  self.was_asked = self.was_asked or name == "TERM" or name == "INT"
  if not self:exit_status() then
    os.execute(("kill -%s %d 2>/dev/null"):format(name, self.pid))
  end
end

--- Kills it at once, as a crash of the machine would.
function Process:kill()
  self:signal("KILL")
  self:wait_exit()
  running[self] = nil
end

local function problem_of(self)
  local stderr = self:stderr()
  for _, pattern in ipairs(REPORTS) do
    if stderr:find(pattern) then
      return ("%s reported:\n%s"):format(self.name, tail(stderr))
    end
  end
  if self.status ~= 0 and not self.was_killed and not self.expects_failure then
    return ("%s ended with status %d; it says:\n%s"):format(self.name, self.status, tail(stderr))
  end
  return nil
end

--- Asks it to end, waits, and raises when it did not end well.
-- @treturn number exit status
function Process:stop()
  running[self] = nil
  if not self.was_asked then
    self:signal("TERM")
  end
  local ended = pcall(self.wait_exit, self)
  if not ended then
    self:signal("KILL")
    self:wait_exit()
    error(("%s did not end within %d s of SIGTERM; it says:\n%s"):format(self.name,
      STOP_TIMEOUT_S, tail(self:stderr())), 0)
  end
  local problem = problem_of(self)
  if problem then
    error(problem, 0)
  end
  return self.status
end

--- Ends all processes and removes the temporary folders; raises when one did not end well.
function process.stop_all()
  local problem
  for self in pairs(running) do
    self:signal("TERM") -- all at once, so that the waits overlap
  end
  for self in pairs(running) do
    local ok, reason = pcall(self.stop, self)
    problem = problem or (not ok and reason) or nil
  end
  running = {}
  for _, folder in ipairs(folders) do
    os.execute("rm -rf " .. quote(folder))
  end
  folders = {}
  if problem then
    error(problem, 0)
  end
end

--- Runs a program to its end while upstreams and other tasks go on.
-- @tparam {string,...} command
-- @tparam[opt] table options env, timeout_s, prelude
-- @treturn table status, stdout, stderr
function process.run(command, options)
  options = options or {}
  local self = process.start({
    command = command,
    env = options.env,
    prelude = options.prelude,
    name = table.concat(command, " "),
  })
  self:wait_exit(options.timeout_s)
  running[self] = nil
  return { status = self.status, stdout = self:stdout(), stderr = self:stderr() }
end

return process
