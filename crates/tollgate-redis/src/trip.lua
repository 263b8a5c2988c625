-- One visit of one process: what it asks for and tells of all its limits, in one step.
--
-- KEYS: the budget's state, the gates, the processes, and then for each limit its state and its sharers.
-- ARGV[1]: a document (see trip.rs). All times are microseconds; `now` is the server's own time, made steady.
local q = cjson.decode(ARGV[1])
local call, max, min, floor, ceil = redis.call, math.max, math.min, math.floor, math.ceil
local DAY = 86400000
-- Who was not here for so long is gone.
local ALIVE = 15000000
local function whole(x) return string.format('%.0f', x) end
local function table_of(flat)
  local t = {}
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

-- The clock. It never goes back, and no further forward than the caller's own clock has seen. Who has no such memory, and
-- finds another server than was here before, cannot know how much later that one is.
local time = call('TIME')
local raw = time[1] * 1000000 + time[2]
local m = call('HMGET', KEYS[1], 'v', 'e', 'now', 'off', 'born', 'since', 'quiet', 'run', 'next', 'busy', 'tell')
if m[1] and m[1] ~= '2' then
  return redis.error_reply('TOLLGATEVERSION the state is of version ' .. m[1])
end
local e, before, born = tonumber(m[2]), tonumber(m[3]), tonumber(m[5])
local since, quiet, run, moved = tonumber(m[6]) or 0, tonumber(m[7]) or 0, m[8] or '', false
local next_, busy, tell = tonumber(m[9]) or 0, m[10] or '', tonumber(m[11]) or 0
if q.new then
  local info = redis.pcall('INFO', 'server')
  local id = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or run
  run, moved = id, run ~= '' and id ~= run
end
local now = raw + (tonumber(m[4]) or 0)
if before then
  if q.t > 0 and q.e == e then
    now = min(now, q.t + q.p)
  elseif moved then
    now = min(now, before + 100000)
  end
  now = max(now, before + 1)
end

-- The state. Whoever has seen a later one than this starts a new epoch, and so does who finds another server: its state may be
-- older, and once anybody has written to it nothing shows since when. Then all tell what they remember. Until they have
-- had the time to, nothing is granted; a bucket loses nothing by it, for it fills meanwhile. What has no state counts as
-- used when the budget was born.
local seen = tonumber(call('ZSCORE', KEYS[3], q.h) or nil)
local lost = false
if not e then
  e, born, since, tell, lost = max(q.e + 1, raw), now, 0, 0, true
elseif moved or q.e > e or (q.e == e and q.t > 0 and (not seen or seen < q.t)) then
  e, born, since, lost = max(q.e, e) + 1, max(born, before), before, true
  tell = since
elseif q.e == e then
  for i, o in ipairs(q.o) do
    if o.known and call('EXISTS', KEYS[2 + 2 * i]) == 0 then
      -- Evicted, alone of all: it counts as used now, and what is told is for this one.
      call('HSET', KEYS[2 + 2 * i], 'lost', whole(now))
      call('PEXPIRE', KEYS[2 + 2 * i], DAY)
      lost = true
    end
  end
  -- All of it is to be told: it is sorted out by the limit.
  if lost then e, since, tell = e + 1, now, 0 end
end
if lost then quiet = max(quiet, now + q.quiet) end
-- Nobody came, though somebody was to, or the caller could not: the server was away. Others who were here before may have
-- sent without it, and have not told it yet. (A death of the only one who was busy looks the same.) By the server's own
-- clock: a visit that it takes up late, after a pause, holds the steady one back.
local last = before and before - (tonumber(m[4]) or 0)
if last and (last < next_ and next_ <= raw or q.down and last <= raw - q.down) then
  local others = call('ZCOUNT', KEYS[3], whole(before - ALIVE), whole(before))
  if seen and seen >= before - ALIVE and seen <= before then others = others - 1 end
  if others > 0 then quiet = max(quiet, now + q.quiet) end
end
-- The busy come again soon, and say when at the latest.
if q.beat then
  next_, busy = raw + q.beat, q.h
elseif busy == q.h then
  next_, busy = 0, ''
end
if q.more then quiet = max(quiet, now + q.more) end
call('HSET', KEYS[1], 'v', '2', 'e', whole(e), 'now', whole(now), 'off', whole(now - raw), 'born', whole(born),
  'since', whole(since), 'tell', whole(tell), 'quiet', whole(quiet), 'run', run,
  'next', whole(next_), 'busy', busy)
call('PEXPIRE', KEYS[1], 8 * DAY)

-- The processes, by when they were here last.
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', whole(now - (call('ZCARD', KEYS[3]) > 1024 and 3600 or 86400) * 1000000))
local function alive() return call('ZCOUNT', KEYS[3], whole(now - ALIVE), '+inf') end
if q.e > 0 and q.e ~= e and q.a ~= e then
  return { 'REMEMBER', e, now, tell, alive(), 0, {}, {} }
end
if q.bye then call('ZREM', KEYS[3], q.h) else call('ZADD', KEYS[3], whole(now), q.h) end
call('PEXPIRE', KEYS[3], 8 * DAY)

-- The gates.
for _, gate in ipairs(q.g) do
  local shut = tonumber(call('HGET', KEYS[2], gate[1]) or 0)
  if shut > 0 or call('HLEN', KEYS[2]) < 64 then
    call('HSET', KEYS[2], gate[1], whole(max(shut, now + gate[2])))
    call('PEXPIRE', KEYS[2], DAY)
  end
end
local gates = {}
for lane, shut in pairs(table_of(call('HGETALL', KEYS[2]))) do
  if tonumber(shut) <= now then
    call('HDEL', KEYS[2], lane)
  else
    gates[#gates + 1] = lane
    gates[#gates + 1] = whole(shut - now)
  end
end

-- Max-min shares: who needs little keeps little, the others have equal parts of the rest. `rate`: units a second.
-- Returns the level and the sum of all demands.
local function level(key, o, rate)
  if q.bye then
    call('HDEL', key, q.h)
    return rate, 0
  end
  local count = call('HLEN', key)
  if count < 1024 then
    call('HSET', key, q.h, string.format('%.6g|%.0f', o.dem, now + max(3 * o.hold, 3000000)))
    call('PEXPIRE', key, DAY)
  end
  if count > 64 then
    local kept = call('HMGET', key, '~at', '~level', '~sum')
    if kept[1] and tonumber(kept[1]) > now - 50000 then return tonumber(kept[2]), tonumber(kept[3]) end
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
  if count > 64 then call('HSET', key, '~at', whole(now), '~level', share, '~sum', sum) end
  return share, sum
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
  local kept = call('HMGET', key, 't', 'lost', 'least', 'was', 'begun', 'last')
  local full = tonumber(kept[1]) or max(born, tonumber(kept[2]) or 0) + room
  if o.mem then full = max(full, tonumber(o.mem)) end
  if o.seen then full = max(full, now - o.age + o.seen * per - o.span) end
  full = max(full, now)
  -- What the provider gives back of requests that were sent fills its bucket to the brim and no further, and did so up to
  -- a hold ago: no more than lacked at every visit since, less what was in hand then.
  local lack, times = min(full - now, room), 2 * o.hold
  local least, was = kept[1] and min(tonumber(kept[3]) or 0, lack) or 0, tonumber(kept[4]) or 0
  local begun = tonumber(kept[5]) or now
  if now - (tonumber(kept[6]) or now) > times then
    least, was, begun = lack, lack, now
  elseif now - begun > times then
    least, was, begun = lack, least, now
  end
  local freed = max(0, min((o.freed or 0) * per, min(least, was) - o.span))
  least, was = least - freed, was - freed
  full = full - freed + o.owed * per
  -- What was sent without the server refilled meanwhile, too: it leaves a bucket empty at worst.
  for _, used in ipairs(o.away or {}) do full = max(full, min(full + used[2] * per, now + room)) end
  -- No debt is for ever.
  full = min(full, now + room + 8 * o.per)
  local share, sum = level(sharers, o, 1000000 / per)
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
  call('HSET', key, 't', string.format('%.3f', full), 'least', whole(least), 'was', whole(was),
    'begun', whole(begun), 'last', whole(now))
  call('PEXPIRE', key, max(DAY, ceil((full - now) / 500)))
  return { whole(c), whole(ceil(wait)), whole(ceil(back)), scarce and share or 0, whole(now + ceil(wait)),
    string.format('%.3f', full) }
end

local function rolling(key, sharers, o)
  local kept = table_of(call('HGETALL', key))
  -- Who holds units for longer needs a longer window: the longest counts, while it is in use.
  local limit, window, asked = o.l, o.w, now
  local most, then_ = tonumber(kept.w) or 0, tonumber(kept.wt) or 0
  if most > window and now < then_ + most + q.horizon then window, asked = most, then_ end
  -- Slots of one width lie within those of the other, whatever the window: what is moved once stays there.
  local width = 1
  while width * 512 <= window do width = width * 2 end
  local ghost = tonumber(kept.g) or (kept.q and 0) or max(born, tonumber(kept.lost) or 0)
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
  for _, used in ipairs(o.away or {}) do add(now - used[1], used[2]) end
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
  local share, sum = level(sharers, o, limit / window * 1000000)
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
  local fields = { 'q', width, 'last', whole(last), 'e', whole(made), 'w', whole(window), 'wt', whole(asked) }
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
  return { whole(c), whole(ceil(wait)), whole(ceil(back)), scarce and share or 0, whole(now + wait), '' }
end

-- The processes that are there, by name; looked up once.
local there
local function is_there(holder)
  if not there then
    there = {}
    for _, name in ipairs(call('ZRANGEBYSCORE', KEYS[3], whole(now - ALIVE), '+inf')) do there[name] = true end
  end
  return there[holder]
end

local function cap(key, sharers, o)
  local kept = table_of(call('HGETALL', key))
  local strange = math.abs(raw - q.wall) > 5000000
  if (not next(kept) and strange) or raw > (o.ends + 5) * 1000000 then
    -- Whose clock is wrong opens no period.
    return { '0', '0', '1000000', 0, '0', '' }
  end
  local used, lost, holders, seq = tonumber(kept.s) or 0, tonumber(kept.x) or 0, 1, 0
  local mine, gone, claims = 0, {}, 0
  for field, text in pairs(kept) do
    local holder = string.match(field, '^h:(.*)$')
    if holder then
      local claim, said = string.match(text, '^(%d+)|(%d+)$')
      claims = claims + 1
      if holder == q.h then
        mine, seq = tonumber(claim), tonumber(said)
      else
        -- Also of a process that is gone: what it had in hand counts as used.
        used = used + tonumber(claim)
        if is_there(holder) then holders = holders + 1 else gone[holder] = claim end
      end
    end
  end
  if claims > 512 then
    -- Too many are gone: they are added up. Who comes back after all is counted twice, which is too strict.
    for holder, claim in pairs(gone) do
      if not call('ZSCORE', KEYS[3], holder) then
        call('HINCRBY', key, 's', claim)
        call('HDEL', key, 'h:' .. holder)
      end
    end
  end
  if q.s <= seq then return { '0', '0', '1000', 0, '0', '' } end
  if o.mem then
    -- Lost use is explained by the claims of those who come and tell of them.
    lost = max(0, lost - max(0, o.claim - mine))
    lost = max(lost, tonumber(o.mem) - used - o.claim)
  end
  local c, back = 0, 0
  if o.want > 0 and now < quiet then
    back = quiet - now
  elseif o.want > 0 then
    local free = o.amt - used - lost - o.claim
    c = min(o.want, floor(free / (2 * holders)), floor(o.amt / 50))
    c = max(c, o.need)
    if c > free then c = 0 end
    c = max(c, 0)
    if c == 0 then back = 1000000 end
  end
  call('HSET', key, 'h:' .. q.h, string.format('%.0f|%.0f', o.claim + c, q.s), 'x', whole(lost))
  call('EXPIREAT', key, o.ends + 7 * 86400)
  return { whole(c), '0', whole(back), 0, '0', whole(used + lost + o.claim + c) }
end

local kinds, answers = { b = bucket, r = rolling, c = cap }, {}
for i, o in ipairs(q.o) do
  for _, part in ipairs(kinds[o.k](KEYS[2 + 2 * i], KEYS[3 + 2 * i], o)) do
    answers[#answers + 1] = tostring(part)
  end
end
return { 'OK', e, now, tell, alive(), max(0, quiet - now), gates, answers }
