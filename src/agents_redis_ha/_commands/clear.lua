-- Removes all items. What is left counts versions and remembers ids for as long as a repeat may come, then expires;
-- also for a session that had none, so that a repeat does not remove what others add meanwhile.
--
-- Results and drafts of turns go, too; their ids stay, so that a turn that was answered does not run again. Where
-- KEYS[4] is left out, in a slot that moves, they go with the session's next turn (turn_begin.lua). ARGV[9] how long
-- turns are remembered, ms.
--
-- Returns {APPLIED, …} with the number of elements removed as result, {REPEAT, …}, {LOG_MISMATCH, …} or {UNTOLD, …}:
-- see the prelude.
local s, reply = begin()
reply = reply or denied('DEL', items) or denied('HDEL', meta, 'f')
if reply then
  return reply
end
local keeps_turns = #KEYS == 3
if not keeps_turns then
  redis.call('HGET', turns, 'first')  -- a wrong type fails here
end
local generation_then = generation(s) + 1
if s.length > 0 then
  redis.call('DEL', items)
end
s.length = 0
reply = record(s, s.retention, tostring(s.length_before), generation_then)
redis.call('HDEL', meta, 'session_id', 'created_at', 'ttl')
if keeps_turns then
  redis.call('HSET', meta, 'wipe', '1')
  redis.call('PEXPIRE', meta, math.max(s.retention, tonumber(ARGV[9])))
else
  wipe_turns()
end
return reply
