-- Puts lost changes back, if the session still is as it was surveyed, and lets others write again.
--
-- ARGV[2] to ARGV[4] as in the prelude; ARGV[5] and ARGV[6] the version that the session must have and the id that made
-- it ('' = not remembered); ARGV[7] the claim that is answered: a later one stays; ARGV[8] and ARGV[9] version and
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
local parked = {}
if s.claim then
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(field, 1, 7) == 'parked:' then
      parked[#parked + 1] = field
    end
  end
end
if version > s.version then
  local from, to = tonumber(ARGV[10]), tonumber(ARGV[11])
  rewrite(s.length, from, to, first)
  local fields = {'version', version, 'generation', ARGV[9], 'updated_at', s.now}
  if not s.created and (to > from or #ARGV >= first) then
    fields[7], fields[8], fields[9], fields[10] = 'session_id', SESSION_ID, 'created_at', s.now
  end
  redis.call('HSET', meta, unpack(fields))
  if ARGV[12] == '1' then
    redis.call('HSET', meta, 'closed', version)
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
    redis.call('PERSIST', meta)  -- it may be what a claim or a cleared session left behind
  end
end
if s.claim and s.claim <= tonumber(ARGV[7]) then
  for i = 1, #parked do
    redis.call('HDEL', meta, parked[i])
  end
  redis.call('HDEL', meta, 'claim', 'claim_at')
end
return {APPLIED, math.max(version, s.version)}
