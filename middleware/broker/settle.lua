-- Ends an attempt in one step: result, receipt, state, event, destinations, and removal from the processing set.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  job id
-- ARGV[4]  delivery token, see `fetch`
-- ARGV[5]  outcome: completed, failed, cancelled, retrying, or queued (handed back, not counted)
-- ARGV[6]  result, JSON, or ''
-- ARGV[7]  SHA-256 of the result, or ''
-- ARGV[8]  error, JSON, or ''
-- ARGV[9]  for retrying: delay, in ms
-- ARGV[10] reason, or ''
-- ARGV[11] retention of ended jobs, in ms
-- ARGV[12] number of ended jobs of each state that are kept
-- ARGV[13] how long an idempotency key is kept, in ms
-- ARGV[14] options of the message for the next attempt, JSON, or ''
-- ARGV[15] group that the job belongs to, or ''
-- ARGV[16] how long an unfinished group is kept, in ms
-- ARGV[17] number of jobs that follow this attempt
-- ARGV[18] ... thirteen for each of those, as for `enqueue`; then the same for each job that follows the whole group
-- Reply    {'settled', status}     committed
--          {'already', status}     committed before by this same delivery, whose reply was lost
--          {'superseded', status}  nothing done: the job is no longer this worker's

if ARGV[5] == 'held' or not string.find(MOVES, ' processing>' .. ARGV[5] .. ' ', 1, true) then
  error('an attempt cannot end as ' .. ARGV[5])
end
local worker, id, delivery, outcome, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[10]
local key = P .. 'job:' .. id
local processing = P .. 'processing:' .. worker
local job = call('HMGET', key, 'status', 'queue', 'score', 'attempt', 'limits', 'cancel', 'worker', 'delivery',
  'dependents', 'sinks')
local status, queue, attempt = job[1], job[2] or 'jobs', job[4]

local ours = job[7] == worker and job[8] == delivery
if ours and status ~= 'processing' then
  return { 'already', status }
end
if not ours or call('HDEL', processing, id) == 0 then
  return { 'superseded', status or 'unknown' }
end

if outcome == 'cancelled' and job[6] and reason ~= '' then
  reason = job[6] .. '; ' .. reason -- who cancelled it and why, then how its worker stopped it
elseif job[6] and (outcome == 'cancelled' or outcome == 'retrying' or outcome == 'queued') then
  outcome, reason = 'cancelled', job[6]
end

if job[5] then
  release_limits(job[5])
end

local last = 17 -- of what is enqueued
if outcome ~= 'queued' and #ARGV > 17 then
  last = 17 + ARGV[17] * FIELDS
  local in_group = outcome == 'completed' and ARGV[15] ~= ''
  local refusal = refusal_of(18, in_group and #ARGV or last)
  if not refusal and in_group and last_of_group(ARGV[15], id, ARGV[16]) then
    last = #ARGV
  elseif refusal and outcome == 'completed' then
    outcome, reason, last = 'failed', refusal, 17
    call('HSET', key, 'error', cjson.encode({
      type = 'InvalidJob', message = refusal, remedy = "Correct what follows it, then run '3ox retry " .. id .. "'." }))
  elseif refusal then
    reason = reason .. '; ' .. refusal
  end
end

local extra = ''
if ARGV[6] ~= '' then
  call('SET', P .. 'result:' .. id, ARGV[6])
  extra = ',"result_sha256":"' .. ARGV[7] .. '"'
elseif attempt ~= '1' then
  call('DEL', P .. 'result:' .. id) -- of an earlier attempt
end
if ARGV[8] ~= '' then
  call('HSET', key, 'error', ARGV[8])
end

if ARGV[14] ~= '' then
  call('HSET', key, 'options', ARGV[14])
end

if is_final(outcome) then
  if outcome == 'completed' and (attempt ~= '1' or job[5] or job[6]) then
    call('HDEL', key, 'error', 'limits', 'cancel', 'message', 'reason')
  end
  finish(id, 'processing', outcome, queue, reason, attempt, worker, job[9], job[10], extra)
  retire(outcome, queue, ARGV[11], tonumber(ARGV[12]))
elseif outcome == 'retrying' then
  local due = string.format('%.0f', NOW + ARGV[9])
  move(id, 'processing', 'retrying', queue, due)
  call('HSET', key, 'status', 'retrying', 'due', due, 'reason', reason)
  if string.sub(reason, 1, 13) == 'parked until ' then
    call('HINCRBY', key, 'parked', 1) -- it uses up no retry
  end
  record(id, queue, 'retrying', attempt, worker, reason, extra)
else
  call('HINCRBY', key, 'attempt', -1)
  call('HDEL', key, 'started')
  make_ready(id, 'processing', queue, job[3], reason)
end
if last > 17 then
  enqueue_batch(18, last, ARGV[13])
end
return { 'settled', outcome }
