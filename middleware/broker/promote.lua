-- Moves due jobs to the ready queues between fetches, so that delays are exact on an idle bridge.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  number of jobs at most, of each queue and state
-- ARGV[3]  ... queues
-- Reply    ms until the next job is due, -1 if there is none

local next_due = -1
for at = 3, #ARGV do
  local left = promote(ARGV[2], ARGV[at])
  if next_due < 0 or (left >= 0 and left < next_due) then
    next_due = left
  end
end
return next_due
