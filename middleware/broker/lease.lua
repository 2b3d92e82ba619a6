-- Renews the leases of workers that somebody else sees alive; brings none back that has been given up.
--
-- ARGV[2]  how long the leases last from now, in ms
-- ARGV[3]  ... worker ids
--
-- Reply: how many workers the store knows

for i = 3, #ARGV do
  call('ZADD', P .. 'workers', 'XX', NOW + ARGV[2], ARGV[i])
end
return call('ZCARD', P .. 'workers')
