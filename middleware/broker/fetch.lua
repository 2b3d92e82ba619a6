-- Gives a worker its next jobs: promotes what is due, pops, puts them on the worker's processing set.
--
-- ARGV[2]  worker id
-- ARGV[3]  queue
-- ARGV[4]  how many jobs at most
-- ARGV[5]  delivery: a token that this worker never uses twice; with it on the processing set, it is
--          the fence that `settle` checks. If it stands there already, the reply to it was lost: its jobs are
--          given again, and nothing new
-- ARGV[6]  how long the worker's lease lasts from now, in ms
--
-- Reply: {ms until the next job is due or -1, id, job as JSON, attempt, attempts before the last retry by hand,
--         created, id, ...}

local worker, queue, delivery = ARGV[2], ARGV[3], ARGV[5]
local room = tonumber(ARGV[4])
local processing = P .. 'processing:' .. worker
local ready = P .. 'queue:' .. queue
local reply = { 0 }

call('ZADD', P .. 'workers', NOW + ARGV[6], worker)

local function give(id, spec, attempt, base, created)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = id, spec, attempt, base, created
end

local held = call('HGETALL', processing)
for i = 1, #held, 2 do
  if held[i + 1] == delivery then
    local job = call('HMGET', P .. 'job:' .. held[i], 'spec', 'attempt', 'base', 'created')
    give(held[i], job[1], job[2], job[3] or '0', job[4])
  end
end
if #reply > 1 then
  reply[1] = promote(100, queue)
  if call('EXISTS', ready) == 1 then
    ring(queue) -- the ring that led here is used up
  end
  return reply
end

-- Occupies the job's resources; if one has no room, the job is held until a slot is given back.
local function occupy(id, limits, score)
  for name, amount, capacity in each_limit(limits) do
    local used = tonumber(call('HGET', P .. 'running', name) or '0')
    local first = call('ZRANGE', P .. 'waiting:' .. name, 0, 0, 'WITHSCORES')[2]
    -- Nobody overtakes one that waits already, or a job that wants much would wait for ever.
    if used + amount > tonumber(capacity) or (first and tonumber(first) < tonumber(score)) then
      local reason = 'it waits for ' .. name .. ': ' .. used .. ' of ' .. capacity .. ' in use'
      call('ZADD', set_of('held', queue), NOW, id)
      call('ZADD', P .. 'waiting:' .. name, score, id)
      call('HSET', P .. 'job:' .. id, 'status', 'held', 'reason', reason)
      record_turn(id, queue, 'held', nil, nil, reason)
      -- The turn this job had for its other resources goes to whoever waits for those.
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
local looked = 0 -- at most 200 by one call, about a millisecond: each may have to be held for want of a slot
local emptied = false
local place, fence, started = {}, {}, {}
while room > 0 and looked < 200 and not emptied do
  local popped = call('ZPOPMIN', ready, room)
  emptied = #popped < 2 * room
  for i = 1, #popped, 2 do
    local id = popped[i]
    local key = P .. 'job:' .. id
    local job = call('HMGET', key, 'spec', 'attempt', 'base', 'created', 'limits', 'score', 'reason')
    looked = looked + 1
    emptied = emptied and not job[5] -- whoever gets this job's turn may just have become ready
    if job[1] and (not job[5] or occupy(id, job[5], job[6])) then
      local attempt = string.format('%d', (job[2] or 0) + 1)
      call('HSET', key, 'status', 'processing', 'worker', worker, 'delivery', delivery,
        'started', NOW, 'attempt', attempt)
      if job[7] then
        call('HDEL', key, 'reason') -- it said why the job waited
      end
      place[#place + 1], place[#place + 2] = NOW, id
      fence[#fence + 1], fence[#fence + 2] = id, delivery
      started[#started + 1] = id
      write_down(id, 'processing', attempt, worker)
      give(id, job[1], attempt, job[3] or '0', job[4])
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

-- Nothing left: no token may wake anybody for nothing. Something left: pass the baton.
if emptied or call('EXISTS', ready) == 0 then
  call('DEL', P .. 'bell:' .. queue)
elseif call('EXISTS', P .. 'bell:' .. queue) == 0 then
  call('LPUSH', P .. 'bell:' .. queue, '1')
end
return reply
