-- One tenant's counters and reservations: `TenantCounters` of tollgate-domain, to the last integer.
--
-- KEYS  1 hash: counter's id -> "spent held at_ms fraction"; `until` -> when all these keys may be forgotten
--       2 hash: reservation's id -> 's' for a settled one, else MessagePack of {state, started, at, call, lines}
--       3 sorted set: reservation's id by when it changes by itself
--       4 sorted set: expired reservation's id by when it may be offered to the ledger
-- ARGV  1 operation, 2 now or '' for this server's clock, 3 id, 4 and 5 by operation, 6 how many ids of calls that are lent to
--       or given back, and these; then the asks: counter's id, role, unit, amount, rule; amounts are at most 2^53
--
-- Numbers are doubles. All that is kept stays below 2^53, where integers are exact; a sum that is not exact is larger still,
-- as rounding keeps the order, so that a comparison with what is kept comes out right.
--
-- Changes are collected and written at the end, or not at all where an operation only looks.

local MAX_AMOUNT = 9007199254740991
local DAY_MS = 86400000
local SETTLED_KEPT_MS = 60000
local EXPIRED_KEPT_MS = 86400000
local OFFER_AGAIN_MS = 30000
-- How many reservations run out or are forgotten in one call, beside the call's own. What is left holds what it held until
-- the next call, where the model lets all run out at once.
local MAX_DUE = 100
-- Keys live longer than they need to, so that their time to live is set seldom.
local SLACK_MS = 600000

local counters_key, book_key, due_key, offers_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local op, id = ARGV[1], ARGV[3]
local call, floor, min, max, format = redis.call, math.floor, math.min, math.max, string.format

local now = tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local function text(number)
  return format('%.0f', number)
end

-- Counters

-- Each as it is after what was done so far; `false` where there is none.
local counters, changed, needed_until = {}, {}, 0

local function parsed(value)
  if not value then return false end
  local spent, held, at, fraction = string.match(value, '^(%d+) (%d+) (%d+) (%d+)$')
  return { spent = tonumber(spent), held = tonumber(held), at = tonumber(at), fraction = tonumber(fraction) }
end

local function counter_of(name)
  if counters[name] == nil then counters[name] = parsed(call('HGET', counters_key, name)) end
  return counters[name]
end

-- elapsed * capacity / window, as a whole and a fraction of 1/window. Elapsed whole windows count apart, so that no exact
-- product is larger than window * window or the capacity. A whole of 2^53 or more may be rounded, and is more than was spent.
local function drained_in(elapsed, capacity, window)
  local rest = elapsed % window
  local windows = (elapsed - rest) / window
  local part = rest * (capacity % window)
  local whole = windows * capacity + rest * floor(capacity / window) + floor(part / window)
  return whole, part % window
end

local function drain(counter, rule)
  if now < counter.at then
    if counter.at - now > rule.window then counter.at = now end
    return
  end
  if counter.spent > 0 or counter.fraction > 0 then
    local whole, part = drained_in(now - counter.at, rule.capacity, rule.window)
    counter.spent, counter.fraction = counter.spent - whole, counter.fraction - part
    if counter.fraction < 0 then
      counter.spent, counter.fraction = counter.spent - 1, counter.fraction + rule.window
    end
    if counter.spent < 0 then counter.spent, counter.fraction = 0, 0 end
  end
  counter.at = now
end

local function period(rule)
  if now < rule.begin then return rule.before, rule.begin end
  if now < rule.ending then return rule.begin, rule.ending end
  return rule.ending, rule.after
end

local function advance(counter, rule)
  if rule.kind == 'R' then
    drain(counter, rule)
  elseif rule.kind == 'C' then
    local begin = period(rule)
    if begin > counter.at then
      counter.spent, counter.held, counter.at, counter.fraction = 0, 0, begin, 0
    elseif now + DAY_MS < counter.at then
      counter.at = begin
    end
  end
end

-- Until `most` is spent; what is spent already stays.
local function spend(counter, amount, most)
  counter.spent = max(counter.spent, min(counter.spent + amount, most or MAX_AMOUNT))
end

local function hold(counter, amount)
  counter.held = min(counter.held + amount, MAX_AMOUNT)
end

local function release(counter, amount)
  counter.held = max(counter.held - amount, 0)
end

local function refund(counter, amount, of, spent_at, rule)
  local undrained = of
  if rule.kind == 'R' then
    local whole, part = drained_in(max(counter.at - spent_at, 0), rule.capacity, rule.window)
    undrained = max(of - whole - (part > 0 and 1 or 0), 0)
  end
  counter.spent = max(counter.spent - min(amount, undrained), 0)
end

local function used(counter)
  return counter.spent + (counter.fraction > 0 and 1 or 0) + counter.held
end

local function fits(ask, counter)
  return used(counter) + max(ask.amount, 1) <= ask.rule.depth
end

local function still_counted(counter, amount, rule, started, ended)
  if rule.kind == 'R' then
    local late = max(counter.at - ended, 0)
    if late < rule.window then return amount end
    return max(amount - drained_in(late, rule.capacity, rule.window), 0)
  end
  return rule.kind == 'C' and started >= counter.at and amount or 0
end

-- The counter that is asked, as it stands now; a copy.
local function advanced(ask)
  local known = counter_of(ask.name)
  local counter = { spent = 0, held = 0, at = 0, fraction = 0 }
  if known then
    counter.spent, counter.held, counter.at, counter.fraction = known.spent, known.held, known.at, known.fraction
  end
  advance(counter, ask.rule)
  return counter
end

local function keep(name, counter, rule)
  counters[name], changed[name] = counter, true
  local reset_at = 0
  if rule.kind == 'R' then
    reset_at = now + max(counter.at - now, 0) + (used(counter) + 1) * rule.window / rule.capacity
  elseif rule.kind == 'C' and rule.ending then
    local _, ending = period(rule)
    reset_at = ending
  end
  needed_until = max(needed_until, reset_at)
end

-- Reservations

-- What was read or changed of each; `false` where there is none.
local entries, entry_changed, due, offers = {}, {}, {}, {}

local function entry_of(entry_id)
  if entries[entry_id] == nil then
    local value = call('HGET', book_key, entry_id)
    if value == 's' then
      value = { 's' }
    elseif value then
      local state, started, at, held_call, lines = unpack(cmsgpack.unpack(value))
      value = { state, started = started, at = at, call = held_call, lines = lines }
    end
    entries[entry_id] = value
  end
  return entries[entry_id]
end

local function set_entry(entry_id, entry, due_at)
  entries[entry_id], entry_changed[entry_id] = entry, true
  due[entry_id] = entry and due_at
  if entry then needed_until = max(needed_until, due_at, entry[1] == 's' and 0 or due_at + EXPIRED_KEPT_MS) end
end

-- A line is {counter's id, amount, kind, and capacity, window and the most that is spent, or when the period began}.
local function line_rule(line)
  if line[3] == 'R' then return { kind = 'R', capacity = line[4], window = line[5] } end
  return { kind = line[3], before = line[4], begin = line[4] }
end

-- A calendar period that is over took along what was held.
local function is_counted_by(line, counter)
  return line[3] ~= 'C' or counter.at == line[4]
end

local function change(line, apply)
  local counter = counter_of(line[1])
  if not counter or not is_counted_by(line, counter) then return end
  local rule = line_rule(line)
  -- The period is the line's, and goes on.
  if line[3] == 'R' then advance(counter, rule) end
  apply(counter)
  keep(line[1], counter, rule)
end

local function post_estimate(line)
  change(line, function(counter)
    release(counter, line[2])
    if line[3] ~= 'S' then spend(counter, line[2], line[6]) end
  end)
end

-- What was spent for an expired reservation becomes what was used.
local function correct(line, counter, amount, started, ended, expired_at)
  local rule = line_rule(line)
  if amount <= line[2] then
    refund(counter, line[2] - amount, line[2], expired_at, rule)
  else
    spend(counter, still_counted(counter, amount - line[2], rule, started, ended), line[6])
  end
end

local function lapse(due_id)
  local entry = entry_of(due_id)
  if entry and entry[1] == 'o' then
    entry[1], entry.at = 'e', now
    set_entry(due_id, entry, now + EXPIRED_KEPT_MS)
    offers[due_id] = now
    for _, line in ipairs(entry.lines) do post_estimate(line) end
  elseif entry and entry[1] == 'e' and call('ZSCORE', offers_key, due_id) then
    set_entry(due_id, entry, now + EXPIRED_KEPT_MS)
  else
    set_entry(due_id, false, false)
  end
end

-- Lets run out or forgets what is due. Says whether there were any reservations.
local function expire()
  local first = call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
  if not first[1] then return false end
  if tonumber(first[2]) > now then return true end
  local due_ids = call('ZRANGEBYSCORE', due_key, '-inf', text(now), 'LIMIT', 0, MAX_DUE)
  for _, due_id in ipairs(due_ids) do lapse(due_id) end
  -- What is said of the call's own reservation does not hang on how many others are due.
  if #due_ids == MAX_DUE and entries[id] == nil then
    local due_at = call('ZSCORE', due_key, id)
    if due_at and tonumber(due_at) <= now then lapse(id) end
  end
  return true
end

-- Writing

local function write(had_book)
  local args = {}
  for name in pairs(changed) do
    local counter = counters[name]
    args[#args + 1] = name
    args[#args + 1] = format('%.0f %.0f %.0f %.0f', counter.spent, counter.held, counter.at, counter.fraction)
  end
  local known_until = needed_until > 0 and tonumber(counters['until'] or call('HGET', counters_key, 'until') or 0)
  local extends = known_until and needed_until > known_until
  if extends then
    known_until = min(needed_until, MAX_AMOUNT / 2) + SLACK_MS
    args[#args + 1] = 'until'
    args[#args + 1] = text(known_until)
  end
  if #args > 0 then call('HSET', counters_key, unpack(args)) end

  local book_grew, book_shrank, offers_grew = false, false, false
  for entry_id in pairs(entry_changed) do
    local entry = entries[entry_id]
    if entry then
      local value = 's'
      if entry[1] ~= 's' then
        value = cmsgpack.pack({ entry[1], entry.started, entry.at, entry.call, entry.lines })
      end
      call('HSET', book_key, entry_id, value)
      call('ZADD', due_key, text(due[entry_id]), entry_id)
      book_grew = true
    else
      call('HDEL', book_key, entry_id)
      call('ZREM', due_key, entry_id)
      book_shrank = true
    end
  end
  for entry_id, offer_at in pairs(offers) do
    if offer_at then
      call('ZADD', offers_key, text(offer_at), entry_id)
      offers_grew = true
    else
      call('ZREM', offers_key, entry_id)
    end
  end

  if not known_until then return end
  local left = text(known_until - now)
  if extends then call('PEXPIRE', counters_key, left) end
  -- A key that lost its last member has no time to live when it comes again.
  if extends or (book_grew and (book_shrank or not had_book)) then
    call('PEXPIRE', book_key, left)
    call('PEXPIRE', due_key, left)
  end
  if extends or offers_grew then call('PEXPIRE', offers_key, left) end
end

-- Asks

local lent_ids = {}

local function read_asks()
  local ids = tonumber(ARGV[6])
  for place = 1, ids do lent_ids[place] = ARGV[6 + place] end
  local asks, names, at = {}, { 'until' }, 7 + ids
  while ARGV[at] do
    local ask = { name = ARGV[at], binding = ARGV[at + 1] == 'b', unit = ARGV[at + 2], amount = tonumber(ARGV[at + 3]) }
    local kind, capacity = ARGV[at + 4], tonumber(ARGV[at + 5])
    if kind == 'R' then
      local depth = tonumber(ARGV[at + 6])
      ask.rule = { kind = 'R', capacity = capacity, depth = depth, window = tonumber(ARGV[at + 7]) }
      -- Where nobody is bound, no more is owed.
      ask.most = not ask.binding and min(2 * depth, MAX_AMOUNT) or nil
      at = at + 8
    elseif kind == 'C' then
      ask.rule = {
        kind = 'C', depth = capacity, before = tonumber(ARGV[at + 6]), begin = tonumber(ARGV[at + 7]),
        ending = tonumber(ARGV[at + 8]), after = tonumber(ARGV[at + 9]),
      }
      at = at + 10
    else
      ask.rule = { kind = 'S', depth = capacity }
      at = at + 6
    end
    asks[#asks + 1], names[#names + 1] = ask, ask.name
  end
  local values = call('HMGET', counters_key, unpack(names))
  counters['until'] = values[1]
  for place, ask in ipairs(asks) do counters[ask.name] = parsed(values[place + 1]) end
  return asks
end

-- Operations

local function decided(outcome, asked)
  local answer = { outcome, now }
  for _, counter in ipairs(asked) do
    local size = #answer
    answer[size + 1], answer[size + 2] = counter.spent, counter.held
    answer[size + 3], answer[size + 4] = counter.at, counter.fraction
  end
  return answer
end

local function take(asks, asked)
  for place, ask in ipairs(asks) do
    if ask.unit ~= 's' then
      spend(asked[place], ask.amount, ask.most)
      keep(ask.name, asked[place], ask.rule)
    end
  end
end

-- For each of these ids.
local function reserve(ids, asks, asked)
  local lines = {}
  for place, ask in ipairs(asks) do
    local counter, rule = asked[place], ask.rule
    if ask.unit == 'r' then
      spend(counter, ask.amount * #ids, ask.most)
    elseif ask.amount > 0 then
      hold(counter, ask.amount * #ids)
      if rule.kind == 'R' then
        lines[#lines + 1] = { ask.name, ask.amount, 'R', rule.capacity, rule.window, ask.most }
      elseif rule.kind == 'C' then
        lines[#lines + 1] = { ask.name, ask.amount, 'C', counter.at }
      else
        lines[#lines + 1] = { ask.name, ask.amount, 'S' }
      end
    end
    keep(ask.name, counter, rule)
  end
  for _, new_id in ipairs(ids) do
    local entry = { 'o', started = now, at = 0, call = ARGV[5], lines = lines }
    set_entry(new_id, entry, now + tonumber(ARGV[4]))
  end
end

-- 4: after how long each runs out, 5: the call. Answers for how many calls there are reservations now.
local function lend()
  local asks = read_asks()
  local had_book = expire()
  local asked, new, known = {}, {}, 0
  for place, ask in ipairs(asks) do asked[place] = advanced(ask) end
  for _, lent_id in ipairs(lent_ids) do
    if entry_of(lent_id) then known = known + 1 else new[#new + 1] = lent_id end
  end
  local room = #new
  for place, ask in ipairs(asks) do
    if ask.binding then
      local left = max(ask.rule.depth - used(asked[place]), 0)
      room = min(room, ask.amount > 0 and floor(left / ask.amount) or (left > 0 and room or 0))
    end
  end
  for place = #new, room + 1, -1 do new[place] = nil end
  if room > 0 then reserve(new, asks, asked) end
  write(had_book)
  return decided(known + room, asked)
end

-- 4: how many calls were lent to together. Answers as a settlement, and how many were given back.
local function give_back()
  local asks = read_asks()
  local had_book = expire()
  local calls, lent_at = 0, now
  for _, lent_id in ipairs(lent_ids) do
    local entry = entry_of(lent_id)
    if entry and entry[1] == 'o' then
      calls, lent_at = calls + 1, min(lent_at, entry.started)
      for _, line in ipairs(entry.lines) do
        change(line, function(counter) release(counter, line[2]) end)
      end
      set_entry(lent_id, false, false)
    end
  end
  for _, ask in ipairs(asks) do
    if calls > 0 and ask.unit == 'r' then
      local counter = advanced(ask)
      if ask.rule.kind ~= 'C' or counter.at <= lent_at then
        refund(counter, ask.amount * calls, ask.amount * tonumber(ARGV[4]), lent_at, ask.rule)
      end
      keep(ask.name, counter, ask.rule)
    end
  end
  write(had_book)
  return { 0, now, calls }
end

-- 4: after how long it runs out, 5: the call; of `hold` alone. 0: denied, 1: taken, 2: was taken before.
local function admit()
  local asks = read_asks()
  local had_book = expire()
  local asked, all_fit = {}, true
  for place, ask in ipairs(asks) do asked[place] = advanced(ask) end
  if op == 'hold' and entry_of(id) then
    write(had_book)
    return decided(2, asked)
  end
  for place, ask in ipairs(asks) do
    if ask.binding and not fits(ask, asked[place]) then all_fit = false end
  end
  if op == 'used' or (op == 'take' and all_fit) then
    take(asks, asked)
  elseif op == 'hold' and all_fit then
    reserve({ id }, asks, asked)
  end
  if op ~= 'look' then write(had_book) end
  return decided(all_fit and 1 or 0, asked)
end

local function settle_ask(ask, line, entry, started, ended)
  local counter = advanced(ask)
  if line and not is_counted_by(line, counter) then
    -- Its period is over.
  elseif line and entry[1] == 'e' then
    correct(line, counter, ask.amount, started, ended, entry.at)
  elseif line or not entry or ask.unit ~= 'r' then
    if line then release(counter, line[2]) end
    spend(counter, still_counted(counter, ask.amount, ask.rule, started, ended), ask.most)
  end
  keep(ask.name, counter, ask.rule)
end

-- What is not asked any more keeps the estimate.
local function settle_unasked(line, entry, is_void, started, ended)
  if entry[1] == 'o' and not is_void then
    post_estimate(line)
  elseif entry[1] == 'o' then
    change(line, function(counter) release(counter, line[2]) end)
  elseif is_void then
    change(line, function(counter) correct(line, counter, 0, started, ended, entry.at) end)
  end
end

-- 4: when the call began, 5: when it ended. Operation `void` for one that used nothing; those that end in `_known` settle only
-- a call whose reservation is known.
local function settle()
  local asks = read_asks()
  local had_book = expire()
  local entry = entry_of(id)
  if entry and entry[1] == 's' then
    write(had_book)
    return { 3, now }
  end
  if not entry and (op == 'settle_known' or op == 'void_known') then
    write(had_book)
    return { 4, now }
  end
  local started, ended = tonumber(ARGV[4]), tonumber(ARGV[5])
  local lines, by_name = entry and entry.lines or {}, {}
  for _, line in ipairs(lines) do by_name[line[1]] = line end
  local state = entry and { entry[1], at = entry.at }
  set_entry(id, { 's' }, now + SETTLED_KEPT_MS)
  if state and state[1] == 'e' then offers[id] = false end
  for _, ask in ipairs(asks) do
    settle_ask(ask, by_name[ask.name], state, started, ended)
    by_name[ask.name] = nil
  end
  for _, line in ipairs(lines) do
    if by_name[line[1]] then settle_unasked(line, state, op == 'void' or op == 'void_known', started, ended) end
  end
  write(had_book)
  return { not state and 2 or state[1] == 'e' and 1 or 0, now }
end

-- 4: how many at most. Gives when to ask again, -1 for never, and of each its id, times and call.
local function unposted()
  local had_book = expire()
  write(had_book)
  entry_changed, changed, offers, needed_until = {}, {}, {}, 0
  local offered = {}
  for _, offer_id in ipairs(call('ZRANGEBYSCORE', offers_key, '-inf', text(now), 'LIMIT', 0, ARGV[4])) do
    local entry = entry_of(offer_id)
    if entry and entry[1] == 'e' and entry.call then
      offers[offer_id] = now + OFFER_AGAIN_MS
      offered[#offered + 1] = { offer_id, entry.started, entry.at, entry.call }
    else
      offers[offer_id] = false
    end
  end
  write(true)
  local next_at = -1
  for _, key in ipairs({ due_key, offers_key }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[1] and (next_at < 0 or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
  end
  return { now, next_at, offered }
end

local function posted()
  if call('ZREM', offers_key, id) == 1 then
    local entry = entry_of(id)
    if entry and entry[1] == 'e' then
      entry.call = false
      call('HSET', book_key, id, cmsgpack.pack({ 'e', entry.started, entry.at, false, entry.lines }))
    end
  end
  return { now }
end

-- To at least what was used in the period that is asked about, where what is held may be a part of that.
local function restore()
  local asks = read_asks()
  for _, ask in ipairs(asks) do
    local counter = advanced(ask)
    if ask.rule.kind == 'C' and counter.at == ask.rule.begin then
      local known = op == 'restore' and counter.spent or used(counter)
      spend(counter, max(ask.amount - known, 0), ask.most)
      keep(ask.name, counter, ask.rule)
    end
  end
  write(false)
  return { now }
end

local function reset()
  local fields = call('HGETALL', counters_key)
  for place = 1, #fields, 2 do
    if fields[place] ~= 'until' then
      local counter = parsed(fields[place + 1])
      local value = format('0 %.0f %.0f 0', counter.held, counter.at)
      call('HSET', counters_key, fields[place], value)
    end
  end
  return { now }
end

local operations = {
  settle = settle, void = settle, settle_known = settle, void_known = settle,
  lend = lend, give_back = give_back, unposted = unposted, posted = posted, restore = restore,
  restore_beyond_held = restore, reset = reset,
}
return (operations[op] or admit)()
