-- Runs a failed or cancelled job again, by hand: a new set of attempts, the same receipt chain.
--
-- ARGV[2]  job id
-- ARGV[3]  reason: who asked for it
--
-- Reply: {'queued', status}       it waits for a worker
--        {'refused', status}      it has not failed and was not cancelled; nothing done
--        {'unknown', ''}          no such job

local id = ARGV[2]
local key = P .. 'job:' .. id
local job = call('HMGET', key, 'status', 'queue', 'score', 'attempt')

if not job[1] then
  return { 'unknown', '' }
end
if job[1] ~= 'failed' and job[1] ~= 'cancelled' then
  return { 'refused', job[1] }
end
call('HDEL', key, 'error', 'completed', 'cancel', 'crashes', 'progress', 'message', 'due', 'delivery', 'worker')
call('HSET', key, 'base', job[4] or '0')
call('DEL', P .. 'result:' .. id)
make_ready(id, job[1], job[2] or 'jobs', next_score(job[3]), ARGV[3], job[4])
return { 'queued', 'queued' }
