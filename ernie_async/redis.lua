-- One step of a lane that several processes share: what came back is put back, what is wanted is
-- granted or promised. Called by redis.py. All times are microseconds of this server's clock.
--
-- KEYS 1 room: hash. full_r, full_t: when the buckets of requests and of tokens are full again.
--              last: the latest promise; edge_r, edge_t: what is put back before it brings the
--              buckets no lower. pause, probing: until when; number: of the last pause. rpm, tpm: what
--              the service said it allows. now: of the step before.
--      2 seen: sorted set, member -> end of its lease
--      3 held: hash, member -> its calls under way
--      4 line: sorted set, member -> since when it waits for a call to end or for a pause
-- ARGV 1 member; 2 lease; 3 calls at once, -1: any number; 4, 5 requests per minute, -1: any number,
--      and burst, -1: five seconds' worth; 6 tokens per minute; 7 calls it holds now; 8, 9 requests
--      and tokens to put back; 10 the promise among them, 0: none; 11 what the service said, 0:
--      nothing, 1: refused, 2: spent, 3: succeeded; 12 to a call of which pause; 13 to wait for so
--      long, -1: it did not say; 14, 15 requests and tokens per minute that it told, -1: no news;
--      16 how long to pause between probes and 17 for how long to probe; 18 how long the first has
--      waited, as far as it counts; 19... tokens and longest wait of each wanted call.
-- Answers {waits, last, others, is waiting, look, number, pause, probing, full_r, full_t, rpm, tpm}.
--      waits: one for each call dealt with: 0 at once, else after how long, -1: longer than it would
--      wait. others: members in line besides this one. look: after how long this one should ask
--      again if nobody rings its bell. The moments after it are distances too, 0: passed.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arg = {}
for i = 2, #ARGV do arg[i] = tonumber(ARGV[i]) end
local member, lease = ARGV[1], arg[2]
local max, min = math.max, math.min

local moments = {'full_r', 'full_t', 'last', 'edge_r', 'edge_t', 'pause', 'probing', 'now'}
local values = redis.call('HMGET', KEYS[1], 'number', 'rpm', 'tpm', unpack(moments))
local room = {number = tonumber(values[1] or '0')}
for i, name in ipairs(moments) do room[name] = tonumber(values[i + 3] or '0') end
if room.now > now then -- the clock was set back, or this is another server: keep the distances
  local back = room.now - now
  for _, name in ipairs(moments) do room[name] = max(0, room[name] - back) end
end

-- What the service told is the limit if it is lower than ours. sansio/shared_step.py says the same.
local function quota_of(quota, burst, told)
  if quota < 0 then return 0, 0 end
  if burst >= 0 and told > 0 and told < quota then burst = min(burst, max(1, told)) end
  if told > 0 then quota = min(quota, told) end
  if burst < 0 then burst = max(1, quota / 12) end
  return 60000000 / quota, burst
end
local rpm = arg[14] > 0 and arg[14] or tonumber(values[2] or '-1')
local tpm = arg[15] > 0 and arg[15] or tonumber(values[3] or '-1')
local each_r, burst_r = quota_of(arg[4], arg[5], rpm)
local each_t, burst_t = quota_of(arg[6], -1, tpm)

-- A bucket holds no more than when it is full; and what is put back is no use to those who were
-- promised a later moment, so they bring their own.
local is_last = room.last == arg[10]
local function put_back(full, edge, amount, each)
  if amount < 0 then return max(full, now) - amount * each end
  if room.last <= now or is_last then edge = now end
  return min(full, max(full - amount * each, edge))
end
room.full_r = put_back(room.full_r, room.edge_r, arg[8], each_r)
room.full_t = put_back(room.full_t, room.edge_t, arg[9], each_t)
if is_last then room.edge_r, room.edge_t = room.full_r, room.full_t end

-- The rules of sansio/pause.py.
local verdict, of_pause, retry_after = arg[11], arg[12], arg[13]
local is_over = now >= room.pause and now >= room.probing
if (verdict == 1 or verdict == 2) and retry_after >= 0 then
  if now < room.probing then room.pause = 0 end -- a guess of ours
  room.pause, room.probing = max(room.pause, now + retry_after), 0
elseif of_pause == room.number and (verdict == 2 or verdict == 1 and is_over) then
  room.number, room.pause, room.probing = room.number + 1, now + arg[16], now + arg[17]
elseif of_pause == room.number and verdict == 3 and room.probing > 0 then
  room.pause, room.probing = 0, 0
end

for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], dead)
  redis.call('HDEL', KEYS[3], dead)
  redis.call('ZREM', KEYS[4], dead)
end
redis.call('HDEL', KEYS[3], member)
local own = arg[3] < 0 and 0 or arg[7] -- where calls are not counted, nobody holds any
local held = own
for _, n in ipairs(redis.call('HVALS', KEYS[3])) do held = held + n end
local free = arg[3] < 0 and 1000000 or arg[3] - held
local is_probing = room.probing > now
if room.pause > now then
  free = 0
elseif is_probing then
  free = min(free, 1)
end

-- The members in line take turns: one call each, and more only if there is one for everybody.
local in_line = redis.call('ZCARD', KEYS[4])
local place = redis.call('ZRANK', KEYS[4], member)
local others = place and in_line - 1 or in_line
local mine = free > (place or in_line) and max(1, free - others) or 0

local function ready(full, each, burst, amount)
  return full - max(burst - amount, 0) * each
end
local waits, granted, i = {}, 0, 19
while i < #ARGV and granted < mine do
  local tokens = arg[i]
  local at = max(
    now - arg[18],
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
if granted > 0 and is_probing then
  room.pause, free = min(room.last + arg[16], room.probing), 0
end
free = max(0, free - granted)

-- Who has a promise comes again when it is due, and gets in line then if need be.
local has_promise = granted > 0 and waits[#waits] > 0
local is_waiting = i < #ARGV and not has_promise
if granted > 0 or not is_waiting then redis.call('ZREM', KEYS[4], member) end
if is_waiting then redis.call('ZADD', KEYS[4], 'NX', now, member) end
if arg[3] >= 0 then own = own + granted end
if own > 0 then redis.call('HSET', KEYS[3], member, own) end
if own > 0 or is_waiting then
  redis.call('ZADD', KEYS[2], now + lease, member)
else
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
local fields = {'number', room.number, 'rpm', rpm, 'tpm', tpm}
for _, name in ipairs(moments) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.3f', room[name])
end
redis.call('HSET', KEYS[1], unpack(fields))
local function distance(moment) return max(0, math.ceil(moment - now)) end
local longest = max(distance(room.full_r), distance(room.full_t), distance(room.pause))
local keep = math.ceil((longest + lease) / 1000) + 60000 -- and what the service told, a minute
for k = 1, 4 do redis.call('PEXPIRE', KEYS[k], keep) end

local look = 0
if is_waiting then
  look = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]) - now
  if room.pause > now then look = min(look, room.pause - now) end
end
return {
  waits, room.last, others, is_waiting and 1 or 0, math.ceil(look), room.number,
  distance(room.pause), distance(room.probing), distance(room.full_r), distance(room.full_t), rpm, tpm,
}
