--- Reads the small text fields of a multipart/form-data body (RFC 7578). Pure.
local find, lower, sub = string.find, string.lower, string.sub

local multipart = {}

local MAX_PARTS = 256

local function boundary_of(content_type)
  if not find(lower(content_type), "^multipart/form%-data%s*;") then return nil end
  local at = find(lower(content_type), "boundary=", 1, true)
  if not at then return nil end
  local rest = sub(content_type, at + 9)
  local boundary = rest:match('^"([^"]+)"') or rest:match('^([^%s;"]+)')
  return boundary and #boundary <= 70 and boundary or nil
end

-- The name in a part's head, and whether it is a file.
local function disposition(head)
  for line in head:gmatch("[^\r\n]+") do
    if find(lower(line), "^content%-disposition:") then
      return line:match('[;%s]name="([^"]*)"'), find(line, "[;%s]filename%*?=") ~= nil
    end
  end
end

--- All fields that are not files.
-- @tparam string body
-- @tparam string content_type the request's Content-Type, "" when it has none
-- @treturn[1] table value by name
-- @treturn[2] nil
-- @treturn[2] string "malformed"
-- @treturn[2] string why
function multipart.fields(body, content_type)
  local boundary = boundary_of(content_type)
  if not boundary then return nil, "malformed", "expected multipart/form-data with a boundary" end
  local fields, delimiter = {}, "\r\n--" .. boundary
  body = "\r\n" .. body
  local _, last = find(body, delimiter, 1, true)
  for _ = 1, MAX_PARTS do
    if not last then return nil, "malformed", "a boundary is missing" end
    if sub(body, last + 1, last + 2) == "--" then return fields end
    local _, head_last = find(body, "\r\n\r\n", last + 1, true)
    local next_first, next_last = find(body, delimiter, head_last or last, true)
    if not head_last or not next_first then return nil, "malformed", "a part does not end" end
    local name, is_file = disposition(sub(body, last + 1, head_last))
    if name and not is_file then fields[name] = sub(body, head_last + 1, next_first - 1) end
    last = next_last
  end
  return nil, "malformed", "too many parts"
end

return multipart
