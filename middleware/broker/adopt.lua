-- Enqueues a new job straight onto the processing set of the worker that submits it: it never waits in a queue, and
-- no other worker can fetch it. If it is recovered from there, it goes to the ordinary queue.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  delivery token, see `fetch`
-- ARGV[4]  duration of the worker's lease from now, in ms
-- ARGV[5]  limit of jobs that wait in a queue
-- ARGV[6]  job id
-- ARGV[7]  priority, 1 to 10
-- ARGV[8]  job, JSON
-- ARGV[9]  job type
-- ARGV[10] project, or ''
-- ARGV[11] SHA-256 of the payload
-- ARGV[12] destinations "NAME/STATE,..." of its result, see `deliver`, or ''
-- Reply    {'new', status}                   taken
--          {'already', status}               taken before by this same delivery, whose reply was lost
--          {'duplicate', status}             refused: there is such a job
--          {'full', number of waiting jobs}  refused: the queue is at its limit

local worker, delivery, id, queue = ARGV[2], ARGV[3], ARGV[6], 'jobs'
local key = P .. 'job:' .. id

local known = call('HMGET', key, 'status', 'worker', 'delivery')
if known[1] then
  return { known[2] == worker and known[3] == delivery and 'already' or 'duplicate', known[1] }
end
local waiting = call('ZCARD', set_of('queued', queue)) + call('ZCARD', set_of('scheduled', queue))
  + call('ZCARD', set_of('held', queue))
if waiting >= tonumber(ARGV[5]) then
  return { 'full', waiting }
end

local score = score_of(ARGV[7], call('INCR', P .. 'seq'))
call('HSET', key, 'created', NOW, 'score', score, 'status', 'processing', 'worker', worker, 'delivery', delivery,
  'started', NOW, 'attempt', '1', 'spec', ARGV[8])
if ARGV[12] ~= '' then
  call('HSET', key, 'sinks', ARGV[12])
end
call('ZADD', P .. 'index:all', '0', id)
call('ZADD', P .. 'index:tail', '0', string.reverse(id))
call('ZADD', P .. 'index:type:' .. ARGV[9], '0', id)
if ARGV[10] ~= '' then
  call('ZADD', P .. 'index:project:' .. ARGV[10], '0', id)
end
call('ZADD', P .. 'workers', NOW + ARGV[4], worker)
call('ZADD', set_of('processing', queue), NOW, id)
call('HSET', P .. 'processing:' .. worker, id, delivery)

-- Its receipt begins with `queued` at the same time, as every receipt does.
write_down(id, 'queued', nil, nil, nil, ',"input_sha256":"' .. ARGV[11] .. '"')
announce(id, 'queued')
record(id, queue, 'processing', '1', worker)
return { 'new', 'processing' }
