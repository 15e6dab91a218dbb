-- Appends changes and writes their records, all or nothing.
-- KEYS head, records, log, claim, cases, then those of what is kept of requests
-- ARGV fence, base, last revision, head epoch, head, log length (0: keep all), wake channel,
--      digests of the records and of the casework at base, number of changes, then for each: revision, change, number of records, and for each: key, record,
--      number of cases, and for each: key, body,
--      number of steps of a request, and when there are any: which of the keys, seconds to keep it, and for each: number, step
local epoch = redis.call('HGET', KEYS[4], 'epoch') or '0'
-- After a failover the claim may be older than the changes given back since: no
-- change follows one of a later epoch.
local newest = redis.call('HGET', KEYS[1], 'epoch') or '0'
if epoch ~= ARGV[1] or tonumber(newest) > tonumber(epoch) then
  return {'fenced', epoch}
end
local rev = redis.call('HGET', KEYS[1], 'rev') or '0'
if rev ~= ARGV[2] then
  -- The same change again is no conflict: its writer never heard the answer.
  local there = redis.call('XRANGE', KEYS[3], ARGV[11] .. '-0', ARGV[11] .. '-0')[1]
  if there and there[2][2] == ARGV[12] then
    redis.call('HSET', KEYS[1], 'rev', rev) -- a write, for WAIT to wait for
    return {'committed', rev}
  end
  return {'conflict', rev}
end
if ARGV[11] ~= string.format('%.0f', tonumber(rev) + 1) then
  return {'conflict', rev}
end
-- A deposed primary may have given that number to another change.
local head = redis.call('HGET', KEYS[1], 'head')
if head and string.sub(head, 25, 40) .. string.sub(head, 57) ~= ARGV[8] .. ARGV[9] then
  return {'conflict', rev}
end
redis.call('HEXISTS', KEYS[2], '') -- fails on a wrong type before anything is written
for k = 5, #KEYS do
  redis.call('HEXISTS', KEYS[k], '')
end
local i, pushed = 11, {ARGV[3], '\n'}
for _ = 1, tonumber(ARGV[10]) do
  -- First the log: it refuses an ID that is not above its last.
  redis.call('XADD', KEYS[3], ARGV[i] .. '-0', 'c', ARGV[i + 1])
  pushed[#pushed + 1] = #ARGV[i + 1] .. ':' .. ARGV[i + 1]
  local n = tonumber(ARGV[i + 2])
  i = i + 3
  for _ = 1, n do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    i = i + 2
  end
  n = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, n do
    redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
    i = i + 2
  end
  n = tonumber(ARGV[i])
  i = i + 1
  if n > 0 then
    local key, seconds = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
    i = i + 2
    for _ = 1, n do
      redis.call('HSET', key, ARGV[i], ARGV[i + 1])
      i = i + 2
    end
    redis.call('EXPIRE', key, seconds)
  end
end
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'epoch', ARGV[4], 'head', ARGV[5])
if ARGV[6] ~= '0' then
  redis.call('XTRIM', KEYS[3], 'MAXLEN', '~', ARGV[6])
end
-- The changes go with the wake-up, so that the poll that follows acknowledges
-- them at once. One lost, or too large to send to everybody, is healed by polling.
local message = table.concat(pushed)
redis.pcall('PUBLISH', ARGV[7], #message <= 262144 and message or ARGV[3])
return {'committed', ARGV[3]}
