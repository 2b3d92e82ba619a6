-- Takes back the jobs of a dead worker: to the front of their priority, or, after too many crashes, as dead letters.
-- A job that was on several workers when they died waits before it runs again, longer each time: a host without memory
-- kills worker after worker within moments, which would make dead letters of good jobs.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id; '': every worker whose lease has ended
-- ARGV[3]  number of crashes that make a job a dead letter
-- ARGV[4]  ids of jobs that the worker had not started, separated by commas, or '': these count no crash
-- ARGV[5]  how the worker was lost, a few words
-- ARGV[6]  for '': duration of a lease, in ms
-- ARGV[7]  wait of a job after its second crash, in ms; doubled after each further one, up to eight times as long
-- Reply    {worker id, job id, new status, ...}, three for each job taken back
--
-- Leases end while the store is paused or down and no worker can renew them. So the first call after such a gap takes
-- nothing back and gives every worker a new lease; dead ones will not renew theirs.

local workers = { ARGV[2] }
if ARGV[2] == '' then
  local looked = call('GET', P .. 'looked')
  call('SET', P .. 'looked', NOW, 'PX', ARGV[6] * 4)
  if not looked or NOW - looked > ARGV[6] / 2 then
    local due = NOW + ARGV[6]
    for _, worker in ipairs(call('ZRANGEBYSCORE', P .. 'workers', '-inf', due)) do
      call('ZADD', P .. 'workers', due, worker)
    end
    return {}
  end
  workers = call('ZRANGEBYSCORE', P .. 'workers', '-inf', NOW, 'LIMIT', 0, 16) -- the others in the next call
end
local max_crashes = tonumber(ARGV[3])
local not_started = {}
for id in string.gmatch(ARGV[4], '[^,]+') do
  not_started[id] = true
end
local reply = {}

for _, worker in ipairs(workers) do
  local processing = P .. 'processing:' .. worker
  for _, id in ipairs(call('HKEYS', processing)) do
    local key = P .. 'job:' .. id
    local job = call('HMGET', key, 'queue', 'score', 'attempt', 'limits', 'cancel', 'crashes', 'dependents',
      'sinks')
    local queue, attempt, crashes = job[1] or 'jobs', job[3], tonumber(job[6] or '0')
    call('HDEL', processing, id)
    call('HDEL', key, 'delivery')
    if not job[2] or not job[3] then
      call('ZREM', set_of('processing', queue), id) -- its record was deleted by hand: it must not block the others
    else
      if job[4] then
        release_limits(job[4])
      end
      local to = 'queued'
      if not_started[id] then
        call('HINCRBY', key, 'attempt', -1)
      else
        crashes = call('HINCRBY', key, 'crashes', 1)
      end
      if job[5] then
        to = 'cancelled'
        finish(id, 'processing', to, queue, job[5], attempt, worker, job[7], job[8])
      elseif crashes >= max_crashes then
        to = 'failed'
        local reason = 'dead letter: it crashed its worker ' .. crashes .. ' times, last ' .. worker
        call('HSET', key, 'error', cjson.encode({
          type = 'WorkerLost', message = reason, remedy = "Correct the job, then run '3ox retry " .. id .. "'." }))
        finish(id, 'processing', to, queue, reason, attempt, worker, job[7], job[8])
      elseif not_started[id] then
        local reason = 'taken back from ' .. worker .. ' (' .. ARGV[5] .. ') before it had started'
        make_ready(id, 'processing', queue, job[2], reason, attempt)
      else
        local reason = 'recovered from ' .. worker .. ' (' .. ARGV[5] .. ') in attempt ' .. attempt
        if crashes < 2 then
          make_ready(id, 'processing', queue, job[2], reason, attempt)
        else
          to = 'retrying'
          local pause = ARGV[7] * 2 ^ math.min(crashes - 2, 3)
          local due = string.format('%.0f', NOW + pause)
          reason = reason .. '; ' .. crashes .. ' workers died while running it, so it waits ' .. pause / 1000 .. ' s'
          move(id, 'processing', to, queue, due)
          call('HSET', key, 'status', to, 'due', due, 'reason', reason)
          record(id, queue, to, attempt, worker, reason)
          ring(queue) -- the consumer that wakes learns when it is due
        end
      end
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = worker, id, to
    end
  end
  call('ZREM', P .. 'workers', worker)
  call('DEL', P .. 'worker:' .. worker .. ':heartbeat')
end
return reply
