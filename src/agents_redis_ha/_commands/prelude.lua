-- Prefixed to every script: the names of a session's keys, and what all changes of a session have in common. Some have
-- reading.lua or editing.lua in between (load_script).
--
-- KEYS[1] items  LIST  one JSON item an element
-- KEYS[2] meta   HASH  format (of all keys), session_id, created_at, updated_at (ms since 1970), version, digest,
--                      last_id (of the change that made the version), generation, length (of items then), retention
--                      (ms, the longest asked for), ttl (ms, the latest), low_watermarks; result:<version> of a recent
--                      pop or clear; while lost changes are put back: fence, fenced_at, hint:<version>:…; the version
--                      with which some were given up: abandoned_at, evicted_at; the turn that has it: holder
-- KEYS[3] ops    LIST  the recent changes, of each its id and a note: its digest, and behind its 12 characters the
--                      length of items then. In front of the oldest a header: <version before it>:<digest then>, and
--                      '!' behind it if the server has evicted ids that should be there. The last one is the newest:
--                      so a version tells where its id and its note are.
--
-- The digest of a change is made of the digest before it and its id. So a version and its digest name one history, as
-- index and term do in Raft's log.
--
-- KEYS[4] turns HASH  what turns leave behind, for their scripts and clear.lua alone: see turning.lua
--
-- What a script touches is declared on every call but one: a node that imports the slot refuses several keys of which
-- some do not exist yet (TRYAGAIN), so for a session that has none of them it is called with KEYS[1] alone. What a
-- script does not touch is not declared: in a slot that is being migrated, a missing key holds up the request.
--
-- Rules that keep a script whole: read every key before the first write (a wrong type fails there), ask for every right
-- before it (denied), let the first write be the one that may be refused, and never touch a key again that was just
-- emptied (in a slot that is being migrated, a missing key is an ASK error). Before 7.0, asking for a right may need
-- one more key for a moment: probe, beside the others.
local items = KEYS[1]
local base = string.sub(items, 1, -6)
local meta = KEYS[2] or (base .. 'meta')
local ops = KEYS[3] or (base .. 'ops')
local FORMAT = '1'

-- Every changing script takes the same first arguments: ARGV[1] operation id; ARGV[2] how long to remember it, ms;
-- ARGV[3] TTL of the session, ms, 0 = leave it; ARGV[4] session id; ARGV[5] and ARGV[6] the log position that the
-- caller knows: the latest version and its digest, 0 and '' = none; ARGV[7] the version since which an earlier attempt
-- may have been made; ARGV[8] '' if none may have been applied, else '!' and the digest of that version. Its own begin
-- at ARGV[9].
--
-- It returns {status, version, digest, result}. APPLIED: what it made. REPEAT: it was applied before, and nothing
-- changed but the TTL; version, digest and result are those of then. LOG_MISMATCH: nothing changed, for this server's
-- log does not hold the caller's position (Raft's log check), or items were evicted, or another process missed
-- changes here before and the session is fenced until they are back. UNTOLD: nothing changed; the server evicted what
-- would tell whether an earlier attempt was applied. CONFLICT, UNSURE, UNCHANGED: nothing changed, for the script's own
-- reason. BUSY, with the token of the turn that has the session: nothing changed, since it is none of that turn's.
local ID, RETENTION, TTL, SESSION_ID = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local KNOWN, KNOWN_DIGEST, SINCE, SINCE_DIGEST = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), ARGV[8]
local MAY_BE_APPLIED = SINCE_DIGEST ~= ''
local REPEAT, APPLIED, CONFLICT, UNSURE, LOG_MISMATCH, UNCHANGED, UNTOLD, BUSY = 0, 1, 2, 3, 4, 5, 6, 7
local OWN_TOKEN  -- of the turn that the change is part of (turn_finish.lua)

-- Returns the error reply if the user may not run a command. Before 7.0 there is no acl_check_cmd: there it is run in
-- vain, on a key of another type or on one that is not there. A full server refuses only the first write of a script:
-- once it has refused one here, no other is tried.
local is_full = false
local function denied(name, key, ...)
  local allowed
  if redis.acl_check_cmd then
    allowed = redis.acl_check_cmd(name, key, ...)
  elseif is_full then
    return nil
  else
    local other = key == meta and items or meta
    local target = redis.call('EXISTS', other) == 1 and other or (base .. 'probe')
    if name == 'DEL' or name == 'PEXPIRE' or name == 'PERSIST' then
      target = base .. 'probe'
    end
    local reply = redis.pcall(name, target, ...)
    local refusal = type(reply) == 'table' and reply.err or ''
    allowed = not string.find(refusal, "can't run this command", 1, true)
    is_full = string.find(refusal, 'OOM', 1, true) ~= nil
    if target ~= other and not is_full then
      redis.pcall('DEL', target)
    end
  end
  return not allowed and redis.error_reply('NOPERM the user may not run ' .. name .. ' on this session') or nil
end

local function digest_of(note)
  return note and (string.match(note, '^%d+:(%x*)') or string.sub(note, 1, 12)) or ''
end

-- Returns when the newest low watermark was set; its time has 13 digits until the year 2286.
local function marked_at(low_watermarks)
  return low_watermarks and tonumber(string.sub(low_watermarks, -13)) or 0
end

-- Returns the session's state: what every change needs, since each field more costs it. What was evicted with meta is
-- told by ops, which counts on where meta is gone.
local function state()
  local m = redis.call('HMGET', meta, 'format', 'version', 'digest', 'length', 'retention', 'ttl', 'low_watermarks',
    'created_at', 'fence', 'abandoned_at', 'holder')
  if (m[2] or m[9] or m[11]) and m[1] ~= FORMAT then
    local reason = 'the session has format ' .. (m[1] or 'none') .. ', not ' .. FORMAT
    return {refusal = redis.error_reply('UNSUPPORTEDFORMAT ' .. reason)}
  end
  local t, length, kept = redis.call('TIME'), redis.call('LLEN', items), tonumber(m[5])
  local now = t[1] .. string.sub('000000' .. t[2], -6, -4)  -- ms since 1970, as text: a number costs more to write
  local retention, since_marked = kept and RETENTION and math.max(RETENTION, kept) or kept or RETENTION or 0,
    now - marked_at(m[7])
  local s = {
    version = tonumber(m[2]), digest = m[3] or '', expected = tonumber(m[4]) or 0, has_version = m[2],
    kept_retention = kept, retention = retention, ttl = tonumber(m[6]), low_watermarks = m[7],
    drops_old = since_marked < 0 or since_marked >= retention / 4,
    created = m[8], fence = tonumber(m[9]), abandoned_at = tonumber(m[10]), holder = m[11], length = length,
    length_before = length, now = now, noted = #KEYS ~= 2 and math.floor(redis.call('LLEN', ops) / 2) or 0,
  }
  if not s.version then
    s.version = 0
    if s.noted > 0 then
      local note = redis.call('LINDEX', ops, -1)
      s.version = tonumber(string.match(redis.call('LINDEX', ops, 0), '^%d+')) + s.noted
      s.digest, s.expected = digest_of(note), tonumber(string.sub(note, 13)) or 0
    end
  end
  return s
end

-- Returns the error reply if the user may not do what record() does.
local function denied_to_record(s)
  local refusal = denied('HSET', meta, 'f', '') or denied('RPUSH', ops, '') or denied('PEXPIRE', ops, '1')
  if not refusal and TTL == 0 and s.length == 0 then
    refusal = denied('PERSIST', meta)
  end
  if not refusal and TTL == 0 and s.ttl then
    refusal = denied('PTTL', meta)
  end
  if not refusal and s.low_watermarks and s.drops_old then
    refusal = denied('LTRIM', ops, 0, 0) or denied('LSET', ops, 0, '') or denied('LINDEX', ops, 0)
      or denied('HGETALL', meta) or denied('HDEL', meta, 'f')
  end
  return refusal
end

-- Returns the digest that a version had, '' if it is not remembered: the note of the newest change is the last of ops.
local function digest_at(s, version)
  if version == s.version then
    return s.digest
  end
  return s.noted > 0 and digest_of(redis.call('LINDEX', ops, 2 * (version - s.version) - 1)) or ''
end

-- Whether a caller that knows this position has to look closer before it reads or changes anything.
local function is_mismatch(s, known, digest)
  -- Elements without a log: the server evicted it, and what it told of repeats.
  local lacks_log = s.version == 0 and s.length > 0
  -- Changes were given up since the caller looked: it may know one of them.
  local was_abandoned = s.abandoned_at and known > 0 and known < s.abandoned_at
  if s.version < known or s.fence or lacks_log or was_abandoned or s.length < s.expected then
    return true
  end
  -- Raft's log check: whether this server's log holds the position; one that it does not remember counts as held.
  local there = known > 0 and digest ~= '' and digest_at(s, known) or ''
  return there ~= '' and there ~= digest
end

local function expire(ttl, key)
  if ttl > 0 then
    redis.call('PEXPIRE', key, ttl == TTL and ARGV[3] or ttl)
  end
end

-- Returns the functions that an undisturbed change does not need, by name. A script makes its functions anew each time
-- it runs, and each costs it 0.16 µs.
local function rarely()
  -- Whether the newest change is too young for its id to have expired.
  local function is_recent(s)
    local updated_at = tonumber(redis.call('HGET', meta, 'updated_at'))
    return not updated_at or s.now - updated_at < s.retention
  end

  -- Raises a write fence: a process knows a version that this server does not have, or elements are missing, and no
  -- process reads or writes the session until they are put back or given up (restore.lua).
  -- Returns the error reply if the user may not.
  local function raise_fence(s, version, retention)
    local refusal = denied('HSET', meta, 'f', '') or denied('HSETNX', meta, 'f', '') or denied('PEXPIRE', meta, 1)
    if refusal then
      return refusal
    end
    if version > (s.fence or 0) then
      redis.call('HSET', meta, 'format', FORMAT, 'fence', version)
    end
    redis.call('HSETNX', meta, 'fenced_at', s.now)
    if not s.has_version then
      redis.call('PEXPIRE', meta, retention)
    end
  end

  -- Returns what other processes left in meta under names that begin so, in turn the name of a field and its content.
  local function fields_like(beginning)
    local found, fields = {}, redis.call('HGETALL', meta)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, #beginning) == beginning then
        found[#found + 1] = fields[i]
        found[#found + 1] = fields[i + 1]
      end
    end
    return found
  end

  -- Whether ops should hold all ids that a repeat may ask for, and does not: the server evicted some. After a deletion,
  -- versions begin anew: then the same version may be of another history.
  local function lacks_ids(s)
    if s.version == 0 then
      return false
    end
    -- What was put back by a process that did not know its id is noted without one.
    local made_since = s.noted > 0 and s.version - SINCE or 0
    if made_since > 0 and redis.call('LPOS', ops, '', 'RANK', -1, 'MAXLEN', 2 * made_since) then
      return true
    end
    local is_noted = SINCE <= s.version and SINCE >= s.version - s.noted
    local is_same = not MAY_BE_APPLIED or '!' .. digest_at(s, SINCE) == SINCE_DIGEST and SINCE_DIGEST ~= '!'
    if is_noted and is_same then
      return false
    end
    if s.noted > 0 then
      return string.sub(redis.call('LINDEX', ops, 0), -1) == '!'
    end
    return is_recent(s)
  end

  -- Returns the version that this very change made before, or nil.
  local function made_before(s)
    if s.version <= SINCE then
      return nil
    end
    if ID == redis.call('HGET', meta, 'last_id') then
      return s.version
    end
    local index = s.noted > 0 and redis.call('LPOS', ops, ID, 'RANK', -1, 'MAXLEN', 2 * (s.version - SINCE))
    return index and s.version - s.noted + (index + 1) / 2
  end

  -- Drops the ids and the results that are older than the retention. Low watermarks, as many as five, remember a
  -- version and when it was reached, so that no id needs a time of its own; one a quarter of the retention is enough.
  -- Returns the watermarks to keep from now on.
  local function drop_old(s)
    local kept, old = '', nil
    if s.low_watermarks and s.now - marked_at(s.low_watermarks) >= 0 then  -- not where the clock was put back
      for version, at in string.gmatch(s.low_watermarks, '(%d+):(%d+)') do
        if s.now - at >= s.retention then
          old = tonumber(version)
        else
          kept = kept .. version .. ':' .. at .. ' '
        end
      end
    end
    local oldest = s.version - s.noted
    if old and old > oldest then
      redis.call('LTRIM', ops, 2 * (old - oldest), -1)
      redis.call('LSET', ops, 0, old .. ':' .. digest_of(redis.call('LINDEX', ops, 0)))
    end
    if old then
      local results = fields_like('result:')
      for i = 1, #results, 2 do
        if tonumber(string.sub(results[i], 8)) <= old then
          redis.call('HDEL', meta, results[i])
        end
      end
    end
    return kept .. s.version .. ':' .. s.now
  end

  -- Returns an answer for which nothing is written; a replica, which may not know the latest state, refuses it as it
  -- refuses to be read (reading.lua).
  local function unless_replica(answer)
    local reply = redis.pcall('HDEL', meta, '')
    local refused = type(reply) == 'table' and reply.err and string.find(reply.err, 'READONLY', 1, true)
    return refused and redis.error_reply('READONLY a replica may not know the latest state') or answer
  end

  -- Returns token and id of the turn that has the session, and how long it still has, ms; nil where its lease is over.
  -- A clock that was put back makes no lease longer than it was granted for.
  local function holder_of(s)
    local token, till, lease, rest, id = string.match(s.holder or '', '^(%S+) (%d+) (%d+) (%d+ %d+ (.*))$')
    local left = token and till - s.now or 0
    if left > 0 and left > tonumber(lease) then
      left = tonumber(lease)
      redis.call('HSET', meta, 'holder', table.concat({token, s.now + left, lease, rest}, ' '))
    end
    if left > 0 then
      return token, id, left
    end
  end

  return {is_recent = is_recent, holder_of = holder_of, raise_fence = raise_fence, fields_like = fields_like,
    lacks_ids = lacks_ids, made_before = made_before, drop_old = drop_old, unless_replica = unless_replica}
end

-- How long to remember ids: no longer than the session lives.
local function expire_ops(s, ttl)
  if ttl == 0 and s.ttl then
    ttl = redis.call('PTTL', meta)
  end
  expire(ttl > 0 and math.min(s.retention, ttl) or s.retention, ops)
end

-- Begins a change. Returns the state before it, or nil and what to return at once. A repeat writes (the TTL), so that a
-- WAIT behind it means something from 7.2 on.
local function begin()
  local s = state()
  if s.refusal then
    return nil, s.refusal
  end
  local rare = (MAY_BE_APPLIED or s.version ~= KNOWN or s.version ~= SINCE) and rarely()
  local made = rare and rare.made_before(s)
  if made then
    local result = redis.call('HGET', meta, 'result:' .. made)
    expire(TTL, items)
    expire(TTL, meta)
    expire_ops(s, TTL)
    return nil, {REPEAT, made, digest_at(s, made), result}
  end
  local refusal = s.version < KNOWN and rare.raise_fence(s, KNOWN, s.retention)
  if refusal then
    return nil, refusal
  end
  if is_mismatch(s, KNOWN, KNOWN_DIGEST) then
    return nil, {LOG_MISMATCH, s.version}
  end
  if (MAY_BE_APPLIED or KNOWN < s.version) and rare.lacks_ids(s) then
    -- A first attempt may be one that arrives late, behind its repeat: sent anew with the present position, it is not.
    return nil, rare.unless_replica({MAY_BE_APPLIED and UNTOLD or LOG_MISMATCH, s.version})
  end
  refusal = denied_to_record(s)
  if s.holder and not refusal then
    local token = rarely().holder_of(s)
    if token and token ~= OWN_TOKEN then
      return nil, rarely().unless_replica({BUSY, s.version, token})
    end
  end
  return not refusal and s or nil, refusal
end

-- Begins a change that is made only if the session has the version ARGV[9] and its digest ARGV[10], '' = any.
local function begin_at_expected_version()
  local s, reply = begin()
  local expected, digest = tonumber(ARGV[9]), ARGV[10]
  if s and expected and (expected ~= s.version or digest ~= '' and digest ~= s.digest) then
    return nil, rarely().unless_replica({CONFLICT, s.version})
  end
  return s, reply
end

-- Puts changes to the end of ops, of each its id and its note, and a header in front of the first one.
local function note(s, ...)
  if s.noted > 0 then
    redis.call('RPUSH', ops, ...)
    return
  end
  local evicted = s.version > 0 and rarely().is_recent(s)
  redis.call('RPUSH', ops, s.version .. ':' .. s.digest .. (evicted and '!' or ''), ...)
end

-- Notes a change: the next version, its id and its digest, and the times. Returns what the script returns.
local function record(s, ttl, result, generation_then)
  local digest, length = string.sub(redis.sha1hex(s.digest .. ID), 1, 12), tostring(s.length)
  if s.noted > 0 then
    redis.call('RPUSH', ops, ID, digest .. length)
  else
    note(s, ID, digest .. length)
  end
  local version = s.version + 1
  redis.call('HSET', meta, 'version', version, 'digest', digest, 'last_id', ID, 'length', length, 'updated_at', s.now)
  if generation_then or not s.has_version then
    redis.call('HSET', meta, 'generation', generation_then or s.version, 'format', FORMAT)
  end
  if not s.created then
    redis.call('HSET', meta, 'session_id', SESSION_ID, 'created_at', s.now)
  end
  if s.retention ~= s.kept_retention then
    redis.call('HSET', meta, 'retention', s.retention)
  end
  if TTL > 0 and TTL ~= s.ttl then
    redis.call('HSET', meta, 'ttl', TTL)
  end
  s.version, s.noted, s.digest = version, s.noted + 1, digest
  if s.drops_old then
    redis.call('HSET', meta, 'low_watermarks', rarely().drop_old(s))
  end
  if result then
    redis.call('HSET', meta, 'result:' .. version, result)
  end
  expire(ttl, meta)
  if ttl == 0 and s.length_before == 0 then
    redis.call('PERSIST', meta)  -- it may be what a cleared session left behind
  end
  expire_ops(s, ttl)
  return {APPLIED, version, digest, result}
end

-- RPUSH of ARGV[first] to the end, in steps that Lua's stack holds. Returns the length of the list then.
local function push(first)
  local length
  for from = first, #ARGV, 4000 do
    length = redis.call('RPUSH', items, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
  end
  return length
end
