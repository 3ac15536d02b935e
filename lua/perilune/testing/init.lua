--- Specs for policies: the gateway itself, with a virtual clock, scripted upstreams and recorded
-- clients. No network, no waiting. Described in lua/README.md; runs under `perilune test`.

local testing = {}

local found, stage = pcall(require, "perilune.stage")

--- The directory that `perilune test` was given.
testing.directory = found and stage.directory or nil

--- Makes a world.
-- @tparam[opt] table options directory, config, files, env, seed, start
function testing.world(options)
  if not found then
    error("perilune.testing needs the gateway's own core: run the specs with `perilune test`", 2)
  end
  return require("perilune.testing.world").new(options, stage)
end

return testing
