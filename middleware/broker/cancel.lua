-- Cancels a job, wherever it is.
--
-- ARGV[2]  job id
-- ARGV[3]  reason: who cancelled it
--
-- Reply: {'cancelled', status}   it had not started, and never will; the status is what it was before
--        {'cancelling', status}  it runs; its worker has been told to stop it
--        {'finished', status}    it had ended before; nothing done
--        {'unknown', ''}         no such job

local id, reason = ARGV[2], ARGV[3]
local key = P .. 'job:' .. id
local job = call('HMGET', key, 'status', 'queue', 'limits', 'worker', 'attempt', 'delivery', 'dependents', 'sinks',
  'approval')
local status = job[1]

if not status then
  return { 'unknown', '' }
end
if is_final(status) then
  return { 'finished', status }
end
if status == 'processing' then
  call('HSET', key, 'cancel', reason, 'reason', 'it is being stopped: ' .. reason)
  call('PUBLISH', P .. 'control:' .. job[4], 'cancel ' .. id .. ' ' .. job[6])
  return { 'cancelling', status }
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
  -- It may have been its turn: whoever waits behind it gets that.
  for name in each_limit(job[3]) do
    wake_waiting(name)
  end
end
return { 'cancelled', status }
