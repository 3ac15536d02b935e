--- Who may use which targets, and which comes first: lower numbers before higher ones. Read by
-- by_tenant.lua; the names of targets are those of gateway.lua, provider/model.

return {
  -- Pays for the large model; the small one takes over when it fails.
  acme = { ["hosted/large"] = 0, ["own/small"] = 1 },

  -- Has the small model, and the large one for emergencies.
  bolt = { ["own/small"] = 0, ["hosted/large"] = 1 },

  -- Its prompts may not leave the house.
  clinic = { ["own/small"] = 0 },
}
