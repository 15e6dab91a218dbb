-- Lists the roll, and drops from it who has been silent for so long that it
-- holds no lease. Tells whose life this is: after a start, a promotion or a
-- FLUSHALL the end of the roll may be lost.
-- KEYS roll, tenure, head
-- ARGV milliseconds of silence beyond the long lease, disk written before every answer (1 or 0)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local rev = redis.call('HGET', KEYS[3], 'rev') or '0'
local tenure, settled = '', '0'
local server, repl = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
if type(server) == 'string' and type(repl) == 'string' then
  local id = (string.match(server, 'run_id:(%w+)') or '') .. '/' .. (string.match(repl, 'master_replid:(%w+)') or '')
  local was = redis.call('HMGET', KEYS[2], 'id', 'since', 'settled', 'replicated')
  local replicated = was[4] == '1' or string.match(repl, 'connected_slaves:(%d+)') ~= '0'
    or string.match(repl, 'master_replid2:(0+)%s') == nil
  if was[1] ~= id then
    -- Nothing can be lost of an empty register, nor by a disk that was written
    -- before every answer and is the only one there ever was.
    if rev == '0' or was[1] and ARGV[2] == '1' and not replicated then
      was[3] = '1'
    else
      was[3] = '0'
    end
    was[2] = string.format('%.0f', now)
    redis.call('HSET', KEYS[2], 'id', id, 'since', was[2], 'settled', was[3])
  end
  if replicated then
    -- A write: a primary cut off from its replicas must refuse to tell a roll
    -- that its sidecars have left for another.
    redis.call('HSET', KEYS[2], 'replicated', '1')
  end
  tenure, settled = id .. '@' .. was[2], was[3]
end
local reply = {string.format('%.0f', now), rev, tenure, settled}
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
