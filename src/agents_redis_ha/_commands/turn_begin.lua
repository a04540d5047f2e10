-- Grants the session to a turn, unless another turn has it or there is nothing to run.
--
-- ARGV[1] the token; ARGV[9] the turn's id; ARGV[10] how long to remember turns, ms, and ARGV[11] how many; ARGV[12]
-- the digest of its message, '-' = not known; ARGV[13] the lease, ms; ARGV[14] what to do while another turn runs:
-- 'reject' nothing, 'enqueue' wait in the order of arrival, 'interrupt' publish what is saved of it and cancel it,
-- 'rollback' drop and cancel it; ARGV[15] how long a place in the queue holds without being asked for, ms; ARGV[16]
-- 'resume' or 'restart', for a turn that was begun before and not answered; ARGV[17] how many elements to return, 0 =
-- all; ARGV[18] what to put between two; ARGV[19] how many changes to name; ARGV[20] '1' to claim a turn that waits.
--
-- Returns {GRANTED, attempt, how often its draft was begun anew, its pieces, payload, from what the session was taken,
-- description, number of elements, these joined to pieces}, the description as in info.lua. It is taken from 'attempt',
-- one of this turn that did not end; 'expired', another turn after its lease; 'cancelled', another turn (if_busy); or
-- '', none of them. A repeat returns the same, but does not tell from what. Or, without a grant, {status,
-- version, digest, …}: HELD, …, ms left, place in the queue or 0, 1 if it is this very turn that runs, token of the
-- turn that has the session or ''; IS_ANSWERED, …, attempt, payload, '' where it is not known any more; IS_SUSPENDED,
-- …, attempt; IS_CANCELLED; IS_ANOTHER, of this id with another message; or {LOG_MISMATCH, version}.
local GRANTED, HELD, IS_ANSWERED, IS_CANCELLED, IS_ANOTHER, IS_SUSPENDED, IS_UNKNOWN = 1, 8, 9, 10, 11, 13, 14
local CLAIMS = ARGV[20] == '1'
local TURN, KEPT, MOST, DIGEST, LEASE = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13])
local IF_BUSY, PLACE_HOLDS = ARGV[14], tonumber(ARGV[15])
local TICKET = publication_of(TURN)  -- a worker that comes again with this turn has the place of the one before it

-- Takes or keeps a place, the first one for a turn that was begun before. Returns it.
local function wait_in(queue, place, s, is_first)
  if not place then
    place = is_first and 1 or #queue + 1
    table.insert(queue, place, {TICKET, 0})
  end
  if queue[place][2] - s.now < PLACE_HOLDS * 3 / 4 then
    queue[place][2] = s.now + PLACE_HOLDS
    write_queue(queue)
    retain_turns(KEPT)
  end
  return place
end

-- Ends the turn that has the session, for good. What is saved of it is published under the id under which it would have
-- been published, so that its own attempt to finish finds that another one did it.
local function cancel(s, token, id, publishes)
  local t = get_turn(id) or {attempt = 1, digest = '-', token = token, saves = 0, pieces = 0}
  -- What is kept of a claimed turn ends with calls that wait for an approval.
  local pieces = publishes and not is_suspended(t) and draft_of(id, t) or {}
  local reply = #pieces > 0 and (denied_to_record(s) or denied('RPUSH', items, ''))
  if reply then
    return reply
  end
  KEPT = retain_turns(KEPT)
  drop_draft(id, t)
  t.state, t.payload = CANCELLED, ''
  renew_turn(s, id, t, KEPT, MOST)
  if #pieces > 0 then
    push_draft(s, pieces)
    expire(TTL, items)
    local token_then = ID
    ID = publication_of(id) .. string.sub(ID, 1, 6)
    record(s, TTL, token_then)
    ID, s.created, s.has_version = token_then, s.created or s.now, s.version
  end
end

local s, reply = begin_without_change()
if reply then
  return reply
end
if redis.call('HGET', meta, 'wipe') then
  wipe_turns()
  redis.call('HDEL', meta, 'wipe')
end
local t = get_turn(TURN)
-- Whether this begin is one that comes late, behind its turn's end.
local is_over = t and (t.token == ID and t.state ~= RUNNING or t.token == RELEASED .. ID)
if t and t.state == FORGOTTEN then
  t = {attempt = 0, saves = t.saves, pieces = 0, number = t.number, digest = '-', token = '-', payload = ''}
end
local token, id, left = rarely().holder_of(s)
local queue, place = read_queue(s, TICKET, PLACE_HOLDS, IF_BUSY == 'enqueue')
local function leave_queue()
  if place then
    table.remove(queue, place)
    write_queue(queue)
  end
end
local function answer(status, ...)
  leave_queue()
  return rarely().unless_replica({status, s.version, s.digest, ...})
end
-- That the turn was published, which may be on this server alone yet: as a repeat of a change does, it writes (what is
-- there), so that a WAIT behind it means something from 7.2 on.
local function is_answered(attempt, payload)
  for _, key in ipairs({turns, ops}) do
    local ms = redis.call('PTTL', key)
    if ms > 0 then
      redis.call('PEXPIRE', key, ms)
      break
    end
  end
  return answer(IS_ANSWERED, attempt, payload)
end
if t and t.digest ~= DIGEST and t.digest ~= '-' and DIGEST ~= '-' then
  return answer(IS_ANOTHER)
elseif t and t.state == ANSWERED then
  return is_answered(t.attempt, t.payload)
elseif t and t.state == CANCELLED then
  return answer(IS_CANCELLED)
elseif was_published(s, TURN) then
  return is_answered(t and t.attempt or 1, '')  -- its record is lost, was dropped, or is one from before that
elseif is_over then
  return rarely().unless_replica({HELD, s.version, s.digest, 0, 0, 0, ''})
elseif CLAIMS and not is_suspended(t) then
  return answer(IS_UNKNOWN)
elseif not CLAIMS and is_suspended(t) and id ~= TURN then
  return answer(IS_SUSPENDED, t.attempt)
end

local till, last = string.match(s.holder or '', '^%S+ (%d+) %d+ %d+ %d+ (.*)$')
local is_repeat = t and t.token == ID
local taken_from = t and t.state == RUNNING and not is_repeat and 'attempt'
  or not token and last and till ~= '0' and last ~= TURN and 'expired' or ''
if token and token ~= ID and id ~= TURN and (IF_BUSY == 'interrupt' or IF_BUSY == 'rollback') then
  reply = cancel(s, token, id, IF_BUSY == 'interrupt')
  if reply then
    return reply
  end
  taken_from = 'cancelled'
elseif token and token ~= ID or #queue > 0 and place ~= 1 and not is_repeat then
  local is_same = token and id == TURN
  if IF_BUSY == 'enqueue' or is_same then
    place = wait_in(queue, place, s, t and t.attempt > 0)
  end
  return rarely().unless_replica({HELD, s.version, s.digest, left or 0, place or 0, is_same and 1 or 0, token or ''})
end

KEPT = retain_turns(KEPT)
leave_queue()
local pieces = t and (is_repeat or ARGV[16] == 'resume') and draft_of(TURN, t)
t = t or {attempt = 0, saves = 0, pieces = 0, digest = DIGEST}
if not pieces then
  drop_draft(TURN, t)
end
if not is_repeat then
  t.attempt, t.state, t.token, t.digest = t.attempt + 1, RUNNING, ID, DIGEST ~= '-' and DIGEST or t.digest
end
set_turn(s, TURN, t, KEPT, MOST)
grant(s, ID, LEASE, TURN, t.attempt)
return {GRANTED, t.attempt, t.saves, pieces or {}, t.payload or '', taken_from,
  description(KNOWN, KNOWN_DIGEST, tonumber(ARGV[19])), joined(tonumber(ARGV[17]), ARGV[18])}
