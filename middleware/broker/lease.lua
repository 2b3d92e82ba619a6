-- Renews the leases of workers that the watchdog sees alive; restores none that was given up.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  duration of the leases from now, in ms
-- ARGV[3]  ... worker ids
-- Reply    number of workers that the store knows

for i = 3, #ARGV do
  call('ZADD', P .. 'workers', 'XX', NOW + ARGV[2], ARGV[i])
end
return call('ZCARD', P .. 'workers')
