-- Cancels a job in any state.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  job id
-- ARGV[3]  reason: who cancelled it
-- ARGV[4]  token of this call, letters and digits: the same token gets the same reply, and nothing is done again
-- Reply    {'cancelled', status}   it had not started and never will; status is the one it had
--          {'cancelling', status}  it runs; its worker has been asked to stop it
--          {'finished', status}    nothing done: it has already ended
--          {'unknown', ''}         no such job

local id, reason, token = ARGV[2], ARGV[3], ARGV[4]
local key = P .. 'job:' .. id
local job = call('HMGET', key, 'status', 'queue', 'limits', 'worker', 'attempt', 'delivery', 'dependents', 'sinks',
  'approval')
local status = job[1]

if not status then
  return { 'unknown', '' }
end
local before = answered_before(id, 'cancel', token)
if before then
  return before
end
if is_final(status) then
  return { 'finished', status }
end
if status == 'processing' then
  call('HSET', key, 'cancel', reason, 'reason', 'stopping: ' .. reason)
  call('PUBLISH', P .. 'control:' .. job[4], 'cancel ' .. id .. ' ' .. job[6])
  return answer(id, 'cancel', token, 'cancelling', status)
end
if status == 'held' and job[3] then
  for name in each_limit(job[3]) do
    call('ZREM', P .. 'waiting:' .. name, id)
  end
end
call('HDEL', key, 'waits')
if job[9] == '1' then
  call('HDEL', key, 'approval')
  call('ZREM', P .. 'approvals', id)
end
finish(id, status, 'cancelled', job[2] or 'jobs', reason, job[5], nil, job[7], job[8])
if job[3] then
  -- It may have been its turn, which passes to the next one that waits.
  for name in each_limit(job[3]) do
    wake_waiting(name)
  end
end
return answer(id, 'cancel', token, 'cancelled', status)
