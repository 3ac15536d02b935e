--- A scenario: from the text of a file to one checked table, with durations in milliseconds and
-- varying quantities as distributions.
--
-- The text is evaluated like gateway.lua, but with no names at all but its own, then held to the
-- schema. Everything wrong is reported at once, each with its line. Endless loops and memory are
-- for the caller to bound. Pure.

local cjson = require "cjson.safe"
local distribution = require "perilune.simulate.distribution"
local evaluate = require "perilune.config.evaluate"
local faults = require "perilune.simulate.faults"
local locate = require "perilune.config.locate"
local problems = require "perilune.config.problems"
local schema = require "perilune.schema"
local sorted = require "perilune.sorted"
local TYPE = require "perilune.simulate.schema"

local scenario = {}

local at = schema.at
local ROOT = {}
local NONE = {} -- what is read where an optional table is absent; never written
local LATENCIES = { "head", "first_token", "per_token" }

-- Checks of several keys at once; what the schema has refused is absent here ---------------------

local function check_quantity(value, path, report)
  if type(value) ~= "table" or not value.p50 or not value.p99 then return end
  if value.p99 < value.p50 then report(at(path, "p99"), "must not be less than p50") end
end

local function check_mix(mix, path, report)
  local sum = 0
  for position, entry in ipairs(mix) do
    local entry_path = at(path, position)
    check_quantity(entry.input_tokens, at(entry_path, "input_tokens"), report)
    check_quantity(entry.output_tokens, at(entry_path, "output_tokens"), report)
    sum = sum + (entry.share or 1)
  end
  if sum == 0 then report(path, "must have an entry whose share is more than 0") end
end

local function check_requests(requests, path, report)
  local given = 0
  for _, key in ipairs { "count", "rate", "duration" } do
    if requests[key] then given = given + 1 end
  end
  if given ~= 2 then
    report(path, ("needs two of count, rate (a second) and duration, got %d"):format(given))
  elseif not requests.count and requests.rate * requests.duration / 1000 > 1e6 then
    report(path, "rate and duration must not make more than 1000000 requests")
  elseif not requests.count and requests.rate * requests.duration / 1000 < 1 then
    report(path, "rate and duration must make at least one request")
  elseif not requests.duration and requests.count / requests.rate > 240 * 3600 then
    report(path, "count and rate must not make more than 240 hours")
  end
  check_mix(requests.mix or NONE, at(path, "mix"), report)
end

local function check_upstream(upstream, path, report)
  for _, key in ipairs(LATENCIES) do check_quantity(upstream[key], at(path, key), report) end
  local sum = 0
  for _, share in pairs(upstream.errors or NONE) do sum = sum + share end
  if sum > 1 + 1e-9 then
    report(at(path, "errors"),
      ("must not be more than all answers: the shares add up to %.4g"):format(sum))
  end
end

local function check_outage(outage, path, report)
  if outage.from and outage.to and outage.to <= outage.from then
    report(at(path, "to"), "must be later than from")
  end
  if type(outage.answer) ~= "table" then return end
  if outage.answer.cut_after and outage.answer.stall_after then
    report(at(at(path, "answer"), "stall_after"), "cannot be given together with cut_after")
  end
  for _, key in ipairs { "after", "first", "every" } do
    check_quantity(outage.answer[key], at(at(path, "answer"), key), report)
  end
end

local function check_all(checked, needs_requests, report)
  local path = at(ROOT, "requests")
  if checked.requests and not needs_requests then
    report(path, "must be left out: the requests come from the log")
  elseif checked.requests then
    check_requests(checked.requests, path, report)
  end
  for _, entry in ipairs(sorted.pairs(checked.upstreams or NONE)) do
    check_upstream(entry[2], at(at(ROOT, "upstreams"), entry[1]), report)
  end
  for position, outage in ipairs(checked.outages or NONE) do
    check_outage(outage, at(at(ROOT, "outages"), position), report)
  end
end

-- From what was written to what is meant ----------------------------------------------------------

local function quantity(value)
  if value == nil then return nil end
  if type(value) == "number" then return distribution.fixed(value) end
  return distribution.lognormal(value.p50, value.p99)
end

local function mix_of(entry)
  return {
    model = entry.model, share = entry.share, stream_share = entry.stream,
    input_tokens = quantity(entry.input_tokens), output_tokens = quantity(entry.output_tokens),
    headers = entry.headers, body = entry.body, user_count = entry.users,
    patience_ms = entry.patience,
  }
end

local function requests_of(requests)
  local count, rate, duration_ms = requests.count, requests.rate, requests.duration
  local mix = {}
  for position, entry in ipairs(requests.mix) do mix[position] = mix_of(entry) end
  return {
    count = count or math.floor(rate * duration_ms / 1000 + 0.5),
    rate = rate or count * 1000 / duration_ms,
    arrival = requests.arrival, mix = mix,
  }
end

local function upstream_of(upstream)
  local errors = {}
  for _, entry in ipairs(sorted.pairs(upstream.errors or NONE)) do
    errors[#errors + 1] = { what = entry[1], share = entry[2] }
  end
  return {
    head = quantity(upstream.head), first_token = quantity(upstream.first_token),
    per_token = quantity(upstream.per_token), errors = upstream.errors and errors,
    price = upstream.price, concurrent_count = upstream.concurrent,
    retry_after_ms = upstream.retry_after,
  }
end

--- A plan with distributions where perilune.simulate.faults has times.
local function answer_of(answer)
  if type(answer) ~= "table" then return faults.plan(answer) end
  return {
    status = answer.status, headers = answer.headers, body = answer.body,
    tokens = answer.words, cut_after = answer.cut_after, stall_after = answer.stall_after,
    done = answer.done, after = quantity(answer.after), first = quantity(answer.first),
    every = quantity(answer.every),
  }
end

local function normalise(checked)
  local upstreams, outages = {}, {}
  for name, upstream in pairs(checked.upstreams) do upstreams[name] = upstream_of(upstream) end
  for position, outage in ipairs(checked.outages) do
    outages[position] = {
      upstream = outage.upstream, from_ms = outage.from, to_ms = outage.to,
      answer = answer_of(outage.answer), share = outage.share,
    }
  end
  return {
    seed = checked.seed, start_wall_ms = checked.start, upstreams = upstreams, outages = outages,
    requests = checked.requests and requests_of(checked.requests),
  }
end

-- Loading -----------------------------------------------------------------------------------------

local function describe_all(list, tree, file)
  local lines = {}
  for position, problem in ipairs(problems.arrange(list, tree, file)) do
    lines[position] = problems.describe(problem)
  end
  return table.concat(lines, "\n")
end

local function require_requests(value, report)
  if value.requests ~= nil then return end
  report(at(ROOT, "requests"), "is required: how many requests come, and which")
end

--- Read a scenario.
-- @tparam string source the text of the file
-- @tparam string file its name, for messages
-- @tparam boolean needs_requests whether it must say which requests come (else it must not)
-- @treturn[1] table seed, start_wall_ms, requests, upstreams by name, outages; plain data
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string all problems, one a line, as "file:line: key: message"
function scenario.load(source, file, needs_requests)
  local value, failure = evaluate.run(source, nil)
  if not value then return nil, "invalid", describe_all({ failure }, nil, file) end
  local list, report = problems.collector()
  if needs_requests then require_requests(value, report) end
  local checked = schema.check(TYPE, value, ROOT, report)
  check_all(checked, needs_requests, report)
  local tree, duplicates = locate.tree(source)
  for _, duplicate in ipairs(duplicates) do
    report(duplicate.path, ("is given twice, first on line %d"):format(duplicate.first_line))
  end
  if #list > 0 then return nil, "invalid", describe_all(list, tree, file) end
  return normalise(checked)
end

--- The same as JSON, for who wants it evaluated apart from himself.
function scenario.to_json(source, file, needs_requests)
  local loaded, code, detail = scenario.load(source, file, needs_requests)
  if not loaded then return nil, code, detail end
  return assert(schema.json(loaded, math.huge))
end

--- A scenario from the JSON that `to_json` has made.
function scenario.of_json(text)
  return assert(cjson.decode(text))
end

local function check_name(name, path, names, report)
  local known = {}
  for position, entry in ipairs(names) do
    if entry == name then return end
    known[position] = entry
  end
  local guess = schema.nearest(name, known)
  report(path, ("there is no provider and no target %s: %sthe names are %s"):format(
    schema.show(name), guess and ('did you mean "%s"? '):format(guess) or "",
    table.concat(known, ", ")))
end

--- Check that what a scenario speaks of exists.
-- @tparam table self what `load` has given
-- @tparam string source the text it was given for
-- @tparam string file its name
-- @tparam {string,...} names of all providers and targets
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string "invalid"
-- @treturn[2] string all problems, as `load` gives them
function scenario.check_names(self, source, file, names)
  local list, report = problems.collector()
  for _, name in ipairs(sorted.keys(self.upstreams)) do
    check_name(name, at(at(ROOT, "upstreams"), name), names, report)
  end
  for position, outage in ipairs(self.outages) do
    check_name(outage.upstream, at(at(at(ROOT, "outages"), position), "upstream"), names, report)
  end
  if #list == 0 then return true end
  return nil, "invalid", describe_all(list, (locate.tree(source)), file)
end

return scenario
