-- Removes all items. What is left counts versions and remembers ids for as long as a repeat may come, then expires;
-- also for a session that had none, so that a repeat does not remove what others add meanwhile.
--
-- Returns {APPLIED, …} with the number of elements removed as result, {REPEAT, …} or
-- {LOG_MISMATCH, …}: see the prelude.
local s, reply = begin()
if reply then
  return reply
end
if s.length > 0 then
  redis.call('DEL', items)
end
s.generation = s.generation + 1
reply = record(s, RETENTION, tostring(s.length))
redis.call('HDEL', meta, 'session_id', 'created_at')
return reply
