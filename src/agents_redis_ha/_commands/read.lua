-- Reads the newest items and describes the session. Changes nothing; a replica refuses it, as in info.lua.
--
-- KEYS[3] may be missing. ARGV[1], ARGV[2] and ARGV[3] as in info.lua; ARGV[4] how many items, 0 = all; ARGV[5] what to
-- put between two of them in the reply.
-- Returns {description, number of elements read, these joined to pieces}.
local refusal = refusal_of_a_replica()
local session = refusal or description(tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]))
if session.err then
  return session
end
local count, pieces = joined(tonumber(ARGV[4]), ARGV[5])
return {session, count, pieces}
