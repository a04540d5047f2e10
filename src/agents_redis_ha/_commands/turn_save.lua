-- Saves the next piece of a running turn's draft, if there is one, and renews its lease.
--
-- ARGV[1] its token; ARGV[9] its id; ARGV[10] how long to remember turns, ms, and ARGV[11] how many; ARGV[12] and
-- ARGV[13] the position at which it was granted; ARGV[14] the digest of its message; ARGV[15] its attempt; ARGV[16] the
-- lease, ms; ARGV[17] how often the draft was begun anew; ARGV[18] the number of the piece, 0 = none; ARGV[19] the
-- piece.
-- Returns {APPLIED, version, digest}; {CONFLICT, …, to what} if the turn is lost; {INCOMPLETE, …} if pieces before this
-- one are missing here; {LOG_MISMATCH, version}. A repeat changes nothing more: the piece has its number.
local TURN = ARGV[9]
local s, reply = begin_without_change()
if reply then
  return reply
end
local t = get_turn(TURN)
if s.version ~= tonumber(ARGV[12]) or s.digest ~= ARGV[13] or not is_granted(s, t, ID)
  or t and t.state ~= RUNNING then
  return lost(s, t, ID)
end
-- The record may have been lost with a server, and the draft with it.
t = t or {state = RUNNING, attempt = tonumber(ARGV[15]), digest = ARGV[14], token = ID, saves = 0, pieces = 0}
local kept = retain_turns(tonumber(ARGV[10]))
if not save_piece(TURN, t, tonumber(ARGV[17]), tonumber(ARGV[18]), ARGV[19]) then
  return rarely().unless_replica({INCOMPLETE, s.version, s.digest})
end
set_turn(s, TURN, t, kept, tonumber(ARGV[11]))
grant(s, ID, tonumber(ARGV[16]), TURN, t.attempt)
return {APPLIED, s.version, s.digest}
