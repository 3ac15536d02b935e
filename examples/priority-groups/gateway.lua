-- Groups of providers, tried in order: a provider that says when to come back is left alone until
-- then, and a group with nobody left hands over to the next. Within a request nothing is repeated.
--
-- Every option is explained in policies/gateway.lua.

local function at(port)
  return { url = "http://127.0.0.1:" .. port .. "/v1" }
end

-- Added to each answer before it is judged. Together with a 429 it is a reason to leave the target
-- alone, as if the provider had said so.
local COME_BACK_IN_A_MINUTE = { headers = { set = { ["retry-after"] = "60" } } }

return {
  listen = { address = "127.0.0.1:8080" },
  admin = { address = "127.0.0.1:9901" },

  providers = {
    limited = at(env("LIMITED_PORT", "8000")),
    member = at(env("MEMBER_PORT", "8001")),
    reserve = at(env("RESERVE_PORT", "8002")),
  },

  routes = {
    -- Two members in the first group: one is enough to keep requests from the second group.
    {
      name = "members",
      match = { headers = { ["x-lab"] = "members" } },
      targets = {
        { provider = "limited", model = "gpt-4o-mini", priority = 0 },
        { provider = "member", model = "gpt-4o-mini", priority = 0 },
        { provider = "reserve", model = "gpt-4o-mini", priority = 1 },
      },
      balance = "p2c",
      policy = "once",
      response = COME_BACK_IN_A_MINUTE,
      deadline = "120s",
    },

    -- One provider in each group.
    {
      name = "groups",
      targets = {
        { provider = "limited", model = "gpt-4o", priority = 0 },
        { provider = "reserve", model = "gpt-4o", priority = 1 },
      },
      policy = "once",
      response = COME_BACK_IN_A_MINUTE,
      deadline = "120s",
    },
  },
}
