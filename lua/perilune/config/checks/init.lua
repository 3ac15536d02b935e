--- Checks what concerns several keys at once, after the schema has held each to its type.
--
-- These see checked values: a key that was refused already is absent here, and is not judged again.
-- Where the absence of a key is the problem, `given` tells whether it was only refused. Changes
-- nothing.

local given = require "perilune.config.given"
local providers = require "perilune.config.checks.provider"
local routes = require "perilune.config.checks.route"
local sorted = require "perilune.sorted"
local url = require "perilune.url"
local wording = require "perilune.schema.wording"

local checks = {}

local at = wording.at
local ROOT = {}
local NONE = {} -- what is read where an optional table is absent; never written

local function check_listeners(checked, report)
  local listen, admin = checked.listen or NONE, checked.admin or NONE
  local path = at(at(ROOT, "admin"), "address")
  if not listen.address or not admin.address then return end
  if
    admin.address.port ~= 0 and admin.address.port == listen.address.port
    and admin.address.address == listen.address.address
  then
    report(path, "is the same as listen.address")
  end
end

local function check_admin(checked, value, report)
  local admin, path = checked.admin, at(at(ROOT, "admin"), "token")
  if not admin or not admin.address or url.is_loopback(admin.address.address) then return end
  if given.at(value, path) == nil then
    report(path, "is required, because admin.address can be reached from other machines")
  end
end

local function check_limits(checked, report)
  local limits = checked.limits or NONE
  if limits.request_line and limits.head and limits.request_line > limits.head then
    report(at(at(ROOT, "limits"), "request_line"), "must not be more than limits.head")
  end
end

local function check_budgets(checked, report)
  local budgets = checked.budgets or NONE
  if budgets.burst and budgets.request and budgets.burst > budgets.request then
    report(at(at(ROOT, "budgets"), "burst"), "must not be more than budgets.request")
  end
end

--- The providers' names as the operator wrote them, so that a broken one is not unknown as well.
local function provider_names(value)
  local names, is_known = {}, {}
  local written = given.at(value, at(ROOT, "providers"))
  for _, name in ipairs(type(written) == "table" and sorted.keys(written) or NONE) do
    if type(name) == "string" then
      is_known[name] = true
      table.insert(names, name)
    end
  end
  return { names = names, is_known = is_known }
end

--- Check the whole configuration.
-- @tparam table checked what the schema's check gave
-- @tparam table value what the operator wrote
-- @tparam function report report(path, message) for each problem
function checks.run(checked, value, report)
  check_listeners(checked, report)
  check_admin(checked, value, report)
  check_limits(checked, report)
  check_budgets(checked, report)
  for _, entry in ipairs(sorted.pairs(checked.providers or NONE)) do
    providers.check(entry[2], value, at(at(ROOT, "providers"), entry[1]), report)
  end
  routes.check_deadline_headers(checked.deadline_header, at(ROOT, "deadline_header"), report)
  routes.check(checked.routes or NONE, value, provider_names(value), report)
end

return checks
