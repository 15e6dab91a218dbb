-- Records what a sidecar holds and reads on from there, in one step: the poll
-- is the acknowledgement.
-- KEYS head, log, roll, observer
-- ARGV member's field, revision held, the rest of the member, observer (1 or 0), most changes, most bytes, roll's channel
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[4] == '1' then
  redis.call('SET', KEYS[4], ARGV[1]) -- a write too: a primary cut off from its replicas must refuse it
else
  local old = redis.call('HGET', KEYS[3], ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f %s %s', now, ARGV[2], ARGV[3]))
  if not old or string.match(old, '^%d+ (%d+) ') ~= ARGV[2] then
    redis.pcall('PUBLISH', ARGV[7], ARGV[1])
  end
end
local head = redis.call('HMGET', KEYS[1], 'rev', 'head')
local reply = {string.format('%.0f', now), head[2], 'ok'}
local have, last = tonumber(ARGV[2]), tonumber(head[1] or '0')
local left, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local nextrev = have + 1
while nextrev <= last and left > 0 and bytes > 0 do
  local before = nextrev
  local got = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', nextrev), '+', 'COUNT', math.min(left, 16))
  for _, entry in ipairs(got) do
    if entry[1] ~= string.format('%.0f-0', nextrev) then
      break
    end
    if bytes > 0 then
      reply[#reply + 1] = entry[2][2]
      bytes = bytes - #entry[2][2]
      left = left - 1
      nextrev = nextrev + 1
    end
  end
  if nextrev == before then
    reply[3] = 'trimmed'
    break
  end
end
return reply
