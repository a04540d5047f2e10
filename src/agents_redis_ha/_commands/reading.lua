-- Stands behind the prelude in the scripts that tell of a session.

-- Returns the error with which a replica refuses to be read, or nil: a write of nothing is what it refuses by itself.
local function refusal_of_a_replica()
  local reply = redis.pcall('HDEL', meta, '')
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'READONLY', 1, true) then
    return redis.error_reply('READONLY a replica may not know the latest state')
  end
end

-- Describes the session to a caller that knows a log position (0 and '' = none).
-- Returns {number of elements, TTL in ms (-1 none, -2 no such session), created_at, updated_at, version, generation,
-- digest, retention in ms, 1 if the caller has to look closer, changes}, with '' for what is not known, or an error;
-- and behind that, where a turn has the session or was the last one that had it, its holder (turning.lua) and the time,
-- ms.
-- The changes are the newest elements of ops, back to the known version or `limit` changes; none where two keys are
-- declared, since ops is not touched then.
local function description(known, known_digest, limit)
  local s = state()
  if s.refusal then
    return s.refusal
  end
  local mismatch = is_mismatch(s, known, known_digest)
  local count = math.min(math.max(s.version - known, 0), limit)
  local changes = s.noted > 0 and count > 0 and redis.call('LRANGE', ops, -2 * count, -1) or {}
  local m = redis.call('HMGET', meta, 'updated_at', 'generation')
  return {s.length, redis.call('PTTL', meta), s.created or '', m[1] or '', s.version, tonumber(m[2]) or s.version,
    s.digest, s.kept_retention or '', mismatch and 1 or 0, changes, s.holder or nil, s.now}
end

-- Reads the newest elements, 0 = all. Returns their number and pieces of about 4 kB, in which they are joined: one join
-- of 1.4 MB holds the server up for three times as long.
local function joined(newest, separator)
  local elements = redis.call('LRANGE', items, newest > 0 and -newest or 0, -1)
  local pieces, first, bytes = {}, 1, 0
  for i = 1, #elements do
    bytes = bytes + #elements[i]
    if bytes > 4000 or i == #elements then
      pieces[#pieces + 1] = table.concat(elements, separator, first, i)
      first, bytes = i + 1, 0
    end
  end
  return #elements, pieces
end
