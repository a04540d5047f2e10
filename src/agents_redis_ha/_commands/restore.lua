-- Puts lost changes back, if the session still is as it was inspected, and lifts the write fence.
--
-- ARGV[2] to ARGV[4] as in the prelude; ARGV[5] and ARGV[6] the log position that the session must have; ARGV[9] the
-- number of elements that it must have; ARGV[10] the fence that is answered: a higher one stays; ARGV[11], ARGV[12] and
-- ARGV[13] version, digest and generation afterwards; ARGV[14] and ARGV[15] the elements to keep: from the first index
-- (from 0) to before the second; ARGV[16] 1 if changes are given up with it; ARGV[17] 1 if evicted elements are;
-- ARGV[18] the number of changes that follow from ARGV[19…] on, each with its id and its note; then the number of
-- results that follow, each with its version before it; then the number of turns that were published with them, each
-- with its id, attempt, digest of its message, token, payload, and for how long and how many of them are remembered;
-- then the items to put behind what is kept. KEYS[4] only with turns. An empty id stands for a clear in between, which
-- drops what turns hold; where KEYS[4] is left out, that is done by the next turn (turn_begin.lua). Turns that are
-- known by the ids of their changes alone are left out then.
--
-- A turn that has the session loses it, for it was begun on another history.
-- Returns {APPLIED, version}, or {CONFLICT, version} without a change.
local s = state()
local function may_not()
  return denied('HSET', meta, 'f', '') or denied('RPUSH', items, '') or denied('RPUSH', ops, '')
    or denied('LTRIM', items, 0, 0) or denied('DEL', items) or denied('PEXPIRE', ops, 1) or denied('HDEL', meta, 'f')
    or denied('PERSIST', meta)
end
local refusal = s.refusal or may_not()
if refusal then
  return refusal
end
if s.version ~= KNOWN or s.digest ~= KNOWN_DIGEST or s.length ~= tonumber(ARGV[9]) then
  return {CONFLICT, s.version}
end
local version, changes = tonumber(ARGV[11]), tonumber(ARGV[18])
local results = 19 + 2 * changes
local published = results + 1 + 2 * tonumber(ARGV[results])
local first = published + 1 + 7 * tonumber(ARGV[published])
if first > published + 1 and #KEYS ~= 3 then
  redis.call('HGET', turns, 'first')  -- a wrong type fails here
end
local left = s.fence and rarely().fields_like('hint:') or {}  -- read before the first write
local from, to = tonumber(ARGV[14]), tonumber(ARGV[15])
if version > s.version or from > 0 or to < s.length or first <= #ARGV or s.length < s.expected then
  s.length = rewrite(s.length, from, to, first)
  local begins_anew = changes > 0 and version - changes > s.version  -- too many were given up to note each
  local noted_before = begins_anew and s.noted or 0
  if begins_anew then
    s.version, s.digest, s.noted = version - changes, '', 0
  end
  for i = 19, results - 1, 4000 do
    note(s, unpack(ARGV, i, math.min(i + 3999, results - 1)))
    s.noted = s.noted + 1
  end
  if noted_before > 0 then
    redis.call('LTRIM', ops, 2 * noted_before + 1, -1)
  end
  local fields = {'format', FORMAT, 'version', version, 'digest', ARGV[12], 'generation', ARGV[13],
    'length', s.length, 'updated_at', s.now}
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if changes > 0 then
    set('last_id', ARGV[results - 2])
  end
  if not s.created and s.length > 0 then
    set('session_id', SESSION_ID)
    set('created_at', s.now)
  end
  if s.retention ~= s.kept_retention then
    set('retention', s.retention)
  end
  if ARGV[16] == '1' then
    set('abandoned_at', version)
  end
  if ARGV[17] == '1' then
    set('evicted_at', version)
  end
  redis.call('HSET', meta, unpack(fields))
  for i = results + 1, published - 1, 2 do
    redis.call('HSET', meta, 'result:' .. ARGV[i], ARGV[i + 1])
  end
  for i = published + 1, first - 1, 7 do
    local id = ARGV[i]
    if id == '' and #KEYS == 3 then
      redis.call('HSET', meta, 'wipe', '1')
    elseif id == '' then
      wipe_turns()
    elseif #KEYS ~= 3 then
      local t, kept = get_turn(id) or {saves = 0, pieces = 0}, retain_turns(tonumber(ARGV[i + 5]))
      drop_draft(id, t)
      t.state, t.attempt, t.digest, t.token, t.payload = ANSWERED, unpack(ARGV, i + 1, i + 4)
      renew_turn(s, id, t, kept, tonumber(ARGV[i + 6]))
    end
  end
  if s.holder then
    redis.call('HDEL', meta, 'holder')
  end
  if changes > 0 or s.noted > 0 then
    redis.call('PEXPIRE', ops, TTL > 0 and math.min(s.retention, TTL) or s.retention)
  end
  if TTL > 0 then
    redis.call('PEXPIRE', meta, TTL)
  elseif not s.created and s.length == 0 then
    redis.call('PEXPIRE', meta, s.retention)  -- as clear.lua leaves it
  elseif s.length_before == 0 then
    redis.call('PERSIST', meta)  -- it may be what a fence or a cleared session left behind
  end
end
if s.fence and s.fence <= tonumber(ARGV[10]) then
  for i = 1, #left, 2 do
    redis.call('HDEL', meta, left[i])
  end
  redis.call('HDEL', meta, 'fence', 'fenced_at')
end
return {APPLIED, math.max(version, s.version)}
