-- What a server puts around each script: the globals that it may use, redis.call and its errors, and the reply's bytes.
--
-- Called once a runtime with the functions of the simulation. Returns compile(source), run(function, keys, arguments,
-- RESP version), where() and define(name, value).
local call, protected_call, table_of, allowed, sha1hex, accepts_json, major = ...

local getinfo, rawget, rawset, type, tostring, error, xpcall = debug.getinfo, rawget, rawset, type, tostring, error, xpcall
local concat, setfenv, loadstring, setmetatable = table.concat, setfenv, loadstring, setmetatable
local format, raw_pcall = string.format, pcall
local SOURCE = '@user_script'

-- Returns what redis.call raised as the table that Redis raises, and other errors as they are.
local function raised(err)
  if type(err) == 'userdata' then
    err = table_of(err)
    return major < 7 and err.err or err
  end
  return err
end

-- Redis' own handler (eval.c): from 7.0 on an error is a table that is told where it was raised; before, a text with
-- the place in front of it.
local function explain(err)
  local info = getinfo(2, 'nSl')
  if info and info.what == 'C' then
    info = getinfo(3, 'nSl')
  end
  if info and info.source == '@sandbox' then  -- a C function in Redis
    info = getinfo(4, 'nSl')
  end
  err = raised(err)
  if major < 7 then
    if type(err) == 'table' then  -- Redis' handler fails on it
      return "@err_handler_def:9: err_handler_def:9: attempt to concatenate local 'err' (a table value)"
    end
    return info and info.source .. ':' .. info.currentline .. ': ' .. tostring(err) or tostring(err)
  end
  if type(err) ~= 'table' then
    err = {err = 'ERR ' .. tostring(err)}
  end
  if info then
    err.source, err.line = info.source, info.currentline
  end
  return err
end

-- Returns where the script is that runs, as Redis puts it in front of an error before 7.0.
local function where()
  for level = 1, 20 do
    local info = getinfo(level, 'Sl')
    if info and info.source == SOURCE then
      return info.source .. ': ' .. info.currentline .. ': '
    end
  end
  return ''
end

local redis = {LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3, call = call, pcall = protected_call}

function redis.error_reply(text)
  if type(text) ~= 'string' then
    return {err = 'ERR wrong number or type of arguments'}
  end
  if major < 7 then
    return {err = text}
  end
  text = string.gsub(text, '^%-', '')
  return {err = string.find(text, ' ', 1, true) and text or 'ERR ' .. text}
end

function redis.status_reply(text)
  return {ok = text}
end

function redis.sha1hex(text)
  return sha1hex(tostring(text))
end

function redis.replicate_commands()
  return true
end

function redis.log()
end

if major >= 7 then
  function redis.acl_check_cmd(...)
    return allowed(...)
  end
  redis.REDIS_VERSION_NUM = 0x7000f
  redis.REDIS_VERSION = '7.0.15'
end

local cjson = {}

function cjson.decode(text)
  if type(text) ~= 'string' and type(text) ~= 'number' then
    error("bad argument #1 to 'decode' (string expected, got " .. type(text) .. ')', 2)
  end
  if not accepts_json(tostring(text)) then
    error('Expected value but found invalid token', 2)
  end
  return {}  -- the scripts only ask whether it can be decoded
end

local function as_pcall(ok, err, ...)
  if not ok then
    err = raised(err)
    return false, type(err) == 'table' and type(err.err) == 'string' and err.err or err
  end
  return ok, err, ...
end

local environment = {
  redis = redis, cjson = cjson, string = string, table = table, _VERSION = _VERSION,
  math = {
    abs = math.abs, ceil = math.ceil, floor = math.floor, fmod = math.fmod, huge = math.huge, max = math.max,
    min = math.min, modf = math.modf, pow = math.pow, sqrt = math.sqrt,
  },
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, rawequal = rawequal, rawget = rawget,
  rawset = rawset, select = select, setmetatable = setmetatable, getmetatable = getmetatable, tonumber = tonumber,
  tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
  pcall = function(...)
    return as_pcall(raw_pcall(...))
  end,
}
environment._G = environment
environment.KEYS, environment.ARGV = {}, {}

setmetatable(environment, {
  __index = function(_, name)
    error('Script attempted to access nonexistent global variable \'' .. tostring(name) .. '\'', 2)
  end,
  __newindex = function()
    error('Attempt to modify a readonly table', 2)
  end,
})

-- Appends the bytes of a value, as the server replies with it, to a list of pieces.
local function put(pieces, value, null)
  local kind = type(value)
  if kind == 'string' then
    pieces[#pieces + 1] = '$' .. #value .. '\r\n'
    pieces[#pieces + 1] = value
    pieces[#pieces + 1] = '\r\n'
  elseif kind == 'number' then
    pieces[#pieces + 1] = format(':%d\r\n', value)
  elseif kind == 'boolean' and value then
    pieces[#pieces + 1] = ':1\r\n'
  elseif kind ~= 'table' then
    pieces[#pieces + 1] = null
  elseif type(rawget(value, 'err')) == 'string' then
    pieces[#pieces + 1] = '-' .. value.err .. '\r\n'
  elseif type(rawget(value, 'ok')) == 'string' then
    pieces[#pieces + 1] = '+' .. value.ok .. '\r\n'
  else
    local at, length = #pieces + 1, 0
    pieces[at] = ''
    while value[length + 1] ~= nil do
      length = length + 1
      put(pieces, value[length], null)
    end
    pieces[at] = '*' .. length .. '\r\n'
  end
end

local function compile(source)
  local compiled, err = loadstring(source, SOURCE)
  if not compiled then
    return nil, err
  end
  return setfenv(compiled, environment)
end

-- Returns the reply's bytes, or nil, the error and where it was raised.
local function run(compiled, keys, arguments, protocol)
  environment.KEYS, environment.ARGV = keys, arguments
  local ok, value = xpcall(compiled, explain)
  if not ok then
    if type(value) == 'table' then
      return nil, value.err, value.source, value.line
    end
    return nil, value
  end
  local pieces = {}
  put(pieces, value, protocol == 3 and '_\r\n' or '$-1\r\n')
  return concat(pieces)
end

local function define(name, value)
  rawset(environment, name, value)
end

return compile, run, where, define
