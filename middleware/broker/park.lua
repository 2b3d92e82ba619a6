-- Holds a job that was fetched by a worker without an actor for it, until a worker publishes the job's type.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  job id
-- ARGV[4]  delivery token, see `fetch`
-- ARGV[5]  job type
-- ARGV[6]  reason
-- Reply    {'settled', 'held'}     it is held; no attempt is counted
--          {'already', status}     done before by this same delivery, whose reply was lost
--          {'superseded', status}  nothing done: the job is no longer this worker's

local worker, id, delivery, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local key = P .. 'job:' .. id
local job = call('HMGET', key, 'status', 'queue', 'limits', 'worker', 'delivery', 'cancel', 'dependents', 'sinks')
local queue = job[2] or 'jobs'
local ours = job[4] == worker and job[5] == delivery
if ours and job[1] ~= 'processing' then
  return { 'already', job[1] }
end
if not ours or call('HDEL', P .. 'processing:' .. worker, id) == 0 then
  return { 'superseded', job[1] or 'unknown' }
end
if job[3] then
  release_limits(job[3])
end
call('HINCRBY', key, 'attempt', -1)
call('HDEL', key, 'started')
if job[6] then
  finish(id, 'processing', 'cancelled', queue, job[6], nil, worker, job[7], job[8])
  return { 'settled', 'cancelled' }
end
move(id, 'processing', 'held', queue, NOW)
call('HSET', key, 'status', 'held', 'reason', reason, 'uncarried', '1')
call('SADD', P .. 'uncarried:' .. ARGV[5], id)
record_turn(id, queue, 'held', nil, worker, reason)
return { 'settled', 'held' }
