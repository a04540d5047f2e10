-- Tells what this server has of a session. If it misses changes that the caller knows, it raises the write fence and
-- takes what the caller knows of them as hints (hinted handoff), for the process that can put all of them back.
--
-- ARGV[1] and ARGV[2] the log position that the caller misses, 0 and '' = none; ARGV[3] how long to keep the hints if
-- the session is not here, ms; ARGV[4] how many changes to name; ARGV[5…] name and content of each hint.
-- Returns {version, generation, number of elements, fence or '', ms since it was raised, newest changes as in
-- description(), in turn name and content of each hint}. A replica refuses it.
local refusal = refusal_of_a_replica()
if refusal then
  return refusal
end
local s = state()
local known, retention = tonumber(ARGV[1]), tonumber(ARGV[3])
if known > s.version then
  raise_fence(s, known, retention)
  for i = 5, #ARGV, 2 do
    redis.call('HSETNX', meta, 'hint:' .. ARGV[i], ARGV[i + 1])
  end
end
local changes = redis.call('ZREVRANGEBYSCORE', ops, '+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local m = redis.call('HMGET', meta, 'fence', 'fenced_at')
local age = m[2] and s.now - m[2] or 0
return {s.version, s.generation, s.length, m[1] or '', age, changes, m[1] and hints() or {}}
