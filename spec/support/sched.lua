--- Cooperative scheduler for specs: scripted upstreams and clients at the same time, in one thread.
--
-- A spec's own code and the tasks it spawns wait through `sched.wait` for a socket or for a
-- condition, always with a deadline. A task yields meanwhile; the spec's own code runs the loop, so
-- that all tasks go on while it waits. Nothing ever sleeps for a fixed time.
--
-- An error in a task is raised in the spec's own code, at its next wait or in `sched.finish`.

local socket = require "socket"

local sched = {}

--- How often conditions that are not sockets (a file, a table) are looked at.
local POLL_S = 0.005

local tasks = {} -- coroutine -> { name, waiter }
local failure -- { message } of the first task that failed

sched.now = socket.gettime

--- Deadlines are multiplied by this: slow builds (sanitizers) need longer.
sched.patience = tonumber(os.getenv("PERILUNE_SPEC_PATIENCE")) or 1

local function is_ready(waiter)
  return waiter.ready or (waiter.check and waiter.check()) or false
end

local function is_over(waiter, now)
  return is_ready(waiter) or now >= waiter.deadline
end

local function collect(waiter, sets)
  if waiter.read then
    sets.read[#sets.read + 1] = waiter.read
    sets.owners[waiter.read] = sets.owners[waiter.read] or {}
    table.insert(sets.owners[waiter.read], waiter)
  end
  if waiter.write then
    sets.write[#sets.write + 1] = waiter.write
    sets.writers[waiter.write] = sets.writers[waiter.write] or {}
    table.insert(sets.writers[waiter.write], waiter)
  end
  if waiter.check then
    sets.until_s = math.min(sets.until_s, sched.now() + POLL_S)
  end
  sets.until_s = math.min(sets.until_s, waiter.deadline)
end

local function mark(ready, owners)
  for _, sock in ipairs(ready) do
    for _, waiter in ipairs(owners[sock] or {}) do
      waiter.ready = true
    end
  end
end

local function resume(thread, task)
  local ok, value = coroutine.resume(thread)
  if not ok then
    tasks[thread] = nil
    if type(value) == "string" then
      value = ("in %s: %s"):format(task.name, value)
    end
    failure = failure or { message = value }
  elseif coroutine.status(thread) == "dead" then
    tasks[thread] = nil
  else
    task.waiter = value
  end
end

local function run_tasks()
  local now = sched.now()
  local due = {}
  for thread, task in pairs(tasks) do
    if not task.waiter or is_over(task.waiter, now) then
      due[#due + 1] = thread
    end
  end
  for _, thread in ipairs(due) do
    if tasks[thread] then
      resume(thread, tasks[thread])
    end
  end
  return #due > 0
end

--- One turn of the loop: waits for sockets until something is due, then runs what is.
local function turn(waiter)
  local sets = { read = {}, write = {}, owners = {}, writers = {}, until_s = math.huge }
  collect(waiter, sets)
  for _, task in pairs(tasks) do
    if task.waiter then
      collect(task.waiter, sets)
    end
    if not task.waiter or task.waiter.ready then
      sets.until_s = 0
    end
  end
  local readable, writable = socket.select(sets.read, sets.write,
    math.max(0, sets.until_s - sched.now()))
  mark(readable, sets.owners)
  mark(writable, sets.writers)
  run_tasks()
end

local function raise_failure()
  if failure then
    local message = failure.message
    failure = nil
    error(message, 0)
  end
end

local function wait_in_main(waiter)
  while not is_over(waiter, sched.now()) do
    turn(waiter)
    raise_failure()
  end
end

--- Waits until one of the conditions holds.
-- @tparam table what read = socket, write = socket, check = function; at least one
-- @tparam number timeout_s how long at most
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string "timeout"
function sched.wait(what, timeout_s)
  local waiter = {
    read = what.read,
    write = what.write,
    check = what.check,
    deadline = sched.now() + timeout_s * sched.patience,
  }
  local thread = coroutine.running()
  if thread and tasks[thread] then
    coroutine.yield(waiter)
  else
    wait_in_main(waiter)
  end
  if is_ready(waiter) then
    return true
  end
  return nil, "timeout"
end

--- Waits until `check()` is true; raises an error that says what was awaited.
-- @treturn any what check returned
function sched.wait_until(description, check, timeout_s)
  timeout_s = timeout_s or 10
  local value
  local ok = sched.wait({ check = function()
    value = check()
    return value
  end }, timeout_s)
  if not ok then
    error(("waited %g s in vain for: %s"):format(timeout_s * sched.patience, description), 0)
  end
  return value
end

--- Ends the tasks' waits for a socket that this side has closed: select would never tell.
function sched.wake(sock)
  for _, task in pairs(tasks) do
    local waiter = task.waiter
    if waiter and (waiter.read == sock or waiter.write == sock) then
      waiter.ready = true
    end
  end
end

--- Starts a task; it first runs when somebody waits.
function sched.spawn(name, run)
  tasks[coroutine.create(run)] = { name = name }
end

--- Drops all tasks, then raises the error of a task that nobody has heard of.
function sched.finish()
  tasks = {}
  raise_failure()
end

return sched
