-- Enqueues jobs: shared by `enqueue` and by `settle`, which enqueues what follows a job in the step that ends it.

local FIELDS = 13 -- of each job, see `enqueue`
local QUEUES_MAX = 1000

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
  for at = first, last, FIELDS do
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
    if not waiting[queue] then
      if queue ~= 'jobs' and call('SISMEMBER', P .. 'queues', queue) == 0 then
        if call('SCARD', P .. 'queues') >= QUEUES_MAX then
          return { 'queues', QUEUES_MAX }
        end
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

    if idempotency ~= '' then
      call('SET', P .. 'idempotency:' .. idempotency, id, 'PX', idempotency_ttl)
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
