-- Appends leaves to the audit log, all or nothing, to exactly the tree they were computed on.
-- KEYS state, leaves, hashes
-- ARGV the state that the store must have, the next one: size, root, revision and append of each;
--      checkpoint, stored hashes there must be, fresh hashes, leaves...
local got = redis.call('HMGET', KEYS[1], 'size', 'root', 'rev', 'append')
local size, root, rev, append = got[1] or '0', got[2] or '', got[3] or '0', got[4] or ''
if size == ARGV[5] and root == ARGV[6] and rev == ARGV[7] and append == ARGV[8] then
  redis.call('HSET', KEYS[1], 'size', size) -- a write, for WAIT to wait for
  return {'appended', size}
end
if size ~= ARGV[1] or root ~= ARGV[2] or rev ~= ARGV[3] or append ~= ARGV[4] then
  return {'conflict', size}
end
local have = redis.call('STRLEN', KEYS[3])
if have ~= tonumber(ARGV[10]) * 32 then
  return {'tampered', tostring(have)}
end
for i = 12, #ARGV do
  redis.call('XADD', KEYS[2], string.format('%.0f-0', tonumber(size) + i - 11), 'l', ARGV[i])
end
redis.call('APPEND', KEYS[3], ARGV[11])
redis.call('HSET', KEYS[1], 'size', ARGV[5], 'root', ARGV[6], 'rev', ARGV[7], 'append', ARGV[8], 'checkpoint', ARGV[9])
return {'appended', ARGV[5]}
