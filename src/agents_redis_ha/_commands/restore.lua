-- Puts lost changes back, if the session still is as it was inspected, and lifts the write fence.
--
-- ARGV[2] to ARGV[4] as in the prelude; ARGV[5] and ARGV[6] the log position that the session must have (an id of '' is
-- one that is not remembered); ARGV[7] the fence that is answered: a higher one stays; ARGV[8] and ARGV[9] version and
-- generation afterwards; ARGV[10] and ARGV[11] the elements to keep: from the first index (from 0) to before the
-- second; ARGV[12] 1 if changes are given up with it; ARGV[13] number of members of ops that follow, each with its
-- version before it; then the items to put behind what is kept. Returns {APPLIED, version}, or {CONFLICT, version}
-- without a change.
local s = state()
if s.version ~= KNOWN or change_at(s.version) ~= KNOWN_ID then
  return {CONFLICT, s.version}
end
local version, members = tonumber(ARGV[8]), tonumber(ARGV[13])
local first = 14 + 2 * members
local left = s.fence and hints() or {}  -- read before the first write
if version > s.version then
  local from, to = tonumber(ARGV[10]), tonumber(ARGV[11])
  rewrite(s.length, from, to, first)
  local fields = {'version', version, 'generation', ARGV[9], 'updated_at', s.now}
  if not s.created and (to > from or #ARGV >= first) then
    fields[7], fields[8], fields[9], fields[10] = 'session_id', SESSION_ID, 'created_at', s.now
  end
  redis.call('HSET', meta, unpack(fields))
  if ARGV[12] == '1' then
    redis.call('HSET', meta, 'abandoned_at', version)
  end
  for i = 14, first - 1, 2 do
    redis.call('ZADD', ops, ARGV[i], ARGV[i + 1])
  end
  redis.call('PEXPIRE', ops, RETENTION)
  if TTL > 0 then
    redis.call('PEXPIRE', meta, TTL)
  elseif not s.created and to <= from and #ARGV < first then
    redis.call('PEXPIRE', meta, RETENTION)  -- as clear.lua leaves it
  elseif s.length == 0 then
    redis.call('PERSIST', meta)  -- it may be what a fence or a cleared session left behind
  end
end
if s.fence and s.fence <= tonumber(ARGV[7]) then
  for i = 1, #left, 2 do
    redis.call('HDEL', meta, left[i])
  end
  redis.call('HDEL', meta, 'fence', 'fenced_at')
end
return {APPLIED, math.max(version, s.version)}
