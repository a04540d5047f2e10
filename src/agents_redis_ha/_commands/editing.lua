-- Stands behind the prelude in the scripts that do more than append.

-- Returns how many changes were no appends. Where meta was evicted, that may be all of them.
local function generation(s)
  return s.has_version and tonumber(redis.call('HGET', meta, 'generation')) or s.version
end

-- Keeps the elements from an index (from 0) to before another and puts ARGV[first] … behind them. The list never
-- becomes empty on the way: see the rules above. Returns its length then.
local function rewrite(length, from, to, first)
  local pushed = #ARGV - first + 1
  if to > from then
    if from > 0 or to < length then
      redis.call('LTRIM', items, from, to - 1)
    end
    push(first)
  elseif pushed > 0 then
    push(first)
    if length > 0 then
      redis.call('LTRIM', items, length, -1)
    end
  elseif length > 0 then
    redis.call('DEL', items)
  end
  if to > from or pushed > 0 then
    expire(TTL, items)
  end
  return math.max(to - from, 0) + math.max(pushed, 0)
end
