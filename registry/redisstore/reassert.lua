-- Appends again changes that this store lost, all or nothing, when its head is
-- still the one they follow.
-- KEYS head, records, log, cases
-- ARGV revision and bytes of the head there is, last revision, head epoch, head, wake channel,
--      number of changes, then for each: revision, change, number of records, and for each: key, record,
--      number of cases, and for each: key, body
local was = redis.call('HMGET', KEYS[1], 'rev', 'head')
if was[1] ~= ARGV[1] or was[2] ~= ARGV[2] then
  return {'conflict', was[1] or '0'}
end
redis.call('HEXISTS', KEYS[2], '') -- fails on a wrong type before anything is written
redis.call('HEXISTS', KEYS[4], '')
-- The log may go beyond the head only by a hand that is not ours.
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if last and last[1] ~= ARGV[1] .. '-0' then
  return {'conflict', last[1]}
end
local i = 8
for _ = 1, tonumber(ARGV[7]) do
  redis.call('XADD', KEYS[3], ARGV[i] .. '-0', 'c', ARGV[i + 1])
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
end
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'epoch', ARGV[4], 'head', ARGV[5])
redis.pcall('PUBLISH', ARGV[6], ARGV[3])
return {'committed', ARGV[3]}
