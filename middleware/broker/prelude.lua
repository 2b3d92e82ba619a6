-- What all functions share. `functions.py` puts this text before them and loads both as one library.
--
-- KEYS[1]  key prefix. All other names are built from it, so all keys of a bridge must be on one server (with
--          replicas and Sentinel, if any). It does not run on a cluster whose slots would separate them.
-- ARGV[1]  length of the event stream, in entries
-- Reply    of each function: see its file
--
-- A job is in exactly one place: the sorted set of its state. Times are the store's own, in ms since 1970.
--
-- Keys, without the prefix (`middleware/job/keys.py` builds the same names):
--
--   queue:QUEUE             sorted set  queued jobs of a queue; score: priority * 10^14 + order of arrival
--   jobs:STATE              sorted set  jobs of every other state, of all queues: scheduled and retrying by due time,
--                                       held and processing by when that began, completed, failed and cancelled
--                                       by when they ended
--   queue:deliver           sorted set  the same for deliveries of results, whose ids are those of the jobs
--   deliver:STATE                       with -1, -2, ...
--   queues                  set         names of all queues but jobs and deliver; 1,000 at most
--   types                   hash        job type that a worker has published -> JSON; 1,000 at most
--   types:seen              sorted set  the same types, by when a worker last carried them
--   uncarried:TYPE          set         held jobs that were fetched by a worker that does not carry their type
--   group:ID                set         completed jobs of a group with completion callbacks; expires
--   groupsize:ID            integer     number of its members; expires
--   groupagain:ID           string      id that the group got when it was sent again; expires
--   job:ID                  hash        what was submitted (`spec`), and its state
--   receipts:ID             list        receipt chain, one line per transition
--   result:ID               string      result, JSON
--   output:ID               stream      output, in pieces
--   dependents:ID           set         held jobs that wait for this one
--   endings                 list        ended jobs whose dependents are being settled, 200 per call
--   ended:ID:N              set         those dependents that are still to be settled
--   index:all               sorted set  ids of all jobs, in order of creation
--   index:tail              sorted set  the same ids reversed, to find a job by the end of its id
--   index:type:T            sorted set  ids of the jobs of a type
--   index:project:P         sorted set  ids of the jobs of a project
--   index:queue:QUEUE       sorted set  ids of the jobs of a queue other than jobs and deliver
--   idempotency:KEY         string      id of the job that was submitted with this key; expires
--   approvals               sorted set  held jobs that wait for approval, by since when
--   waiting:NAME            sorted set  held jobs that wait for a slot of a resource
--   running                 hash        resource -> amount in use
--   processing:WORKER       hash        job id -> delivery token, of the jobs that this worker holds
--   workers                 sorted set  worker ids, by the end of their lease
--   worker:ID:heartbeat     hash        last heartbeat of a worker; expires
--   looked                  integer     when `recover` last looked for leases that ended
--   bell:QUEUE              list        up to 64 tokens, each of which wakes a blocked consumer
--   events                  stream      last transitions and progress reports of all jobs
--   seq                     integer     order of arrival
--   unsealed                set         ids of jobs with transitions that the ledger does not have yet
--   unsealed:lost           integer     number of jobs that were deleted before the ledger had them
--   ledgers                 hash        ledger -> number and SHA-256 of its last line
--   lead                    hash        holder, fence and end of the scheduler's lease
--   session:ID              list        last messages of a conversation, JSON; expires
--   sessionfacts:ID         hash        number of its messages, first and last time; expires with it
--   sessions                sorted set  session ids, by the time of their last message; 10,000 at most
--   ask:use:DAY             hash        tokens and money that a day's answers took; expires
--   ask:held:DAY            hash        upper bounds reserved for answers that are being generated; expires
--   ask:job:ID              hash        tokens and money of one job, while jobs have a budget; expires
--
-- Keys that only Python uses:
--
--   daemons                 sorted set  ingress daemons, by the end of their lease
--   daemon:NAME@HOST:PID    hash        last heartbeat of a daemon; expires
--   schedules               hash        schedule id -> time up to which its runs have been handled
--   metrics:RESOLUTION      stream      samples: an hour, one per 10 s; a week, one per 10 min
--   content:SHA256          string      id of the first job of a dropped file of this content; expires
--   telegram:BOT:taken      sorted set  ids of handled Telegram updates, by when; two days
--   telegram:BOT:tries      hash        update id -> number of attempts, until it is handled
--   telegram:BOT:owed       hash        update id -> pending reply
--   telegram:BOT:asked      hash        job id -> messages that ask for its approval
--   telegram:BOT:migrated   hash        former id of a chat -> its id as a supergroup
--
-- Channels: event:ID (a transition or progress of this job), output:ID (it has new output),
--           control:WORKER (cancel a running job),
--           caller:ID, command:ID:RUN (stdin, stdout and stderr of an attached command, see middleware/streams)

local KEYS, ARGV -- of the current call, and what is derived from them
local P, EVENTS_MAX, NOW, time
local call
local BELL_MAX = 64 -- more waiting consumers than this are woken in several rounds
local WAITS_MAX = 200 -- a receipt chain of this length records no further turns that came to nothing
local PORTION = 200 -- dependents of ended jobs that one call settles, in about 10 ms
local portion_left

local function begin(keys, arguments)
  KEYS, ARGV = keys, arguments
  P, EVENTS_MAX = keys[1], arguments[1]
  portion_left = PORTION
  call = redis.call
  time = call('TIME')
  NOW = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- The transitions of middleware/job/states.py.
local MOVES = ' queued>processing queued>held queued>cancelled scheduled>queued scheduled>cancelled'
  .. ' held>queued held>scheduled held>cancelled held>failed processing>completed processing>failed'
  .. ' processing>cancelled processing>retrying processing>queued processing>held retrying>queued retrying>cancelled'
  .. ' failed>queued failed>held cancelled>queued cancelled>held '

local function is_final(state)
  return state == 'completed' or state == 'failed' or state == 'cancelled'
end

-- Sorted set of a state: of queued jobs one per queue, of every other state one for all queues. Deliveries of results
-- have sets of their own, so that no list of jobs shows them.
local function set_of(state, queue)
  if state == 'queued' then
    return P .. 'queue:' .. queue
  end
  return P .. (queue == 'deliver' and 'deliver:' or 'jobs:') .. state
end

-- Orders by priority, then by arrival; exact in a double up to 10^14 arrivals.
local function score_of(priority, arrival)
  return string.format('%.0f', priority * 1e14 + arrival)
end

-- Score of a job that arrives again with the priority of its old score.
local function next_score(score)
  return score_of(math.floor(score / 1e14), call('INCR', P .. 'seq'))
end

-- Each token in the bell wakes one consumer: one that blocks on it, or the next one to come.
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

-- Adds an entry to the event stream; jobs that enter a state together share one, "ID,ID,...".
local function announce(ids, state)
  return call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_MAX, '*', 'job', ids, 'status', state)
end

-- The same, and wakes clients that wait for one of these jobs.
local function tell(ids, state)
  local event = announce(table.concat(ids, ','), state) .. ' ' .. state
  for _, id in ipairs(ids) do
    call('PUBLISH', P .. 'event:' .. id, event)
  end
end

-- Appends a line to the receipt chain.
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

-- Marks jobs whose receipt chains have lines that the ledger does not have.
local function unsealed(ids)
  call('SADD', P .. 'unsealed', unpack(ids))
end

-- Records a transition: receipt chain, ledger mark, event. Of deliveries only the receipt chain.
local function record(id, queue, state, attempt, worker, reason, extra)
  write_down(id, state, attempt, worker, reason, extra)
  if queue == 'deliver' then
    return
  end
  unsealed({ id })
  tell({ id }, state)
end

-- Moves a job from one state's set to another's; the caller has read `from` from the job's hash.
local function move(id, from, to, queue, score)
  if not string.find(MOVES, ' ' .. from .. '>' .. to .. ' ', 1, true) then
    error('a job cannot go from ' .. from .. ' to ' .. to)
  end
  call('ZREM', set_of(from, queue), id)
  call('ZADD', set_of(to, queue), score, id)
end

-- `cancel` and `requeue` are idempotent per token: a job keeps the token of the last call of each kind with its
-- reply, so that a call that is repeated because its reply was lost gets the same reply.
local function answered_before(id, kind, token)
  local said = call('HGET', P .. 'job:' .. id, 'said:' .. kind)
  local outcome, status = string.match(said or '', '^' .. token .. ' (%S+) (%S+)$')
  return outcome and { outcome, status }
end

local function answer(id, kind, token, outcome, status)
  call('HSET', P .. 'job:' .. id, 'said:' .. kind, token .. ' ' .. outcome .. ' ' .. status)
  return { outcome, status }
end

-- `record` for a job that waits for a slot or gets its turn, which may repeat many times; bounded by WAITS_MAX.
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

-- Iterates over limits, "name=amount/capacity,...": the amount of each resource that a job occupies while it runs.
local function each_limit(limits)
  return string.gmatch(limits, '([^=,]+)=(%d+)/(%d+)')
end

-- Assigns a free slot of this resource to its first waiting job.
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
    id = call('ZRANGE', waiting, 0, 0)[1] -- its record was deleted by hand: it must not use up the turn
  end
end

-- Returns whether the first job that waits for this resource would get it now. Without this check two jobs that
-- need the same two resources, and wait for different ones, would pass their turns to each other endlessly.
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

-- Creates a delivery of an ended job for each of its destinations: "NAME/STATE,...", the states in which it wants
-- the result, `*` for all. A delivery is a job on the queue `deliver`, with the id of the job and a number.
local function deliver(id, sinks, state)
  local before = tonumber(call('HGET', P .. 'job:' .. id, 'deliveries') or '0') -- of ends before a retry by hand
  local number = before
  for name, wanted in string.gmatch(sinks, '([^/,]+)/([^,]+)') do
    if wanted == '*' or wanted == state then
      number = number + 1
      local delivery = id .. '-' .. number
      local score = score_of(5, call('INCR', P .. 'seq')) -- the default priority; all deliveries have the same
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

-- Ends one job that is not, or no longer, on a processing set; leaves its dependents alone.
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

-- Counts down the jobs that this held one waits for, and releases it after the last one.
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
  call('HSET', key, 'status', 'scheduled', 'due', due, 'reason', '')
  record(id, queue, 'scheduled')
  ring(queue)
end

-- Returns what becomes of this held job if one that it depends on does not complete: skip, fail or run.
local function on_dependency_failure(id)
  return cjson.decode(call('HGET', P .. 'job:' .. id, 'spec') or '{}').on_dependency_failure or 'skip'
end

-- Ends a held job because one that it depends on did not complete; returns its new state.
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

-- Queues the dependents of an ended job to be settled, after those of jobs that ended before.
local function put_aside(id, state)
  if call('EXISTS', P .. 'dependents:' .. id) == 1 then
    local number = call('INCR', P .. 'seq')
    call('RENAME', P .. 'dependents:' .. id, P .. 'ended:' .. id .. ':' .. number)
    call('RPUSH', P .. 'endings', id .. ' ' .. state .. ' ' .. number)
  end
end

-- Settles dependents of ended jobs: releases them if the job completed, otherwise does what each of them asks for.
-- Settles PORTION of them at most, since one job may have very many, and each of these its own; the next calls of
-- `promote` settle the rest. Returns whether there is a rest.
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

-- Ends a job and settles its dependents. `has_dependents` and `sinks` are its fields of those names; they spare
-- most jobs a look at the sets.
local function finish(id, from, to, queue, reason, attempt, worker, has_dependents, sinks, extra)
  finish_one(id, from, to, queue, reason, attempt, worker, extra, sinks)
  if has_dependents then
    put_aside(id, to)
    if settle_dependents() then
      ring(queue) -- the consumer that wakes settles the rest
    end
  end
end

-- Moves due jobs to the ready queue; returns the ms until the next one is due, -1 if there is none.
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
        local job = call('HMGET', P .. 'job:' .. id, 'score', 'attempt', 'queue')
        if job[1] then
          make_ready(id, state, job[3] or 'jobs', next_score(job[1]), 'it was due', job[2])
        else
          call('ZREM', set, id) -- its record was deleted by hand: it must not block the others
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

-- Deletes a job with all its keys.
local function forget(id, state, queue)
  local job = call('HMGET', P .. 'job:' .. id, 'spec', 'queue')
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
  if job[2] and job[2] ~= 'deliver' then
    call('ZREM', P .. 'index:queue:' .. job[2], id)
  end
  call('DEL', P .. 'job:' .. id, P .. 'receipts:' .. id, P .. 'result:' .. id, P .. 'output:' .. id,
    P .. 'dependents:' .. id)
  if call('SREM', P .. 'unsealed', id) == 1 then
    call('INCR', P .. 'unsealed:lost') -- the ledger was not sealed within the retention time
  end
end

-- Bounds the number and the age of ended jobs: one call in sixteen removes up to 32 of them.
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
