-- Dependencies are declared at the top of a file or do not exist: nothing is allowed but the
-- language itself, and each folder only what its code may use.
std = "none"
max_line_length = 100
max_code_line_length = 100
max_string_line_length = 120
max_comment_line_length = 100
unused_args = true
self = false

local language = {
  "assert", "error", "getmetatable", "ipairs", "math", "next", "pairs", "pcall", "rawequal",
  "rawget", "rawset", "select", "setmetatable", "string", "table", "tonumber", "tostring", "type",
  "unpack", "require",
}

local function also(...)
  local names = { ... }
  for _, name in ipairs(language) do
    names[#names + 1] = name
  end
  return names
end

read_globals = language

-- The library loads policies into environments of their own.
files["lua/perilune"] = {
  read_globals = also("load", "loadstring", "setfenv", "getfenv", "xpcall", "coroutine", "os",
    "io", "debug", "collectgarbage", "package", "bit", "_G", "_VERSION"),
}

-- What the sandbox offers.
files["policies"] = { read_globals = also("env", "secret", "file") }
files["examples"] = { read_globals = also("env", "secret", "file") }
files["spec/kit"] = { read_globals = also("env", "secret", "file") }

local script = also("arg", "collectgarbage", "coroutine", "debug", "io", "load", "loadfile",
  "loadstring", "os", "package", "print", "setfenv", "getfenv", "xpcall", "dofile", "bit", "_G")

files["core/embed.lua"] = { read_globals = script }
files["spec"] = { read_globals = script }

local busted = {
  "describe", "it", "pending", "setup", "teardown", "before_each", "after_each", "lazy_setup",
  "lazy_teardown", "insulate", "expose", "finally", "spy", "stub", "mock", "match", "context",
  "randomize",
}
for _, name in ipairs(script) do
  if name ~= "assert" then
    busted[#busted + 1] = name
  end
end
files["**/*_spec.lua"] = {
  read_globals = busted,
  -- busted replaces assert by luassert's table, which specs index
  globals = { assert = { other_fields = true, read_only = true } },
}

files[".luacheckrc"] = { std = "luacheckrc", globals = {} }
files[".busted"] = { read_globals = language }
exclude_files = { "build" }
