-- Takes progress and output of a running job, from the worker that holds it.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  worker id
-- ARGV[3]  job id
-- ARGV[4]  delivery token, see `fetch`
-- ARGV[5]  progress, 0 to 100, or ''
-- ARGV[6]  progress message
-- ARGV[7]  number of pieces of output that are kept
-- ARGV[8]  number of this bundle of output within the delivery, ascending. One that is there already is not written
--          again: its reply was lost, or a paused store received it several times
-- ARGV[9]  ... pairs: stream ('out' or 'err'), text
-- Reply    'ok', or 'superseded': nothing done, the job is no longer this worker's

local id = ARGV[3]
if call('HGET', P .. 'processing:' .. ARGV[2], id) ~= ARGV[4] then
  return 'superseded'
end
if ARGV[5] ~= '' then
  call('HSET', P .. 'job:' .. id, 'progress', ARGV[5], 'message', ARGV[6])
  local event = call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_MAX, '*', 'job', id, 'status', 'processing',
    'progress', ARGV[5], 'message', ARGV[6])
  call('PUBLISH', P .. 'event:' .. id, event .. ' progress')
end
if #ARGV >= 9 then
  -- Delivery tokens are unique per worker only.
  local output, mark = P .. 'output:' .. id, ARGV[2] .. ':' .. ARGV[4] .. '.'
  local last = call('XREVRANGE', output, '+', '-', 'COUNT', 1)[1]
  local seen = last and last[2][6] or ''
  if string.sub(seen, 1, #mark) == mark and tonumber(string.sub(seen, #mark + 1)) >= tonumber(ARGV[8]) then
    return 'ok'
  end
  for i = 9, #ARGV, 2 do
    call('XADD', output, 'MAXLEN', '~', ARGV[7], '*', 's', ARGV[i], 't', ARGV[i + 1], 'b', mark .. ARGV[8])
  end
  call('PUBLISH', P .. 'output:' .. id, 'output')
end
return 'ok'
