-- Adds items to the end of the session, all or none, if the session is as the caller expects it.
--
-- ARGV[9] and ARGV[10] the version that the session must have and its digest, '' = any; ARGV[11…] the items, one JSON
-- object each.
-- Returns {APPLIED, …}, {REPEAT, …}, {LOG_MISMATCH, …}, {UNTOLD, …} or {CONFLICT, version}: see the prelude.
local s, reply = begin_at_expected_version()
reply = reply or denied('RPUSH', items, '')
if reply then
  return reply
end
s.length = push(11)
expire(TTL, items)
return record(s, TTL)
