-- Takes a worker's heartbeat: its lease, and what `3ox status` shows of it.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  duration of the lease from now, in ms
-- ARGV[4]  ... pairs: field, value
-- Reply    number of jobs on this worker's processing set

local key = P .. 'worker:' .. ARGV[2] .. ':heartbeat'
call('ZADD', P .. 'workers', NOW + ARGV[3], ARGV[2])
call('HSET', key, 'at', NOW, unpack(ARGV, 4))
call('PEXPIRE', key, ARGV[3] * 20) -- longer than the lease: `3ox status` shows lost workers for a while
return call('HLEN', P .. 'processing:' .. ARGV[2])
