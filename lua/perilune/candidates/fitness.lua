--- Who may be given: the health of targets as the core sees it, bent by the route's
-- max_ejection_ratio and by panic, and what targets have asked of this very request.
--
-- What is found here holds for one look at the targets, between two waits.

local now_ms_of = require("perilune.candidates.state").now_ms

local fitness = {}

local SOON_MS = 5000

--- Whether the time has come that the target has asked for.
function fitness.is_ready(state, slot, now_ms)
  return (state.ready_ms[slot] or now_ms) <= now_ms
end

--- Whether health allows the target, and the request is not too long for it.
local function is_fit(state, slot, deps, target)
  if state.shut and state.shut[slot] then return false end
  if state.refused and state.refused[slot] then return false end
  return state.panic or state.spared and state.spared[slot] or deps.is_fit(target)
end

fitness.is_fit = is_fit

--- Whether the target is given although health does not allow it.
function fitness.is_forced(state, slot)
  return state.panic or state.spared and state.spared[slot] or false
end

--- Finds the targets that are out but must be given nevertheless, as too many are out.
function fitness.spare(state, plan)
  local deps, out, until_ms = plan.deps, {}, {}
  for slot = 1, plan.count do
    local target = plan.targets[slot]
    if not deps.is_fit(target) then
      out[#out + 1] = slot
      until_ms[slot] = deps.out_until_ms(target) or 0
    end
  end
  if #out <= plan.max_out then return end
  table.sort(out, function(a, b)
    if until_ms[a] ~= until_ms[b] then return until_ms[a] > until_ms[b] end
    return a < b
  end)
  state.spared = {}
  for i = plan.max_out + 1, #out do state.spared[out[i]] = true end
end

--- Whether no target is fit, asked to wait or not.
function fitness.all_are_out(state, plan)
  if state.busy_slot > 0 then return false end
  for slot = 1, plan.count do
    if is_fit(state, slot, plan.deps, plan.targets[slot]) then return false end
  end
  return true
end

--- From when on a target may be given; nil when that is not known.
local function ready_at_ms(state, plan, slot, now_ms)
  if state.shut and state.shut[slot] then return nil end
  local at_ms = state.ready_ms and state.ready_ms[slot] or now_ms
  if is_fit(state, slot, plan.deps, plan.targets[slot]) then return at_ms end
  local until_ms = plan.deps.out_until_ms(plan.targets[slot])
  return until_ms and math.max(at_ms, until_ms + 1) -- its clock may be a little behind
end

--- Whether a target that has asked for time is had so soon that this is better waited for than
-- panicked about.
function fitness.is_ready_soon(state, plan)
  if not state.ready_ms then return false end
  local now_ms = now_ms_of(state, plan.deps)
  for slot = 1, plan.count do
    local at_ms = state.ready_ms[slot] and ready_at_ms(state, plan, slot, now_ms)
    if at_ms and at_ms > now_ms and at_ms - now_ms <= SOON_MS then return true end
  end
  return false
end

--- How long until any may be given, nil when that is not known.
function fitness.until_any_ms(state, plan)
  local now_ms = now_ms_of(state, plan.deps)
  local earliest_ms
  for slot = 1, plan.count do
    local at_ms = ready_at_ms(state, plan, slot, now_ms)
    if at_ms and (not earliest_ms or at_ms < earliest_ms) then earliest_ms = at_ms end
  end
  return earliest_ms and math.max(earliest_ms - now_ms, 0)
end

return fitness
