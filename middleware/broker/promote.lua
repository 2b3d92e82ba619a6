-- Moves jobs that are due to the ready queue, between fetches, so that a delay is exact on an idle bridge.
--
-- ARGV[2]  how many jobs at most, of each kind
-- ARGV[3]  ... queues
--
-- Reply: ms until the next job is due, -1 if there is none

local next_due = -1
for at = 3, #ARGV do
  local left = promote(ARGV[2], ARGV[at])
  if next_due < 0 or (left >= 0 and left < next_due) then
    next_due = left
  end
end
return next_due
