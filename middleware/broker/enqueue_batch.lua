-- Enqueues jobs: shared by `enqueue` and by `settle`, which enqueues what follows a job in the step that ends it.

local FIELDS = 13 -- of each job, see `enqueue`
local QUEUES_MAX = 1000
local PIPELINE_MAX = 300

-- Returns the group of which a message, or the last one of the pipeline that begins with it, is a member.
local function group_of(spec)
  local options = cjson.decode(spec).options
  for _ = 1, PIPELINE_MAX do
    if type(options) ~= 'table' or options.group_completion_uuid or type(options.pipe_target) ~= 'table' then
      break
    end
    options = options.pipe_target.options
  end
  return type(options) == 'table' and options.group_completion_uuid or nil
end

-- A group whose `run` failed half-way, since the store was unavailable, is run again under another id: the members
-- that are known keep the one before. Lets both be one group.
local function join_groups(known, spec)
  if not known or not string.find(spec, '"group_completion_uuid"', 1, true) then
    return
  end
  local before, again = group_of(known), group_of(spec)
  local ttl = again and call('PTTL', P .. 'groupsize:' .. again)
  if before and again and before ~= again and ttl > 0 then
    call('SET', P .. 'groupagain:' .. before, again, 'PX', ttl)
    if call('SUNIONSTORE', P .. 'group:' .. again, P .. 'group:' .. again, P .. 'group:' .. before) > 0 then
      call('PEXPIRE', P .. 'group:' .. again, ttl)
    end
  end
end

-- Counts a completed member; returns whether it was the last one. Each job counts once, however often it is run.
local function last_of_group(group, id, ttl)
  for _ = 1, 16 do
    local again = call('GET', P .. 'groupagain:' .. group)
    if not again then
      break
    end
    group = again
  end
  local size = call('GET', P .. 'groupsize:' .. group)
  local added = call('SADD', P .. 'group:' .. group, id)
  call('PEXPIRE', P .. 'group:' .. group, ttl)
  return added == 1 and size and call('SCARD', P .. 'group:' .. group) == tonumber(size)
end

-- Returns whether there may be no further queue of this name.
local function no_such_queue(queue)
  return queue ~= 'jobs' and call('SISMEMBER', P .. 'queues', queue) == 0 and call('SCARD', P .. 'queues') >= QUEUES_MAX
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

-- Returns why one of the jobs that are to follow another cannot be enqueued, for people; nil if all can.
local function refusal_of(first, last)
  for at = first, last, FIELDS do
    local name = 'what follows it was refused: ' .. ARGV[at + 4] .. ' '
    if no_such_queue(ARGV[at + 1]) then
      return name .. 'is for the queue ' .. ARGV[at + 1] .. ', and there are ' .. QUEUES_MAX .. ' queues already'
    end
    local _, refused = unmet(ARGV[at], ARGV[at + 10], ARGV[at + 3])
    if refused then
      return name .. 'depends on ' .. refused[2] .. ', which is ' .. refused[3]
    end
  end
end

-- Enqueues the jobs whose fields are ARGV[first] to ARGV[last]; returns a reply for each, as `enqueue` does. Without
-- `queue_max` no queue is full: what follows a job cannot be refused.
local function enqueue_batch(first, last, idempotency_ttl, queue_max)
  local count = (last - first + 1) / FIELDS
  local additions = {} -- key of a sorted set -> arguments of ZADD, one call for the whole batch
  local bells = {}
  local announced = {} -- state -> ids
  local waiting = {}
  local arrivals = call('INCRBY', P .. 'seq', count) - count

  local function add(key, score, member)
    local list = additions[key]
    if not list then
      list = {}
      additions[key] = list
    end
    list[#list + 1], list[#list + 2] = score, member
  end

  -- One check for the whole batch: usually no job of it is known.
  local keys = {}
  for at = first, last, FIELDS do
    keys[#keys + 1] = P .. 'job:' .. ARGV[at]
  end
  local some_known = #keys > 0 and call('EXISTS', unpack(keys)) > 0
  local taken = {}

  local function known_before(id, idempotency, spec)
    for key in string.gmatch(idempotency, '[^\31]+') do
      local known = call('GET', P .. 'idempotency:' .. key)
      local status = known and call('HGET', P .. 'job:' .. known, 'status')
      if status then
        return { 'duplicate', known, status, NOW }
      end
    end
    local status = (some_known or taken[id]) and call('HGET', P .. 'job:' .. id, 'status')
    if status then
      join_groups(call('HGET', P .. 'job:' .. id, 'spec'), spec)
      return { 'duplicate', id, status, NOW }
    end
  end

  local function take(at)
    local id, queue, priority = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local delay, idempotency, limits = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
    local approval, sinks = ARGV[at + 11], ARGV[at + 12]
    local before = known_before(id, idempotency, ARGV[at + 3])
    if before then
      return before
    end
    if not waiting[queue] then
      if no_such_queue(queue) then
        return { 'queues', QUEUES_MAX }
      end
      if queue ~= 'jobs' then
        call('SADD', P .. 'queues', queue)
      end
      waiting[queue] = call('ZCARD', set_of('queued', queue)) + call('ZCARD', set_of('scheduled', queue))
        + call('ZCARD', set_of('held', queue))
    end
    if queue_max and waiting[queue] >= queue_max then
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
      add(P .. 'index:queue:' .. queue, '0', id)
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

    for key in string.gmatch(idempotency, '[^\31]+') do
      call('SET', P .. 'idempotency:' .. key, id, 'PX', idempotency_ttl)
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
  for at = first, last, FIELDS do
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
end
