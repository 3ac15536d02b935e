--- What system specs are made of. On one page: scripted upstreams, the real gateway, a raw client.
--
--     local support = require "support"
--
--     describe("failover", function()
--       after_each(support.finish)
--
--       it("goes to the next target on 503", function()
--         local bad = support.answering(function() return 503, { error = {} } end)
--         local good = support.answering(function() return 200, { ok = true } end)
--         local gw = support.gateway({ config = CONFIG:format(bad.url, good.url) })
--         assert.equal(200, gw:chat().status)
--       end)
--     end)
--
-- Upstreams and clients run in this process and take turns whenever one of them waits. What blocks
-- the process (os.execute, io.popen) stops them all: use `support.run` for programs.

local client = require "support.client"
local gateway = require "support.gateway"
local process = require "support.process"
local sched = require "support.sched"
local stream = require "support.stream"
local tls = require "support.tls"
local upstream = require "support.upstream"

local support = {
  --- Starts `perilune run`; see gateway.start.
  gateway = gateway.start,
  --- Starts `perilune sim`; see gateway.start_sim.
  sim = gateway.start_sim,
  --- Runs a command of the binary to its end: status, stdout, stderr.
  perilune = gateway.run,
  --- Path of the binary.
  BINARY = gateway.BINARY,

  --- A scripted upstream; the handler gets each connection.
  upstream = upstream.start,
  --- An upstream that answers each request by a function.
  answering = upstream.answering,
  --- A port that nobody listens on, and one that a program can be told to listen on.
  refused_port = upstream.refused_port,
  free_port = upstream.free_port,

  --- A raw connection to a port.
  connect = client.connect,
  --- One request on a connection of its own.
  request = client.request,
  --- One chat completion.
  chat = client.chat,

  --- Starts any program in the background.
  start = process.start,
  --- Runs any program to its end while upstreams go on.
  run = process.run,
  --- A new folder, removed at the end.
  make_folder = process.make_folder,
  read_file = process.read_file,
  write_file = process.write_file,

  --- Certificates: ca, cert, key; and the `tls` option of an upstream.
  certificates = tls.files,
  server_tls = tls.server,

  --- Runs a function at the same time.
  spawn = sched.spawn,
  --- Waits for a condition: wait_until("two requests", function() return #up.requests == 2 end).
  wait_until = sched.wait_until,
  now = sched.now,
}

--- Runs functions at the same time and waits for all.
-- @treturn {any,...} what each returned
function support.together(functions, timeout_s)
  local results, done_count = {}, 0
  for index, run in ipairs(functions) do
    sched.spawn("task " .. index, function()
      results[index] = run(index)
      done_count = done_count + 1
    end)
  end
  sched.wait_until(("the end of %d tasks"):format(#functions), function()
    return done_count == #functions
  end, timeout_s or 30)
  return results
end

--- Ends everything that a spec has started: give it to after_each. Raises when a process crashed,
-- did not end, or was reported by a sanitizer, and when a task failed unheard.
function support.finish()
  stream.close_all()
  upstream.stop_all()
  local tasks_ok, task_error = pcall(sched.finish)
  process.stop_all()
  if not tasks_ok then
    error(task_error, 0)
  end
end

return support
