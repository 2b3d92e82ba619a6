-- What every function shares; functions.py puts this text before them all, and runs it once.
--
-- KEYS[1]  key prefix; all other key names are made from it (see middleware/job/keys.py), which is why
--          the bridge runs on one server, replicas and Sentinel included, but not on a cluster
-- ARGV[1]  how many events the event stream keeps
--
-- A job is in exactly one place: the sorted set of its state. Times are the store's own, in ms.

local KEYS, ARGV -- of the call under way, and what follows from them
local P, EVENTS_MAX, NOW, time
local call
local BELL_MAX = 64 -- more waiting consumers than this need more than one round to wake
local WAITS_MAX = 200 -- a receipt chain of so many lines does not tell any more of turns that came to nothing
local PORTION = 200 -- so many dependents of ended jobs are settled by one call, in about 10 ms
local portion_left

local function begin(keys, arguments)
  KEYS, ARGV = keys, arguments
  P, EVENTS_MAX = keys[1], arguments[1]
  portion_left = PORTION
  call = redis.call
  time = call('TIME')
  NOW = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- The table of middleware/job/states.py.
local MOVES = ' queued>processing queued>held queued>cancelled scheduled>queued scheduled>cancelled'
  .. ' held>queued held>scheduled held>cancelled held>failed processing>completed processing>failed'
  .. ' processing>cancelled processing>retrying processing>queued retrying>queued retrying>cancelled'
  .. ' failed>queued failed>held cancelled>queued cancelled>held '

local function is_final(state)
  return state == 'completed' or state == 'failed' or state == 'cancelled'
end

-- Deliveries of results have sets of their own, so that nobody takes them for commands.
local function set_of(state, queue)
  if state == 'queued' then
    return P .. 'queue:' .. queue
  end
  return P .. queue .. ':' .. state
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

-- The same, and a wake-up for whoever waits for one of these jobs.
local function tell(ids, state)
  local event = announce(table.concat(ids, ','), state) .. ' ' .. state
  for _, id in ipairs(ids) do
    call('PUBLISH', P .. 'event:' .. id, event)
  end
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

-- The ledger has not seen the last line of their receipts yet.
local function unsealed(ids)
  call('SADD', P .. 'unsealed', unpack(ids))
end

-- Both, and a wake-up for whoever waits for this job. Deliveries are nobody's business but their sink's.
local function record(id, queue, state, attempt, worker, reason, extra)
  write_down(id, state, attempt, worker, reason, extra)
  if queue == 'deliver' then
    return
  end
  unsealed({ id })
  tell({ id }, state)
end

-- Moves a job from one state's set to another's; the caller has read `from` from the job itself.
local function move(id, from, to, queue, score)
  if not string.find(MOVES, ' ' .. from .. '>' .. to .. ' ', 1, true) then
    error('a job cannot go from ' .. from .. ' to ' .. to)
  end
  call('ZREM', set_of(from, queue), id)
  call('ZADD', set_of(to, queue), score, id)
end

-- What people do to a job is answered alike when the same call comes again because its reply was lost: the job
-- keeps the token of the last call of each kind and what was said to it.
local function answered_before(id, kind, token)
  local said = call('HGET', P .. 'job:' .. id, 'said:' .. kind)
  local outcome, status = string.match(said or '', '^' .. token .. ' (%S+) (%S+)$')
  return outcome and { outcome, status }
end

local function answer(id, kind, token, outcome, status)
  call('HSET', P .. 'job:' .. id, 'said:' .. kind, token .. ' ' .. outcome .. ' ' .. status)
  return { outcome, status }
end

-- The same of a job that waits for a slot, or gets its turn: others may take the slot first, again and again.
local function record_turn(id, queue, state, attempt, worker, reason)
  if call('LLEN', P .. 'receipts:' .. id) < WAITS_MAX then
    record(id, queue, state, attempt, worker, reason)
  else
    tell({ id }, state)
  end
end

local function make_ready(id, from, queue, score, reason, attempt, note)
  move(id, from, 'queued', queue, score)
  call('HSET', P .. 'job:' .. id, 'status', 'queued', 'queued', NOW, 'score', score, 'reason', reason)
  note = note or record
  note(id, queue, 'queued', attempt, nil, reason)
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
  while id do
    call('ZREM', waiting, id)
    local job = call('HMGET', P .. 'job:' .. id, 'status', 'queue', 'score', 'attempt')
    if job[1] == 'held' and job[3] then
      local reason = 'a slot of ' .. name .. ' is free'
      make_ready(id, 'held', job[2] or 'jobs', job[3], reason, job[4], record_turn)
      return
    end
    id = call('ZRANGE', waiting, 0, 0)[1] -- that one's record was deleted by hand: it must not use up the turn
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

-- Makes a delivery of an ended job for each of its sinks: "NAME/STATE,...", the states in which it wants the
-- job, `*` for all. A delivery is a job of its own on the queue `deliver`, with the job's id and a number.
local function deliver(id, sinks, state)
  local before = tonumber(call('HGET', P .. 'job:' .. id, 'deliveries') or '0') -- of an end before a retry by hand
  local number = before
  for name, wanted in string.gmatch(sinks, '([^/,]+)/([^,]+)') do
    if wanted == '*' or wanted == state then
      number = number + 1
      local delivery = id .. '-' .. number
      local score = score_of(5, call('INCR', P .. 'seq')) -- the default priority: all deliveries are equal
      call('HSET', P .. 'job:' .. delivery, 'created', NOW, 'score', score, 'queue', 'deliver', 'status', 'queued',
        'spec', '{"job_type":"deliver","job_id":"' .. delivery .. '","trace_id":"' .. id
        .. '","source":"bridge","payload":{"job_id":"' .. id .. '","sink":"' .. name .. '"}}')
      call('ZADD', P .. 'queue:deliver', score, delivery)
      write_down(delivery, 'queued')
      ring('deliver')
    end
  end
  if number > before then
    call('HSET', P .. 'job:' .. id, 'deliveries', number)
  end
end

-- Ends one job that is on no processing set (any more), without what depends on it.
local function finish_one(id, from, to, queue, reason, attempt, worker, extra, sinks)
  move(id, from, to, queue, NOW)
  if reason == '' then
    call('HSET', P .. 'job:' .. id, 'status', to, 'completed', NOW)
  else
    call('HSET', P .. 'job:' .. id, 'status', to, 'completed', NOW, 'reason', reason)
  end
  record(id, queue, to, attempt, worker, reason, extra)
  if sinks then
    deliver(id, sinks, to)
  end
end

-- One of the jobs that this held one waits for has ended well enough for it.
local function one_less(id, job)
  local key, queue = P .. 'job:' .. id, job[2] or 'jobs'
  if call('HINCRBY', key, 'waits', -1) > 0 then
    return
  end
  call('HDEL', key, 'waits')
  if not job[5] then
    make_ready(id, 'held', queue, job[3], 'all jobs it depends on have ended')
    return
  end
  local due = string.format('%.0f', NOW + job[5])
  move(id, 'held', 'scheduled', queue, due)
  call('HSET', key, 'status', 'scheduled', 'due', due, 'reason', 'it starts when it is due')
  record(id, queue, 'scheduled')
  ring(queue)
end

-- What this held job wants if one that it depends on does not complete: skip, fail or run.
local function on_dependency_failure(id)
  return cjson.decode(call('HGET', P .. 'job:' .. id, 'spec') or '{}').on_dependency_failure or 'skip'
end

-- Ends a held job because one that it depends on has not completed; gives the state in which it is now.
local function give_up(id, job, ended, state, choice)
  local why = 'it depends on ' .. ended .. ', which ' .. (state == 'failed' and 'failed' or 'was cancelled')
  local to = 'cancelled'
  call('HDEL', P .. 'job:' .. id, 'waits')
  if choice == 'fail' then
    to = 'failed'
    call('HSET', P .. 'job:' .. id, 'error', cjson.encode({
      type = 'DependencyFailed', message = why, remedy = "Correct that job, then run '3ox retry' on both." }))
  else
    why = 'skipped: ' .. why
  end
  finish_one(id, 'held', to, job[2] or 'jobs', why, nil, nil, nil, job[6])
  return to
end

-- Has what depends on an ended job settled: next, or when those before it are.
local function put_aside(id, state)
  if call('EXISTS', P .. 'dependents:' .. id) == 1 then
    local number = call('INCR', P .. 'seq')
    call('RENAME', P .. 'dependents:' .. id, P .. 'ended:' .. id .. ':' .. number)
    call('RPUSH', P .. 'endings', id .. ' ' .. state .. ' ' .. number)
  end
end

-- Settles what depends on ended jobs: released if those are completed, as each of them wants if they are not. A
-- portion of it, for one job may have very many dependents, and each of these its own; the rest is done by the next
-- calls of `promote`. Tells whether there is a rest.
local function settle_dependents()
  while portion_left > 0 do
    local last = call('LINDEX', P .. 'endings', -1)
    if not last then
      return false
    end
    local ended, state, number = string.match(last, '^(%S+) (%S+) (%S+)$')
    local dependents = call('SPOP', P .. 'ended:' .. ended .. ':' .. number, portion_left)
    if #dependents == 0 then
      call('RPOP', P .. 'endings')
    end
    for _, other in ipairs(dependents) do
      local job = call('HMGET', P .. 'job:' .. other, 'status', 'queue', 'score', 'waits', 'delay', 'sinks')
      if job[1] == 'held' and job[4] then
        local choice = state == 'completed' and 'run' or on_dependency_failure(other)
        if choice == 'run' then
          one_less(other, job)
        else
          put_aside(other, give_up(other, job, ended, state, choice))
        end
      end
    end
    portion_left = portion_left - math.max(1, #dependents)
  end
  return call('EXISTS', P .. 'endings') == 1
end

-- Ends a job and settles what depends on it. `has_dependents`: its field of that name, which spares most jobs a look
-- at the set; `sinks` likewise.
local function finish(id, from, to, queue, reason, attempt, worker, has_dependents, sinks, extra)
  finish_one(id, from, to, queue, reason, attempt, worker, extra, sinks)
  if has_dependents then
    put_aside(id, to)
    if settle_dependents() then
      ring(queue) -- whoever wakes goes on with it
    end
  end
end

-- Moves what is due to the ready queue; gives the ms until the next is due, -1 if there is none.
local function promote(limit, queue)
  local next_due = -1
  if call('EXISTS', P .. 'endings') == 1 and settle_dependents() then
    next_due = 0
  end
  for _, state in ipairs({ 'scheduled', 'retrying' }) do
    local set = set_of(state, queue)
    local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
    if first and first - NOW <= 0 then
      for _, id in ipairs(call('ZRANGEBYSCORE', set, '-inf', NOW, 'LIMIT', 0, limit)) do
        local job = call('HMGET', P .. 'job:' .. id, 'score', 'attempt')
        if job[1] then
          make_ready(id, state, queue, next_score(job[1]), 'it was due', job[2])
        else
          call('ZREM', set, id) -- its record was deleted by hand: it must not stop the others
        end
      end
      first = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
    end
    if first then
      local left = math.max(0, first - NOW)
      if next_due < 0 or left < next_due then
        next_due = left
      end
    end
  end
  return next_due
end

-- Removes every trace of a job that has ended, or that is being deleted.
local function forget(id, state, queue)
  local job = call('HMGET', P .. 'job:' .. id, 'spec')
  call('ZREM', set_of(state, queue), id)
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
  if call('SREM', P .. 'unsealed', id) == 1 then
    call('INCR', P .. 'unsealed:lost') -- nobody sealed the ledger for as long as a job is kept
  end
end

-- Keeps the number and the age of ended jobs bounded: one call in sixteen looks, and removes twice as many.
local function retire(state, queue, retention_ms, finished_max)
  if time[2] % 16 ~= 0 then
    return
  end
  local set = set_of(state, queue)
  local old = call('ZRANGEBYSCORE', set, '-inf', NOW - retention_ms, 'LIMIT', 0, 32)
  if #old == 0 then
    local excess = call('ZCARD', set) - finished_max
    if excess > 0 then
      old = call('ZRANGE', set, 0, math.min(excess, 32) - 1)
    end
  end
  for _, id in ipairs(old) do
    forget(id, state, queue)
  end
end
