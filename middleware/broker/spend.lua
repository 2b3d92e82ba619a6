-- Counts what answers of models cost, against the budgets of a day and of a job.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  claim or settle
-- ARGV[3]  day, YYYY-MM-DD
-- ARGV[4]  job id
-- ARGV[5]  attempt
-- claim:
-- ARGV[6]  tokens of the question
-- ARGV[7]  tokens of the answer at most
-- ARGV[8]  tokens of the answer at least; with fewer it is not worth asking
-- ARGV[9]  price of a token of the question, in 10^-9 dollars
-- ARGV[10] price of a token of the answer, in 10^-9 dollars
-- ARGV[11] limit of tokens a day, -1 for none
-- ARGV[12] limit of money a day, in 10^-9 dollars, -1 for none
-- ARGV[13] limit of tokens a job, -1 for none
-- ARGV[14] limit of money a job, in 10^-9 dollars, -1 for none
-- ARGV[15] how long the reservation is valid, in ms
-- settle:
-- ARGV[6]  tokens
-- ARGV[7]  money, in 10^-9 dollars
-- ARGV[8]  1 to count for the job too
-- Reply    {'ok', tokens that the answer may have}  claimed
--          {'spent', budget, used, limit}           nothing done: the budget is used up
--          {'held', budget}                         nothing done: other jobs have reserved the rest
--          {'settled'}, or {'unknown'}: it was settled before
--
-- The most that an answer may cost is reserved before it is requested, and replaced by its real cost when it is there.
-- A reservation that outlives its validity, because its worker died, counts as spent.

local KEEP_S = 172800 -- two days: yesterday's use can still be read
local use, held_key = P .. 'ask:use:' .. ARGV[3], P .. 'ask:held:' .. ARGV[3]
local job_use = P .. 'ask:job:' .. ARGV[4]
local field = ARGV[4] .. ':' .. ARGV[5]

local function whole(number)
  return string.format('%.0f', number)
end

local function count(key, tokens, money)
  call('HINCRBY', key, 'tokens', whole(tokens))
  call('HINCRBY', key, 'nano_usd', whole(money))
  call('EXPIRE', key, KEEP_S)
end

if ARGV[2] == 'settle' then
  if call('HDEL', held_key, field) == 0 then
    return { 'unknown' }
  end
  local tokens, money = tonumber(ARGV[6]), tonumber(ARGV[7])
  if tokens > 0 or money > 0 then
    count(use, tokens, money)
    call('HINCRBY', use, 'answers', 1)
    if ARGV[8] == '1' then
      count(job_use, tokens, money)
    end
  end
  return { 'settled' }
end

local held_tokens, held_money = 0, 0
local holds = call('HGETALL', held_key)
for at = 1, #holds, 2 do
  local until_ms, tokens, money = string.match(holds[at + 1], '^(%d+) (%d+) (%d+)$')
  if holds[at] == field or tonumber(until_ms) < tonumber(NOW) then
    -- An earlier delivery of this attempt may have spent its reservation, too.
    call('HDEL', held_key, holds[at])
    count(use, tonumber(tokens), tonumber(money))
  else
    held_tokens, held_money = held_tokens + tonumber(tokens), held_money + tonumber(money)
  end
end

local question, answer, least = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local price_in, price_out = tonumber(ARGV[9]), tonumber(ARGV[10])
local day = call('HMGET', use, 'tokens', 'nano_usd')
local job = call('HMGET', job_use, 'tokens', 'nano_usd')
local budgets = {
  { 'day_tokens', tonumber(ARGV[11]), tonumber(day[1] or '0'), held_tokens, 1, 1 },
  { 'day_usd', tonumber(ARGV[12]), tonumber(day[2] or '0'), held_money, price_in, price_out },
  { 'job_tokens', tonumber(ARGV[13]), tonumber(job[1] or '0'), 0, 1, 1 },
  { 'job_usd', tonumber(ARGV[14]), tonumber(job[2] or '0'), 0, price_in, price_out },
}
local granted = answer
for _, budget in ipairs(budgets) do
  local name, limit, used, held, per_in, per_out = unpack(budget)
  if limit >= 0 then
    if used >= limit or question * per_in + least * per_out > limit - used then
      return { 'spent', name, whole(used), whole(limit) }
    end
    local room = limit - used - held - question * per_in
    if held > 0 and answer * per_out > room then
      return { 'held', name }
    end
    if per_out > 0 then
      granted = math.min(granted, math.floor(room / per_out))
    end
  end
end
call('HSET', held_key, field, string.format('%.0f %.0f %.0f', NOW + ARGV[15], question + granted,
  question * price_in + granted * price_out))
call('EXPIRE', held_key, KEEP_S)
return { 'ok', whole(granted) }
