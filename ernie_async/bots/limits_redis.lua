-- One step of what a user may ask: what ended is counted, and perhaps one more answer may begin.
-- Called by limits_redis.py. All times are microseconds of this server's clock.
--
-- KEYS 1 seen: sorted set, process -> end of its lease
--      2 running: hash, process -> answers to this user that are under way there
--      3... one log for each rule, packed: moment, amount, moment, amount, ...
-- ARGV 1 process; 2 lease; 3 answers at once, -1: any number; 4 how many are under way in this
--      process; 5 whether one more is wanted, 0 or 1; 6... for each log: limit, window, what to take
--      in any case, what to take if one more may begin.
-- Answers {verdict, wait}. verdict: 0: nothing is against it; -1: too many are under way; else the
--      number of the log that is full for longest, and for how long.

-- A process that lives tells when an answer ends. If that was lost, it is forgotten after an hour.
local LONGEST_ANSWER = 3600000 -- milliseconds

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arg = {}
for i = 2, #ARGV do arg[i] = tonumber(ARGV[i]) end
local process, lease, most, own, wants = ARGV[1], arg[2], arg[3], arg[4], arg[5] == 1

local function save(log)
  redis.call('SET', log.key, cmsgpack.pack(log.taken), 'PX', math.ceil(log.window / 1000))
end

local function take(log, amount)
  if amount == 0 then return end
  log.taken[#log.taken + 1] = now
  log.taken[#log.taken + 1] = amount
  save(log)
end

-- Without what is over. If the clock was set back, or this is another server, the distances stay.
local function open(key, window)
  local packed = redis.call('GET', key)
  local taken, log = packed and cmsgpack.unpack(packed) or {}, {key = key, window = window, taken = {}}
  local back = #taken > 0 and math.max(taken[#taken - 1] - now, 0) or 0
  for i = 1, #taken, 2 do
    if taken[i] - back + window > now then
      log.taken[#log.taken + 1] = taken[i] - back
      log.taken[#log.taken + 1] = taken[i + 1]
    end
  end
  if back > 0 then save(log) end
  return log
end

-- The arithmetic of Windows.wait in limits.py.
local function wait(log, limit)
  local total = 0
  for i = #log.taken - 1, 1, -2 do
    total = total + log.taken[i + 1]
    if total >= limit then return log.taken[i] + log.window - now end
  end
  return 0
end

local logs, verdict, longest = {}, 0, 0
for k = 3, #KEYS do
  local i = 6 + (k - 3) * 4
  local log = open(KEYS[k], arg[i + 1])
  take(log, arg[i + 2])
  log.amount = arg[i + 3]
  logs[#logs + 1] = log
  local distance = wait(log, arg[i])
  if distance > longest then verdict, longest = #logs, distance end
end

if most >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  redis.call('ZADD', KEYS[1], now + lease, process)
  redis.call('PEXPIRE', KEYS[1], math.ceil(lease / 1000))
  local all, running = own, redis.call('HGETALL', KEYS[2])
  for i = 1, #running, 2 do
    if not redis.call('ZSCORE', KEYS[1], running[i]) then
      redis.call('HDEL', KEYS[2], running[i])
    elseif running[i] ~= process then
      all = all + running[i + 1]
    end
  end
  if all >= most then verdict, longest = -1, 0 end
  if wants and verdict == 0 then own = own + 1 end
  if own > 0 then
    redis.call('HSET', KEYS[2], process, own)
    redis.call('PEXPIRE', KEYS[2], LONGEST_ANSWER)
  else
    redis.call('HDEL', KEYS[2], process)
  end
end

if wants and verdict == 0 then
  for _, log in ipairs(logs) do take(log, log.amount) end
end
return {verdict, longest}
