-- Replaces all items, or those outside a range, if nobody changed the session since it was read.
--
-- ARGV[1] operation id; ARGV[2] how long to remember it, ms; ARGV[3] TTL of the session, ms, 0 = leave it;
-- ARGV[4] session id; ARGV[5] the version that the session must have, '' = any;
-- ARGV[6] and ARGV[7] the elements to keep: from the first index (from 0) to before the second;
-- ARGV[8…] the items to put behind them.
-- Returns {APPLIED, version}, or {CONFLICT, version} without a change. A repeat: {REPEAT, version that it made}.
local id, retention, ttl, session_id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local expected, from, to = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local made = version_of(id)
if made then
  repeated(retention, ttl)
  return {REPEAT, tonumber(made)}
end
local s = state()
if expected and expected ~= s.version then
  return {CONFLICT, s.version}
end
-- The list never becomes empty on the way: see the rules in the prelude.
if to > from then
  redis.call('LTRIM', items, from, to - 1)
  push(8)
elseif #ARGV >= 8 then
  push(8)
  if s.length > 0 then
    redis.call('LTRIM', items, s.length, -1)
  end
elseif s.length > 0 then
  redis.call('DEL', items)
end
s.generation = s.generation + 1
if to > from or #ARGV >= 8 then
  expire(ttl, items)
end
return {APPLIED, record(s, id, retention, ttl, session_id)}
