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
local newest = tonumber(ARGV[4])
local elements = redis.call('LRANGE', items, newest > 0 and -newest or 0, -1)
-- Joined in pieces of about 4 kB: one join of 1.4 MB holds the server up for three times as long.
local pieces, first, bytes = {}, 1, 0
for i = 1, #elements do
  bytes = bytes + #elements[i]
  if bytes > 4000 or i == #elements then
    pieces[#pieces + 1] = table.concat(elements, ARGV[5], first, i)
    first, bytes = i + 1, 0
  end
end
return {session, #elements, pieces}
