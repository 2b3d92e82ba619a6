-- One of several clocks leads: a lease by the store's own clock, and a number that fences off those before it.
--
-- ARGV[2]  act: claim, release, note or forget
-- ARGV[3]  claim, release: who asks
--          note, forget: the fence under which the caller leads
-- ARGV[4]  claim: how long the lease lasts, in ms
--          note, forget: key of a hash, without the prefix
-- ARGV[5]  ... note: pairs: field, value; forget: fields
--
-- `lead` is a hash: holder, fence, until. The fence grows with each new term and never goes back, not even when
-- nobody leads. A lease never ends later than a whole one from now: a store whose clock was set back would
-- otherwise keep a dead leader in office.
--
-- Reply: claim    {'leader', fence, now}                    yours, renewed or new
--                 {'follower', fence, now, holder, ms left}  somebody else's
--        release  {'released', fence} or {'refused', fence}
--        note     {'noted', fence} or {'fenced', fence}      nothing is written by who does not lead any more
--        forget   the same

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
  error('there is no act ' .. act)
end
return { 'noted', fence }
