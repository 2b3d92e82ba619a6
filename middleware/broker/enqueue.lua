-- Enqueues jobs: record, first line of the receipt, place in a queue, bell and event. Each job is atomic, a batch
-- is not.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  how long an idempotency key is kept, in ms
-- ARGV[3]  limit of jobs that wait in a queue
-- ARGV[4]  ... thirteen for each job:
--   1  job id                      7  SHA-256 of the payload
--   2  queue                       8  delay in ms; 0: none
--   3  priority, 1 to 10           9  idempotency key, or ''
--   4  job, JSON                  10  limits "name=amount/capacity,...", or ''
--   5  job type                   11  ids of the jobs it depends on, separated by commas, or ''
--   6  project, or ''             12  why it is held for approval, or ''
--                                 13  destinations "NAME/STATE,..." of its result, see `deliver`, or ''
-- Reply    for each job, one of
--          {'new', id, status, now}          enqueued
--          {'duplicate', id, status, now}    enqueued before, with the same id or idempotency key
--          {'full', number of waiting jobs}  refused: the queue is at its limit
--          {'dependency', id, status}        refused: it depends on a job that cannot complete; status may also
--                                            be 'unknown' or 'itself'

local FIELDS = 13
local IDEMPOTENCY_TTL, QUEUE_MAX = ARGV[2], tonumber(ARGV[3])
local additions = {} -- key of a sorted set -> arguments of ZADD, one call for the whole batch
local bells = {}
local announced = {} -- state -> ids
local waiting = {}
local arrivals = call('INCRBY', P .. 'seq', (#ARGV - 3) / FIELDS) - (#ARGV - 3) / FIELDS

local function add(key, score, member)
  local list = additions[key]
  if not list then
    list = {}
    additions[key] = list
  end
  list[#list + 1], list[#list + 2] = score, member
end

-- Returns the dependencies that are still to complete; or the reply for one that never will.
local function unmet(own, dependencies, spec)
  local waits, seen = {}, {}
  for id in string.gmatch(dependencies, '[^,]+') do
    local state = id ~= own and call('HGET', P .. 'job:' .. id, 'status')
    local bad = not state or state == 'failed' or state == 'cancelled'
    if bad and not (state and cjson.decode(spec).on_dependency_failure == 'run') then
      return nil, { 'dependency', id, id == own and 'itself' or state or 'unknown' }
    end
    if not bad and state ~= 'completed' and not seen[id] then
      seen[id] = true
      waits[#waits + 1] = id
    end
  end
  return waits
end

-- One check for the whole batch: usually no job of it is known.
local keys = {}
for at = 4, #ARGV, FIELDS do
  keys[#keys + 1] = P .. 'job:' .. ARGV[at]
end
local some_known = #keys > 0 and call('EXISTS', unpack(keys)) > 0
local taken = {}

local function known_before(id, idempotency)
  if idempotency ~= '' then
    local known = call('GET', P .. 'idempotency:' .. idempotency)
    local status = known and call('HGET', P .. 'job:' .. known, 'status')
    if status then
      return { 'duplicate', known, status, NOW }
    end
  end
  local status = (some_known or taken[id]) and call('HGET', P .. 'job:' .. id, 'status')
  return status and { 'duplicate', id, status, NOW }
end

local function take(at)
  local id, queue, priority = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local delay, idempotency, limits = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local approval, sinks = ARGV[at + 11], ARGV[at + 12]
  local before = known_before(id, idempotency)
  if before then
    return before
  end
  waiting[queue] = waiting[queue] or call('ZCARD', P .. 'queue:' .. queue)
    + call('ZCARD', set_of('scheduled', queue)) + call('ZCARD', set_of('held', queue))
  if waiting[queue] >= QUEUE_MAX then
    return { 'full', waiting[queue] }
  end
  local waits, refusal = unmet(id, ARGV[at + 10], ARGV[at + 3])
  if refusal then
    return refusal
  end

  arrivals = arrivals + 1
  local score = score_of(priority, arrivals)
  local state, place = 'queued', score
  local fields = { 'created', NOW, 'score', score }
  local function set(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  if queue ~= 'jobs' then
    set('queue', queue)
  end
  if limits ~= '' then
    set('limits', limits)
  end
  if sinks ~= '' then
    set('sinks', sinks)
  end
  if approval ~= '' then
    state, place = 'held', NOW
    set('approval', '1')
    add(P .. 'approvals', NOW, id)
    set('reason', approval)
  elseif #waits > 0 then
    state, place = 'held', NOW
    set('waits', #waits)
    set('reason', 'waiting for ' .. #waits .. ' other job' .. (#waits > 1 and 's' or '') .. ' to complete')
    for _, dependency in ipairs(waits) do
      call('SADD', P .. 'dependents:' .. dependency, id)
      call('HSET', P .. 'job:' .. dependency, 'dependents', '1')
    end
  elseif delay ~= '0' then
    state, place = 'scheduled', string.format('%.0f', NOW + delay)
    set('due', place)
  end
  if state == 'held' and delay ~= '0' then
    set('delay', delay)
  end
  set('status', state)
  set('spec', ARGV[at + 3]) -- last, since it is long: appending to the hash copies what is there

  if idempotency ~= '' then
    call('SET', P .. 'idempotency:' .. idempotency, id, 'PX', IDEMPOTENCY_TTL)
  end
  call('HSET', P .. 'job:' .. id, unpack(fields))
  taken[id] = true
  add(set_of(state, queue), place, id)
  add(P .. 'index:all', '0', id)
  add(P .. 'index:tail', '0', string.reverse(id))
  add(P .. 'index:type:' .. ARGV[at + 4], '0', id)
  if ARGV[at + 5] ~= '' then
    add(P .. 'index:project:' .. ARGV[at + 5], '0', id)
  end
  write_down(id, state, nil, nil, approval, ',"input_sha256":"' .. ARGV[at + 6] .. '"')
  announced[state] = announced[state] and announced[state] .. ',' .. id or id
  if state ~= 'held' then
    -- For a scheduled job too: the consumer that wakes learns when the next one is due.
    bells[queue] = (bells[queue] or 0) + 1
  end
  waiting[queue] = waiting[queue] + 1
  return { 'new', id, state, NOW }
end

local reply = {}
for at = 4, #ARGV, FIELDS do
  reply[#reply + 1] = take(at)
end
for key, list in pairs(additions) do
  call('ZADD', key, unpack(list))
end
-- No client can be waiting for a job that did not exist: only consumers are woken.
for state, ids in pairs(announced) do
  announce(ids, state)
end
local fresh = {}
for id in pairs(taken) do
  fresh[#fresh + 1] = id
end
if #fresh > 0 then
  unsealed(fresh)
end
for queue, count in pairs(bells) do
  ring(queue, count)
end
return reply
