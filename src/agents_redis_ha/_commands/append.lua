-- Adds items to the end of the session, all or none, if the session is as the caller expects it.
--
-- ARGV[7] the version that the session must have, '' = any; ARGV[8…] the items, one JSON object each.
-- Returns {APPLIED, …}, {REPEAT, …}, {LOG_MISMATCH, …} or {CONFLICT, version}: see the prelude.
local s, reply = begin_at_expected_version(0)
if reply then
  return reply
end
s.length = push(8) - (#ARGV - 7)  -- before it
expire(TTL, items)
return record(s, TTL)
