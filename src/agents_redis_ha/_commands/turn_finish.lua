-- Publishes a turn: its items go behind the session's, and its result is kept, in one step.
--
-- ARGV[1] the id of the change, made of the turn's id and its token; ARGV[9] its id; ARGV[10] how long to remember
-- turns, ms, and ARGV[11] how many; ARGV[12] and ARGV[13] the position at which it was granted; ARGV[14] its token;
-- ARGV[15] the digest of its message; ARGV[16] its attempt; ARGV[17] its payload, the result; ARGV[18] and ARGV[19] the
-- elements of the session to keep: from the first index (from 0) to before the second, '' = all; ARGV[20…] the items to
-- put behind them.
-- Returns {APPLIED, …} or {REPEAT, …} with its token as result; {CONFLICT, version, digest, to what} if the turn is
-- lost; {LOG_MISMATCH, …} or {UNTOLD, …}.
local TURN, TOKEN = ARGV[9], ARGV[14]
OWN_TOKEN = TOKEN
local s, reply = begin()
if reply and reply[1] == BUSY then
  return lost(state(), get_turn(TURN), TOKEN)
elseif reply then
  return reply
end
local t = get_turn(TURN)
if s.version ~= tonumber(ARGV[12]) or s.digest ~= ARGV[13] or not is_granted(s, t, TOKEN) then
  return lost(s, t, TOKEN)
end
local replaces = ARGV[19] ~= ''
reply = denied_to_grant() or denied('RPUSH', items, '')
  or replaces and (denied('LTRIM', items, 0, 0) or denied('DEL', items)) or nil
if reply then
  return reply
end
local kept = retain_turns(tonumber(ARGV[10]))
local generation_then = replaces and generation(s) + 1 or nil
if replaces then
  s.length = rewrite(s.length, tonumber(ARGV[18]), tonumber(ARGV[19]), 20)
else
  s.length = #ARGV >= 20 and push(20) or s.length
  if s.length > 0 then
    expire(TTL, items)
  end
end
t = t or {saves = 0, pieces = 0}
drop_draft(TURN, t)
t.state, t.attempt, t.digest, t.token, t.payload = ANSWERED, ARGV[16], ARGV[15], TOKEN, ARGV[17]
renew_turn(s, TURN, t, kept, tonumber(ARGV[11]))
redis.call('HDEL', meta, 'holder')
return record(s, TTL, TOKEN, generation_then)
