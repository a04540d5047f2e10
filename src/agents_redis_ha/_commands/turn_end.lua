-- Ends a grant without an answer.
--
-- ARGV[1] the token; ARGV[9] the turn's id; ARGV[10] how long to remember turns, ms, and ARGV[11] how many; ARGV[12]
-- and ARGV[13] the position at which it was granted, '' = any; ARGV[14] the state afterwards: 'unanswered',
-- 'suspended', or '' to forget the turn, as if it had never been seen; ARGV[15] what is kept of a suspended one;
-- ARGV[16], ARGV[17] and ARGV[18] a last piece of its draft, as ARGV[17] to ARGV[19] in turn_save.lua; ARGV[19] '1' to
-- take the session from the attempt, which does not know: its token does not hold any more then.
-- Returns {APPLIED, version, digest}, also where that was done before; {CONFLICT, …, to what} if the turn is lost;
-- {INCOMPLETE, …} and {LOG_MISMATCH, version} as in turn_save.lua.
local TURN, KEPT, MOST, STATE = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[14]
local RELEASES = ARGV[19] == '1'
local TOKEN_THEN = RELEASES and RELEASED .. ID or ID
local s, reply = begin_without_change()
if reply then
  return reply
end
local t = get_turn(TURN)
local queue, place = read_queue(s, publication_of(TURN))
if place and not RELEASES then
  table.remove(queue, place)
  write_queue(queue)
end
local has_changed = ARGV[12] ~= '' and (s.version ~= tonumber(ARGV[12]) or s.digest ~= ARGV[13])
local is_this = t and t.token == TOKEN_THEN and t.state == (STATE == '' and FORGOTTEN or STATE)
local holder, till = string.match(s.holder or '', '^(%S+) (%d+)')
local is_done = is_this and (holder ~= ID or till == '0')
if is_done then
  retain_turns(KEPT)
  return {APPLIED, s.version, s.digest}
elseif has_changed or not is_granted(s, t, ID) or t and t.state == ANSWERED
  or RELEASES and (holder ~= ID or till == '0' or t and t.state ~= RUNNING) then
  return lost(s, t, ID)
end
if t then
  KEPT = retain_turns(KEPT)
end
if STATE == '' and t then
  drop_draft(TURN, t)
  t.state, t.payload, t.digest = FORGOTTEN, '', '-'  -- a save that comes late finds that it is over
  put_turn(TURN, t)
elseif t then
  if not save_piece(TURN, t, tonumber(ARGV[16]), tonumber(ARGV[17]), ARGV[18]) then
    return rarely().unless_replica({INCOMPLETE, s.version, s.digest})
  end
  t.token = TOKEN_THEN
  t.state = STATE  -- a save that comes late does not take the session again
  t.payload = STATE == SUSPENDED and ARGV[15] or t.payload
  set_turn(s, TURN, t, KEPT, MOST)
end
take_back(s, TOKEN_THEN, TURN)
return {APPLIED, s.version, s.digest}
