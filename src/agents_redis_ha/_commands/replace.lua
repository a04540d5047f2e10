-- Replaces all items, or those outside a range, if the session was not changed since it was read.
--
-- ARGV[7] the version that the session must have, '' = any;
-- ARGV[8] and ARGV[9] the elements to keep: from the first index (from 0) to before the second;
-- ARGV[10…] the items to put behind them.
-- Returns {APPLIED, …}, {REPEAT, …}, {LOG_MISMATCH, …} or {CONFLICT, version}: see the prelude.
local s, reply = begin_at_expected_version()
if reply then
  return reply
end
rewrite(s.length, tonumber(ARGV[8]), tonumber(ARGV[9]), 10)
s.generation = s.generation + 1
return record(s, TTL)
