-- One request of a sidecar to the pool of limits, in one step: what it says it
-- holds is written down, and what it may have is lent. No clock is read.
-- ratelimittest.Pool is the same in Go, and this is tested against it.
--
-- KEYS fleet, hot, notices, then two for each item: record, subjects
-- ARGV channel, seat, tenure, beat, parts, dead, leave, notice, fleet,
--      whole, born, exact, until, claims (n, then tenure, beat, gone, over each),
--      items (n, then 20 fields each, the last the number of their subjects, and those)
--
-- fleet: n counter, g generation, p parts, m indices ever granted, s notices,
--        d<index> "low until over tenure" of whoever held that part before and may have spent from it,
--        t<tenure> "index beat parts granted absent until whole born name",
--        whole being 1 or 0 and twice the fewest parts there were since it was 1
-- record: h "epoch version kind rate cap freerate freecap tok demand level gen begin",
--         q the tenures that are short, longest first,
--         t<tenure> "rate cap demand level spent state open", state 0 in use, 1 idle, 2 implied
local MICRO = 1000000
local RATE, CONCURRENCY = 1, 2 -- of ratelimit.Kind; greater ones have a calendar
local KEEP = 40 * 86400 -- seconds: longer than any period

local fleet, hot, notices = KEYS[1], KEYS[2], KEYS[3]
local channel, name, tenure = ARGV[1], ARGV[2], ARGV[3]
local floor, max, min = math.floor, math.max, math.min
local function int(n) return string.format('%.0f', n) end

local seats -- of everybody, read when first needed
local function numbers(s)
  local t = {}
  for w in string.gmatch(s, '%S+') do t[#t + 1] = tonumber(w) or w end
  return t
end
local function seat(s)
  local n = numbers(s)
  return {index = n[1], beat = n[2], parts = n[3], granted = n[4] == 1, absent = n[5] == 1, till = n[6], whole = n[7] % 2 == 1, low = floor(n[7] / 2), born = n[8], name = string.match(s, '^%S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (.*)$')}
end
local dead -- by index, read with seats
local function grave(s)
  local n = numbers(s)
  return {low = n[1], till = n[2] or 0, over = n[3] or 0, tenure = int(n[4] or 0)}
end
local function everybody()
  if not seats then
    seats, dead = {}, {}
    local all = redis.call('HGETALL', fleet)
    for i = 1, #all, 2 do
      local t, d = string.match(all[i], '^t(%d+)$'), string.match(all[i], '^d(%d+)$')
      if t then seats[t] = seat(all[i + 1]) end
      if d then dead[tonumber(d)] = grave(all[i + 1]) end
    end
  end
  return seats, dead
end
local function place(index)
  local _, graves = everybody()
  return graves[index] or {low = 0, till = 0, over = 0, tenure = '0'}
end
local function bury(index, d)
  dead[index] = d
  redis.call('HSET', fleet, 'd' .. int(index), int(d.low) .. ' ' .. int(d.till) .. ' ' .. int(d.over) .. ' ' .. d.tenure)
end
local function bit(b) if b then return '1' end return '0' end
local function put(t, s)
  if seats then seats[t] = s end
  redis.call('HSET', fleet, 't' .. t, int(s.index) .. ' ' .. int(s.beat) .. ' ' .. int(s.parts) .. ' ' .. bit(s.granted) .. ' ' .. bit(s.absent) .. ' ' .. int(s.till) .. ' ' .. int(2 * s.low + (s.whole and 1 or 0)) .. ' ' .. int(s.born) .. ' ' .. s.name)
end
-- drop ends a tenure. Who did not say what it spent may have spent all of its
-- standing parts.
local function drop(t, s, said)
  if not said and s.granted then
    local d = place(s.index)
    if d.low == 0 or s.low < d.low then d.low = s.low end
    d.tenure, d.over, d.till = t, 0, max(d.till, s.till)
    bury(s.index, d)
  end
  redis.call('HDEL', fleet, 't' .. t)
  if seats then seats[t] = nil end
  redis.call('HINCRBY', fleet, 'g', 1)
end
local function ring(text) redis.call('PUBLISH', channel, text) end
local function notify(text)
  local seq = redis.call('HINCRBY', fleet, 's', 1)
  redis.call('XADD', notices, 'MAXLEN', '~', 1000, int(seq) .. '-0', 'n', text)
end

-- standing is ratelimit.Standing.
local function standing(kind, rate, cap, parts, index)
  if parts <= 0 then return 0, 0 end
  local r, c = floor(floor(rate / 2) / parts), floor(floor(cap / 2) / parts)
  if kind > CONCURRENCY then
    c = min(c, floor(floor(cap / 100) / parts))
  end
  c = c - c % MICRO
  if c < MICRO then
    if index >= floor(cap / MICRO) then return 0, 0 end
    c = MICRO
  end
  return r, c
end

local reply = {tenure, 0, 0, 0, {}, 0, {}, 0, {}, {}, 0}

local function grant(t, s, knows)
  local parts = tonumber(redis.call('HGET', fleet, 'p') or '0')
  if not s.granted then
    for o, other in pairs(everybody()) do
      if o ~= t and other.granted and other.parts < parts then return end
    end
    s.granted, s.parts, s.low = true, parts, parts
    if s.index >= tonumber(redis.call('HGET', fleet, 'm') or '0') then
      -- Its part is what the others made theirs smaller by.
      for o, other in pairs(everybody()) do
        if o ~= t and other.granted and not other.whole then
          local d = place(s.index)
          d.till = max(d.till, other.till)
          bury(s.index, d)
        end
      end
      redis.call('HSET', fleet, 'm', int(s.index + 1))
    end
  end
  if knows == 0 then -- it does not know yet that it has a part: the answer may have got lost
    reply[5] = redis.call('SMEMBERS', hot)
    local d = redis.call('HGET', fleet, 'd' .. int(s.index))
    if d then reply[4], reply[11] = 1, grave(d).till end
  end
  reply[2], reply[3] = parts, s.index
end

local function join()
  local taken, count = {}, 0
  for t, s in pairs(everybody()) do
    if ARGV[6] == '1' and s.name == name and s.born < tonumber(ARGV[11]) then
      drop(t, s, false)
    else
      taken[s.index] = true
      count = count + 1
    end
  end
  local index = 0
  while taken[index] do index = index + 1 end
  local parts = tonumber(redis.call('HGET', fleet, 'p') or '0')
  if count == 0 then -- the first of a new fleet has the parts of all that were before
    parts = 0
    redis.call('HSET', fleet, 'm', '0')
    local _, graves = everybody()
    local first, any = place(0), false
    for _, d in pairs(graves) do
      first.till, any = max(first.till, d.till), true
    end
    if any then bury(0, first) end
  end
  local n = redis.call('HINCRBY', fleet, 'n', 1)
  local s = {index = index, beat = tonumber(ARGV[4]), parts = 0, granted = false, absent = false, till = tonumber(ARGV[13]), whole = ARGV[10] == '1', low = 0, born = tonumber(ARGV[11]), name = name}
  local need = max(parts, count + 1, index + 1)
  redis.call('HSET', fleet, 'p', int(need))
  if need > parts then ring('*') end
  reply[1] = int(n)
  grant(int(n), s, 0)
  put(int(n), s)
end

-- A record, read and written whole but for the entries of others.
local function load(key, me)
  local got = redis.call('HMGET', key, 'h', 'q', 't' .. me)
  if not got[1] then return nil end
  local n = numbers(got[1])
  local r = {epoch = n[1], version = n[2], kind = n[3], rate = n[4], cap = n[5], frate = n[6], fcap = n[7], tok = n[8], demand = n[9], level = n[10], gen = n[11], begin = n[12] or 0, q = {}}
  for w in string.gmatch(got[2] or '', '%d+') do r.q[#r.q + 1] = w end
  return r, got[3]
end
local function entry(s)
  local n = numbers(s)
  return {rate = n[1], cap = n[2], demand = n[3], level = n[4], spent = n[5], state = n[6], open = n[7] or n[2]}
end
local function pack(e)
  return int(e.rate) .. ' ' .. int(e.cap) .. ' ' .. int(e.demand) .. ' ' .. int(e.level) .. ' ' .. int(e.spent) .. ' ' .. int(e.state) .. ' ' .. int(e.open)
end
local function entries(key)
  local all, out = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local t = string.match(all[i], '^t(%d+)$')
    if t then out[t] = entry(all[i + 1]) end
  end
  return out
end

-- missing is what may have been spent of a limit that nobody spoke of, beyond the
-- standing parts of those who have a seat: from parts that were larger, which are
-- the pool's by now, and by the dead. Of a rate it comes back by itself.
local function missing(kind, rate, cap, begin)
  local tokens, known = 0, {}
  local all, graves = everybody()
  for _, s in pairs(all) do
    if s.granted then
      local _, was = standing(kind, rate, cap, s.low, s.index)
      local _, is = standing(kind, rate, cap, s.parts, s.index)
      tokens = tokens + max(was - is, 0)
      known[s.index] = is
      -- It leaves alone what its predecessor may have spent.
      if kind > CONCURRENCY then known[s.index] = max(was, is) end
    end
  end
  for index, d in pairs(graves) do
    if d.low > 0 and (kind <= CONCURRENCY or d.till >= begin) then
      local r, was = standing(kind, rate, cap, d.low, index)
      local more = max(was - (known[index] or 0), 0)
      if kind == RATE then more = min(more, max(was - r * d.over, 0)) end
      tokens = tokens + more
    end
  end
  return tokens
end

local function create(key, it, gen)
  local r = {epoch = redis.call('HINCRBY', fleet, 'n', 1), version = it.version, kind = it.kind, rate = it.rate, cap = it.cap, frate = it.rate, fcap = it.cap, demand = 0, level = 0, gen = gen, begin = it.begin, q = {}}
  local mine
  local function imply(t, rate, cap, spent)
    local e = {rate = rate, cap = cap, demand = 0, level = cap, spent = spent, state = 2, open = cap}
    redis.call('HSET', key, 't' .. t, pack(e))
    if t == tenure then mine = e end
    r.frate, r.fcap, r.level = r.frate - rate, r.fcap - cap, r.level + cap
  end
  for t, s in pairs(everybody()) do
    if s.granted and (t ~= tenure or it.standing or it.spent < 0) then
      local rate, cap = standing(it.kind, it.rate, it.cap, s.parts, s.index)
      local taken = 0 -- for spent (missing), until it says how much is
      if it.kind > CONCURRENCY then
        local _, was = standing(it.kind, it.rate, it.cap, s.low, s.index)
        taken = max(was - cap, 0)
      end
      imply(t, rate, cap, taken)
    end
  end
  if not it.standing and it.spent >= 0 then -- of a record that was lost: it may hold more than its part, or less
    imply(tenure, min(it.hrate, r.frate), min(it.hcap, r.fcap), it.spent)
  end
  r.tok = r.fcap
  if r.kind ~= CONCURRENCY then
    r.tok = max(r.tok - missing(r.kind, r.rate, r.cap, r.begin), 0)
  end
  redis.call('SADD', hot, it.id .. ' ' .. it.period)
  return r, mine
end

local function change(key, r, it)
  r.frate, r.fcap = r.frate + it.rate - r.rate, r.fcap + it.cap - r.cap
  if r.kind == RATE and it.cap < r.cap then
    r.tok = r.tok * (it.cap / r.cap) -- as each sidecar does with its share
    r.tok = min(r.tok < 0 and math.ceil(r.tok) or floor(r.tok), r.fcap)
  else
    r.tok = r.tok + it.cap - r.cap
  end
  local orate, ocap, implied = r.rate, r.cap, {}
  r.version, r.rate, r.cap = it.version, it.rate, it.cap
  for t, e in pairs(entries(key)) do
    -- A sidecar that has not spoken of it takes the new figures' standing part.
    local s = everybody()[t]
    if e.state == 2 and s then
      implied[s.index] = true
      local rate, cap = standing(r.kind, r.rate, r.cap, s.parts, s.index)
      local mr, mc = max(rate - e.rate, 0), max(cap - e.cap, 0)
      e.rate, e.cap, e.level, e.open = e.rate + mr, e.cap + mc, e.level + mc, e.open + mc
      r.frate, r.fcap, r.tok, r.level = r.frate - mr, r.fcap - mc, r.tok - mc, r.level + mc
      redis.call('HSET', key, 't' .. t, pack(e))
    end
  end
  if r.kind <= CONCURRENCY then return end
  local _, graves = everybody()
  for index, d in pairs(graves) do
    -- So may the dead have done before they ended.
    if d.low > 0 and d.till >= r.begin and not implied[index] then
      local _, is = standing(r.kind, r.rate, r.cap, d.low, index)
      local _, was = standing(r.kind, orate, ocap, d.low, index)
      r.tok = r.tok - max(is - was, 0)
    end
  end
end

local function adopt(key, r, gen)
  r.gen = gen
  for t, e in pairs(entries(key)) do
    local s = everybody()[t]
    if not s or s.absent then
      local krate, kcap = 0, 0
      if s then
        local rate, cap = standing(r.kind, r.rate, r.cap, s.parts, s.index)
        krate, kcap = min(e.rate, rate), min(e.cap, cap)
      end
      r.frate, r.fcap = r.frate + e.rate - krate, r.fcap + e.cap - kcap
      if r.kind == CONCURRENCY then r.tok = r.tok + e.cap - kcap end
      if r.kind > CONCURRENCY then -- what was not open is unspent
        r.tok = r.tok + max(e.cap - kcap - e.open, 0)
        e.open = max(e.open - (e.cap - kcap), 0)
      end
      local level = min(e.level, kcap)
      r.demand, r.level = r.demand - e.demand, r.level + level - e.level
      e.rate, e.cap, e.demand, e.level = krate, kcap, 0, level
      if s then
        redis.call('HSET', key, 't' .. t, pack(e))
      else
        redis.call('HDEL', key, 't' .. t)
        for i = #r.q, 1, -1 do
          if r.q[i] == t then table.remove(r.q, i) end
        end
      end
    end
  end
end

local function settle(r, e, it)
  local hrate, hcap = min(it.hrate, e.rate), min(it.hcap, e.cap)
  local back, returned = e.cap - hcap, it.returned
  if r.kind > CONCURRENCY then returned = it.spent < 0 and 0 or back - (it.spent - e.spent) end
  if r.kind == CONCURRENCY then returned = back end
  r.frate, r.fcap = r.frate + e.rate - hrate, r.fcap + back
  if not it.standing or r.kind <= CONCURRENCY then
    returned = max(returned, 0)
  end -- else it spent from a part that was larger then: what is missing is missing
  -- What is less spent than was said comes back although it was taken out before:
  -- subjects that were known, and calls that another limit refused.
  if r.kind <= CONCURRENCY then returned = min(returned, back) end
  r.tok = min(r.tok + returned, r.fcap)
  local level = min(it.level, hcap)
  r.demand, r.level = r.demand + it.demand - e.demand, r.level + level - e.level
  e.rate, e.cap, e.demand, e.level, e.spent, e.state, e.open = hrate, hcap, it.demand, level, max(it.spent, 0), it.idle and 1 or 0, it.open
end

-- sketch counts the subjects beyond those counted exactly. As many as the
-- estimate did not grow by are known; which, is all the same. Those sent before
-- may be in it already: they are not known, so that none is counted by nobody.
local function sketch(key, subjects, known, again)
  local more = key .. ':more'
  local before = redis.call('PFCOUNT', more)
  local counted = tonumber(redis.call('HGET', key, 'n') or '0')
  local new = {}
  for i, h in ipairs(subjects) do
    if known[i] == 2 and i <= again then
      redis.call('PFADD', more, h)
      known[i] = 0
    elseif known[i] == 2 then
      new[#new + 1] = i
    end
  end
  counted = counted + redis.call('PFCOUNT', more) - before
  for _, i in ipairs(new) do redis.call('PFADD', more, subjects[i]) end
  local grown = min(max(redis.call('PFCOUNT', more) - counted, 0), #new)
  for j, i in ipairs(new) do known[i] = j > grown and 1 or 0 end
  redis.call('HSET', key, 'n', int(counted + grown))
  redis.call('EXPIRE', more, KEEP)
end

local function count(key, it)
  local known, beyond = {}, false
  if #it.subjects == 0 then return known end
  local left = tonumber(ARGV[12]) - redis.call('HLEN', key)
  for i, h in ipairs(it.subjects) do
    local by = redis.call('HGET', key, h)
    known[i] = 0
    if by and (by ~= tenure or i > it.again) then
      known[i] = 1
    elseif not by and left > 0 then
      redis.call('HSET', key, h, tenure)
      left = left - 1
    elseif not by then
      known[i], beyond = 2, true
    end
  end
  if beyond then sketch(key, it.subjects, known, it.again) end
  redis.call('EXPIRE', key, KEEP)
  return known
end

local function free(r) return max(r.fcap - max(r.tok, 0), 0) end

local function lend(r, e, it)
  local target = e.rate
  if r.demand > 0 and it.demand > 0 then target = floor(r.rate * (it.demand / r.demand)) end
  local due = target
  if free(r) < floor(r.cap / 8) and it.ask == 0 then due = min(due, it.demand + floor(it.demand / 2)) end
  local rate = min(due - e.rate, r.frate)
  if it.idle and r.demand == 0 and free(r) > 0 and r.kind == RATE then rate = r.frate end
  rate = max(rate, 0)

  local part = 0.5
  if r.demand > 0 then part = max(part, it.demand / r.demand) end
  if r.kind > CONCURRENCY then part = part / 2 end
  local bound = floor(r.tok * part)
  bound = bound - bound % MICRO
  local tokens = max(min(it.ask, max(bound, MICRO), r.tok), 0)
  if r.kind ~= RATE then tokens = tokens - tokens % MICRO end
  local room = 0
  if r.kind == RATE then
    local want = it.askcap
    if rate > 0 and it.idle then want = free(r) end
    room = min(max(want, 0), free(r))
  end
  local more = max(tokens - it.into, 0) + room -- tokens come into what is kept empty for them
  e.rate, e.cap, e.level = e.rate + rate, e.cap + more, e.level + tokens
  if rate > 0 or tokens + room > 0 then e.state = 0 end
  r.frate, r.fcap, r.tok, r.level = r.frate - rate, r.fcap - more, r.tok - tokens, r.level + tokens
  return tokens, target
end

local function shortage(r, e, it, granted)
  local due = 0
  if r.demand > 0 then due = min(r.rate * (it.demand / r.demand), it.demand) end
  local short = r.kind == RATE and e.rate < 0.8 * due or granted < floor(it.ask / 2)
  local at
  for i, t in ipairs(r.q) do
    if t == tenure then at = i end
  end
  if short then
    if not at then r.q[#r.q + 1] = tenure end
  elseif at then
    table.remove(r.q, at)
  end
  if it.nag then
    notify(int(r.epoch) .. ' ' .. it.id .. ' ' .. it.period .. ' 0 ' .. int(r.kind) .. ' ' .. int(r.version) .. ' ' .. int(r.rate) .. ' ' .. int(r.cap) .. ' ' .. int(r.demand))
    ring('R ' .. it.id .. ' ' .. it.period .. ' ' .. int(r.demand))
  end
end

local function worth(r)
  if r.kind ~= RATE then return r.tok >= MICRO end
  return r.frate > floor(r.rate / 20) or r.tok >= max(floor(r.cap / 40), MICRO)
end

local function cold(key, r)
  if r.kind > CONCURRENCY or r.demand ~= 0 or r.tok ~= r.fcap then return false end
  for _, e in pairs(entries(key)) do
    if e.state == 0 then return false end
  end
  return true
end

local function item(key, subjects, it, gen)
  local r, mine = load(key, tenure)
  local e
  if r then
    if mine then e = entry(mine) end
    if it.version > r.version then
      change(key, r, it)
      mine = redis.call('HGET', key, 't' .. tenure)
      if mine then e = entry(mine) end
    end
  else
    r, e = create(key, it, gen)
  end
  if r.gen ~= gen then
    adopt(key, r, gen)
  end
  e = e or {rate = 0, cap = 0, demand = 0, level = 0, spent = 0, state = 0, open = 0}
  local gave = e.rate - it.hrate
  settle(r, e, it)
  local known = count(subjects, it)
  local granted, target = lend(r, e, it)
  if gave > floor(r.rate / 20) and r.frate > floor(r.rate / 20) then -- it is somebody's part
    ring('R ' .. it.id .. ' ' .. it.period .. ' ' .. int(r.demand))
  end
  shortage(r, e, it, granted)
  if #r.q > 0 and r.q[1] ~= tenure and worth(r) then
    ring('T ' .. table.remove(r.q, 1))
  end
  local h = int(r.epoch) .. ' ' .. int(r.version) .. ' ' .. int(r.kind) .. ' ' .. int(r.rate) .. ' ' .. int(r.cap) .. ' ' .. int(r.frate) .. ' ' .. int(r.fcap) .. ' ' .. int(r.tok) .. ' ' .. int(r.demand) .. ' ' .. int(r.level) .. ' ' .. int(r.gen) .. ' ' .. int(r.begin)
  redis.call('HSET', key, 'h', h, 'q', table.concat(r.q, ' '), 't' .. tenure, pack(e))
  redis.call('EXPIRE', key, KEEP)
  reply[10][#reply[10] + 1] = {r.epoch, r.version, r.rate, r.cap, e.rate, e.cap, granted, target, max(r.tok, 0), free(r), max(r.tok, 0) + r.level - e.level, r.demand, #r.q > 0 and 1 or 0, known}
  if it.idle and cold(key, r) then
    redis.call('DEL', key)
    redis.call('SREM', hot, it.id .. ' ' .. it.period)
    notify(int(r.epoch) .. ' ' .. it.id .. ' ' .. it.period .. ' 1 ' .. int(r.kind) .. ' ' .. int(r.version) .. ' ' .. int(r.rate) .. ' ' .. int(r.cap) .. ' 0')
  end
end

local a = 14
local function arg() a = a + 1 return ARGV[a - 1] end
local claims = {}
for i = 1, tonumber(arg()) do claims[i] = {arg(), tonumber(arg()), arg() == '1', tonumber(arg())} end

local packed = tenure ~= '0' and redis.call('HGET', fleet, 't' .. tenure)
local me = packed and seat(packed)
if not me then
  join()
elseif tonumber(ARGV[4]) <= me.beat then
  reply[6] = 1
else
  me.beat, me.absent, me.whole, me.till = tonumber(ARGV[4]), false, ARGV[10] == '1', max(me.till, tonumber(ARGV[13]))
  if me.granted and ARGV[5] ~= '0' then me.parts = tonumber(ARGV[5]) end
  me.low = min(me.low, me.parts)
  if me.whole or me.low == 0 then me.low = me.parts end
  grant(tenure, me, tonumber(ARGV[5]))
  put(tenure, me)
  for _, c in ipairs(claims) do
    local p = redis.call('HGET', fleet, 't' .. c[1])
    local s = p and seat(p)
    if s and s.beat == c[2] and c[1] ~= tenure then
      if c[3] then
        drop(c[1], s, false)
      elseif not s.absent then
        s.absent = true
        put(c[1], s)
        redis.call('HINCRBY', fleet, 'g', 1)
      end
    elseif not s and c[3] then
      local _, graves = everybody()
      for index, d in pairs(graves) do
        if d.tenure == c[1] and d.low > 0 and d.over < c[4] then
          d.over = c[4]
          bury(index, d)
        end
      end
    end
  end
  local n = tonumber(arg())
  local gen = tonumber(n > 0 and redis.call('HGET', fleet, 'g') or '0') or 0
  for i = 1, n do
    local it = {id = arg(), period = arg(), begin = tonumber(arg()), kind = tonumber(arg()), version = tonumber(arg()), rate = tonumber(arg()), cap = tonumber(arg()), hrate = tonumber(arg()), hcap = tonumber(arg()), returned = tonumber(arg()), spent = tonumber(arg()), level = tonumber(arg()), demand = tonumber(arg()), ask = tonumber(arg()), askcap = tonumber(arg()), into = tonumber(arg())}
    local flags = tonumber(arg())
    it.open, it.again = tonumber(arg()), tonumber(arg())
    local subjects = tonumber(arg())
    it.standing, it.nag, it.idle = flags % 2 == 1, floor(flags / 2) % 2 == 1, floor(flags / 4) % 2 == 1
    it.subjects = {}
    for j = 1, subjects do it.subjects[j] = arg() end
    item(KEYS[2 + 2 * i], KEYS[3 + 2 * i], it, gen)
  end
  if ARGV[7] == '1' then drop(tenure, me, true) end
end

reply[8] = tonumber(redis.call('HGET', fleet, 's') or '0')
if reply[1] == tenure then
  local last = tonumber(ARGV[8])
  if reply[8] > last then
    for _, n in ipairs(redis.call('XRANGE', notices, int(last + 1) .. '-0', '+', 'COUNT', 1000)) do
      reply[7][#reply[7] + 1] = string.match(n[1], '^%d+') .. ' ' .. n[2][2]
    end
    if #reply[7] == 1000 then reply[8] = tonumber(string.match(reply[7][1000], '^%d+')) end
  end
end
if ARGV[9] == '1' then
  local all, graves = everybody()
  for t, s in pairs(all) do
    reply[9][#reply[9] + 1] = {t, s.beat, tonumber(bit(s.absent)), s.name, 0, 0}
  end
  for _, d in pairs(graves) do
    if d.low > 0 then reply[9][#reply[9] + 1] = {d.tenure, 0, 1, '', 1, d.over} end
  end
end
return reply
