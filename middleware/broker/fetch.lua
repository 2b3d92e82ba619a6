-- Fetches a worker's next jobs: promotes due jobs, pops from the ready queue, puts them on the worker's processing
-- set and renews its lease.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  queue
-- ARGV[4]  number of jobs at most
-- ARGV[5]  delivery token, which this worker uses for one fetch only. It is the fence that `settle` checks. If it is
--          on the processing set already, the reply to that fetch was lost: the same jobs are returned, no others
-- ARGV[6]  duration of the worker's lease from now, in ms
-- Reply    {ms until the next job is due or -1, then for each job: id, job as JSON, attempt, attempts before the
--          last retry by hand, time of creation, options of the message as an earlier attempt left them or ''}

local worker, queue, delivery = ARGV[2], ARGV[3], ARGV[5]
local room = tonumber(ARGV[4])
local processing = P .. 'processing:' .. worker
local ready = set_of('queued', queue)
local reply = { 0 }

call('ZADD', P .. 'workers', NOW + ARGV[6], worker)

local function give(id, spec, attempt, base, created, options)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = id, spec, attempt, base, created
  reply[n + 6] = options or ''
end

local held = call('HGETALL', processing)
for i = 1, #held, 2 do
  if held[i + 1] == delivery then
    local job = call('HMGET', P .. 'job:' .. held[i], 'spec', 'attempt', 'base', 'created', 'options')
    give(held[i], job[1], job[2], job[3] or '0', job[4], job[5])
  end
end
if #reply > 1 then
  reply[1] = promote(100, queue)
  if call('EXISTS', ready) == 1 then
    ring(queue) -- this fetch has used up the ring that caused it
  end
  return reply
end

-- Occupies the job's resources; if one has no room, holds the job until a slot is released.
local function occupy(id, limits, score)
  for name, amount, capacity in each_limit(limits) do
    local used = tonumber(call('HGET', P .. 'running', name) or '0')
    local first = call('ZRANGE', P .. 'waiting:' .. name, 0, 0, 'WITHSCORES')[2]
    -- No job overtakes one that waits already: one that needs much would never start.
    if used + amount > tonumber(capacity) or (first and tonumber(first) < tonumber(score)) then
      local reason = 'waiting for ' .. name .. ': ' .. used .. ' of ' .. capacity .. ' in use'
      call('ZADD', set_of('held', queue), NOW, id)
      call('ZADD', P .. 'waiting:' .. name, score, id)
      call('HSET', P .. 'job:' .. id, 'status', 'held', 'reason', reason)
      record_turn(id, queue, 'held', nil, nil, reason)
      -- The turn that this job had for its other resources passes to the next one that waits for those.
      for other in each_limit(limits) do
        if other ~= name and has_room(other) then
          wake_waiting(other)
        end
      end
      return false
    end
  end
  for name, amount in each_limit(limits) do
    call('HINCRBY', P .. 'running', name, amount)
  end
  return true
end

reply[1] = promote(100, queue)
local looked = 0 -- 200 at most per call, about a millisecond: each may have to be held for lack of a slot
local emptied = false
local place, fence, started = {}, {}, {}
while room > 0 and looked < 200 and not emptied do
  local popped = call('ZPOPMIN', ready, room)
  emptied = #popped < 2 * room
  for i = 1, #popped, 2 do
    local id = popped[i]
    local key = P .. 'job:' .. id
    local job = call('HMGET', key, 'spec', 'attempt', 'base', 'created', 'limits', 'score', 'reason', 'options')
    looked = looked + 1
    emptied = emptied and not job[5] -- the job that gets its turn may just have become ready
    if job[1] and (not job[5] or occupy(id, job[5], job[6])) then
      local attempt = string.format('%d', (job[2] or 0) + 1)
      call('HSET', key, 'status', 'processing', 'worker', worker, 'delivery', delivery,
        'started', NOW, 'attempt', attempt)
      if job[7] then
        call('HDEL', key, 'reason') -- the one why it waited
      end
      place[#place + 1], place[#place + 2] = NOW, id
      fence[#fence + 1], fence[#fence + 2] = id, delivery
      started[#started + 1] = id
      write_down(id, 'processing', attempt, worker)
      give(id, job[1], attempt, job[3] or '0', job[4], job[8])
      room = room - 1
    end
  end
end

if #fence > 0 then
  call('ZADD', set_of('processing', queue), unpack(place))
  call('HSET', processing, unpack(fence))
  if queue ~= 'deliver' then
    unsealed(started)
    tell(started, 'processing')
  end
end

-- An empty queue leaves no token that would wake a consumer for nothing; otherwise the next one is woken.
if emptied or call('EXISTS', ready) == 0 then
  call('DEL', P .. 'bell:' .. queue)
elseif call('EXISTS', P .. 'bell:' .. queue) == 0 then
  call('LPUSH', P .. 'bell:' .. queue, '1')
end
return reply
