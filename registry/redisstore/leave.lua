-- Takes one incarnation of a sidecar off the roll.
-- KEYS roll
-- ARGV id, incarnation, roll's channel
local m = redis.call('HGET', KEYS[1], ARGV[1])
if m and string.match(m, '^%d+ %d+ (%S+) ') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.pcall('PUBLISH', ARGV[3], ARGV[1])
end
return 0
