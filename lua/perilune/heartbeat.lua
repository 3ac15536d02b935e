--- Answers to a client that has had heartbeats: a stream of events has begun, with status 200, and
-- whatever is said now is an event of it (core/request_heartbeat.c). Another stream simply follows;
-- an error becomes an error event, in its own words where it is one of the client's dialect, and an
-- answer of any other kind cannot be given any more, which is an error as well.

local errors = require "perilune.errors"

local heartbeat = {}

local QUOTED_MAX_BYTES = 200

--- Whether a policy's headers say that a stream of events follows.
local function say_events(headers)
  for name, value in pairs(headers or {}) do
    if tostring(name):lower() == "content-type" then
      return tostring(value):lower():find("^text/event%-stream") ~= nil
    end
  end
  return false
end

local function is_error(decoded)
  local inner = type(decoded) == "table" and decoded.error
  return type(inner) == "table" or type(inner) == "string"
end

--- Says that there is an answer which is no stream.
local function fail_for_form(native, req, who, status)
  return native.fail(req, 502, "not_a_stream", ("%s answered %d without a stream of events, which "
    .. "cannot be passed on after heartbeats"):format(who, status), nil, nil, true)
end

--- Ends the stream with an error that somebody else has written.
-- @tparam table native fail, fail_as
-- @tparam table req
-- @tparam number status that it came with
-- @tparam ?string text its body
-- @param decoded the same as a table, or nil
-- @tparam string code of a body that is no error of a known form
-- @tparam string who answered
-- @tparam ?boolean is_relayed when that was a target
local function fail(native, req, status, text, decoded, code, who, is_relayed)
  if is_error(decoded) then return native.fail_as(req, status, text, is_relayed) end
  local said = text and text ~= "" and ": " .. errors.clean(text, QUOTED_MAX_BYTES) or ""
  return native.fail(req, status, code, ("%s answered %d%s"):format(who, status, said))
end

--- Answers with what a target has sent: an error, or anything else that is no stream. May yield, as
-- reading a body does.
-- @tparam table native
-- @tparam table req
-- @tparam table res
-- @tparam function classify of perilune.classify
-- @treturn ?boolean true
-- @treturn ?string class, when it was no error
function heartbeat.relay(native, req, res, classify)
  local who = "Target `" .. errors.clean(res.target.name) .. "`"
  if res.status < 400 then
    fail_for_form(native, req, who, res.status)
    return nil, "malformed"
  end
  local status, code, text = res.status, classify(res), res:body()
  return fail(native, req, status, text, res:json(), code, who, true)
end

--- Answers with what a policy has made.
-- @tparam table native
-- @tparam table req
-- @tparam number status
-- @tparam string text
-- @tparam ?table headers
-- @tparam function decode text -> table or nil
function heartbeat.respond(native, req, status, text, headers, decode)
  if status >= 400 then
    return fail(native, req, status, text, decode(text), "policy_answer", "The policy")
  end
  if say_events(headers) then return native.end_stream(req, status, text) end
  return fail_for_form(native, req, "The policy", status)
end

return heartbeat
