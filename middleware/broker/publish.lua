-- Publishes the job types for which a worker has actors, and queues the jobs of these types that were held until then.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  how long a type is kept after a worker last published it, in ms
-- ARGV[3]  ... three for each type: name, queue, description as JSON; '': its held jobs are queued, nothing else
-- Reply    names of types that were refused because TYPES_MAX is reached

local TYPES_MAX = 1000
local RELEASED_MAX = 500 -- by one call, in about 10 ms; the rest by the next heartbeat
local refused = {}
local released = 0
local uncarried = {} -- one check for all types: usually no job is held for want of a worker
for at = 3, #ARGV, 3 do
  uncarried[#uncarried + 1] = P .. 'uncarried:' .. ARGV[at]
end
local some_held = call('EXISTS', unpack(uncarried)) > 0

for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'types:seen', '-inf', NOW - ARGV[2], 'LIMIT', 0, 100)) do
  call('HDEL', P .. 'types', name)
  call('ZREM', P .. 'types:seen', name)
end

local function release(name)
  local held = P .. 'uncarried:' .. name
  while released < RELEASED_MAX do
    local id = call('SPOP', held)
    if not id then
      return
    end
    local key = P .. 'job:' .. id
    local job = call('HMGET', key, 'status', 'queue', 'score', 'attempt', 'uncarried')
    if job[1] == 'held' and job[5] then
      call('HDEL', key, 'uncarried')
      make_ready(id, 'held', job[2] or 'jobs', job[3], 'a worker has an actor for ' .. name, job[4], record_turn)
      released = released + 1
    end
  end
end

for at = 3, #ARGV, 3 do
  local name, queue, description = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if description ~= '' then
    if call('HEXISTS', P .. 'types', name) == 0 and call('HLEN', P .. 'types') >= TYPES_MAX then
      refused[#refused + 1] = name
    else
      call('HSET', P .. 'types', name, description)
      call('ZADD', P .. 'types:seen', NOW, name)
      if queue ~= 'jobs' and call('SCARD', P .. 'queues') < QUEUES_MAX then
        call('SADD', P .. 'queues', queue)
      end
    end
  end
  if some_held then
    release(name)
  end
end
return refused
