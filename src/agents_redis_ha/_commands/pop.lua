-- Removes the newest item and returns it.
--
-- ARGV[9] '' for the newest element, else the index (from the end, -1 the newest) of the one to remove, which the
-- caller has looked at; ARGV[10], ARGV[11] and ARGV[12] version, digest and number of elements that the session had
-- then; ARGV[13] and ARGV[14] version and digest of an earlier pop of the caller whose result has arrived, '' = none.
-- Returns {APPLIED, …} with the element as result, or without one if the caller has it; {UNCHANGED, …} when there is
-- none; {REPEAT, …} with the same element again, '' if there was none and '?' if the answer was UNSURE;
-- {LOG_MISMATCH, …}, {UNTOLD, …}: see the prelude. {UNSURE, version} when the newest element does not look like an
-- item, or is too large to be judged here: the caller looks itself and names one by its index. {CONFLICT, version} when
-- the session is another one by now.

-- Above this, a look at an element holds up the server: 25 ms a megabyte.
local LARGEST_JUDGED = 65536

-- The UTF-8 sequences of more than one byte that Python accepts: no overlong ones, no surrogates, none past U+10FFFF.
local SEQUENCES = {
  '[\194-\223][\128-\191]',
  '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]', '\237[\128-\159][\128-\191]',
  '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]',
  '\244[\128-\143][\128-\191][\128-\191]',
}

-- Whether the text is UTF-8: with the sequences blanked, no byte of one may be left.
local function is_utf8(text)
  for _, sequence in ipairs(SEQUENCES) do
    if not string.find(text, '[\128-\255]') then
      return true
    end
    text = string.gsub(text, sequence, ' ')
  end
  return not string.find(text, '[\128-\255]')
end

local function is_item(text)
  if not string.find(text, '^{') or string.find(text, '%c') or not is_utf8(text) then
    return false
  end
  return (pcall(cjson.decode, text))
end

-- Answers that nothing was removed. If an earlier attempt may still be under way, it must not remove later what is
-- added meanwhile: then the id is noted with a change of nothing, and the answer is kept for a repeat.
local function remove_nothing(s, status, answer)
  if MAY_BE_APPLIED then
    local refusal = denied('HDEL', meta, 'f')
    if refusal then
      return refusal
    end
    local reply = record(s, s.created and TTL or s.retention, answer)
    if not s.created then  -- as clear.lua leaves it
      redis.call('HDEL', meta, 'session_id', 'created_at', 'ttl')
    end
    reply[1] = status
    return reply
  end
  return rarely().unless_replica({status, s.version})
end

local s, reply = begin()
if reply then
  return reply
end
local index = tonumber(ARGV[9])
local element
if index then
  if s.version ~= tonumber(ARGV[10]) or s.digest ~= ARGV[11] or s.length ~= tonumber(ARGV[12]) then
    return {CONFLICT, s.version}
  end
else
  element = redis.call('LINDEX', items, -1)
  if not element then
    return remove_nothing(s, UNCHANGED, '')
  end
  if #element > LARGEST_JUDGED or not is_item(element) then
    return remove_nothing(s, UNSURE, '?')
  end
end
reply = index and index ~= -1 and (denied('LSET', items, 0, '') or denied('LREM', items, 0, ''))
  or denied('LTRIM', items, 0, 0) or denied('HDEL', meta, 'f')
if reply then
  return reply
end
local generation_then = generation(s) + 1
local has_arrived = ARGV[13] ~= '' and digest_at(s, tonumber(ARGV[13])) == ARGV[14]
if index and index ~= -1 then
  -- A list is cut by value only: the element becomes one that no other is, which is then removed.
  redis.call('LSET', items, index, ID)
  redis.call('LREM', items, -1, ID)
else
  redis.call('LTRIM', items, 0, -2)
end
s.length = s.length - 1
if s.length > 0 then
  expire(TTL, items)
end
if has_arrived then
  redis.call('HDEL', meta, 'result:' .. ARGV[13])
end
return record(s, TTL, element, generation_then)
