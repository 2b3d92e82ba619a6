-- Writes a question and its answer into a session, in one step and once per job.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  job id
-- ARGV[4]  attempt of the job
-- ARGV[5]  session id
-- ARGV[6]  question, JSON, with its job_id
-- ARGV[7]  answer, JSON, with its job_id
-- ARGV[8]  number of messages that a session keeps
-- ARGV[9]  retention after the last message, in ms
-- ARGV[10] number of sessions that are kept
-- ARGV[11] when the question was asked, in ms since 1970
-- Reply    'remembered', or 'superseded': nothing done, the job is no longer this worker's
--
-- An attempt whose worker died between this call and `settle` has left its answer here. The answer of the next attempt
-- replaces it, so that session and result agree.

local id, session = ARGV[3], ARGV[5]
if call('HEXISTS', P .. 'processing:' .. ARGV[2], id) == 0 or call('HGET', P .. 'job:' .. id, 'attempt') ~= ARGV[4] then
  return 'superseded'
end
local messages, facts, index = P .. 'session:' .. session, P .. 'sessionfacts:' .. session, P .. 'sessions'

-- Quotes inside a text are escaped in JSON: this matches the field only.
local mark = '"job_id":"' .. id .. '"'
local at
for i, message in ipairs(call('LRANGE', messages, 0, -1)) do
  if string.find(message, mark, 1, true) then
    at = i - 1
    break
  end
end
local following = at and call('LINDEX', messages, at + 1)
if following and string.find(following, mark, 1, true) then
  call('LSET', messages, at, ARGV[6])
  call('LSET', messages, at + 1, ARGV[7])
elseif at then
  call('LSET', messages, at, ARGV[7]) -- its question has been trimmed since
else
  call('RPUSH', messages, ARGV[6], ARGV[7])
  call('LTRIM', messages, -ARGV[8], -1)
  -- A session begins with its first question, by the clock of the interface that took it, and not in the future.
  call('HSETNX', facts, 'began', string.format('%.0f', math.min(ARGV[11], NOW)))
  call('HINCRBY', facts, 'messages', 2)
end
call('HSET', facts, 'last', NOW)
call('PEXPIRE', messages, ARGV[9])
call('PEXPIRE', facts, ARGV[9])

call('ZADD', index, NOW, session)
call('ZREMRANGEBYSCORE', index, '-inf', NOW - ARGV[9])
local excess = call('ZCARD', index) - ARGV[10]
if excess > 0 then
  -- A few per call are enough: each call adds one at most.
  for _, old in ipairs(call('ZRANGE', index, 0, math.min(excess, 16) - 1)) do
    call('ZREM', index, old)
    call('DEL', P .. 'session:' .. old, P .. 'sessionfacts:' .. old)
  end
end
return 'remembered'
