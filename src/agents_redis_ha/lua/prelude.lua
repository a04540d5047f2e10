-- Prefixed to every script: the names of a session's keys, and what all changes of a session have in common.
--
-- KEYS[1] items  LIST  one JSON item an element
-- KEYS[2] meta   HASH  session_id, created_at, updated_at (ms since 1970), version, generation, mark_version, mark_at
-- KEYS[3] ops    ZSET  id of each recent change, scored by the version that it made; the result of a pop or a clear
--                      follows its id in a member of its own, under the same score
--
-- What a script touches is declared on every call but one: a node that imports the slot refuses several keys of which
-- some do not exist yet (TRYAGAIN), so for a session that has none of them it is called with KEYS[1] alone. What a
-- script does not touch is not declared: in a slot that is being migrated, a missing key holds up the request.
--
-- Rules that keep a script whole: read every key before the first write (a wrong type fails there), let the first
-- write be the one that may be refused, and never touch a key again that was just emptied (in a slot that is being
-- migrated, a missing key is an ASK error).
local items = KEYS[1]
local base = string.sub(items, 1, -6)
local meta = KEYS[2] or (base .. 'meta')
local ops = KEYS[3] or (base .. 'ops')

local REPEAT, APPLIED, CONFLICT, UNSURE = 0, 1, 2, 3

-- Returns the error with which a replica refuses to be read, or nil: a write of nothing is what it refuses by itself.
local function refusal_of_a_replica()
  local reply = redis.pcall('HDEL', meta, '')
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'READONLY', 1, true) then
    return redis.error_reply('READONLY a replica may not know the latest state')
  end
end

-- Returns the version that the change with this id made, or false if it is not known.
local function version_of(id)
  return redis.call('ZSCORE', ops, id)
end

-- Returns the result that was kept for a change, or nil.
local function result_of(id, version)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ops, version, version)) do
    if #member > #id then
      return string.sub(member, #id + 1)
    end
  end
end

-- Returns the session's state before a change. A session whose meta expired goes on counting where ops stands.
-- The length is asked for unless it is given.
local function state(length)
  local m = redis.call('HMGET', meta, 'version', 'generation', 'mark_version', 'mark_at', 'created_at')
  local s = {
    version = tonumber(m[1]), generation = tonumber(m[2]) or 0,
    mark_version = m[3], mark_at = tonumber(m[4]), created = m[5],
  }
  s.known = s.version ~= nil
  if not s.known then
    s.version = tonumber(redis.call('ZREVRANGE', ops, 0, 0, 'WITHSCORES')[2]) or 0
  end
  s.length = length or redis.call('LLEN', items)
  local t = redis.call('TIME')
  s.now = t[1] * 1000 + math.floor(t[2] / 1000)
  return s
end

local function expire(ttl, key)
  if ttl > 0 then
    redis.call('PEXPIRE', key, ttl)
  end
end

-- Notes a change: the next version, the id that made it, and the times. Ids are dropped once they are `retention` ms
-- old at least: a mark remembers a version and when it was reached, so that no id needs a time of its own.
local function record(s, id, retention, ttl, session_id)
  s.version = s.version + 1
  local fields = {'version', s.version, 'generation', s.generation, 'updated_at', s.now}
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if not s.created then
    set('session_id', session_id)
    set('created_at', s.now)
  end
  if not s.mark_at then
    set('mark_version', s.version)
    set('mark_at', s.now)
  elseif s.now - s.mark_at >= retention then
    redis.call('ZREMRANGEBYSCORE', ops, '-inf', s.mark_version)
    set('mark_version', s.version)
    set('mark_at', s.now)
  end
  redis.call('HSET', meta, unpack(fields))
  redis.call('ZADD', ops, s.version, id)
  redis.call('PEXPIRE', ops, retention)
  if ttl > 0 then
    redis.call('PEXPIRE', meta, ttl)
  elseif s.length == 0 then
    redis.call('PERSIST', meta)  -- it may be what a cleared session left behind
  end
  return s.version
end

-- Answers a change whose id is known. It writes (the TTL), so that a WAIT behind it means something from 7.2 on.
local function repeated(retention, ttl)
  redis.call('PEXPIRE', ops, retention)
  expire(ttl, items)
  expire(ttl, meta)
end

-- RPUSH of ARGV[first] to the end, in steps that Lua's stack holds. Returns the length of the list then.
local function push(first)
  local length
  for from = first, #ARGV, 4000 do
    length = redis.call('RPUSH', items, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
  end
  return length
end
