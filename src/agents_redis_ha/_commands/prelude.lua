-- Prefixed to every script: the names of a session's keys, and what all changes of a session have in common.
--
-- KEYS[1] items  LIST  one JSON item an element
-- KEYS[2] meta   HASH  session_id, created_at, updated_at (ms since 1970), version, generation, low_watermark,
--                      low_watermark_at; while lost changes are being put back: fence, fenced_at, hint:<version>:…;
--                      the version with which some were given up: abandoned_at
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

-- Every changing script takes the same first arguments: ARGV[1] operation id; ARGV[2] how long to remember it, ms;
-- ARGV[3] TTL of the session, ms, 0 = leave it; ARGV[4] session id; ARGV[5] and ARGV[6] the log position that the
-- caller knows: the latest version and the id that made it, 0 and '' = none. Its own begin at ARGV[7].
--
-- It returns {status, version, id of the change before it, result}. APPLIED: the version that it made; the id is ''
-- where the caller knows it, and where it is not remembered. REPEAT: it was applied before, and nothing changed but the
-- TTL; version and result are those of then. LOG_MISMATCH: nothing changed, for this server's log does not hold the
-- caller's position (Raft's log check), or another process missed changes here before and the session is fenced until
-- they are back. CONFLICT, UNSURE: nothing changed, for the script's own reason.
local ID, RETENTION, TTL, SESSION_ID = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local KNOWN, KNOWN_ID = tonumber(ARGV[5]), ARGV[6]
local REPEAT, APPLIED, CONFLICT, UNSURE, LOG_MISMATCH = 0, 1, 2, 3, 4

-- Returns the error with which a replica refuses to be read, or nil: a write of nothing is what it refuses by itself.
local function refusal_of_a_replica()
  local reply = redis.pcall('HDEL', meta, '')
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'READONLY', 1, true) then
    return redis.error_reply('READONLY a replica may not know the latest state')
  end
end

-- Returns the id of the change that made a version, '' if it is not remembered any more, and the result kept with it.
local function change_at(version)
  local members = redis.call('ZRANGEBYSCORE', ops, version, version)  -- an id sorts before what begins with it
  return members[1] or '', members[2] and string.sub(members[2], #members[1] + 1)
end

-- Whether changes were given up since the caller looked: it may know one of them, and has to look again.
local function was_abandoned(known, abandoned_at)
  return abandoned_at and known > 0 and known < tonumber(abandoned_at)
end

-- Describes the session to a caller that knows a version and the id that made it (0 and '' = none).
-- Returns {number of elements, TTL in ms (-1 none, -2 no such session), created_at, updated_at, version, generation,
-- fence, changes}, with '' for what is not known. The changes are at most `limit` members of ops with their versions,
-- newest first, back to the known version; none if that is the latest, or if KEYS[3] is missing.
local function description(known, known_id, limit)
  local m = redis.call('HMGET', meta, 'created_at', 'updated_at', 'version', 'generation', 'fence', 'abandoned_at')
  local changes = {}
  if KEYS[3] and not m[3] then  -- it expired: see state()
    m[3] = redis.call('ZREVRANGE', ops, 0, 0, 'WITHSCORES')[2]
  end
  if KEYS[3] and not (tonumber(m[3]) == known and tonumber(redis.call('ZSCORE', ops, known_id) or 0) == known) then
    changes = redis.call('ZREVRANGEBYSCORE', ops, '+inf', known, 'WITHSCORES', 'LIMIT', 0, limit)
  end
  local length, ttl = redis.call('LLEN', items), redis.call('PTTL', meta)
  local fence = m[5] or was_abandoned(known, m[6]) and m[6] or ''
  return {length, ttl, m[1] or '', m[2] or '', m[3] or '', m[4] or '', fence, changes}
end

-- Returns the session's state before a change. A session whose meta expired goes on counting where ops stands.
-- The length is asked for unless it is given.
local function state(length)
  local m = redis.call(
    'HMGET', meta, 'version', 'generation', 'low_watermark', 'low_watermark_at', 'created_at', 'fence', 'abandoned_at')
  local s = {
    version = tonumber(m[1]), generation = tonumber(m[2]) or 0,
    low_watermark = m[3], low_watermark_at = tonumber(m[4]), created = m[5],
    fence = tonumber(m[6]), abandoned_at = m[7],
  }
  s.has_version = s.version ~= nil
  if not s.has_version then
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

-- Raises a write fence: a process knows a version that this server does not have, and no process reads or writes the
-- session until it is put back or given up (restore.lua).
local function raise_fence(s, version, retention)
  if version > (s.fence or 0) then
    redis.call('HSET', meta, 'fence', version)
  end
  redis.call('HSETNX', meta, 'fenced_at', s.now)
  if not s.has_version then
    redis.call('PEXPIRE', meta, retention)
  end
end

-- Returns the hints that other processes left, in turn the name of a field and its content.
local function hints()
  local found, fields = {}, redis.call('HGETALL', meta)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'hint:' then
      found[#found + 1] = fields[i]
      found[#found + 1] = fields[i + 1]
    end
  end
  return found
end

-- Raft's log check: whether this server's log does not hold the position that the caller knows.
local function log_mismatch(s)
  if s.version < KNOWN then
    raise_fence(s, KNOWN, RETENTION)
    return true
  end
  if s.fence or was_abandoned(KNOWN, s.abandoned_at) then
    return true
  end
  if KNOWN == 0 or KNOWN_ID == '' or tonumber(redis.call('ZSCORE', ops, KNOWN_ID) or 0) == KNOWN then
    return false
  end
  return change_at(KNOWN) ~= ''  -- if it is not '', another change made the version that the caller knows
end

-- Begins a change. Returns the state before it, or nil and what to return at once. A repeat writes (the TTL), so that a
-- WAIT behind it means something from 7.2 on.
local function begin(length)
  local made = redis.call('ZSCORE', ops, ID)
  if made then
    local _, result = change_at(made)
    redis.call('PEXPIRE', ops, RETENTION)
    expire(TTL, items)
    expire(TTL, meta)
    return nil, {REPEAT, tonumber(made), '', result}
  end
  local s = state(length)
  if log_mismatch(s) then
    return nil, {LOG_MISMATCH, s.version}
  end
  s.before = (s.version == KNOWN or s.version == 0) and '' or change_at(s.version)
  return s
end

-- Begins a change that is made only if the session has the version ARGV[7], '' = any.
local function begin_at_expected_version(length)
  local s, reply = begin(length)
  local expected = tonumber(ARGV[7])
  if s and expected and expected ~= s.version then
    return nil, {CONFLICT, s.version}
  end
  return s, reply
end

-- Notes a change: the next version, the id that made it, and the times. Ids are dropped once they are RETENTION ms old
-- at least: a low watermark remembers a version and when it was reached, so that no id needs a time of its own.
-- Returns what the script returns.
local function record(s, ttl, result)
  s.version = s.version + 1
  local fields = {'version', s.version, 'generation', s.generation, 'updated_at', s.now}
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if not s.created then
    set('session_id', SESSION_ID)
    set('created_at', s.now)
  end
  local age = s.low_watermark_at and s.now - s.low_watermark_at
  if not age or age >= RETENTION then
    if age then
      redis.call('ZREMRANGEBYSCORE', ops, '-inf', s.low_watermark)
    end
    set('low_watermark', s.version)
    set('low_watermark_at', s.now)
  end
  redis.call('HSET', meta, unpack(fields))
  redis.call('ZADD', ops, s.version, ID)
  if result then
    redis.call('ZADD', ops, s.version, ID .. result)
  end
  redis.call('PEXPIRE', ops, RETENTION)
  if ttl > 0 then
    redis.call('PEXPIRE', meta, ttl)
  elseif s.length == 0 then
    redis.call('PERSIST', meta)  -- it may be what a cleared session left behind
  end
  return {APPLIED, s.version, s.before, result}
end

-- RPUSH of ARGV[first] to the end, in steps that Lua's stack holds. Returns the length of the list then.
local function push(first)
  local length
  for from = first, #ARGV, 4000 do
    length = redis.call('RPUSH', items, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
  end
  return length
end

-- Keeps the elements from an index (from 0) to before another and puts ARGV[first] … behind them. The list never
-- becomes empty on the way: see the rules above.
local function rewrite(length, from, to, first)
  if to > from then
    if from > 0 or to < length then
      redis.call('LTRIM', items, from, to - 1)
    end
    push(first)
  elseif #ARGV >= first then
    push(first)
    if length > 0 then
      redis.call('LTRIM', items, length, -1)
    end
  elseif length > 0 then
    redis.call('DEL', items)
  end
  if to > from or #ARGV >= first then
    expire(TTL, items)
  end
end
