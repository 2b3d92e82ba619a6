-- Deletes ended jobs with all their keys.
--
-- ARGV[2]  state: completed, failed or cancelled
-- ARGV[3]  how many at most
-- ARGV[4]  only those that ended at this time (ms) or before; '+inf': all
-- ARGV[5]  queue: jobs, or deliver
--
-- Reply: how many were deleted

if not is_final(ARGV[2]) then
  error('only ended jobs can be purged')
end
local ids = call('ZRANGEBYSCORE', set_of(ARGV[2], ARGV[5]), '-inf', ARGV[4], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  forget(id, ARGV[2], ARGV[5])
end
return #ids
