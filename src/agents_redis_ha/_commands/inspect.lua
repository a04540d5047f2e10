-- Tells what this server has of a session. If it misses changes that the caller knows, or elements that were evicted,
-- it raises the write fence and takes what the caller knows of them as hints (hinted handoff), for the process that can
-- put all of them back.
--
-- ARGV[1] and ARGV[2] the log position that the caller misses, 0 and '' = none; ARGV[3] how long to keep the hints if
-- the session is not here, ms; ARGV[4…] name and content of each hint.
-- Returns {version, generation, digest, number of elements, number of elements that should be there, fence or '', ms
-- since it was raised, the version with which evicted elements were given up or '', ops, in turn name and content of
-- each hint}. A replica refuses it.
local refusal = refusal_of_a_replica()
local s = not refusal and state()
refusal = refusal or s.refusal
if refusal then
  return refusal
end
local known, retention = tonumber(ARGV[1]), tonumber(ARGV[3])
if known > s.version or s.length < s.expected then
  refusal = rarely().raise_fence(s, math.max(known, s.version), retention)
  if refusal then
    return refusal
  end
  for i = 4, #ARGV, 2 do
    redis.call('HSETNX', meta, 'hint:' .. ARGV[i], ARGV[i + 1])
  end
end
local changes = redis.call('LRANGE', ops, 0, -1)
local m = redis.call('HMGET', meta, 'fence', 'fenced_at', 'evicted_at')
local age = m[2] and s.now - m[2] or 0
if age < 0 then  -- by the clock of a server that went before
  redis.call('HSET', meta, 'fenced_at', s.now)
  age = 0
end
return {s.version, generation(s), s.digest, s.length, s.expected, m[1] or '', age, m[3] or '', changes,
  m[1] and rarely().fields_like('hint:') or {}}
