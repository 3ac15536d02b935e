--- The check of the layers in core/ (spec/lint/layers.lua), against folders made up for it.

--- Runs it on files = { ["name.c"] = text }; returns what it reports, "" when it is content.
local function report_on(files)
  local pipe = assert(io.popen("mktemp -d"))
  local folder = pipe:read("*l")
  pipe:close()
  for name, text in pairs(files) do
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end
  pipe = assert(io.popen("luajit spec/lint/layers.lua " .. folder .. " 2>&1"))
  local report = pipe:read("*a"):gsub(folder .. "/", "")
  pipe:close()
  os.execute("rm -r " .. folder)
  return report
end

describe("the layers of core/", function()
  it("may be used downwards and sideways", function()
    assert.equal("", report_on({
      ["attempt.c"] = '#include "attempt.h"\n#include <openssl/ssl.h>\n',
      ["attempt.h"] = '#include "pool.h"\n#include "base.h"\n',
      ["pool.h"] = '#include <stddef.h>\n',
    }))
  end)

  it("may not be used upwards", function()
    assert.equal("json.c:2: json (pure) may not include pool (network)\n", report_on({
      ["json.c"] = '#include "base.h"\n#include "pool.h"\n',
    }))
  end)

  it("keep Lua out of the network half, and sockets out of the script half", function()
    assert.equal("pool.h:1: the network layer may not include <lua.h>\n",
      report_on({ ["pool.h"] = "#include <lua.h>\n" }))
    assert.equal("vm.c:1: the script layer may not include <sys/socket.h>\n",
      report_on({ ["vm.c"] = "#include <sys/socket.h>\n" }))
    assert.equal("vm.c:1: vm (script) may not include pool (network)\n",
      report_on({ ["vm.c"] = '#include "pool.h"\n' }))
  end)

  it("let only the server know evhttp", function()
    assert.equal("", report_on({ ["server.c"] = "#include <event2/http.h>\n" }))
    assert.equal("attempt.c:1: only server.c may include <event2/http.h>\n",
      report_on({ ["attempt.c"] = "#include <event2/http.h>\n" }))
  end)

  it("have no headers in a circle", function()
    assert.matches("^circle of includes: ", report_on({
      ["pool.h"] = '#include "tls.h"\n',
      ["tls.h"] = '#include "pool.h"\n',
    }))
  end)

  it("hold every file", function()
    assert.matches("^novel.c: in no layer", report_on({ ["novel.c"] = "" }))
  end)
end)
