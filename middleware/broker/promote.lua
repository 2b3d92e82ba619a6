-- Moves jobs that are due to the ready queue, between fetches, so that a delay is exact on an idle bridge.
--
-- ARGV[2]  how many jobs at most, of each kind
--
-- Reply: ms until the next job is due, -1 if there is none

return promote(ARGV[2])
