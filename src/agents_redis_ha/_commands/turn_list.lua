-- Names the turns of a session that wait to be claimed. Changes nothing; a replica refuses it, as in info.lua.
--
-- ARGV[1] and ARGV[2] the log position that the caller knows; ARGV[3] how many changes to name, at most.
-- Returns {description, turns}: the description as in info.lua, and of each turn in turn its id, its attempts, and when
-- its number was given, ms since 1970.
local refusal = refusal_of_a_replica()
local session = refusal or description(tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]))
if session.err then
  return session
end
local _, running = rarely().holder_of(state())
local found = {}
each_turn(function(id, t, at)
  if is_suspended(t) and id ~= running then
    found[#found + 1] = id
    found[#found + 1] = t.attempt
    found[#found + 1] = at
  end
end)
return {session, found}
