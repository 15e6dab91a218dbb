-- Lists the roll, and drops from it who has been silent for so long that it
-- holds no lease.
-- KEYS roll
-- ARGV milliseconds of silence beyond the long lease
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local reply = {string.format('%.0f', now)}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local polled, long = string.match(all[i + 1], '^(%d+) %d+ %S+ %S+ %d+ (%d+)$')
  if polled and tonumber(polled) + tonumber(long) / 1e6 + tonumber(ARGV[1]) < now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    reply[#reply + 1] = all[i]
    reply[#reply + 1] = all[i + 1]
  end
end
return reply
