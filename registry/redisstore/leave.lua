-- Takes one incarnation of a sidecar off the roll.
-- KEYS roll
-- ARGV member's field, roll's channel
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.pcall('PUBLISH', ARGV[2], ARGV[1])
end
return 0
