-- Runs a failed or cancelled job again, by hand: a new set of attempts, the same receipt chain.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  job id
-- ARGV[3]  reason: who asked for it
-- ARGV[4]  token of this call, letters and digits: the same token gets the same reply, and nothing is done again
-- Reply    {'queued', status}   it is queued, or held by dependencies that have not ended; those that failed and were
--                               not retried do not hold it
--          {'refused', status}  nothing done: it is neither failed nor cancelled
--          {'unknown', ''}      no such job

local id = ARGV[2]
local key = P .. 'job:' .. id
local job = call('HMGET', key, 'status', 'queue', 'score', 'attempt')

if not job[1] then
  return { 'unknown', '' }
end
local before = answered_before(id, 'requeue', ARGV[4])
if before then
  return before
end
if job[1] ~= 'failed' and job[1] ~= 'cancelled' then
  return { 'refused', job[1] }
end
call('HDEL', key, 'error', 'completed', 'cancel', 'crashes', 'parked', 'progress', 'message', 'due', 'delivery', 'worker',
  'options', 'uncarried')
call('HSET', key, 'base', job[4] or '0')
call('DEL', P .. 'result:' .. id)

-- Its earlier dependencies count no more; some may have ended and be about to be settled.
for _, ending in ipairs(call('LRANGE', P .. 'endings', 0, -1)) do
  local ended, number = string.match(ending, '^(%S+) %S+ (%S+)$')
  call('SREM', P .. 'ended:' .. ended .. ':' .. number, id)
end

local spec = cjson.decode(call('HGET', key, 'spec') or '{}')
local waits, seen = 0, {}
for _, dependency in ipairs(spec.depends_on or {}) do
  local state = call('HGET', P .. 'job:' .. dependency, 'status')
  if state and not is_final(state) and not seen[dependency] then
    seen[dependency] = true
    -- It may be there already: a job that was cancelled while it waited is not removed.
    call('SADD', P .. 'dependents:' .. dependency, id)
    call('HSET', P .. 'job:' .. dependency, 'dependents', '1')
    waits = waits + 1
  end
end
if waits > 0 then
  local reason = ARGV[3] .. '; waiting for ' .. waits .. ' other job' .. (waits > 1 and 's' or '') .. ' to complete'
  move(id, job[1], 'held', job[2] or 'jobs', NOW)
  call('HSET', key, 'status', 'held', 'waits', waits, 'score', next_score(job[3]), 'reason', reason)
  record(id, job[2] or 'jobs', 'held', job[4], nil, reason)
  return answer(id, 'requeue', ARGV[4], 'queued', 'held')
end
make_ready(id, job[1], job[2] or 'jobs', next_score(job[3]), ARGV[3], job[4])
return answer(id, 'requeue', ARGV[4], 'queued', 'queued')
