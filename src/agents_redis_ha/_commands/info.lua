-- Describes the session. Changes nothing; a replica refuses it, so that no process reads from a server that has been
-- replaced.
--
-- KEYS[3] may be missing. ARGV[1] and ARGV[2] the log position that the caller knows; ARGV[3] how many changes to name,
-- at most.
-- Returns {number of elements, TTL, …}: what description() in reading.lua returns.
return refusal_of_a_replica() or description(tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]))
