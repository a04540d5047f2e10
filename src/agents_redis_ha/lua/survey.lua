-- Tells what is here to somebody who misses changes, and takes what that one has of them ("parks" it), so that whoever
-- has all of it can put it back.
--
-- ARGV[1] and ARGV[2] a version that the caller misses and its id, 0 = none; ARGV[3] how long to keep what is parked,
-- if the session is not here, ms; ARGV[4] how many changes to name; ARGV[5…] name and content of what to park, ….
-- Returns {version, generation, number of elements, claim or '', ms since the first claim, newest changes as in
-- description(), name and value of each field of what is parked}. A replica refuses it.
local refusal = refusal_of_a_replica()
if refusal then
  return refusal
end
local s = state()
local known, retention = tonumber(ARGV[1]), tonumber(ARGV[3])
if known > s.version then
  claim(s, known, retention)
  for i = 5, #ARGV, 2 do
    redis.call('HSETNX', meta, 'parked:' .. ARGV[i], ARGV[i + 1])
  end
end
local changes = redis.call('ZREVRANGEBYSCORE', ops, '+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local m = redis.call('HMGET', meta, 'claim', 'claim_at')
local parked = {}
if m[1] then
  local fields = redis.call('HGETALL', meta)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 7) == 'parked:' then
      parked[#parked + 1] = string.sub(fields[i], 8)
      parked[#parked + 1] = fields[i + 1]
    end
  end
end
return {s.version, s.generation, s.length, m[1] or '', m[2] and s.now - m[2] or 0, changes, parked}
