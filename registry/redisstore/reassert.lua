-- Appends again changes that this store lost, all or nothing, when its head is
-- still the one they follow. What the log still holds of them stays.
-- KEYS head, records, log, cases, then those of what is kept of requests
-- ARGV revision and bytes of the head there is, last revision, head epoch, head, wake channel,
--      number of changes, then for each: revision, change, number of records, and for each: key, record,
--      number of cases, and for each: key, body,
--      number of steps of a request, and when there are any: which of the keys, seconds to keep it, and for each: number, step
local was = redis.call('HMGET', KEYS[1], 'rev', 'head')
if was[1] ~= ARGV[1] or was[2] ~= ARGV[2] then
  return {'conflict', was[1] or '0'}
end
redis.call('HEXISTS', KEYS[2], '') -- fails on a wrong type before anything is written
for k = 4, #KEYS do
  redis.call('HEXISTS', KEYS[k], '')
end
-- Only a hand that is not ours lets the log go beyond the head. Where it says the
-- same, the head is all that was set back; where it does not, somebody must look.
local there = redis.call('XRANGE', KEYS[3], '(' .. ARGV[1] .. '-0', '+', 'COUNT', tonumber(ARGV[7]) + 1)
local i = 8
for k = 1, tonumber(ARGV[7]) do
  if there[k] and (there[k][1] ~= ARGV[i] .. '-0' or there[k][2][2] ~= ARGV[i + 1]) then
    return {'conflict', there[k][1]}
  end
  i = i + 3 + 2 * tonumber(ARGV[i + 2])
  i = i + 1 + 2 * tonumber(ARGV[i])
  local n = tonumber(ARGV[i])
  i = i + 1
  if n > 0 then
    i = i + 2 + 2 * n
  end
end
local beyond = there[tonumber(ARGV[7]) + 1]
if beyond then
  return {'conflict', beyond[1]}
end
i = 8
for k = 1, tonumber(ARGV[7]) do
  if not there[k] then
    redis.call('XADD', KEYS[3], ARGV[i] .. '-0', 'c', ARGV[i + 1])
  end
  local n = tonumber(ARGV[i + 2])
  i = i + 3
  for _ = 1, n do
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    i = i + 2
  end
  n = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, n do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
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
redis.pcall('PUBLISH', ARGV[6], ARGV[3])
return {'committed', ARGV[3]}
