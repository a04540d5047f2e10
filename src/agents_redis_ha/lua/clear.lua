-- Removes all items. What is left counts versions and remembers ids for as long as a repeat may come, then expires;
-- also for a session that had none, so that a repeat does not remove what others add meanwhile.
--
-- ARGV[1] operation id; ARGV[2] how long to remember it, ms.
-- Returns {APPLIED, version, number of elements removed}. A repeat removes nothing: {REPEAT, version that it made, the
-- number of then}.
local id, retention = ARGV[1], tonumber(ARGV[2])

local made = version_of(id)
if made then
  repeated(retention, 0)
  return {REPEAT, tonumber(made), tonumber(result_of(id, made))}
end
local s = state()
if s.length > 0 then
  redis.call('DEL', items)
end
s.generation = s.generation + 1
local version = record(s, id, retention, retention, '')
redis.call('HDEL', meta, 'session_id', 'created_at')
redis.call('ZADD', ops, version, id .. s.length)
return {APPLIED, version, s.length}
