-- A worker's sign of life: its lease and what an operator wants to know of it.
--
-- ARGV[2]  worker id
-- ARGV[3]  how long the lease lasts from now, in ms
-- ARGV[4]  ... pairs: field, value
--
-- Reply: how many jobs stand on this worker's processing set

local key = P .. 'worker:' .. ARGV[2] .. ':heartbeat'
call('ZADD', P .. 'workers', NOW + ARGV[3], ARGV[2])
call('HSET', key, 'at', NOW, unpack(ARGV, 4))
call('PEXPIRE', key, ARGV[3] * 20) -- outlives the lease: `3ox status` says for a while whom it has lost
return call('HLEN', P .. 'processing:' .. ARGV[2])
