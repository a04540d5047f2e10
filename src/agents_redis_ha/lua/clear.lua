-- Removes all items. What is left counts versions and remembers ids for as long as a repeat may come, then expires.
--
-- ARGV[1] operation id; ARGV[2] how long to remember it, ms.
-- Returns {APPLIED, version, number of elements removed}. A repeat changes nothing: {REPEAT, version that it made, 0}.
local id, retention = ARGV[1], tonumber(ARGV[2])

local made = version_of(id)
if made then
  repeated(retention, 0)
  return {REPEAT, tonumber(made), 0}
end
local s = state()
if not s.known and s.length == 0 then
  return {APPLIED, s.version, 0}
end
local removed = s.length
if removed > 0 then
  redis.call('DEL', items)
end
s.generation = s.generation + 1
local version = record(s, id, retention, retention, '')
redis.call('HDEL', meta, 'session_id', 'created_at')
return {APPLIED, version, removed}
