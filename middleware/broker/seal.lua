-- Records what the ledger has: number of sealed lines of each job's receipt chain, and the last line of the ledger.
--
-- KEYS[1]  key prefix
-- ARGV[1]  length of the event stream
-- ARGV[2]  fence under which the caller leads, see `lead`
-- ARGV[3]  name of the ledger
-- ARGV[4]  number of its last line
-- ARGV[5]  SHA-256 of that line
-- ARGV[6]  ... pairs: job id, number of lines of its chain that are sealed
-- Reply    {'noted', fence}, or {'fenced', fence}: nothing written, another candidate leads
--
-- A job stays in `unsealed` if its chain has grown since it was read. Its field `ledger` names the ledgers that have
-- its lines, separated by commas.

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
