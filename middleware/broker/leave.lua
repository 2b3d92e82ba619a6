-- Gives up the lease of a worker that has shut down in order.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- Reply    number of jobs that it still holds; if not 0, nothing is done and its lease runs out

local left = call('HLEN', P .. 'processing:' .. ARGV[2])
if left == 0 then
  call('ZREM', P .. 'workers', ARGV[2])
  call('DEL', P .. 'worker:' .. ARGV[2] .. ':heartbeat')
end
return left
