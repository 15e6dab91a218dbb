-- Takes, renews or gives up the writer's claim.
-- KEYS claim, head
-- ARGV holder, epoch held (0: none), milliseconds (0: give it up), a small random number
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local c = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until')
local epoch, have, ttl = tonumber(c[1] or '0'), tonumber(ARGV[2]), tonumber(ARGV[3])
local newest = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
-- After a failover the claim may be older than changes given back since: nothing
-- can be committed under it any more.
if have ~= 0 and have == epoch and c[2] == ARGV[1] and (newest <= epoch or ttl <= 0) then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ttl > 0 and now + ttl or 0))
  return {'held', epoch}
end
local stands = tonumber(c[3] or '0') - now
if ttl <= 0 or stands > 0 and c[2] ~= ARGV[1] then
  return {'fenced', epoch, c[2] or '', stands}
end
-- Never below an epoch that was seen, even when the claim was lost; and hardly
-- one that was given out and then lost in a failover, whose holder lives on.
epoch = math.max(epoch, have, newest) + 1 + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch), 'holder', ARGV[1], 'until', string.format('%.0f', now + ttl))
return {'held', epoch}
