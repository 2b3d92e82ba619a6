-- Deletes ended jobs with all their keys.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  state: completed, failed or cancelled
-- ARGV[3]  number of jobs at most
-- ARGV[4]  only jobs that ended at this time (ms) or before; '+inf': all
-- ARGV[5]  queue: jobs, or deliver
-- Reply    number of jobs deleted

if not is_final(ARGV[2]) then
  error('only ended jobs can be purged')
end
local ids = call('ZRANGEBYSCORE', set_of(ARGV[2], ARGV[5]), '-inf', ARGV[4], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  forget(id, ARGV[2], ARGV[5])
end
return #ids
