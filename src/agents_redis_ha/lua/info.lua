-- Describes the session. Changes nothing; a replica refuses it, as in read.lua.
--
-- Returns {number of elements, TTL in ms (-1 none, -2 no such session), created_at, updated_at, version, generation},
-- with '' for what is not known.
local refusal = refusal_of_a_replica()
if refusal then
  return refusal
end
local m = redis.call('HMGET', meta, 'created_at', 'updated_at', 'version', 'generation')
return {redis.call('LLEN', items), redis.call('PTTL', meta), m[1] or '', m[2] or '', m[3] or '', m[4] or ''}
