-- Decides on jobs that wait for approval: approves one, denies one, or expires those that were not decided in time.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  decision: approve, deny or expire
-- ARGV[3]  job id; '' for expire
-- ARGV[4]  reason: who decided, and why
-- ARGV[5]  how long a job waits for approval, in ms
-- ARGV[6]  reason for those that expire
-- ARGV[7]  for expire: number of jobs at most
-- Reply    {'approved', status}           it continues: queued, scheduled, or held by its dependencies
--          {'denied', 'cancelled'}        it never starts
--          {'expired', status}            the decision came too late, or a job it depends on did not complete
--          {'already', status}            the same decision was made before
--          {'refused', status, approval}  nothing done: it does not, or no longer, wait for approval
--          {'unknown', ''}                no such job
--          for expire: {id, ...} of the jobs that are now cancelled
--
-- The job's field `approval` is '1' while it waits, afterwards 'approved', 'denied' or 'expired' for good: workers
-- check it.

local decision, reason, ttl, too_late = ARGV[2], ARGV[4], ARGV[5], ARGV[6]
local index = P .. 'approvals'
local FIELDS = { 'status', 'queue', 'score', 'approval', 'created', 'delay', 'dependents', 'sinks', 'spec' }

local function read(id)
  local values = call('HMGET', P .. 'job:' .. id, unpack(FIELDS))
  local job = {}
  for at, name in ipairs(FIELDS) do
    job[name] = values[at]
  end
  return job
end

local function close(id, job, how, why, to)
  call('HSET', P .. 'job:' .. id, 'approval', how)
  call('ZREM', index, id)
  finish(id, 'held', to or 'cancelled', job.queue or 'jobs', why, nil, nil, job.dependents, job.sinks)
end

if decision == 'expire' then
  local expired = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', index, '-inf', NOW - ttl, 'LIMIT', 0, ARGV[7])) do
    local job = read(id)
    if job.status == 'held' and job.approval == '1' then
      close(id, job, 'expired', too_late)
      expired[#expired + 1] = id
    else
      call('ZREM', index, id) -- changed by hand: it must not block the others
    end
  end
  return expired
end

local id = ARGV[3]
local key = P .. 'job:' .. id
local job = read(id)
local done = decision == 'approve' and 'approved' or 'denied'

if not job.status then
  return { 'unknown', '' }
end
if job.approval == done then
  return { 'already', job.status }
end
if job.status ~= 'held' or job.approval ~= '1' then
  return { 'refused', job.status, job.approval or '' }
end
if NOW - job.created > tonumber(ttl) then
  close(id, job, 'expired', too_late)
  return { 'expired', 'cancelled' }
end
if decision == 'deny' then
  close(id, job, 'denied', reason)
  return { 'denied', 'cancelled' }
end

-- Its dependencies were checked when it was enqueued; some may have ended since.
local waits, seen = {}, {}
if string.find(job.spec, '"depends_on"', 1, true) then
  local spec = cjson.decode(job.spec)
  for _, dependency in ipairs(spec.depends_on or {}) do -- its payload may contain the name of this field, too
    local state = call('HGET', P .. 'job:' .. dependency, 'status')
    local bad = not state or state == 'failed' or state == 'cancelled'
    if bad and spec.on_dependency_failure ~= 'run' then
      local why = 'it depends on ' .. dependency .. ', which '
        .. (not state and 'is no longer known' or state == 'failed' and 'failed' or 'was cancelled')
      if spec.on_dependency_failure == 'fail' then
        call('HSET', key, 'error', cjson.encode({
          type = 'DependencyFailed', message = why, remedy = "Correct that job, then run '3ox retry' on both." }))
        close(id, job, 'expired', why, 'failed')
        return { 'expired', 'failed' }
      end
      close(id, job, 'expired', 'skipped: ' .. why)
      return { 'expired', 'cancelled' }
    end
    if not bad and state ~= 'completed' and not seen[dependency] then
      seen[dependency] = true
      waits[#waits + 1] = dependency
    end
  end
end

call('HSET', key, 'approval', 'approved')
call('ZREM', index, id)
local queue = job.queue or 'jobs'
local due = job.delay and job.created + job.delay or 0

if #waits > 0 then
  for _, dependency in ipairs(waits) do
    call('SADD', P .. 'dependents:' .. dependency, id)
    call('HSET', P .. 'job:' .. dependency, 'dependents', '1')
  end
  reason = reason .. '; waiting for ' .. #waits .. ' other job' .. (#waits > 1 and 's' or '') .. ' to complete'
  call('HSET', key, 'waits', #waits, 'reason', reason)
  record(id, queue, 'held', nil, nil, reason)
  return { 'approved', 'held' }
end
if due > tonumber(NOW) then
  due = string.format('%.0f', due)
  move(id, 'held', 'scheduled', queue, due)
  call('HSET', key, 'status', 'scheduled', 'due', due, 'reason', reason)
  record(id, queue, 'scheduled', nil, nil, reason)
  ring(queue)
  return { 'approved', 'scheduled' }
end
make_ready(id, 'held', queue, job.score, reason)
return { 'approved', 'queued' }
