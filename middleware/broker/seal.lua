-- Notes what the ledger has: how many lines of each job's receipt chain, and the end of the ledger.
--
-- ARGV[2]  fence under which the caller leads; see lead.lua
-- ARGV[3]  name of the ledger
-- ARGV[4]  number of its last line
-- ARGV[5]  SHA-256 of that
-- ARGV[6]  ... pairs: job id, how many lines of its chain are sealed
--
-- A job stays marked as long as its chain has grown since it was read. Its field `ledger` names the ledger that
-- has its lines, or several, separated by commas.
--
-- Reply: {'noted', fence}, or {'fenced', fence}: somebody else leads, nothing is written

local ledger = ARGV[3]
local fence = call('HGET', P .. 'lead', 'fence') or '0'
if fence ~= ARGV[2] then
  return { 'fenced', fence }
end
for at = 6, #ARGV, 2 do
  local id, count = ARGV[at], ARGV[at + 1]
  local key = P .. 'job:' .. id
  local known = call('HMGET', key, 'status', 'ledger')
  if not known[1] then
    call('SREM', P .. 'unsealed', id)
  else
    local names = known[2]
    if not names then
      names = ledger
    elseif not string.find(',' .. names .. ',', ',' .. ledger .. ',', 1, true) then
      names = names .. ',' .. ledger
    end
    call('HSET', key, 'sealed', count, 'ledger', names)
    if call('LLEN', P .. 'receipts:' .. id) <= tonumber(count) then
      call('SREM', P .. 'unsealed', id)
    end
  end
end
call('HSET', P .. 'ledgers', ledger, ARGV[4] .. ' ' .. ARGV[5])
return { 'noted', fence }
