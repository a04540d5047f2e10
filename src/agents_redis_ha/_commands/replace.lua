-- Replaces all items, or those outside a range, if the session was not changed since it was read.
--
-- ARGV[9] and ARGV[10] the version that the session must have and its digest, '' = any;
-- ARGV[11] and ARGV[12] the elements to keep: from the first index (from 0) to before the second;
-- ARGV[13…] the items to put behind them.
-- Returns {APPLIED, …}, {REPEAT, …}, {LOG_MISMATCH, …}, {UNTOLD, …} or {CONFLICT, version}: see the prelude.
local s, reply = begin_at_expected_version()
reply = reply or denied('RPUSH', items, '') or denied('LTRIM', items, 0, 0) or denied('DEL', items)
if reply then
  return reply
end
local generation_then = generation(s) + 1
s.length = rewrite(s.length, tonumber(ARGV[11]), tonumber(ARGV[12]), 13)
return record(s, TTL, nil, generation_then)
