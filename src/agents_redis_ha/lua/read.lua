-- Reads the newest items.
--
-- ARGV[1] how many, 0 = all; ARGV[2] what to put between two of them in the reply.
-- Returns {version, length of the list, number of elements read, these joined}. Changes nothing; a replica refuses it
-- (READONLY), so that nobody reads from a server that has been replaced.
local guard = redis.pcall('HDEL', meta, '')
if type(guard) == 'table' and guard.err and string.find(guard.err, 'READONLY', 1, true) then
  return redis.error_reply('READONLY a replica may not know the latest state')
end
local version = redis.call('HGET', meta, 'version')
local newest = tonumber(ARGV[1])
local elements = redis.call('LRANGE', items, newest > 0 and -newest or 0, -1)
return {tonumber(version) or 0, redis.call('LLEN', items), #elements, table.concat(elements, ARGV[2])}
