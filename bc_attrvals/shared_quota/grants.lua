-- Decides who gets the slots and quota units of one store: the state machine of core/rate_limit.py,
-- the order of scheduling/fair_queue.py and the shares of scheduling/quota_shares.py, over all
-- processes of the store. A part is the bulk requests of one operation of one process; each job of it
-- has a share.
--
-- KEYS[1] is the state, ARGV[1] an `Ask` of server_link.py (MessagePack). Returns a `Reply`. Grants
-- are published on the channel of their process, the members on the channel named as the key. All
-- times are this server's, in milliseconds; times of the past come as ages. Calls are idempotent: a
-- process reports which leases it holds, and grants are numbered.

local VERSION = 3
local EDGE = 1              -- the next window is opened this much after the last possible end
local DRIFT = 0.05          -- ends that differ by less than this share of a window are one
local TIE = 0.001           -- countdowns that differ by less come from one tick
local ON_ITS_WAY = 500      -- a request given up may still be counted this much later
local PROBE = 2000          -- quota unknown: one request at once, and one more each time this passes
local BULK_SHARE = 8        -- of this many contested grants in a row the last one goes to bulk
local MARGIN = 1.25         -- estimates of what a part can use are multiplied by this
local BETWEEN = 50          -- a job makes its next request within this time after an answer
local LOOK_AGAIN = 20       -- units that are held back are reviewed no sooner than this
local STAGGER = 4           -- processes that wait for the same moment call this far apart
local AWAY = 400            -- after this long without a call all processes may have been away
local GATHER = 1000         -- time for all that return to report what they hold
local REVIEW = 5000         -- interval of the check whether all members still listen
local KEEP = 60000          -- the state is kept for at least this long after the last call
local MANY = 1000000000
local ANSWERED, NO_HEADERS, UNANSWERED, UNSENT = 0, 1, 2, 3

local ask = cmsgpack.unpack(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
-- The call waited unread for at least this long, for example while this server was paused. Its ages
-- count to when it was sent; uncorrected, they would put the end of a window too late.
local unread = ask.at > 0 and math.max(0, now - ask.at - ask.slack) or 0
local raw = redis.call('GET', KEYS[1])
local st = raw and cmsgpack.unpack(raw)
local fresh = not st or st.v ~= VERSION
if fresh then
  st = {v = VERSION, now = now, gather = 0, turn = 0, urgent = 0, p = {}, joined = {},
    reviewed = now, q = {
    window = 30000, left = 0, countdown = MANY, believed = 0, low = 0, high = 0, guessed = 0,
    grain = 1000, blocked = 0, sent = 0, lost = {}, bare = 0, none = false, probed = now}}
end
local q, processes = st.q, st.p

-- This server's clock was set back, or another server with an earlier clock took over.
if now < st.now - 5 then
  local by = now - st.now
  for _, name in ipairs({'believed', 'low', 'high', 'guessed', 'blocked', 'probed'}) do
    if q[name] > 0 then q[name] = q[name] + by end
  end
  for i = 1, #q.lost do q.lost[i] = q.lost[i] + by end
  for _, one in pairs(processes) do
    one.ends = one.ends + by
    for op = 1, 3 do one.last[op] = one.last[op] + by end
    for _, lease in ipairs(one.held) do
      if lease[4] then lease[4] = lease[4] + by end
    end
  end
  st.gather, st.reviewed = st.gather + by, st.reviewed + by
end
local silent = now - st.now > AWAY
st.now = now

local out = 0               -- leases of all processes
local busy = {0, 0, 0}      -- those of reads, writes, deletes
for _, one in pairs(processes) do
  for _, lease in ipairs(one.held) do
    out = out + 1
    busy[lease[2]] = busy[lease[2]] + 1
  end
end

local function forget_lost(since)
  local kept = {}
  for _, at in ipairs(q.lost) do
    if at > since then kept[#kept + 1] = at end
  end
  q.lost = kept
end

-- A unit that no count has shown: the service has counted its request by `at`, if it counted it.
local function lose(at)
  q.lost[#q.lost + 1] = at
  forget_lost(now - q.window)
end

local function drop(one, index)
  local lease = table.remove(one.held, index)
  out = out - 1
  busy[lease[2]] = busy[lease[2]] - 1
  return lease[2], lease[3]
end

-- Frees the slots of a process; its units may be spent.
local function abandon(id)
  local one = processes[id]
  for index = #one.held, 1, -1 do
    drop(one, index)
    lose(now + ON_ITS_WAY)
  end
  processes[id] = nil
end

local function begin_shares()
  for _, one in pairs(processes) do one.had = {0, 0, 0} end
end

local function later_by(low, high)
  return (low + high) / 2 - (q.low + q.high) / 2
end

local function is_new_window(sent_at, low, high, window)
  if not q.quota then return true end
  if q.guessed > 0 then return math.max(sent_at, low) >= q.guessed end
  return low - q.high > window * DRIFT or later_by(low, high) > window / 2
end

-- As `QuotaState.answered`, after the lease was dropped. `sent_at` may be late by `slack`.
local function believe(sent_at, received_at, slack, window, reset, quota, left, ours)
  q.bare = 0
  if reset % 1000 ~= 0 then q.grain = 1 end
  local low = sent_at - slack + reset - q.grain
  local high = received_at + reset + q.grain
  local surely_newer = sent_at - slack >= q.believed
  if is_new_window(sent_at - slack, low, high, window) then
    if q.guessed == 0 then begin_shares() end
    q.low, q.high, q.guessed, q.left, q.sent = low, high, 0, left, out + (ours and 1 or 0)
  elseif q.guessed > 0
    or (not surely_newer and later_by(low, high) < -window / 2) then
    -- The request was in flight when this window began, and was counted in this window.
    if ours then q.sent = q.sent - 1 end
    return
  elseif q.low - high > window * DRIFT then
    q.low, q.high, q.left = low, high, left
  else
    q.low = math.max(q.low, low)
    q.high = math.max(q.low, math.min(q.high, high))
    local newer = surely_newer or reset < q.countdown - TIE
    local tied = reset <= q.countdown + TIE
    if not newer and not (tied and left < q.left) then return end
    q.left = left
  end
  q.countdown, q.believed, q.quota, q.window = reset, received_at, quota, window
  forget_lost(sent_at - slack)
end

local forgotten = not processes[ask.id] or processes[ask.id].ends <= now

local function settle(one, entry)
  local seq, kind, sent_age, age, window, reset, quota, left, retry_after = unpack(entry)
  sent_age, age = sent_age + unread, age + unread
  -- `unheard`: sent while the server did not know of it.
  local ours, unheard = false, forgotten or seq < 0
  for index, lease in ipairs(one.held) do
    if lease[1] == seq then
      local op, priority = drop(one, index)
      ours = true
      one.last[op] = now - age
      if kind == ANSWERED or kind == NO_HEADERS then
        local took, before = sent_age - age, one.took[op]
        one.took[op] = before > 0 and before + (took - before) / 8 or took
      elseif kind == UNSENT and priority == 2 then
        one.had[op] = math.max(0, one.had[op] - 1)
      end
      break
    end
  end
  if retry_after > 0 then q.blocked = math.max(q.blocked, now - age + retry_after) end
  if kind == ANSWERED then
    q.none = false
    believe(now - sent_age, now - age, ask.slack, window, reset, quota, left, ours)
  elseif kind == NO_HEADERS then
    if ours or unheard then lose(now - age) end
    if not q.quota then
      q.none = true
    elseif ours then
      q.bare = q.bare + 1
      if q.bare > 2 * q.quota then
        q.quota, q.none = nil, true
      end
    end
  elseif kind == UNANSWERED then
    if ours or unheard then lose(now - age + ON_ITS_WAY) end
  elseif ours then
    q.sent = q.sent - 1
  end
end

-- Processes that did not renew their leases in time are dead.
local review = now - st.reviewed > REVIEW
for id, one in pairs(processes) do
  if one.ends <= now then
    review = true
    abandon(id)
  end
end

local me = processes[ask.id]
if not me then
  me = {seq = ask.seen, turns = {0, 0, 0, 0, 0, 0}, held = {}, want = {0, 0, 0, 0, 0, 0},
    -- Of reads, writes, deletes: bulk grants in this window, milliseconds of a request, the last end.
    had = {0, 0, 0}, took = {0, 0, 0}, last = {0, 0, 0}}
  processes[ask.id] = me
end
me.seq = math.max(me.seq, ask.seen)
me.ends, me.limits = now + ask.ttl, ask.limits
-- A call that waited unread shows that this server was paused: others may be in degraded mode.
local stood_still = unread > AWAY
if (fresh and ask.back) or (silent and ask.lost) or stood_still then
  st.gather = math.max(st.gather, now + GATHER)
end

-- The process holds what it reports, and grants that it has not received yet.
local function numbers(leases)
  local found = {}
  for _, lease in ipairs(leases) do found[lease[1]] = true end
  return found
end

local known, said = numbers(me.held), numbers(ask.held)
for _, lease in ipairs(ask.held) do
  if not known[lease[1]] then
    me.held[#me.held + 1] = {lease[1], lease[2], lease[3]}
    out = out + 1
    busy[lease[2]] = busy[lease[2]] + 1
    q.sent = q.sent + 1
  end
end
for _, entry in ipairs(ask.done) do settle(me, entry) end
for index = #me.held, 1, -1 do
  local seq = me.held[index][1]
  if seq <= ask.seen and not said[seq] then
    drop(me, index)
    lose(now + ON_ITS_WAY)
  end
end
me.want, me.flows = ask.want, ask.flows
for _, lease in ipairs(me.held) do
  if lease[1] > ask.seen then
    local kind = (lease[3] - 1) * 3 + lease[2]
    me.want[kind] = math.max(0, me.want[kind] - 1)
  end
end
if ask.leave then abandon(ask.id) end

-- The members: all that listen, idle or not, and those that hold leases. `joined` is in order.
local place, changed = 1, false
while st.joined[place] and st.joined[place] < ask.id do place = place + 1 end
if st.joined[place] == ask.id then
  if ask.leave then
    table.remove(st.joined, place)
    changed = true
  end
elseif not ask.leave then
  table.insert(st.joined, place, ask.id)
  changed = true
end
if review or changed then
  st.reviewed = now
  for index = #st.joined, 1, -1 do
    local id = st.joined[index]
    if not processes[id]
      and redis.call('PUBSUB', 'NUMSUB', KEYS[1] .. ':' .. id)[2] == 0 then
      table.remove(st.joined, index)
      changed = true
    end
  end
end
local count, rank = #st.joined, 0
if changed then
  -- After a loss of the state more may listen than are known: each that is not named will call.
  count = math.max(count, redis.call('PUBLISH', KEYS[1], cmsgpack.pack({now, st.joined})))
end
for _, id in ipairs(st.joined) do
  if id < ask.id then rank = rank + 1 end
end

local most, reserve = {0, 0, 0}, 0
for _, one in pairs(processes) do
  for op = 1, 3 do most[op] = math.max(most[op], one.limits[op]) end
  reserve = math.max(reserve, one.limits[4])
end

local function available()
  if now < q.blocked or now < st.gather then return 0 end
  if not q.quota then
    if q.none then return MANY end
    if out == 0 then q.probed = now end
    return math.max(0, 1 + math.floor((now - q.probed) / PROBE) - out)
  end
  if now > q.high + EDGE then
    forget_lost(math.max(q.low, now - q.window))
    q.guessed, q.low, q.high = now, now, now + q.window
    q.left, q.sent = q.quota, out
    begin_shares()
  end
  local left = math.min(q.left - out - #q.lost, q.quota - q.sent)
  return math.max(0, left - math.min(reserve, q.quota - 1))
end

-- Each job has an equal share of the units that are left for bulk requests. What a part can't use before
-- the window ends goes to the others. `keep` has the units that are held back for each part.
local keep, kept, look_again = {}, 0, MANY
for id in pairs(processes) do keep[id] = {0, 0, 0} end

local function share_out()
  local rest = available()
  if not q.quota or rest == 0 then return end
  local parts, wanted, jobs = {}, {0, 0, 0}, 0
  for id, one in pairs(processes) do
    local held, newest = {0, 0, 0}, {0, 0, 0}
    for _, lease in ipairs(one.held) do
      local op = lease[2]
      if lease[3] == 2 then held[op] = held[op] + 1 end
      newest[op] = math.max(newest[op], lease[4] or 0)
    end
    for op = 1, 3 do
      local waiting = one.want[3 + op]
      local wants = math.min(one.limits[op], held[op] + waiting)
      if wants > 0 or now - one.last[op] <= BETWEEN then
        local took = one.took[op]
        -- Requests that hang use no units.
        if newest[op] > 0 and (waiting == 0 or busy[op] >= most[op]) then
          took = math.max(took, now - newest[op])
        end
        wants = math.max(wants, 1)
        local flows = math.max(1, one.flows and one.flows[op] or 1)
        jobs = jobs + flows
        parts[#parts + 1] = {
          id = id, op = op, flows = flows, had = one.had[op], wants = wants, took = took,
          again = held[op] + waiting > 0 and took or one.last[op] + BETWEEN - now}
        wanted[op] = wanted[op] + wants
        rest = rest + one.had[op]
      end
    end
  end
  local left_ms = math.max(0, q.high - math.max(now, q.blocked))
  for _, part in ipairs(parts) do
    local wants = part.wants * math.min(1, most[part.op] / wanted[part.op])
    part.most = part.had + MARGIN * wants * left_ms / math.max(part.took, 1)
  end
  table.sort(parts, function(a, b) return a.most / a.flows < b.most / b.flows end)
  for _, part in ipairs(parts) do
    local share = math.min(part.most, rest * part.flows / jobs)
    rest, jobs = rest - share, jobs - part.flows
    local held_back = math.max(0, math.floor(share) - part.had)
    if held_back > 0 then
      keep[part.id][part.op] = held_back
      kept = kept + held_back
      look_again = math.min(look_again, math.max(part.again, LOOK_AGAIN))
    end
  end
end

-- Returns the process and operation served longest ago, of those that wait and may send.
local function next_waiting(priority, left)
  local best_id, best_op, best_turn
  for id, one in pairs(processes) do
    for op = 1, 3 do
      local kind = (priority - 1) * 3 + op
      local turn = one.turns[kind]
      if one.want[kind] > 0 and busy[op] < most[op]
        and (not best_id or turn < best_turn or (turn == best_turn and id < best_id))
        and (priority == 1 or left > kept or keep[id][op] > 0) then
        best_id, best_op, best_turn = id, op, turn
      end
    end
  end
  return best_id, best_op
end

local function grant_one(left)
  local priority = 1
  local id, op = next_waiting(1, left)
  local bulk_id, bulk_op = next_waiting(2, left)
  if id and bulk_id then
    st.urgent = (st.urgent + 1) % BULK_SHARE
  end
  if not id or (bulk_id and st.urgent == 0) then
    priority, id, op = 2, bulk_id, bulk_op
  end
  if not id then return false end
  local one, kind = processes[id], (priority - 1) * 3 + op
  if id ~= ask.id then
    local receivers = redis.call(
      'PUBLISH', KEYS[1] .. ':' .. id, cmsgpack.pack({one.seq + 1, op, priority}))
    if receivers == 0 then
      -- The process is dead, or will connect again and ask.
      one.want = {0, 0, 0, 0, 0, 0}
      for _, units in ipairs(keep[id]) do kept = kept - units end
      keep[id] = {0, 0, 0}
      return true
    end
  end
  one.want[kind] = one.want[kind] - 1
  one.seq = one.seq + 1
  st.turn = st.turn + 1
  one.turns[kind] = st.turn
  if priority == 2 then
    one.had[op] = one.had[op] + 1
    if keep[id][op] > 0 then
      keep[id][op], kept = keep[id][op] - 1, kept - 1
    end
  end
  one.held[#one.held + 1] = {one.seq, op, priority, now}
  out = out + 1
  busy[op] = busy[op] + 1
  q.sent = q.sent + 1
  return true
end

share_out()
local left = available()
while left > 0 and grant_one(left) do left = available() end

local grants = {}
for _, lease in ipairs(me.held) do
  if lease[1] > ask.seen then
    grants[#grants + 1] = {lease[1], lease[2], lease[3], now - (lease[4] or now)}
  end
end
table.sort(grants, function(a, b) return a[1] < b[1] end)

local before, contended, first_end = 0, false, now + ask.ttl
for id, one in pairs(processes) do
  if id < ask.id then before = before + 1 end
  if id ~= ask.id then
    for kind = 1, 6 do contended = contended or one.want[kind] > 0 end
    first_end = math.min(first_end, one.ends)
  end
end

local wait = first_end - now + 1
if left == 0 or kept > 0 then
  local opens = now + PROBE
  if now < st.gather then
    opens = st.gather
  elseif q.quota then
    opens = math.max(q.high + 1.5 * EDGE, q.blocked)
  elseif q.blocked > now then
    opens = q.blocked
  end
  wait = math.min(wait, opens - now)
end
if left > 0 and kept > 0 then wait = math.min(wait, look_again) end

local lasts = math.max(KEEP, 2 * q.window, 2 * ask.ttl)
redis.call('SET', KEYS[1], cmsgpack.pack(st), 'PX', math.floor(lasts))

return cmsgpack.pack({
  now, grants, math.max(1, wait + before * STAGGER), count, rank, contended, forgotten,
  q.quota or -1, left, math.max(0, q.high + EDGE - now)})
