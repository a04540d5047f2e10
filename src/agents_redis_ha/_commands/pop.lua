-- Removes the newest item and returns it.
--
-- ARGV[7] '' for the newest element, else the index (from the end, -1 the newest) of the one to remove, and ARGV[8]
-- then the SHA-1 that it must have.
-- Returns {APPLIED, …} with the element as result, or without one and with the version as it is when there is none;
-- {REPEAT, …} with the same element again; {LOG_MISMATCH, …}: see the prelude. {UNSURE, version} when the newest
-- element does not look like an item (the caller looks itself and names one by its index), {CONFLICT, version} when the
-- element at the index is another one by now.
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

local s, reply = begin()
if reply then
  return reply
end
local index = tonumber(ARGV[7])
local element = redis.call('LINDEX', items, index or -1)
if not element then
  return {index and CONFLICT or APPLIED, s.version}
end
if index then
  if redis.sha1hex(element) ~= ARGV[8] then
    return {CONFLICT, s.version}
  end
  -- A list is cut by value only: the element becomes one that no other is, which is then removed.
  redis.call('LSET', items, index, ID)
  redis.call('LREM', items, -1, ID)
elseif is_item(element) then
  redis.call('RPOP', items)
else
  return {UNSURE, s.version}
end
s.generation = s.generation + 1
if s.length > 1 then
  expire(TTL, items)
end
return record(s, TTL, element)
