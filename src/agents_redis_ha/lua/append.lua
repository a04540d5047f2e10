-- Adds items to the end of the session, all or none.
--
-- ARGV[1] operation id; ARGV[2] how long to remember it, ms; ARGV[3] TTL of the session, ms, 0 = leave it;
-- ARGV[4] session id; ARGV[5…] the items, one JSON object each.
-- Returns {APPLIED, version}. A repeat changes nothing but the TTL: {REPEAT, version that it made}.
local id, retention, ttl, session_id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local made = version_of(id)
if made then
  repeated(retention, ttl)
  return {REPEAT, tonumber(made)}
end
local s = state(0)
s.length = push(5) - (#ARGV - 4)  -- before it
expire(ttl, items)
return {APPLIED, record(s, id, retention, ttl, session_id)}
