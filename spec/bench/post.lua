-- wrk's script: posts one chat request over and over and prints the numbers in one line.
-- BENCH_MODEL is the model asked for, and so the gateways' route; BENCH_HEADER, "name: value",
-- adds a header. Requests per second are those answered well.
-- luacheck: globals wrk done

local model = os.getenv("BENCH_MODEL") or "bench-model"
local header = os.getenv("BENCH_HEADER")

wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-bench"
if header then
  local name, value = header:match("^([^:]+):%s*(.*)$")
  wrk.headers[name] = value
end
wrk.body = '{"model":"' .. model .. '","temperature":0.7,"max_tokens":256,"messages":['
  .. '{"role":"system","content":"You are a helpful assistant. Answer in one sentence."},'
  .. '{"role":"user","content":"Is the far side of the Moon dark all the time, or does it have '
  .. 'days and nights like the near side?"}],"user":"bench-user-0001"}'

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format("bench rps=%.1f p50_us=%d p99_us=%d requests=%d failed=%d",
    (summary.requests - errors.status) * 1e6 / summary.duration, latency:percentile(50),
    latency:percentile(99), summary.requests, errors.status + broken))
end
