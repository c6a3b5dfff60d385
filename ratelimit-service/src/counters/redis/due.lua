-- A shard of the index of tenants whose reservations are to be looked at, each by when.
--
-- KEYS  1 sorted set: tenant -> when, or PARKED and since when for one that had nothing when it was last looked at
-- ARGV  1 operation, 2 now, 3 tenant, or for `due` how many at most, 4 and 5 times
--
-- Who looks at a tenant first parks it, then asks what is next of it, then lowers it to that. A reservation that comes in
-- between lowers it too, so that none is lost; a parked tenant is looked at once more before it is dropped.

local PARKED = 4503599627370496
local PARKED_MS = 60000
local KEPT_MS = 604800000

local index, op, now, tenant = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local call = redis.call

local function text(number)
  return string.format('%.0f', number)
end

local function score()
  return tonumber(call('ZSCORE', index, tenant) or -1)
end

if op == 'lower' then
  local at, known = tonumber(ARGV[4]), score()
  if known < 0 or known > at then call('ZADD', index, text(at), tenant) end
  return call('PEXPIRE', index, text(math.max(at - now, 0) + KEPT_MS))
elseif op == 'park' then
  -- 4: when it is known to be due. Only one who asks so gets it.
  if score() ~= tonumber(ARGV[4]) then return 0 end
  call('ZADD', index, text(PARKED + now), tenant)
  return 1
elseif op == 'drop' then
  -- 4: since when it is parked.
  if score() == PARKED + tonumber(ARGV[4]) then return call('ZREM', index, tenant) end
  return 0
end

local due = {}
for _, range in ipairs({ { '-inf', text(now) }, { text(PARKED), text(PARKED + now - PARKED_MS) } }) do
  local found = call('ZRANGEBYSCORE', index, range[1], range[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  for place = 1, #found, 2 do
    local at = tonumber(found[place + 1])
    due[#due + 1] = { found[place], text(at), at >= PARKED and 1 or 0 }
  end
end
return due
