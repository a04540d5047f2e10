-- Stands behind the prelude, and behind reading.lua or editing.lua, in the scripts of turns.
--
-- KEYS[4] turns HASH  what is known of the session's turns. Its fields:
--   turn:<turn id>       a record: state, attempt, digest of the message ('-' = not known), token, how often its draft
--                        was begun anew, number of the draft's pieces, its own number, payload; ' ' between two
--   turn:\255<10 characters>  the same, of one that a process put back that knew no more than with what its change's id
--                        begins: no turn's id is like that, for it is UTF-8
--   piece:<turn id>:<n>  the n-th piece of its draft: elements, with a line feed between two of them
--   at:<number>          '<ms since 1970> <turn id>': turns are numbered as they are begun and as they are answered, so
--                        that the oldest are known
--   first, next          the lowest number that is kept, and the one that the next turn gets
--   retention            ms, the longest for which turns were to be remembered
--   queue                who waits: '<ticket> <until, ms since 1970>' of each, in the order of arrival, ' ' between two
--   held                 until when the places of those who wait hold since their server was away, ms since 1970
--
-- meta, holder: '<token> <until, ms since 1970> <lease, ms> <since, ms since 1970> <attempt> <turn id>' of the turn
-- that has the session, or was the last one that had it: then until, lease, since and attempt are 0.
--
-- A turn is staged in its draft and published whole (turn_finish.lua): the draft is no part of the history, and a grant
-- no part of its log. A grant fences by two things together: its token, since another turn may have been granted the
-- session without a change, and the position at which it was granted, since there may have been a change without a
-- turn. The end of a lease refuses no turn by itself, and neither does a grant that was lost with a server.
--
local turns = KEYS[4] or (base .. 'turns')
local RUNNING, UNANSWERED, ANSWERED, CANCELLED = 'running', 'unanswered', 'answered', 'cancelled'
local SUSPENDED, FORGOTTEN = 'suspended', 'forgotten'
local RELEASED = 'released:'  -- in front of the token of an attempt from which the session was taken: it holds no more
local INCOMPLETE = 12
local LONGEST_AWAY = 600000  -- ms that a server can be away before those who wait lose their order

local function get_turn(id)
  local text = redis.call('HGET', turns, 'turn:' .. id)
  local state_, attempt, digest, token, saves, pieces, number, payload =
    string.match(text or '', '^(%a+) (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (.*)$')
  return state_ and {state = state_, attempt = tonumber(attempt), digest = digest, token = token,
    saves = tonumber(saves), pieces = tonumber(pieces), number = tonumber(number), payload = payload}
end

local function drop_draft(id, t)
  for number = 1, t.pieces do
    redis.call('HDEL', turns, 'piece:' .. id .. ':' .. number)
  end
  t.pieces = 0
end

-- Whether a turn waits to be claimed, or to be claimed again: what is kept of one that is not answered is its state.
local function is_suspended(t)
  return t and t.payload ~= '' and t.state ~= ANSWERED and t.state ~= CANCELLED
end

-- Returns the pieces of a turn's draft, or nil where one is missing.
local function draft_of(id, t)
  local found = {}
  for number = 1, t.pieces do
    found[number] = redis.call('HGET', turns, 'piece:' .. id .. ':' .. number)
    if not found[number] then
      return nil
    end
  end
  return found
end

-- Saves a piece of a draft under its number, 0 = none. `saves` tells how often the draft was begun anew, so that a
-- first piece that comes late does not begin it again. Returns whether the pieces before it are there.
local function save_piece(id, t, saves, number, piece)
  if number == 0 then
    return true
  end
  local is_next = t.saves == saves and (t.pieces == number - 1 or t.pieces == number)
  local begins = number == 1 and saves > t.saves
  if not is_next and not begins then
    return false
  end
  if begins then
    drop_draft(id, t)
  end
  redis.call('HSET', turns, 'piece:' .. id .. ':' .. number, piece)
  t.saves, t.pieces = saves, number
  return true
end

-- Returns with what the id of the change begins that publishes a turn. The rest is of its attempt's token.
local function publication_of(id)
  return string.sub(redis.sha1hex('turn:' .. id), 1, 10)
end

-- Whether a turn was published, as far as ops remembers it, or as a process that put it back knew by its change's id.
local function was_published(s, id)
  local ids = s.noted > 0 and redis.call('LRANGE', ops, 1, -1) or {}
  local publication = publication_of(id)
  for i = 1, #ids, 2 do
    if string.sub(ids[i], 1, 10) == publication then
      return true
    end
  end
  return get_turn('\255' .. publication)
end

-- Returns who waits, in order, without those that have not asked for so long that their place does not hold any more,
-- and the place of a ticket. Without `holds` all places do. Each of those who live asks once a second at least, and so
-- has half of the time left. Where none has, the server was away: for one who `waits`, too, all places hold for as long
-- again. Unless that was very long ago, or none of them has asked since this was done before: then they have died. No
-- place holds for longer than `holds` from now on: the clock may have been put back.
local function read_queue(s, ticket, holds, waits)
  local all, latest, is_to_be_kept = {}, 0, false
  for each, till in string.gmatch(redis.call('HGET', turns, 'queue') or '', '(%S+) (%d+)') do
    till = tonumber(till)
    if holds and till > s.now + holds then
      till, is_to_be_kept = s.now + holds, true
    end
    all[#all + 1] = {each, till}
    latest = math.max(latest, till)
  end
  local was_away = waits and #all > 0 and latest - s.now < holds / 2 and s.now - latest < LONGEST_AWAY
    and latest > (tonumber(redis.call('HGET', turns, 'held') or 0))
  if was_away then
    redis.call('HSET', turns, 'held', s.now + holds)
    is_to_be_kept = true
  end
  local queue, place = {}, nil
  for _, each in ipairs(all) do
    local till = each[2] + (was_away and s.now + holds - latest or 0)
    if not holds or each[1] == ticket or till - s.now > 0 then
      queue[#queue + 1] = {each[1], till}
    end
    if each[1] == ticket then
      place = #queue
      queue[place][2] = is_to_be_kept and 0 or till  -- it is kept anew, and the others with it
    end
  end
  return queue, place
end

local function write_queue(queue)
  local texts = {}
  for at, each in ipairs(queue) do
    texts[at] = each[1] .. ' ' .. each[2]
  end
  if #texts > 0 then
    redis.call('HSET', turns, 'queue', table.concat(texts, ' '))
  else
    redis.call('HDEL', turns, 'queue')
  end
end

-- Gives a turn its number, and drops the oldest turns that are too many or too old: two at a time keep up with one. A
-- turn gets one as it is begun, and another as it is answered.
local function number_turn(s, id, kept, most)
  local m = redis.call('HMGET', turns, 'first', 'next')
  local first, following = tonumber(m[1]) or 1, tonumber(m[2]) or 1
  for _ = 1, 2 do
    local at, oldest = string.match(redis.call('HGET', turns, 'at:' .. first) or '', '^(%d+) (.*)$')
    local is_over = at and (following - first >= 2 * most or s.now - at > kept)
    if is_over then
      local t = get_turn(oldest)
      if t and t.number == first then
        drop_draft(oldest, t)
        redis.call('HDEL', turns, 'turn:' .. oldest)
      end
      redis.call('HDEL', turns, 'at:' .. first)
    end
    if is_over or not at and first < following then
      first = first + 1
    end
  end
  redis.call('HSET', turns, 'at:' .. following, s.now .. ' ' .. id, 'first', first, 'next', following + 1)
  return following
end

-- Lets turns expire, with a session that does, too; no process shortens what another one asked for. Returns the longest
-- retention that was asked for. To be called before other writes: a full server refuses this one.
local function retain_turns(kept)
  local longest = math.max(kept, tonumber(redis.call('HGET', turns, 'retention')) or 0)
  redis.call('HSET', turns, 'retention', longest)
  local ttl = TTL > 0 and math.min(longest, TTL) or longest
  if redis.call('PTTL', turns) < ttl then
    redis.call('PEXPIRE', turns, ttl)
  end
  return longest
end

local function put_turn(id, t)
  local fields = {t.state, t.attempt, t.digest, t.token, t.saves, t.pieces, t.number, t.payload or ''}
  redis.call('HSET', turns, 'turn:' .. id, table.concat(fields, ' '))
end

-- Keeps the record of a turn.
local function set_turn(s, id, t, kept, most)
  t.number = t.number or number_turn(s, id, kept, most)
  put_turn(id, t)
end

-- The same, of a turn that is remembered from now on.
local function renew_turn(s, id, t, kept, most)
  if t.number then
    redis.call('HDEL', turns, 'at:' .. t.number)
  end
  t.number = nil
  set_turn(s, id, t, kept, most)
end

-- Calls a function with each turn that is remembered: its id, its record, and when it was begun.
local function each_turn(use)
  local m = redis.call('HMGET', turns, 'first', 'next')
  for number = m[1] and tonumber(m[1]) or 1, m[2] and m[2] - 1 or 0 do
    local at, id = string.match(redis.call('HGET', turns, 'at:' .. number) or '', '^(%d+) (.*)$')
    local t = id and get_turn(id)
    if t and t.number == number then
      use(id, t, at)
    end
  end
end

-- Drops what turns hold of a conversation that was cleared: results, states and drafts. No attempt from before that
-- publishes, for the session may begin at its position again.
local function wipe_turns()
  each_turn(function(id, t)
    drop_draft(id, t)
    t.payload, t.token = '', '-'
    put_turn(id, t)
  end)
end

-- Puts the elements of a draft behind the session's. Returns the length of the list then.
local function push_draft(s, pieces)
  for _, elements in ipairs(pieces) do
    local batch = {}
    for element in string.gmatch(elements .. '\n', '([^\n]*)\n') do
      batch[#batch + 1] = element
      if #batch == 4000 then
        s.length, batch = redis.call('RPUSH', items, unpack(batch)), {}
      end
    end
    if #batch > 0 then
      s.length = redis.call('RPUSH', items, unpack(batch))
    end
  end
end

-- Gives a token the session for a lease from now on, and lets the session live as long.
local function grant(s, token, lease, id, attempt)
  local last, since = string.match(s.holder or '', '^(%S+) %d+ %d+ (%d+)')
  since = last == token and since or s.now
  redis.call('HSET', meta, 'format', FORMAT, 'holder',
    table.concat({token, s.now + lease, lease, since, attempt, id}, ' '))
  local is_left_over = not s.created  -- by a cleared session, or there is none
  local ttl_left = TTL == 0 and s.ttl and redis.call('PTTL', meta) or -1
  if ttl_left > 0 and ttl_left < lease then
    redis.call('PEXPIRE', meta, lease)
    redis.call('PEXPIRE', items, lease)
  end
  if TTL > 0 or is_left_over then
    redis.call('PEXPIRE', meta, math.max(TTL, lease, is_left_over and s.retention or 0))
    if TTL > 0 and s.length > 0 then
      redis.call('PEXPIRE', items, math.max(TTL, lease))
    end
  end
end

-- Takes the session back from a token. It stays the last one that had it, so that no token before it holds any more.
local function take_back(s, token, id)
  if s.holder then
    redis.call('HSET', meta, 'holder', table.concat({token, 0, 0, 0, 0, id}, ' '))
  end
end

-- Returns the error reply if the user may not do what the scripts of turns do.
local function denied_to_grant()
  return denied('HSET', meta, 'f', '') or denied('HDEL', meta, 'f') or denied('PEXPIRE', meta, 1)
    or denied('PTTL', meta)
end

-- Begins what is no change. Returns the state, or nil and what to return at once, as the prelude's begin() does.
local function begin_without_change()
  local s = state()
  local refusal = s.refusal or s.version < KNOWN and rarely().raise_fence(s, KNOWN, s.retention)
  if not refusal and is_mismatch(s, KNOWN, KNOWN_DIGEST) then
    return nil, {LOG_MISMATCH, s.version}
  end
  refusal = refusal or denied_to_grant()
  return not refusal and s or nil, refusal
end

-- Whether no other token was granted the session, or this turn, since this one was, and the turn was not cancelled.
local function is_granted(s, t, token)
  local holder = string.match(s.holder or '', '^%S+')
  return (not holder or holder == token) and (not t or t.token == token and t.state ~= CANCELLED)
end

-- Returns {CONFLICT, version, digest, to what the turn is lost}: 'cancelled' by another one; 'released'; another
-- 'attempt' of it; another 'turn' that was granted the session; or a 'change' of the session after its lease.
local function lost(s, t, token)
  local to, holder = 'change', string.match(s.holder or '', '^%S+')
  if t and t.state == CANCELLED then
    to = 'cancelled'
  elseif (t and t.token or holder) == RELEASED .. token then
    to = 'released'
  elseif t and t.token ~= token and t.token ~= '-' then
    to = 'attempt'
  elseif holder and holder ~= token then
    to = 'turn'
  end
  return rarely().unless_replica({CONFLICT, s.version, s.digest, to})
end
