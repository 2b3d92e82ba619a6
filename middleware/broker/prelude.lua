-- What every script shares; scripts.py puts this text before each of them.
--
-- KEYS[1]  key prefix; all other key names are made from it (see middleware/job/keys.py), which is why
--          the bridge runs on one server, replicas and Sentinel included, but not on a cluster
-- ARGV[1]  how many events the event stream keeps
--
-- A job is in exactly one place: the sorted set of its state. Times are the store's own, in ms.

local P = KEYS[1]
local EVENTS_MAX = ARGV[1]
local BELL_MAX = 64 -- more waiting consumers than this need more than one round to wake
local call = redis.call
local time = call('TIME')
local NOW = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

-- The table of middleware/job/states.py; a string, since it is made anew for each call.
local MOVES = ' queued>processing queued>held queued>cancelled scheduled>queued scheduled>cancelled'
  .. ' held>queued held>scheduled held>cancelled held>failed processing>completed processing>failed'
  .. ' processing>cancelled processing>retrying processing>queued retrying>queued retrying>cancelled'
  .. ' failed>queued cancelled>queued '

local function is_final(state)
  return state == 'completed' or state == 'failed' or state == 'cancelled'
end

local function set_of(state, queue)
  if state == 'queued' then
    return P .. 'queue:' .. queue
  end
  return P .. 'jobs:' .. state
end

-- Priority first, then order of arrival; exact up to 10^14 jobs in a double.
local function score_of(priority, arrival)
  return string.format('%.0f', priority * 1e14 + arrival)
end

-- The score of a job that arrives anew, of the same priority as its old one.
local function next_score(score)
  return score_of(math.floor(score / 1e14), call('INCR', P .. 'seq'))
end

-- A token in the bell wakes one consumer that blocks on it; it also waits for one that comes later.
local function ring(queue, times)
  local bell = P .. 'bell:' .. queue
  local room = BELL_MAX - call('LLEN', bell)
  if times and times > 1 and room > 1 then
    local tokens = {}
    for at = 1, math.min(times, room) do
      tokens[at] = '1'
    end
    call('LPUSH', bell, unpack(tokens))
  elseif room > 0 then
    call('LPUSH', bell, '1')
  end
end

-- An entry of the event stream; several jobs that come into one state together share one, "ID,ID,...".
local function announce(ids, state)
  return call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_MAX, '*', 'job', ids, 'status', state)
end

-- A line of the receipt chain.
local function write_down(id, state, attempt, worker, reason, extra)
  local entry = '{"at":' .. NOW .. ',"status":"' .. state .. '"'
  if attempt and attempt ~= '' and attempt ~= '0' then
    entry = entry .. ',"attempt":' .. attempt
  end
  if worker and worker ~= '' then
    entry = entry .. ',"worker":"' .. worker .. '"'
  end
  if reason and reason ~= '' then
    entry = entry .. ',"reason":' .. cjson.encode(reason)
  end
  call('RPUSH', P .. 'receipts:' .. id, entry .. (extra or '') .. '}')
end

-- Both, and a wake-up for whoever waits for this job.
local function record(id, state, attempt, worker, reason, extra)
  write_down(id, state, attempt, worker, reason, extra)
  call('PUBLISH', P .. 'event:' .. id, announce(id, state) .. ' ' .. state)
end

-- Moves a job from one state's set to another's; the caller has read `from` from the job itself.
local function move(id, from, to, queue, score)
  if not string.find(MOVES, ' ' .. from .. '>' .. to .. ' ', 1, true) then
    error('a job cannot go from ' .. from .. ' to ' .. to)
  end
  call('ZREM', set_of(from, queue), id)
  call('ZADD', set_of(to, queue), score, id)
end

local function make_ready(id, from, queue, score, reason, attempt)
  move(id, from, 'queued', queue, score)
  call('HSET', P .. 'job:' .. id, 'status', 'queued', 'queued', NOW, 'score', score, 'reason', reason)
  record(id, 'queued', attempt, nil, reason)
  ring(queue)
end

-- Limits: "name=amount/capacity,...", the amount this job occupies of a named resource while it runs.
local function each_limit(limits)
  return string.gmatch(limits, '([^=,]+)=(%d+)/(%d+)')
end

-- A slot of this resource is free: its first waiting job gets its turn.
local function wake_waiting(name)
  local waiting = P .. 'waiting:' .. name
  local id = call('ZRANGE', waiting, 0, 0)[1]
  if not id then
    return
  end
  call('ZREM', waiting, id)
  local job = call('HMGET', P .. 'job:' .. id, 'status', 'queue', 'score', 'attempt')
  if job[1] == 'held' and job[3] then
    make_ready(id, 'held', job[2] or 'jobs', job[3], 'a slot of ' .. name .. ' is free', job[4])
  end
end

-- Whether the first job that waits for this resource would get it now. Without this question two jobs that
-- wait for different resources, and want both, would pass their turns to each other for ever.
local function has_room(name)
  local id = call('ZRANGE', P .. 'waiting:' .. name, 0, 0)[1]
  local limits = id and call('HGET', P .. 'job:' .. id, 'limits')
  if limits then
    local used = tonumber(call('HGET', P .. 'running', name) or '0')
    for each, amount, capacity in each_limit(limits) do
      if each == name then
        return used + amount <= tonumber(capacity)
      end
    end
  end
  return false
end

local function release_limits(limits)
  for name, amount in each_limit(limits) do
    if call('HINCRBY', P .. 'running', name, -amount) <= 0 then
      call('HDEL', P .. 'running', name)
    end
    for _ = 1, tonumber(amount) do
      wake_waiting(name)
    end
  end
end

-- Ends one job that is on no processing set (any more), without what depends on it.
local function finish_one(id, from, to, queue, reason, attempt, worker, extra)
  move(id, from, to, queue, NOW)
  if reason == '' then
    call('HSET', P .. 'job:' .. id, 'status', to, 'completed', NOW)
  else
    call('HSET', P .. 'job:' .. id, 'status', to, 'completed', NOW, 'reason', reason)
  end
  record(id, to, attempt, worker, reason, extra)
end

-- One of the jobs that this held one waits for is completed.
local function one_less(id, job)
  local key, queue = P .. 'job:' .. id, job[2] or 'jobs'
  if call('HINCRBY', key, 'waits', -1) > 0 then
    return
  end
  call('HDEL', key, 'waits')
  if not job[5] then
    make_ready(id, 'held', queue, job[3], 'all jobs it depends on are completed')
    return
  end
  local due = string.format('%.0f', NOW + job[5])
  move(id, 'held', 'scheduled', queue, due)
  call('HSET', key, 'status', 'scheduled', 'due', due, 'reason', 'it starts when it is due')
  record(id, 'scheduled')
  ring(queue)
end

-- Ends a job and settles what depends on it: released if it is completed, skipped if it is not.
-- `has_dependents`: its field of that name, which spares most jobs a look at the set.
local function finish(id, from, to, queue, reason, attempt, worker, has_dependents, extra)
  finish_one(id, from, to, queue, reason, attempt, worker, extra)
  local todo = {}
  if has_dependents then
    todo[1] = { id, to }
  end
  local at = 1
  while todo[at] do
    local ended, state = todo[at][1], todo[at][2]
    local dependents = call('SMEMBERS', P .. 'dependents:' .. ended)
    for _, other in ipairs(dependents) do
      local job = call('HMGET', P .. 'job:' .. other, 'status', 'queue', 'score', 'waits', 'delay')
      if job[1] == 'held' and job[4] then
        if state == 'completed' then
          one_less(other, job)
        else
          call('HDEL', P .. 'job:' .. other, 'waits')
          finish_one(other, 'held', 'cancelled', job[2] or 'jobs', 'skipped: it depends on ' .. ended
            .. ', which ' .. (state == 'failed' and 'failed' or 'was cancelled'))
          todo[#todo + 1] = { other, 'cancelled' }
        end
      end
    end
    call('DEL', P .. 'dependents:' .. ended)
    at = at + 1
  end
end

-- Moves what is due to the ready queue; gives the ms until the next is due, -1 if there is none.
local function promote(limit)
  local next_due = -1
  for _, state in ipairs({ 'scheduled', 'retrying' }) do
    local set = P .. 'jobs:' .. state
    for _, id in ipairs(call('ZRANGEBYSCORE', set, '-inf', NOW, 'LIMIT', 0, limit)) do
      local job = call('HMGET', P .. 'job:' .. id, 'queue', 'score', 'attempt')
      if job[2] then
        make_ready(id, state, job[1] or 'jobs', next_score(job[2]), 'it was due', job[3])
      else
        call('ZREM', set, id) -- its record was deleted by hand: it must not stop the others
      end
    end
    local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if first[2] then
      local left = math.max(0, first[2] - NOW)
      if next_due < 0 or left < next_due then
        next_due = left
      end
    end
  end
  return next_due
end

-- Removes every trace of a job that has ended, or that is being deleted.
local function forget(id, state)
  local job = call('HMGET', P .. 'job:' .. id, 'spec', 'queue')
  call('ZREM', set_of(state, job[2] or 'jobs'), id)
  call('ZREM', P .. 'index:all', id)
  call('ZREM', P .. 'index:tail', string.reverse(id))
  if job[1] then
    local spec = cjson.decode(job[1])
    call('ZREM', P .. 'index:type:' .. spec.job_type, id)
    if spec.project then
      call('ZREM', P .. 'index:project:' .. spec.project, id)
    end
  end
  call('DEL', P .. 'job:' .. id, P .. 'receipts:' .. id, P .. 'result:' .. id, P .. 'output:' .. id,
    P .. 'dependents:' .. id)
end

-- Keeps the number and the age of ended jobs bounded: one call in sixteen looks, and removes twice as many.
local function retire(state, retention_ms, finished_max)
  if time[2] % 16 ~= 0 then
    return
  end
  local set = P .. 'jobs:' .. state
  local old = call('ZRANGEBYSCORE', set, '-inf', NOW - retention_ms, 'LIMIT', 0, 32)
  if #old == 0 then
    local excess = call('ZCARD', set) - finished_max
    if excess > 0 then
      old = call('ZRANGE', set, 0, math.min(excess, 32) - 1)
    end
  end
  for _, id in ipairs(old) do
    forget(id, state)
  end
end
