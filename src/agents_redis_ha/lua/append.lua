-- Adds items to the end of the session, all or none.
--
-- ARGV[7…] the items, one JSON object each. Returns {APPLIED, …}, {REPEAT, …} or {BEHIND, …}: see the prelude.
local s, reply = begin(0)
if reply then
  return reply
end
s.length = push(7) - (#ARGV - 6)  -- before it
expire(TTL, items)
return record(s, TTL)
