-- Leader election of the scheduler: a lease by the store's clock, and a number that fences off earlier leaders.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  act: claim, release, note or forget
-- ARGV[3]  claim, release: name of the candidate
--          note, forget: fence under which the caller leads
-- ARGV[4]  claim: duration of the lease, in ms
--          note, forget: key of a hash, without the prefix
-- ARGV[5]  ... note: pairs: field, value; forget: fields
-- Reply    claim    {'leader', fence, now}                     the caller leads, as before or from now on
--                   {'follower', fence, now, holder, ms left}  another candidate leads
--          release  {'released', fence} or {'refused', fence}
--          note     {'noted', fence}, or {'fenced', fence}: nothing written, the caller leads no longer
--          forget   as note
--
-- `lead` is a hash: holder, fence, until. The fence grows with each term and never decreases, even while no one leads.
-- A lease never ends later than one lease duration from now; otherwise, after the store's clock is set back, a dead
-- leader would stay in office.

local key = P .. 'lead'
local act, who = ARGV[2], ARGV[3]
local lead = call('HMGET', key, 'holder', 'fence', 'until')
local holder, fence, ends = lead[1], lead[2] or '0', tonumber(lead[3] or '0')

if act == 'claim' then
  local lease, now = tonumber(ARGV[4]), tonumber(NOW)
  if ends > now + lease then
    ends = now + lease
    call('HSET', key, 'until', string.format('%.0f', ends))
  end
  if ends > now and holder ~= who then
    return { 'follower', fence, NOW, holder, ends - now }
  end
  if holder ~= who or ends <= now then
    fence = tostring(call('HINCRBY', key, 'fence', 1))
  end
  call('HSET', key, 'holder', who, 'until', string.format('%.0f', now + lease))
  return { 'leader', fence, NOW }
end

if act == 'release' then
  if holder ~= who then
    return { 'refused', fence }
  end
  call('HSET', key, 'holder', '', 'until', '0')
  return { 'released', fence }
end

if fence ~= who or not holder or holder == '' then
  return { 'fenced', fence }
end
if act == 'note' then
  call('HSET', P .. ARGV[4], unpack(ARGV, 5))
elseif act == 'forget' then
  call('HDEL', P .. ARGV[4], unpack(ARGV, 5))
else
  error('unknown act ' .. act)
end
return { 'noted', fence }
