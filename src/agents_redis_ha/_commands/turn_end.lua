-- Ends a grant without an answer.
--
-- ARGV[1] the token; ARGV[9] the turn's id; ARGV[10] how long to remember turns, ms, and ARGV[11] how many; ARGV[12]
-- and ARGV[13] the position at which it was granted, '' = any; ARGV[14] '1' to forget the turn, as if it had never been
-- seen; else it stays unanswered, with what is saved of it.
-- Returns {APPLIED, version, digest}, also where that was done before; {CONFLICT, …} if the turn is lost;
-- {LOG_MISMATCH, version}.
local TURN = ARGV[9]
local s, reply = begin_without_change()
if reply then
  return reply
end
local t = get_turn(TURN)
local has_changed = ARGV[12] ~= '' and (s.version ~= tonumber(ARGV[12]) or s.digest ~= ARGV[13])
if has_changed or not is_granted(s, t, ID) then
  return rarely().unless_replica({CONFLICT, s.version, s.digest})
end
if ARGV[14] == '1' and t then
  drop_draft(TURN, t)
  redis.call('HDEL', turns, 'turn:' .. TURN)
elseif t then
  t.state = UNANSWERED  -- a save that comes late does not take the session again
  set_turn(s, TURN, t, tonumber(ARGV[10]), tonumber(ARGV[11]))
end
redis.call('HDEL', meta, 'holder')
return {APPLIED, s.version, s.digest}
