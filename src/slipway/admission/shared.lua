-- Decide what several servers together let through: one message of one server, one reply.
-- KEYS[1] is the hash of servers, the other keys are the hashes of meters. ARGV[1] is the message.
-- A meter's hash has a record of each server: absolute numbers, so that a message that is lost or
-- that comes twice does no harm. `spare` is what a server may use more if it cannot ask: nobody else
-- gets it until that server has said that it heard otherwise (`allowed` is what it believes now).
-- Names of servers begin with that of their store: `base` has what each store's ledger has beside
-- what its servers say, such as calls that a server made on its share just before it was killed.
-- `begun` has by store what a ledger gave to `base`, and which servers had not been heard by then: what
-- they say later is in that ledger already. It is a list: day, USD that servers knew, USD by the
-- ledger, the same three of the month, and the silent servers with what they had spent (day, month).
-- Record: seq, at, day, month, stale, requests, tokens, answers, held, day's USD, month's USD,
-- spare (requests, tokens, answers, day's USD, month's USD). Amounts are picodollars.
-- Lua's numbers are exact up to 2^53: 9,007 USD; above that, to a ten-billionth of the amount.

local DEAD, GRACE, TIGHT, SILENT, GAP = 5000, 2000, 1000, 1000, 1500
local MINUTE, KEPT = 61000, 32 * 86400000
local message = cmsgpack.unpack(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me, day, month = message.me, message.day, message.month

-- which servers are alive; after a pause of Redis itself, those that were alive before it
local before = redis.call('HGETALL', KEYS[1])
local servers, last, gap, resumed, born = {}, now, 0, 0, now
for i = 1, #before, 2 do
  if before[i] == '@last' then last = tonumber(before[i + 1])
  elseif before[i] == '@gap' then gap = tonumber(before[i + 1])
  elseif before[i] == '@resumed' then resumed = tonumber(before[i + 1])
  elseif before[i] == '@born' then born = tonumber(before[i + 1])
  else servers[before[i]] = cmsgpack.unpack(before[i + 1]) end
end
if servers[me] and servers[me][2] >= message.seq then return cmsgpack.pack({old = true}) end
if now - last > GAP then
  gap, resumed = last, now
  redis.call('HSET', KEYS[1], '@gap', gap, '@resumed', resumed)
end
local function alive(at)
  return now - at < DEAD or (now - resumed < DEAD and at > gap - DEAD)
end
redis.call('HSET', KEYS[1], '@last', now, '@born', born, me, cmsgpack.pack({now, message.seq}))
redis.call('PEXPIRE', KEYS[1], KEPT)
local count = 1
for name, server in pairs(servers) do
  if name ~= me then
    if alive(server[1]) then count = count + 1
    elseif now - server[1] > KEPT then redis.call('HDEL', KEYS[1], name) end
  end
end

local function save(meter, name, record)
  meter.records[name] = record
  redis.call('HSET', meter.key, name, cmsgpack.pack(record))
end

local function spent_in(r)
  return r[3] == day and r[10] or 0, r[4] == month and r[11] or 0
end

local function put_base(base, begun)
  if begun[1] == day and base[1] == day then base[2] = math.max(begun[2], begun[3]) end
  if begun[4] == month and base[3] == month then base[4] = math.max(begun[5], begun[6]) end
end

-- Take from `base` what a server has spent that was not heard before a ledger was read.
local function take_back(meter, name, old, in_day, in_month)
  local store = string.match(name, '^(.*):[^:]*$')
  local begun, base = meter.begun[store], meter.base[store]
  if not begun or not base then return end
  local known = begun[7][name]
  if old and old[5] ~= 1 and not known then return end
  if not known and old then known = {spent_in(old)} end
  known = known or {0, 0}
  if begun[1] == day then begun[3] = begun[3] - math.max(0, in_day - known[1]) end
  if begun[4] == month then begun[6] = begun[6] - math.max(0, in_month - known[2]) end
  begun[7][name], meter.has_begun = nil, true
  put_base(base, begun)
end

-- Add the servers that this one knew before Redis lost its data.
local function merge(meter, entry)
  for name, record in pairs(entry.claims or {}) do
    local there = meter.records[name]
    if name ~= me and (not there or there[1] < record[1]) then
      take_back(meter, name, there, spent_in(record))
      record[2], record[5] = now, 1
      save(meter, name, record)
    end
  end
  local mine = meter.base[message.store] or {0, 0, 0, 0}
  meter.base[message.store] = mine
  for name, known in pairs(entry.base or {}) do
    meter.base[name] = meter.base[name] or known
    for i = 2, 4, 2 do
      local there = meter.base[name]
      if there[i - 1] == known[i - 1] then there[i] = math.max(there[i], known[i]) end
    end
    local begun = meter.begun[name]
    if begun then
      if begun[1] == known[1] then begun[2] = math.max(begun[2], known[2]) end
      if begun[4] == known[3] then begun[5] = math.max(begun[5], known[4]) end
      meter.has_begun = true
    end
  end
  if mine[1] < day then mine[1], mine[2] = day, 0 end
  if mine[3] < month then mine[3], mine[4] = month, 0 end
end

-- Add up what the others use, and what is spare for them.
local function add_up(meter)
  local others, spare = {0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}
  for name, r in pairs(meter.records) do
    local is_alive = alive(r[2])
    if name == me then
    elseif not is_alive and r[4] < month and now - r[2] > MINUTE then
      redis.call('HDEL', meter.key, name)
    else
      if is_alive or now - r[2] < MINUTE then
        others[1], others[2] = others[1] + r[6], others[2] + r[7]
      end
      if is_alive then
        others[3] = others[3] + r[8]
        for i = 1, 5 do spare[i] = spare[i] + r[11 + i] end
      end
      local lost = is_alive and 0 or r[9]  -- what it held may be spent; if it comes back, it says
      others[4] = others[4] + r[9] - lost
      if r[3] == day then others[5] = others[5] + r[10] + lost end
      if r[4] == month then others[6] = others[6] + r[11] + lost end
      if r[5] == 1 and now - r[2] < GRACE then meter.unsure = true end
    end
  end
  meter.others, meter.spare = others, spare
end

-- Begin with what the ledger has, unless the servers with this store have spent as much. What this
-- one has spent until now, without a budget, is in the ledger, and no longer in its own numbers.
local function begin(meter, ledger)
  local mine, prefix = meter.base[message.store], message.store .. ':'
  local in_day, in_month, silent = 0, 0, {}
  for name, r in pairs(meter.records) do
    if name ~= me and string.sub(name, 1, #prefix) == prefix then
      local spent_day, spent_month = spent_in(r)
      in_day, in_month = in_day + r[9] + spent_day, in_month + r[9] + spent_month
      if not servers[name] or now - servers[name][1] > SILENT then
        silent[name] = {spent_day, spent_month}
      end
    end
  end
  local begun = meter.begun[message.store] or {0, 0, 0, 0, 0, 0}
  if begun[1] ~= day then begun[1], begun[2], begun[3] = day, mine[2], 0 end
  if begun[4] ~= month then begun[4], begun[5], begun[6] = month, mine[4], 0 end
  begun[3] = math.max(begun[3], ledger[1] - in_day)
  begun[6] = math.max(begun[6], ledger[2] - in_month)
  begun[7] = silent
  meter.begun[message.store], meter.has_begun = begun, true
  put_base(mine, begun)
end

local function open(key, entry)
  local meter = {key = key, entry = entry, own = entry.own, records = {}, base = {}, begun = {}, tight = 0}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if all[i] == 'base' then meter.base = cmsgpack.unpack(all[i + 1])
    elseif all[i] == 'begun' then meter.begun = cmsgpack.unpack(all[i + 1])
    elseif all[i] == 'tight' then meter.tight = tonumber(all[i + 1])
    else meter.records[all[i]] = cmsgpack.unpack(all[i + 1]) end
  end
  meter.lost = entry.joined and not meter.records[me]
  if meter.lost then return meter end
  merge(meter, entry)
  meter.unsure = now - born < GRACE  -- others may not have said yet what they use
  add_up(meter)
  if entry.ledger then begin(meter, entry.ledger)
  else take_back(meter, me, meter.records[me], entry.own[5], entry.own[6]) end
  if meter.has_begun then redis.call('HSET', key, 'begun', cmsgpack.pack(meter.begun)) end
  redis.call('HSET', key, 'base', cmsgpack.pack(meter.base))
  redis.call('PEXPIRE', key, KEPT)
  meter.before = {0, 0}
  for _, base in pairs(meter.base) do
    if base[1] == day then meter.before[1] = meter.before[1] + base[2] end
    if base[3] == month then meter.before[2] = meter.before[2] + base[4] end
  end
  meter.all = {
    meter.others[1], meter.others[2], meter.others[3],
    meter.others[4] + meter.others[5] + meter.before[1],
    meter.others[4] + meter.others[6] + meter.before[2],
  }
  return meter
end

local function own(meter, r)
  if r <= 3 then return meter.own[r] end
  return meter.own[4] + meter.own[r + 1]
end

local function need(wanted, r, cap)
  if r == 2 then return math.min(wanted[2], cap) end
  return wanted[math.min(r, 4)]
end

local meters, results = {}, {}
for i, entry in ipairs(message.meters) do meters[i] = open(KEYS[i + 1], entry) end

-- 0: granted; else {1 (full), 2 (held back for others) or 3 (unknown), meter, limit}
local function decide(asked)
  local found = 0
  for _, number in ipairs(asked[1]) do
    local meter = meters[number]
    if meter.lost or meter.unsure then return {3, number, 0} end
    for r = 1, 5 do
      local cap = meter.entry.caps[r]
      local more = cap >= 0 and need(asked[2], r, cap) or 0
      if more > 0 then
        local after = meter.all[r] + own(meter, r) + more
        if after > cap then return {1, number, r} end
        if after + meter.spare[r] > cap then
          redis.call('HSET', meter.key, 'tight', now)
          meter.tight, found = now, {2, number, r}
        end
      end
    end
  end
  if found ~= 0 then return found end
  for _, number in ipairs(asked[1]) do
    local mine = meters[number].own
    for i = 1, 4 do mine[i] = mine[i] + asked[2][i] end
  end
  return 0
end
for i, asked in ipairs(message.asked) do results[i] = decide(asked) end

local function share(meter, r)
  local cap = meter.entry.caps[r]
  if cap < 0 or meter.unsure or not meter.entry.share or now - meter.tight < TIGHT then return 0 end
  local left = cap - meter.all[r] - own(meter, r)
  return math.max(0, math.floor(math.min(left - meter.spare[r], left / count)))
end

local replies = {}
for i, meter in ipairs(meters) do
  if meter.lost then replies[i] = {lost = true}
  else
    local spare, mine = {}, meter.own
    for r = 1, 5 do spare[r] = share(meter, r) end
    local kept, believes = {}, meter.entry.allowed
    for r = 1, 5 do
      kept[r] = spare[r]
      if believes and meter.entry.caps[r] >= 0 then
        kept[r] = math.max(kept[r], believes[r] - own(meter, r))
      end
    end
    save(meter, me, {
      message.seq, now, day, month, 0, mine[1], mine[2], mine[3], mine[4], mine[5], mine[6],
      kept[1], kept[2], kept[3], kept[4], kept[5],
    })
    local others = meter.others
    others[5], others[6] = others[5] + meter.before[1], others[6] + meter.before[2]
    replies[i] = {others = others, spare = spare, own = mine, unsure = meter.unsure}
    if message.full then
      meter.records[me] = nil
      replies[i].base = {}
      for name, base in pairs(meter.base) do table.insert(replies[i].base, {name, base}) end
      replies[i].records = {}
      for name, record in pairs(meter.records) do
        table.insert(replies[i].records, {name, record})
      end
    end
  end
end
return cmsgpack.pack({servers = count, meters = replies, asked = results})
