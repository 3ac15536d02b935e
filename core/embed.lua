--- Writes files into a C file, as a table that core/bundle.h declares.
-- Usage: luajit core/embed.lua ROOT OUTPUT FILE...
--        luajit core/embed.lua --assets OUTPUT FILE...
-- The Lua library: each FILE lies under ROOT; ROOT/perilune/sim/options.lua becomes
-- "perilune.sim.options", and an init.lua takes the name of its folder. A file that does not
-- compile stops the build. Assets: any files; each keeps its name, without folders.

local ESCAPES = {
  ["\\"] = "\\\\",
  ["\""] = "\\\"",
  ["\t"] = "\\t",
  ["\r"] = "\\r",
  ["\n"] = "\\n",
  ["?"] = "\\?", -- two of them would begin a trigraph
}

local function fail(...)
  io.stderr:write("embed.lua: ", string.format(...), "\n")
  os.exit(1)
end

local function read_file(path)
  local file, reason = io.open(path, "rb")
  if not file then
    fail("%s", reason)
  end
  local text = file:read("*a")
  file:close()
  return text
end

--- Module name of a path, or nil when it is not under the root.
local function module_name(root, path)
  if path:sub(1, #root + 1) ~= root .. "/" then
    return nil
  end
  local name = path:sub(#root + 2):match("^(.*)%.lua$")
  return name and (name:gsub("/", "."):gsub("%.init$", ""))
end

local function escape(byte)
  return ESCAPES[byte] or string.format("\\%03o", byte:byte())
end

--- A C string literal, one line of C for each line of Lua.
local function literal(text)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    if line ~= "" then
      lines[#lines + 1] = "     \"" .. line:gsub("[%c\"\\?\127-\255]", escape) .. "\""
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or "     \"\""
end

local function by_name(a, b)
  return a.name < b.name
end

local function collect_assets(paths)
  local assets = {}
  for _, path in ipairs(paths) do
    assets[#assets + 1] = { name = path:match("[^/]*$"), text = read_file(path) }
  end
  table.sort(assets, by_name)
  return assets
end

local function collect(root, paths)
  local modules = {}
  for _, path in ipairs(paths) do
    local name = module_name(root, path)
    if not name then
      fail("%s is not a Lua file under %s", path, root)
    end
    local text = read_file(path)
    local compiled, reason = loadstring(text, "@" .. path)
    if not compiled then
      fail("%s", reason)
    end
    modules[#modules + 1] = { name = name, text = text }
  end
  table.sort(modules, by_name)
  return modules
end

local function write_file(path, table_name, modules)
  local out = {
    "/* Written by core/embed.lua. */",
    "#include \"bundle.h\"",
    "",
    ("const struct pl_bundle_file %s[] = {"):format(table_name),
  }
  for _, module in ipairs(modules) do
    out[#out + 1] = string.format("    {\"%s\",\n%s,\n     %d},", module.name,
      literal(module.text), #module.text)
  end
  out[#out + 1] = "    {NULL, NULL, 0},\n};\n"
  local file, reason = io.open(path, "wb")
  if not file then
    fail("%s", reason)
  end
  file:write(table.concat(out, "\n"))
  if not file:close() then
    fail("cannot write %s", path)
  end
end

local root, output = arg[1], arg[2]
if not output then
  fail("usage: luajit core/embed.lua ROOT OUTPUT FILE...")
end
local paths = { select(3, unpack(arg)) }
if root == "--assets" then
  write_file(output, "pl_embedded_assets", collect_assets(paths))
else
  write_file(output, "pl_embedded_files", collect(root, paths))
end
