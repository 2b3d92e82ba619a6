-- A worker has stopped in good order: it has nothing in hand and gives up its lease.
--
-- ARGV[2]  worker id
--
-- Reply: how many jobs it still had; if not 0, nothing is done and its lease runs out

local left = call('HLEN', P .. 'processing:' .. ARGV[2])
if left == 0 then
  call('ZREM', P .. 'workers', ARGV[2])
  call('DEL', P .. 'worker:' .. ARGV[2] .. ':heartbeat')
end
return left
