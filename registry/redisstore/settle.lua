-- Notes that the roll of a tenure is whole.
-- KEYS tenure
-- ARGV tenure
local was = redis.call('HMGET', KEYS[1], 'id', 'since')
if was[1] and was[2] and was[1] .. '@' .. was[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'settled', '1')
end
return 0
