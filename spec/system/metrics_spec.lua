--- GET /metrics: its grammar, what is counted, and what is built on it (dashboard, rules, docs).

local cjson = require "cjson.safe"
local exposition = require "support.exposition"
local support = require "support"

local CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

local CONFIG = [[
return {
  admin = { %s },
  providers = { one = { url = "%s/v1", health = false }, two = { url = "%s/v1", health = false } },
  routes = {
    { name = "list", match = { model = { "gpt-4", "o1-*" } }, policy = "fallback",
      retry = { attempts = 3, per_priority = 1, backoff = { base = "0ms", floor = "0ms" } },
      targets = { { provider = "one", priority = 0 }, { provider = "two", priority = 1 } } },
    { name = "broken", match = { model = "boom" }, policy = "broken",
      targets = { { provider = "two" } } },
  },
}
]]

local BROKEN = [[return function() error("not today") end]]

local ANSWER = { id = "x", object = "chat.completion", model = "m", choices = {},
  usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 } }

--- The metrics, read and checked.
local function scrape(gw, options)
  options = options or {}
  options.path = "/metrics"
  local answer = gw:admin(options)
  assert.equal(200, answer.status)
  assert.equal("complete", answer.ended)
  assert.equal(CONTENT_TYPE, answer.headers["content-type"])
  return exposition.parse(answer.body).families, answer.body
end

--- The metrics once `count` requests have been counted: that is after their clients have read the
-- end of their answers.
local function scrape_after(gw, count)
  local families
  support.wait_until(("%d requests to be counted"):format(count), function()
    families = scrape(gw)
    local requests = families.perilune_requests_total
    return requests:sum() >= count
  end)
  assert.equal(count, families.perilune_requests_total:sum())
  return families
end

--- Two upstreams whose answers a table of functions by number decides.
local function start(answers, options)
  local counts = { 0, 0 }
  local function upstream(number)
    return support.answering(function(request, connection)
      counts[number] = counts[number] + 1
      return answers[number](request, connection, counts[number])
    end)
  end
  local one, two = upstream(1), upstream(2)
  options = options or {}
  local gw = support.gateway({
    config = CONFIG:format(options.admin or "", one.url, two.url),
    policies = { broken = BROKEN },
    workers = options.workers or 2,
    expects_failure = options.expects_failure,
  })
  return gw, counts
end

local function good() return 200, ANSWER end

describe("GET /metrics", function()
  after_each(support.finish)

  it("keeps to the format from the first moment on", function()
    local gw = start({ good, good })
    local families = scrape(gw)
    assert.equal(1, families.perilune_build_info:sum())
    assert.equal(1, families.perilune_generation:sum())
    assert.equal(0, families.perilune_requests_in_flight:sum())
    assert.same({ "one", "two" }, families.perilune_target_state:values("target"))
    assert.equal(2, families.perilune_target_state:sum({ state = "closed" }))
    assert.equal(2, families.perilune_route_targets:sum({ route = "list", state = "fit" }))
    assert.same({ "0", "1" }, families.perilune_vm_memory_bytes:values("worker"))
    support.wait_until("the workers to tell their levels", function()
      return scrape(gw).perilune_vm_memory_bytes:sum({ worker = "1" }) > 10000
    end)
    local head = gw:admin({ path = "/metrics", method = "HEAD" })
    assert.equal(200, head.status)
    assert.equal("", head.body)
    assert.equal(405, gw:admin({ path = "/metrics", method = "POST" }).status)
  end)

  it("asks for the token where there is one", function()
    local gw = start({ good, good }, { admin = "token = 'sixteen-letters-or-more'" })
    assert.equal(401, gw:admin({ path = "/metrics" }).status)
    scrape(gw, { headers = { Authorization = "Bearer sixteen-letters-or-more" } })
  end)

  it("counts each request and each try once, whatever becomes of them", function()
    local statuses = { 503, 429, 200, 500, 200 }
    local gw, counts = start({
      function(_, connection, number)
        local status = statuses[number % #statuses + 1]
        if number % 7 == 0 then
          connection:write("no answer at all\r\n\r\n")
          connection:close()
          return nil
        end
        return status, status == 200 and ANSWER or { error = { message = "no" } }
      end,
      function(_, _, number)
        if number % 3 == 0 then return 400, { error = { message = "your fault" } } end
        return 200, ANSWER
      end,
    })
    local total, by_status, models = 360, {}, { "gpt-4", "o1-mini", "o1-large" }
    local tasks = {}
    for task = 1, 6 do
      tasks[task] = function()
        for number = 1, total / 6 do
          local answer = gw:chat({ model = models[number % 3 + 1] })
          by_status[answer.status] = (by_status[answer.status] or 0) + 1
        end
      end
    end
    support.together(tasks, 60)
    local seen = scrape_after(gw, total)
    local requests, attempts = seen.perilune_requests_total, seen.perilune_attempts_total

    assert.equal(by_status[200], requests:sum({ status_class = "2xx" }))
    assert.equal(by_status[400], requests:sum({ status_class = "4xx" }))
    assert.equal(total, requests:sum({ route = "list" }))
    assert.equal(total / 3, requests:sum({ model = "gpt-4" }))
    assert.equal(total / 3 * 2, requests:sum({ model = "o1-*" }))
    assert.same({ "gpt-4", "o1-*" }, requests:values("model"))
    assert.equal(total, seen.perilune_request_duration_seconds:sum(nil, "_count"))

    assert.equal(counts[1], attempts:sum({ target = "one" }))
    assert.equal(counts[2], attempts:sum({ target = "two" }))
    assert.equal(counts[1] + counts[2],
      seen.perilune_attempt_duration_seconds:sum(nil, "_count"))
    assert.equal(counts[1] + counts[2], seen.perilune_attempt_responses_total:sum())
    assert.equal(counts[1] + counts[2], seen.perilune_attempt_connections_total:sum())
    assert.equal(math.floor(counts[1] / 7), attempts:sum({ target = "one", class = "malformed" }))
    assert.equal(math.floor(counts[2] / 3), attempts:sum({ target = "two",
      class = "client_fault" }))

    assert.equal(counts[1] + counts[2] - total, seen.perilune_retries_total:sum())
    assert.equal(counts[2], seen.perilune_fallbacks_total:sum())
    assert.equal(counts[2] - math.floor(counts[2] / 3), seen.perilune_retry_success_total:sum())
    assert.equal(3 * by_status[200], seen.perilune_tokens_total:sum({ type = "input" }))
    assert.equal(5 * by_status[200], seen.perilune_tokens_total:sum({ type = "output" }))
    assert.equal(0, seen.perilune_policy_errors_total:sum())
    assert.equal(0, seen.perilune_requests_in_flight:sum())
    assert.equal(0, seen.perilune_target_in_flight:sum())
  end)

  it("counts what was refused, has failed, and who has left", function()
    local gw = start({
      function(_, connection)
        connection:wait_closed(10)
        return nil
      end, good }, { expects_failure = true })
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "gpt-4" } })
    support.wait_until("the request to be at work", function()
      local seen = scrape(gw)
      return seen.perilune_target_in_flight:sum({ target = "one" }) == 1
        and seen.perilune_requests_in_flight:sum() == 1
    end)
    connection:reset()
    assert.equal(404, gw:chat({ model = "the client's own \"words\"" }).status)
    assert.equal(400, gw:request({ path = "/v1/chat/completions", body = "{" }).status)
    assert.equal(505, support.request({ to = gw, raw = "GET / HTTP/9.9\r\n\r\n" }).status)
    assert.equal(200, gw:chat({ model = "boom" }).status)
    scrape_after(gw, 5)
    local seen, text = scrape(gw)
    local requests = seen.perilune_requests_total
    assert.equal(1, requests:sum({ route = "list", ["end"] = "client_gone" }))
    assert.equal(3, requests:sum({ route = "none", model = "other", ["end"] = "refused" }))
    assert.equal(1, requests:sum({ route = "broken", model = "boom" }))
    assert.equal(1, seen.perilune_attempts_total:sum({ class = "abandoned" }))
    assert.equal(1, seen.perilune_policy_errors_total:sum({ policy = "broken", kind = "error" }))
    assert.equal(1, seen.perilune_policy_floor_total:sum({ policy = "broken" }))
    assert.is_nil(text:find("words", 1, true))
  end)

  it("has the times of streams", function()
    local function stream(_, connection)
      connection:start_chunked()
      connection:event({ choices = { { index = 0, delta = { content = "a" } } } })
      connection:event({ choices = { { index = 0, delta = { content = "b" } } } })
      connection:event({ choices = {}, usage = { prompt_tokens = 2, completion_tokens = 2 } })
      connection:event("[DONE]")
      connection:finish_chunked()
      return nil
    end
    local gw = start({ stream, stream })
    for _ = 1, 3 do
      assert.equal("complete", gw:chat({ model = "gpt-4", stream = true }).ended)
    end
    local seen = scrape_after(gw, 3)
    local where = { route = "list", target = "one" }
    assert.equal(3, seen.perilune_time_to_first_token_seconds:sum(where, "_count"))
    assert.equal(3, seen.perilune_time_per_output_token_seconds:sum({ target = "one" }, "_count"))
    assert.equal(6, seen.perilune_tokens_total:sum({ target = "one", type = "output" }))
  end)

  it("shows targets that are out, and why", function()
    local gw = start({ good, good })
    local path = "/admin/targets/eject?target=one"
    assert.equal(200, gw:admin({ path = path, method = "POST" }).status)
    local seen = scrape(gw)
    assert.equal(1, seen.perilune_target_state:sum({ target = "one", state = "open" }))
    assert.equal(0, seen.perilune_target_state:sum({ target = "one", state = "closed" }))
    assert.equal(1, seen.perilune_ejections_total:sum({ target = "one", reason = "operator" }))
    assert.equal(1, seen.perilune_route_targets:sum({ route = "list", state = "out" }))
    assert.equal(1, seen.perilune_route_targets:sum({ route = "broken", state = "fit" }))
    gw:chat({ model = "gpt-4" })
    seen = scrape_after(gw, 1)
    assert.equal(1, seen.perilune_attempts_total:sum({ target = "two" }))
    assert.equal(0, seen.perilune_retries_total:sum())
    assert.equal(1, seen.perilune_fallbacks_total:sum({ route = "list" }))
  end)

  it("goes on counting over a reload", function()
    local gw = start({ good, good })
    gw:chat({ model = "gpt-4" })
    scrape_after(gw, 1)
    gw:write_policy("broken", "return function(req) return req:respond(200, {}) end")
    assert.equal(200, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    gw:write_policy("broken", "return function( end")
    assert.equal(422, gw:admin({ path = "/admin/reload", method = "POST" }).status)
    gw:chat({ model = "gpt-4" })
    local seen = scrape_after(gw, 2)
    assert.equal(2, seen.perilune_generation:sum())
    assert.equal(1, seen.perilune_reloads_total:sum({ result = "ok" }))
    assert.equal(1, seen.perilune_reloads_total:sum({ result = "failed" }))
    assert.equal(2, seen.perilune_attempts_total:sum({ target = "one", class = "ok" }))
  end)

  it("writes a long text in pieces, also for readers that are slow or leave", function()
    local up = support.answering(good)
    local gw = support.gateway({ config = ([[
      local targets, routes = {}, {}
      for number = 1, 60 do
        routes[number] = { match = { model = "model-" .. number },
          targets = { { provider = "one", model = ("m"):rep(200) .. number } } }
      end
      return { providers = { one = { url = "%s/v1" } }, routes = routes }
    ]]):format(up.url) })
    for number = 1, 60 do
      assert.equal(200, gw:chat({ model = "model-" .. number }).status)
    end
    scrape_after(gw, 60)
    local fields = { path = "/metrics", headers = { Host = "localhost" } }
    local slow, leaver = support.connect(gw.admin_port), support.connect(gw.admin_port)
    slow:send(fields)
    leaver:send(fields)
    local head = slow:read_head()
    assert.equal("chunked", head.headers["transfer-encoding"])
    leaver:read_head()
    leaver:reset()
    local families, whole = scrape(gw) -- while the slow one has not read on
    assert.is_true(#whole > 400000)
    assert.equal(60, #families.perilune_attempts_total:values("target"))
    local text = head:read_body()
    assert.equal("complete", head.ended)
    assert.equal(60, exposition.parse(text).families.perilune_attempts_total:sum())
    local old = support.request({ to = gw.admin_port, raw = "GET /metrics HTTP/1.0\r\n\r\n" })
    assert.equal(60, exposition.parse(old.body).families.perilune_attempts_total:sum())
  end)

  it("can be off, and then the ring and the access log go on", function()
    local gw = start({ good, good }, { admin = "metrics = false" })
    assert.equal(404, gw:admin({ path = "/metrics" }).status)
    assert.equal(200, gw:chat({ model = "gpt-4" }).status)
    gw:wait_output("stdout", '"gen_ai.usage.output_tokens":5')
    local recent = gw:admin({ path = "/admin/requests/recent" }):json()
    assert.equal(1, #recent.records)
    assert.equal(200, gw:admin({ path = "/admin/summary" }).status)
    local config = support.read_file(gw.folder_of_policies .. "/gateway.lua")
    gw:write_policy("gateway", (config:gsub("metrics = false", "")))
    local reload = gw:admin({ path = "/admin/reload", method = "POST" })
    assert.same({ "admin.metrics" }, reload:json().needs_restart)
  end)

  it("says how the workers are", function()
    local gw = start({ good, good }, { workers = 1 })
    local connection = support.connect(gw)
    connection:send({ path = "/v1/chat/completions", json = { model = "gpt-4" } })
    connection:read_response()
    support.wait_until("the worker to say so", function()
      local seen = scrape(gw).perilune_connections
      return seen:sum({ side = "client" }) == 1 and seen:sum({ side = "upstream_idle" }) == 1
        and seen:sum({ side = "upstream" }) == 0
    end)
  end)
end)

-- ---- what is built on them -----------------------------------------------------------------

local FILES = { "docker/prometheus/rules.yml", "docker/prometheus/rules_test.yml",
  "docker/grafana/dashboards/perilune.json" }

--- The families that a text names, without the suffixes of histograms; recorded series, whose
-- names have colons, are left out.
local function families_named(text, families)
  local named = {}
  for before, name, after in text:gmatch("([%w_:]?)(perilune_[%l_]+)(:?)") do
    if before == "" or not before:match("[%w_:]") then
      local base = name:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", "")
      if after == "" then named[families[name] and name or base] = true end
    end
  end
  return named
end

--- Names in the first column of the tables of docker/README.md, and their labels.
local function documented()
  local labels_of = {}
  for line in support.read_file("docker/README.md"):gmatch("[^\n]+") do
    local names, kind, labels = line:match("^| (`[^|]+) | (%l[%l ]+) | *([^|]-) *|")
    if names and (kind == "counter" or kind == "gauge" or kind == "histogram"
      or kind == "as above") then
      for name in names:gmatch("`([%l_]+)`") do
        labels_of["perilune_" .. name] = { kind = kind, labels = labels }
      end
    end
  end
  return labels_of
end

local function promtool(arguments)
  local command = { "promtool" }
  for _, argument in ipairs(arguments) do command[#command + 1] = argument end
  return support.run(command)
end

local function has_promtool()
  return os.execute("command -v promtool >/dev/null 2>&1") == 0
end

describe("what is built on the metrics", function()
  after_each(support.finish)

  --- All families of a gateway that has served something.
  local function exposed()
    local gw = start({ good, good })
    gw:chat({ model = "gpt-4" })
    scrape_after(gw, 1)
    return scrape(gw)
  end

  it("uses only what is exposed", function()
    local families = exposed()
    for _, file in ipairs(FILES) do
      local count = 0
      for name in pairs(families_named(support.read_file(file), families)) do
        assert.is_truthy(families[name], file .. ": " .. name)
        count = count + 1
      end
      assert.is_true(count >= 10, file)
    end
  end)

  it("is documented, name by name, with type and labels", function()
    local families, described = exposed(), documented()
    for name, family in pairs(families) do
      local row = described[name]
      assert.is_truthy(row, name .. " is not in docker/README.md")
      if row.kind ~= "as above" then
        assert.equal(family.type, row.kind, name)
        for _, label in ipairs(family:label_names()) do
          assert.is_truthy((", " .. row.labels .. ","):find(", " .. label .. ",", 1, true),
            name .. ": label " .. label)
        end
      end
    end
    for name in pairs(described) do
      assert.is_truthy(families[name], name .. " is documented and not there")
    end
  end)

  it("is a dashboard that can be read", function()
    local dashboard = assert(cjson.decode(support.read_file(FILES[3])))
    local ids, count = {}, 0
    for _, panel in ipairs(dashboard.panels) do
      assert.is_nil(ids[panel.id], panel.title)
      ids[panel.id] = true
      local box = panel.gridPos
      assert.is_true(box.x >= 0 and box.w > 0 and box.x + box.w <= 24, panel.title)
      for _, target in ipairs(panel.targets or {}) do
        assert.is_true(#target.expr > 0)
        count = count + 1
      end
    end
    assert.is_true(count > 30)
  end)

  it("names files that are there", function()
    local compose = support.read_file("docker/compose.yaml")
    local count = 0
    for path in compose:gmatch("\n%s+%- (%.%.?/[%w%./_-]+):/") do
      assert.equal(0, os.execute(("test -e 'docker/%s'"):format(path)), path)
      count = count + 1
    end
    assert.equal(4, count)
  end)

  it("passes promtool", function()
    if not has_promtool() then
      pending("promtool is not installed (Debian: apt-get install prometheus)")
      return
    end
    local gw = start({ good, good })
    gw:chat({ model = "gpt-4" })
    scrape_after(gw, 1)
    local folder = support.make_folder()
    support.write_file(folder .. "/metrics", select(2, scrape(gw)))
    local result = support.run({ "sh", "-c", "promtool check metrics <" .. folder .. "/metrics" })
    assert.same({ 0, "" }, { result.status, result.stdout .. result.stderr })
    for _, arguments in ipairs {
      { "check", "config", "docker/prometheus/prometheus.yml" },
      { "check", "rules", "docker/prometheus/rules.yml" },
      { "test", "rules", "docker/prometheus/rules_test.yml" },
    } do
      result = promtool(arguments)
      assert.equal(0, result.status, result.stdout .. result.stderr)
    end
  end)

  it("has queries in the dashboard that promtool can read", function()
    if not has_promtool() then
      pending("promtool is not installed (Debian: apt-get install prometheus)")
      return
    end
    local dashboard = assert(cjson.decode(support.read_file(FILES[3])))
    local lines = { "groups:", "- name: dashboard", "  rules:" }
    for _, panel in ipairs(dashboard.panels) do
      for _, target in ipairs(panel.targets or {}) do
        local query = target.expr:gsub("%$__rate_interval", "1m"):gsub("%$%l+", ".*")
        lines[#lines + 1] = ("  - record: a:b:query%d"):format(#lines)
        lines[#lines + 1] = "    expr: " .. cjson.encode(query):gsub("\\/", "/")
      end
    end
    local folder = support.make_folder()
    support.write_file(folder .. "/rules.yml", table.concat(lines, "\n") .. "\n")
    local result = promtool({ "check", "rules", folder .. "/rules.yml" })
    assert.equal(0, result.status, result.stdout .. result.stderr)
  end)
end)
