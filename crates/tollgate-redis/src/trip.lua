-- One visit of one process: what it asks for and tells of all its limits, in one step.
--
-- KEYS: the budget's state, the gates, the processes, and then for each limit its state and its sharers.
-- ARGV[1]: a document (see trip.rs). All times are microseconds; `now` is the server's own time, made steady.
local q = cjson.decode(ARGV[1])
local call, max, min, floor, ceil = redis.call, math.max, math.min, math.floor, math.ceil
local DAY = 86400000
local function whole(x) return string.format('%.0f', x) end
local function table_of(flat)
  local t = {}
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

-- The clock. It never goes back, and no further forward than the caller's own clock has seen.
local time = call('TIME')
local raw = time[1] * 1000000 + time[2]
local m = call('HMGET', KEYS[1], 'v', 'e', 'n', 'now', 'off', 'born', 'since', 'quiet')
if m[1] and m[1] ~= '1' then
  return redis.error_reply('TOLLGATEVERSION the state is of version ' .. m[1])
end
local e, n, before = tonumber(m[2]), tonumber(m[3]) or 0, tonumber(m[4])
local now = raw + (tonumber(m[5]) or 0)
local born, since, quiet = tonumber(m[6]), tonumber(m[7]) or 0, tonumber(m[8]) or 0
if before and q.t > 0 and q.e == e then now = min(now, q.t + q.p) end
if before then now = max(now, before) end

-- The state. Whoever has seen a later one than this starts a new epoch, and all tell what they remember. Until they
-- have had the time to, nothing is granted; a bucket loses nothing by it, for it fills meanwhile.
local told = tonumber(call('HGET', KEYS[3], q.h) or nil)
if not e then
  e, n, born, since = max(q.e + 1, raw), 0, now, 0
  if q.e > 0 then quiet = now + q.quiet end
elseif q.e > e or (q.e == e and q.n > 0 and (not told or told < q.n)) then
  e, since, quiet = max(q.e, e) + 1, before, now + q.quiet
end
if q.e == e then
  for i, o in ipairs(q.o) do
    if o.known and call('EXISTS', KEYS[2 + 2 * i]) == 0 then
      -- Evicted, alone of all: what is told is for limits without a state.
      e, since, quiet = e + 1, now, now + q.quiet
      break
    end
  end
end
n = max(n, q.e == e and q.n or 0) + 1
call('HSET', KEYS[1], 'v', '1', 'e', whole(e), 'n', n, 'now', whole(now), 'off', whole(now - raw),
  'born', whole(born), 'since', whole(since), 'quiet', whole(quiet))
call('PEXPIRE', KEYS[1], 8 * DAY)
if q.e > 0 and q.e ~= e and q.a ~= e then
  return { 'REMEMBER', e, n, now, since, {}, {} }
end
if q.bye then call('HDEL', KEYS[3], q.h) else call('HSET', KEYS[3], q.h, n) end
call('PEXPIRE', KEYS[3], 8 * DAY)
if n % 1024 == 0 and call('HLEN', KEYS[3]) > 512 then
  for holder, at in pairs(table_of(call('HGETALL', KEYS[3]))) do
    if tonumber(at) < n - 100000 then call('HDEL', KEYS[3], holder) end
  end
end

-- The gates.
for _, gate in ipairs(q.g) do
  local shut = tonumber(call('HGET', KEYS[2], gate[1]) or 0)
  if shut > 0 or call('HLEN', KEYS[2]) < 64 then
    call('HSET', KEYS[2], gate[1], whole(max(shut, now + gate[2])))
    call('PEXPIRE', KEYS[2], DAY)
  end
end
local gates = {}
-- What has no state is taken for lost since then.
born = max(born, since)
for lane, shut in pairs(table_of(call('HGETALL', KEYS[2]))) do
  if tonumber(shut) <= now then
    call('HDEL', KEYS[2], lane)
  else
    gates[#gates + 1] = lane
    gates[#gates + 1] = whole(shut - now)
  end
end

-- Max-min shares: who needs little keeps little, the others have equal parts of the rest. `rate`: units a second.
-- Returns the level, the sum of all demands, and how many share.
local function level(key, o, rate)
  if q.bye then
    call('HDEL', key, q.h)
    return rate, 0, 1
  end
  local count = call('HLEN', key)
  if count < 1024 then
    call('HSET', key, q.h, string.format('%.6g|%.0f', o.dem, now + max(3 * o.hold, 3000000)))
    call('PEXPIRE', key, DAY)
  end
  if count > 64 then
    local kept = call('HMGET', key, '~at', '~level', '~sum', '~count')
    if kept[1] and tonumber(kept[1]) > now - 50000 then
      return tonumber(kept[2]), tonumber(kept[3]), tonumber(kept[4])
    end
  end
  local demands, sum = {}, 0
  for holder, text in pairs(table_of(call('HGETALL', key))) do
    local demand, expires = string.match(text, '^([^|]*)|(%d+)$')
    if expires and tonumber(expires) > now then
      demands[#demands + 1] = tonumber(demand)
      sum = sum + tonumber(demand)
    elseif expires then
      call('HDEL', key, holder)
    end
  end
  table.sort(demands)
  local rest, left, share = rate, #demands, rate
  for _, demand in ipairs(demands) do
    share = rest / left
    if demand >= share then break end
    rest, left = rest - demand, left - 1
  end
  count = max(#demands, 1)
  if count > 64 then
    call('HSET', key, '~at', whole(now), '~level', share, '~sum', sum, '~count', count)
  end
  return share, sum, count
end

-- How much to give of what is wanted: no more than a fair share where there is not enough for all.
local function portion(o, free, share, sum)
  local hold = o.hold / 1000000
  local c, scarce = o.want, free < 2 * sum * hold
  if scarce then
    c = min(c, max(o.need, floor(share * hold), 1))
    -- What is left over of a few requests is lost.
    if o.need > 0 and c < 16 * o.need then c = floor(c / o.need) * o.need end
  end
  if free < c and free >= max(o.need, c / 2, 1) then c = max(o.need, floor(free)) end
  return c, scarce
end

local function bucket(key, sharers, o)
  local per = o.per / o.amt
  local room = o.burst * per
  -- Of a state that is lost nobody knows what was used: all of the burst, when it began.
  local full = tonumber(call('HGET', key, 't') or nil) or born + room
  if o.mem then full = max(full, tonumber(o.mem)) end
  if o.seen then full = max(full, now - o.age + o.seen * per - o.span) end
  full = max(full, now) + o.owed * per
  local share, sum, count = level(sharers, o, 1000000 / per)
  local c, wait, back, scarce = 0, 0, 0, false
  if o.want > 0 then
    if now < quiet then
      back = quiet - now
    elseif full - room > now + q.horizon then
      back = min(full - room - now - q.horizon, q.horizon)
    else
      c, scarce = portion(o, (now + room - full) / per, share, sum)
      c = min(c, o.burst)
      full = full + c * per
      wait = max(0, full - room - now)
    end
  end
  call('HSET', key, 't', string.format('%.3f', full))
  call('PEXPIRE', key, max(DAY, ceil((full - now) / 500)))
  return { whole(c), whole(ceil(wait)), whole(ceil(back)), scarce and share or 0, count, whole(now + ceil(wait)),
    string.format('%.3f', full) }
end

local function rolling(key, sharers, o)
  local limit, window = o.l, o.w
  local width = max(1, floor(window / 256))
  local kept = table_of(call('HGETALL', key))
  local ghost = tonumber(kept.g) or (kept.q and 0) or born
  local was, slots = tonumber(kept.q) or width, {}
  local function add(date, units)
    local slot = floor(date / width)
    slots[slot] = max(0, (slots[slot] or 0) + units)
  end
  for field, units in pairs(kept) do
    local slot = string.match(field, '^s(%d+)$')
    -- Of another width: as late as it may have been.
    if slot then add(was == width and slot * width or slot * was + was - 1, tonumber(units)) end
  end
  local last = tonumber(kept.last) or 0
  local made = tonumber(kept.e) or e
  for _, entry in ipairs(o.hist or {}) do
    if entry[1] >= since or made == e then add(entry[2], entry[3]) end
  end
  for _, back in ipairs(o.refunds) do
    if slots[floor(back[1] / width)] then add(back[1], -back[2]) end
  end
  if o.owed > 0 then add(now, o.owed) end
  local old, new, live = 0, 0, {}
  local function count_all()
    old, new, live = 0, 0, {}
    for slot, units in pairs(slots) do
      if units <= 0 or (slot + 1) * width + window <= now then
        slots[slot] = nil
      else
        live[#live + 1] = slot
        if slot * width < ghost then old = old + units else new = new + units end
      end
    end
    table.sort(live)
  end
  count_all()
  -- What was used before the state was lost, where nobody remembers it: as if evenly.
  local function forgotten(t) return max(0, limit * (1 - (t - ghost) / window)) end
  if o.seen and o.age <= o.span then
    local more = o.seen - new - max(old, forgotten(now))
    if more >= 1 then
      add(now, floor(more))
      count_all()
    end
  end
  -- When c more fit. Entries leave in the order of their dates.
  local function fits(c)
    local t, old, new, i = max(now, last), old, new, 1
    while true do
      while live[i] and (live[i] + 1) * width + window <= t do
        if live[i] * width < ghost then old = old - slots[live[i]] else new = new - slots[live[i]] end
        i = i + 1
      end
      local lost = forgotten(t)
      if new + max(old, lost) + c <= limit then return t end
      local nextone = live[i] and (live[i] + 1) * width + window
      local room = limit - c - new
      if lost > old and room >= 0 then
        local faded = max(t + 1, ceil(ghost + window * (1 - room / limit)))
        nextone = nextone and min(nextone, faded) or faded
      end
      if not nextone then return nil end
      t = max(t + 1, nextone)
    end
  end
  local share, sum, count = level(sharers, o, limit / window * 1000000)
  local c, wait, back, scarce = 0, 0, 0, false
  if o.want > 0 then
    local start = fits(1) or now + window
    if now < quiet then
      back = quiet - now
    elseif start > now + q.horizon then
      -- Somebody may give back what he has not used.
      back = min(start - now - q.horizon, q.horizon)
    else
      c, scarce = portion(o, limit - new - max(old, forgotten(now)), share, sum)
      c = min(c, limit)
      local at = fits(c)
      if at then
        last = at
        add(at, c)
        wait = at - now
      else
        c, back = 0, q.horizon
      end
    end
  end
  call('DEL', key)
  local fields = { 'q', width, 'last', whole(last), 'e', whole(made) }
  if ghost > now - window then
    fields[#fields + 1] = 'g'
    fields[#fields + 1] = whole(ghost)
  end
  for slot, units in pairs(slots) do
    if units > 0 then
      fields[#fields + 1] = 's' .. whole(slot)
      fields[#fields + 1] = whole(units)
    end
  end
  call('HSET', key, unpack(fields))
  call('PEXPIRE', key, max(DAY, ceil(window / 500)))
  return { whole(c), whole(ceil(wait)), whole(ceil(back)), scarce and share or 0, count, whole(now + wait), '' }
end

local function cap(key, sharers, o)
  local kept = table_of(call('HGETALL', key))
  local strange = math.abs(raw - q.wall) > 5000000
  if (not next(kept) and strange) or raw > (o.ends + 5) * 1000000 then
    -- Whose clock is wrong opens no period.
    return { '0', '0', '1000000', 0, 1, '0', '' }
  end
  local used, lost, holders, seq = tonumber(kept.s) or 0, tonumber(kept.x) or 0, 1, 0
  local mine = 0
  for field, text in pairs(kept) do
    local holder = string.match(field, '^h:(.*)$')
    if holder then
      local claim, said, at = string.match(text, '^(%d+)|(%d+)|(%d+)$')
      if holder == q.h then
        mine, seq = tonumber(claim), tonumber(said)
      else
        used = used + tonumber(claim)
        if tonumber(at) < raw / 1000000 - 3600 then
          -- Not heard of for an hour: what it had in hand counts as used.
          call('HINCRBY', key, 's', claim)
          call('HDEL', key, field)
        else
          holders = holders + 1
        end
      end
    end
  end
  if q.s <= seq then return { '0', '0', '1000', 0, holders, '0', '' } end
  if o.mem then
    -- Lost use is explained by the claims of those who come and tell of them.
    lost = max(0, lost - max(0, o.claim - mine))
    lost = max(lost, tonumber(o.mem) - used - o.claim)
  end
  local c, back = 0, 0
  if o.want > 0 then
    local free = o.amt - used - lost - o.claim
    c = min(o.want, floor(free / (2 * holders)), floor(o.amt / 50))
    c = max(c, o.need)
    if c > free then c = 0 end
    c = max(c, 0)
    if c == 0 then back = 1000000 end
  end
  if q.bye then
    call('HINCRBY', key, 's', o.claim)
    call('HDEL', key, 'h:' .. q.h)
  else
    call('HSET', key, 'h:' .. q.h, string.format('%.0f|%.0f|%.0f', o.claim + c, q.s, floor(raw / 1000000)))
  end
  call('HSET', key, 'x', whole(lost))
  call('EXPIREAT', key, o.ends + 7 * 86400)
  return { whole(c), '0', whole(back), 0, holders, '0', whole(used + lost + o.claim + c) }
end

local kinds, answers = { b = bucket, r = rolling, c = cap }, {}
for i, o in ipairs(q.o) do
  for _, part in ipairs(kinds[o.k](KEYS[2 + 2 * i], KEYS[3 + 2 * i], o)) do
    answers[#answers + 1] = tostring(part)
  end
end
return { 'OK', e, n, now, since, gates, answers }
