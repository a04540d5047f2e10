-- Describes the session. Changes nothing; a replica refuses it, so that no process reads from a server that has been
-- replaced.
--
-- KEYS[3] may be missing. ARGV[1] and ARGV[2] the log position that the caller knows; ARGV[3] how many changes to name,
-- at most.
-- Returns {number of elements, TTL, …}: what description() in the prelude returns.
local refusal = refusal_of_a_replica()
if refusal then
  return refusal
end
return description(tonumber(ARGV[1]), ARGV[2], ARGV[3])
