-- One step of a lane that several processes share: what came back is put back, what is wanted is
-- granted or promised. Called by redis.py. All times are microseconds of this server's clock.
--
-- KEYS 1 room: hash. full_r, full_t: when the buckets of requests and of tokens are full again.
--              last: the moment of the latest promise; edge_r, edge_t: it costs so much at least
--              that nothing put back may bring the bucket below. pause, probing: until when.
--              rpm, tpm: what the service said it allows. now: of the step before.
--      2 seen: sorted set, member -> end of its lease
--      3 held: hash, member -> its calls under way
--      4 line: sorted set, member -> since when it waits for a call to end or for a pause
-- ARGV 1 member; 2 lease; 3 calls at once, -1: any number; 4, 5 time for one request (0: no limit)
--      and burst; 6, 7 the same for tokens; 8 calls it holds now; 9, 10 requests and tokens to put
--      back; 11 the promise that is given back, 0: none; 12 pause for so long, 0: lift, -1: neither;
--      13 after it let single calls through for so long; 14 time between those;
--      15, 16 requests and tokens per minute as the service tells, -1: no news; 17 how long the
--      first has waited, as far as it counts; 18... tokens and longest wait of each wanted call.
-- Answers {waits, last, others, is waiting, look, is probe, held, full_r - now, full_t - now, rpm,
-- tpm}. waits: one for each call dealt with: 0 at once, else after how long, -1: longer than it would
-- wait. others: members in line besides this one. look: when this one should ask again if nobody rings
-- its bell: a lease or a pause ends, -1: need not.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arg = {}
for i = 2, #ARGV do arg[i] = tonumber(ARGV[i]) end
local member, lease = ARGV[1], arg[2]
local max, min = math.max, math.min

local names = {'full_r', 'full_t', 'last', 'edge_r', 'edge_t', 'pause', 'probing', 'now'}
local values = redis.call('HMGET', KEYS[1], unpack(names))
local room = {}
for i, name in ipairs(names) do room[name] = tonumber(values[i] or '0') end
if room.now > now then -- the clock was set back, or this is another server: keep the distances
  local back = room.now - now
  for _, name in ipairs(names) do room[name] = max(0, room[name] - back) end
end

-- What the service told last is the limit if it is lower than ours.
local function learn(name, told, each, burst)
  if told > 0 then redis.call('HSET', KEYS[1], name, told) end
  local limit = tonumber(redis.call('HGET', KEYS[1], name) or '-1')
  if limit > 0 and each > 0 and 60000000 / limit > each then
    return 60000000 / limit, min(burst, max(1, limit / 12)), limit
  end
  return each, burst, limit
end
local each_r, burst_r, rpm = learn('rpm', arg[15], arg[4], arg[5])
local each_t, burst_t, tpm = learn('tpm', arg[16], arg[6], arg[7])

-- A bucket holds no more than when it is full; and what is put back is no use to those who were
-- promised a later moment, so they bring their own.
local function put_back(full, edge, amount, each)
  if room.last <= now or room.last == arg[11] then edge = now end
  return max(max(full, now) - amount * each, edge)
end
room.full_r = put_back(room.full_r, room.edge_r, arg[9], each_r)
room.full_t = put_back(room.full_t, room.edge_t, arg[10], each_t)
if room.last == arg[11] then room.edge_r, room.edge_t = room.full_r, room.full_t end

if arg[12] == 0 then
  room.pause, room.probing = 0, 0
elseif arg[12] > 0 then
  room.pause = max(room.pause, now + arg[12])
  if room.probing <= now and arg[13] > 0 then room.probing = now + arg[13] end
end

for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], dead)
  redis.call('HDEL', KEYS[3], dead)
  redis.call('ZREM', KEYS[4], dead)
end
local held, own = 0, arg[3] < 0 and 0 or arg[8] -- where calls are not counted, nobody holds any
redis.call('HSET', KEYS[3], member, own)
for _, n in ipairs(redis.call('HVALS', KEYS[3])) do held = held + n end
local free = arg[3] < 0 and 1000000 or arg[3] - held
local is_probe = 0
if room.pause > now then
  free = 0
elseif room.probing > now then
  free, is_probe = min(free, 1), 1
end

-- The members in line take turns: one call each, and more only if there is one for everybody.
local in_line = redis.call('ZCARD', KEYS[4])
local place = redis.call('ZRANK', KEYS[4], member)
local others = place and in_line - 1 or in_line
local mine = free > (place or in_line) and max(1, free - others) or 0

local function ready(full, each, burst, amount)
  return full - max(burst - amount, 0) * each
end
local waits, granted, i = {}, 0, 18
while i < #ARGV and granted < mine do
  local tokens = arg[i]
  local at = max(
    now - arg[17],
    each_r > 0 and ready(room.full_r, each_r, burst_r, 1) or 0,
    each_t > 0 and ready(room.full_t, each_t, burst_t, tokens) or 0
  )
  local wait = max(0, math.ceil(at - now))
  if wait > arg[i + 1] then
    waits[#waits + 1] = -1
  else
    waits[#waits + 1] = wait
    granted = granted + 1
    room.last = now + wait
    room.full_r = max(room.full_r, at) + each_r
    room.full_t = max(room.full_t, at) + tokens * each_t
    room.edge_r, room.edge_t = room.last + each_r, room.last + tokens * each_t
  end
  i = i + 2
  if wait > 0 and waits[#waits] >= 0 then break end -- one promise at a time for each member
end
if granted == 0 then
  is_probe = 0
elseif is_probe == 1 then
  room.pause, free = now + arg[14], 0
end
free = max(0, free - granted)

-- Who has a promise comes again when it is due, and gets in line then if need be.
local has_promise = granted > 0 and waits[#waits] > 0
local is_waiting = i < #ARGV and not has_promise
if granted > 0 or not is_waiting then redis.call('ZREM', KEYS[4], member) end
if is_waiting then redis.call('ZADD', KEYS[4], 'NX', now, member) end
if arg[3] >= 0 then own, held = own + granted, held + granted end
if own > 0 or is_waiting then
  redis.call('HSET', KEYS[3], member, own)
  redis.call('ZADD', KEYS[2], now + lease, member)
else
  redis.call('HDEL', KEYS[3], member)
  redis.call('ZREM', KEYS[2], member)
end

if free > 0 then
  for _, next in ipairs(redis.call('ZRANGE', KEYS[4], 0, free - 1)) do
    local bell = KEYS[1] .. ':' .. next
    if next ~= member and redis.call('EXISTS', bell) == 0 then
      redis.call('RPUSH', bell, 1)
      redis.call('PEXPIRE', bell, math.ceil(lease / 1000))
    end
  end
end

room.now = now
local fields = {}
for _, name in ipairs(names) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.3f', room[name])
end
redis.call('HSET', KEYS[1], unpack(fields))
local end_of_all = max(room.full_r, room.full_t, room.pause, room.probing, now) - now
local keep = math.ceil((end_of_all + lease) / 1000) + 60000
for k = 1, 4 do redis.call('PEXPIRE', KEYS[k], keep) end

local look = -1
if is_waiting then
  look = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]) - now
  if room.pause > now then look = min(look, room.pause - now) end
end
return {
  waits, room.last, others, is_waiting and 1 or 0, look, is_probe, held,
  room.full_r - now, room.full_t - now, rpm, tpm,
}
