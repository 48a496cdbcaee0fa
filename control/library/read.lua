-- read.lua: reading of the streams, with their groups and progress; fair order of the queues; a tenant's excess.

local fair = {
    VISITS = 64,         -- queues that one call looks at
    BYTES = 8388608,     -- of jobs that one call brings, more or less
    QUANTUM = 20,        -- recipients that a queue gives before it is another's turn, or one entry
    ENTRIES = 200,       -- of a stream at a time
    BURST_MS = 200,      -- a queue with a rate catches up so much
    DRAINED_MS = 2000,   -- a queue that was read to its end and of which something is under way is looked at again after this
    STEP = 256,          -- queues that one call of bypost_pending looks at
    DAY_MS = 86400000,
}

-- nil, or the error for a node whose work was given to others: it must let go of what it has. Epoch 0 is that of a node which takes no part in this.
function fair.fenced(base, node, epoch)
    local entry = epoch ~= '0' and redis.call('HGET', base .. 'nodes', node)
    if entry then
        local known, state = entry:match('^(%S+) %S+ (%S+)')
        if known ~= epoch or state == 'dead' then
            return redis.error_reply('FENCED this node is not the one that Redis knows: ' .. entry)
        end
    end
end

function fair.now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- ARGV: base, stream, consumer, start (an ID: this consumer's pending entries behind it; '>': new ones), count, epoch ('' or absent: not asked for).
-- Returns the last ID, its entries, each {ID, fields, progress}, and the queue's expires_at: read in one step, so that what was settled before is never
-- taken for unsettled.
local function read(keys, args)
    local base, stream, consumer = args[1], args[2], args[3]
    local key = base .. 'q:' .. stream
    local fault = args[6] and args[6] ~= '' and fair.fenced(base, consumer, args[6])
    if fault then
        return fault
    end
    local found = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', args[5], 'STREAMS', key, args[4])
    local entries, last = {}, ''
    if found and found[1] then
        for _, entry in ipairs(found[1][2]) do
            local id = entry[1]
            last = id
            if entry[2] then
                entries[#entries + 1] = {id, entry[2], redis.call('HGET', base .. 'progress', stream .. '/' .. id)}
            else
                redis.call('XACK', key, GROUP, id)
                redis.call('HDEL', base .. 'progress', stream .. '/' .. id)
            end
        end
    end
    return {last, entries, redis.call('HGET', base .. 'queue:' .. stream:gsub('^retry:', ''), 'expires_at') or ''}
end

-- ARGV: base, then streams. Makes their consumer groups, from the beginning; a command would be refused by a full Redis. Returns 1 for each that is new.
local function groups(keys, args)
    local made = {}
    for i = 2, #args do
        local result = redis.pcall('XGROUP', 'CREATE', args[1] .. 'q:' .. args[i], GROUP, '0', 'MKSTREAM')
        if result.err and not result.err:find('BUSYGROUP', 1, true) then
            return result
        end
        made[i - 1] = result.err and 0 or 1
    end
    return made
end

-- When a daily window "FROM-TO OFFSET" (minutes of the day, of a zone so many minutes ahead of UTC; over midnight when FROM is larger) is open next: now,
-- or later. What is no window is always open.
function fair.window_opens(window, now)
    local from, to, offset = window:match('^(%d+)-(%d+) ([+-]?%d+)$')
    if not from then
        return now
    end
    from, to = from * 60000, to * 60000
    local today = (now + offset * 60000) % fair.DAY_MS
    local open
    if from < to then
        open = today >= from and today < to
    else
        open = today >= from or today < to
    end
    return open and now or now + (from - today) % fair.DAY_MS
end

-- What is to be known of a queue before it is read: a table; with `rest` when it must not be read before that time, `stopped` when not at all.
function fair.look(base, name, now)
    local found = redis.call('HMGET', base .. 'queue:' .. name, 'state', 'weight', 'rate', 'not_before', 'window', 'expires_at', 'gcra')
    local queue = {name = name, weight = tonumber(found[2] or '') or 1, expires = tonumber(found[6] or '') or 0, rate = 0}
    if not (queue.weight >= 0.01) then
        queue.weight = 1
    end
    if found[1] == 'paused' or found[1] == 'cancelled' then
        queue.stopped = true
    elseif found[1] ~= 'discarded' and (queue.expires <= 0 or queue.expires > now) then -- else: read as fast as it goes, to end it
        local opens = math.max(tonumber(found[4] or '') or 0, now)
        opens = found[5] and fair.window_opens(found[5], opens) or opens
        queue.rate = tonumber(found[3] or '') or 0
        if queue.rate > 0 then
            queue.gcra = math.max(tonumber(found[7] or '') or 0, now - fair.BURST_MS)
            opens = math.max(opens, math.ceil(queue.gcra))
        end
        queue.rest = opens > now and opens or nil
    end
    return queue
end

-- Reads up to `want` recipients of a stream, at least one entry, and appends {queue, 'retry' or '', expires_at, entries} to `answer`. Returns recipients and bytes.
function fair.pull(base, queue, is_retry, consumer, want, with_progress, answer)
    local stream = (is_retry and 'retry:' or '') .. queue.name
    local key = base .. 'q:' .. stream
    if redis.call('XLEN', key) == 0 then
        return 0, 0
    end
    local recipients, bytes, count, list = 0, 0, 1, nil
    while count >= 1 do
        local found = redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count, 'STREAMS', key, '>')
        if found and found.err then
            if not found.err:find('NOGROUP', 1, true) then
                error(found.err)
            end
            redis.call('XGROUP', 'CREATE', key, GROUP, '0')
            found = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count, 'STREAMS', key, '>')
            with_progress = true
        end
        local entries = found and found[1] and found[1][2]
        if not entries then
            break
        end
        if not list then
            list = {}
            answer[#answer + 1] = {queue.name, is_retry and 'retry' or '', string.format('%.0f', queue.expires), list}
        end
        local largest = 1
        for i = 1, #entries do
            local entry = entries[i]
            local fields = entry[2]
            local number, indexes = nil, nil
            for at = 1, #fields, 2 do
                if fields[at] == 'n' then
                    number = tonumber(fields[at + 1])
                else
                    bytes = bytes + #fields[at + 1]
                    if fields[at] == 'r' or fields[at] == 's' then
                        indexes = fields[at + 1]:match('^%S+ %d+ %d+ %d+ %d+ ([%d,-]+)$')
                    end
                end
            end
            number = indexes and lists.size(indexes) or number or 1
            number = number >= 1 and number <= 500 and number or 1
            recipients = recipients + number
            largest = number > largest and number or largest
            list[#list + 1] = {entry[1], fields, with_progress and redis.call('HGET', base .. 'progress', stream .. '/' .. entry[1])}
        end
        if #entries < count or bytes * 2 > fair.BYTES then
            break
        end
        count = math.min(math.floor((want - recipients) / largest), fair.ENTRIES)
    end
    return recipients, bytes
end

-- A queue that has nothing to read leaves the order. One of which entries are under way is looked at again; of one that is closed and has none, nor any
-- that wait, the end is noted. A tenant's queue that is empty goes.
function fair.retire(base, name, now)
    redis.call('ZREM', base .. 'active', name)
    if redis.call('XLEN', base .. 'q:' .. name) > 0 or redis.call('XLEN', base .. 'q:retry:' .. name) > 0 then
        redis.call('ZADD', base .. 'draining', now + fair.DRAINED_MS, name)
        return 0
    end
    redis.call('ZREM', base .. 'draining', name)
    local queue = base .. 'queue:' .. name
    local found = redis.call('HMGET', queue, 'closed', 'state', 'finished', 'retrying', 'parked', 'held')
    local waiting = (tonumber(found[4] or '') or 0) + (tonumber(found[5] or '') or 0) + (tonumber(found[6] or '') or 0)
    if waiting <= 0 and not found[3] and (found[1] == '1' or found[2] == 'discarded') then
        redis.call('HSET', queue, 'finished', string.format('%.0f', now))
    end
    if waiting <= 0 and redis.call('SREM', base .. 'tenants', name) == 1 then
        redis.call('DEL', base .. 'q:' .. name, base .. 'q:retry:' .. name)
    end
    return 1
end

-- How much the queues of the order weigh together, by those that were looked at.
function fair.weight_all(base, looked)
    local weight, count = 0, 0
    for _, queue in pairs(looked) do
        weight, count = weight + queue.weight, count + 1
    end
    return redis.call('ZCARD', base .. 'active') * (count > 0 and weight / count or 1)
end

-- ARGV: base, node, epoch, recipients to bring at most. Reads queues of `active` by virtual time: the one that had least for its weight is first. Returns
-- {weight of all queues there, recipients brought, states of high, normal, bulk ('' running), weights of normal and bulk ('' by default), 1 when others
-- have not been looked at}, then for each stream that gave something {queue, 'retry' or '', the queue's expires_at, entries as bypost_read gives them}.
local function take(keys, args)
    local base, consumer, budget = args[1], args[2], tonumber(args[4]) or 0
    local fault = fair.fenced(base, consumer, args[3])
    if fault then
        return fault
    end
    local now, active, resting = fair.now_ms(), base .. 'active', base .. 'resting'
    local kept = redis.call('HMGET', base .. 'stats', 'virtual_time', 'turn')
    local clock, turn = tonumber(kept[1] or '') or 1, tonumber(kept[2] or '') or fair.QUANTUM -- turn: recipients that a queue gives in one
    local rested = redis.call('ZRANGEBYSCORE', resting, '-inf', now, 'LIMIT', 0, fair.VISITS)
    for i = 1, #rested do
        redis.call('ZADD', active, 'NX', string.format('%.17g', clock), rested[i])
        redis.call('ZREM', resting, rested[i])
    end
    local drained = redis.call('ZRANGEBYSCORE', base .. 'draining', '-inf', now, 'LIMIT', 0, fair.VISITS)
    for i = 1, #drained do
        if redis.call('ZSCORE', active, drained[i]) or redis.call('ZSCORE', resting, drained[i]) then
            redis.call('ZREM', base .. 'draining', drained[i]) -- something came meanwhile: it is looked at when that is read
        else
            fair.retire(base, drained[i], now)
        end
    end
    local most = math.min(fair.VISITS, math.ceil(budget / turn * 2) + 8) -- more than will be visited
    local listed = redis.call('ZRANGE', active, 0, most - 1, 'WITHSCORES')
    local count = #listed / 2
    local names, tags, came, looked, dirty, answer = {}, {}, {}, {}, {}, {''}
    for i = 1, count do
        local tag = tonumber(listed[2 * i]) or 0
        names[i], tags[i], came[i] = listed[2 * i - 1], math.max(tag, clock), tag < clock -- who was not there gets nothing for it
    end
    local last = count == most and tags[count] or math.huge -- behind it there may be others
    local started = clock
    local with_progress = count > 0 and budget > 0 and redis.call('HLEN', base .. 'progress') > 0
    local taken, bytes, visits, turns, at = 0, 0, 0, 0, nil
    while taken < budget and bytes < fair.BYTES and visits < fair.VISITS do
        at = nil
        for i = 1, count do
            if tags[i] and (not at or tags[i] < tags[at]) then
                at = i
            end
        end
        if not at or tags[at] > last then
            break
        end
        visits = visits + 1
        local name = names[at]
        local queue = looked[at] or fair.look(base, name, now)
        looked[at] = queue
        if queue.stopped then
            redis.call('ZREM', active, name)
            tags[at] = nil
        elseif queue.rest then
            redis.call('ZREM', active, name)
            redis.call('ZADD', resting, queue.rest, name)
            tags[at] = nil
        elseif came[at] and count > 1 then
            came[at], dirty[at] = nil, true
            tags[at] = tags[at] + math.random() * turn / queue.weight -- or all who come would be given as much at first, whatever they weigh
        else
            local want = math.min(fair.QUANTUM, budget - taken)
            if queue.rate > 0 then
                want = math.min(want, math.floor((now - queue.gcra) * queue.rate / 1000) + 1)
            end
            local recipients, size = fair.pull(base, queue, true, consumer, want, with_progress, answer)
            if recipients < want then
                local more, more_size = fair.pull(base, queue, false, consumer, want - recipients, with_progress, answer)
                recipients, size = recipients + more, size + more_size
            end
            if recipients == 0 then
                fair.retire(base, name, now)
                tags[at] = nil
            else
                clock = math.max(clock, tags[at])
                tags[at] = tags[at] + recipients / queue.weight
                dirty[at] = true
                taken, bytes, turns = taken + recipients, bytes + size, turns + 1
                if queue.rate > 0 then
                    queue.gcra = queue.gcra + recipients * 1000 / queue.rate
                    redis.call('HSET', base .. 'queue:' .. name, 'gcra', string.format('%.3f', queue.gcra))
                    queue.rest = queue.gcra > now and math.ceil(queue.gcra) or nil
                end
            end
        end
    end
    for at in pairs(dirty) do
        if tags[at] then
            redis.call('ZADD', active, string.format('%.3f', tags[at]), names[at])
        end
    end
    if clock > started then
        turn = turns > 0 and turn + (taken / turns - turn) / 4 or turn
        redis.call('HSET', base .. 'stats', 'virtual_time', string.format('%.17g', clock), 'turn', string.format('%.3f', turn))
    end
    local normal = redis.call('HMGET', base .. 'queue:normal', 'state', 'weight')
    local bulk = redis.call('HMGET', base .. 'queue:bulk', 'state', 'weight')
    answer[1] = {string.format('%.17g', fair.weight_all(base, looked)), taken, redis.call('HGET', base .. 'queue:high', 'state') or '', normal[1] or '',
                 bulk[1] or '', normal[2] or '', bulk[2] or '', at and 1 or 0}
    return answer
end

-- ARGV: base, node, epoch, position ('' first). Looks for this node's pending entries in the queues besides high, normal and bulk, some queues a call.
-- Returns the next position ('' when all were looked at) and the streams that have some.
local function pending(keys, args)
    local base, consumer = args[1], args[2]
    local fault = fair.fenced(base, consumer, args[3])
    if fault then
        return fault
    end
    local sources = {'campaigns', 'tenants', 'draining', 'active', 'resting', 'draining', 'active'} -- again: a queue may have gone from one to the other meanwhile
    local source, cursor = args[4]:match('^(%d+) (%d+)$')
    source, cursor = tonumber(source or '1'), cursor or '0'
    if not sources[source] then
        return {''}
    end
    local scanned = redis.call(sources[source] == 'tenants' and 'SSCAN' or 'ZSCAN', base .. sources[source], cursor, 'COUNT', fair.STEP)
    cursor = scanned[1]
    local answer = {cursor ~= '0' and (source .. ' ' .. cursor) or sources[source + 1] and (source + 1 .. ' 0') or ''}
    for i = 1, #scanned[2], sources[source] == 'tenants' and 1 or 2 do
        for _, stream in ipairs({'retry:' .. scanned[2][i], scanned[2][i]}) do
            local key = base .. 'q:' .. stream
            if redis.call('XLEN', key) > 0 then
                local found = redis.pcall('XPENDING', key, GROUP, '-', '+', 1, consumer)
                if not found.err and found[1] then
                    answer[#answer + 1] = stream
                end
            end
        end
    end
    return answer
end

-- ARGV: base, tenant, then for each: entry, its recipients, a history (all of it) to give it. Whole entries of q:normal move to a queue of the tenant's
-- own; they stay what they are by their history. Returns how many.
local function overflow(keys, args)
    local base, tenant, moved = args[1], args[2], 0
    local name, normal = 'tenant.' .. tenant, base .. 'q:normal'
    local key = base .. 'q:' .. name
    if #tenant > 31 or not tenant:match('^[%w._-]+$') then
        return redis.error_reply('ARGUMENTS this tenant cannot have a queue of its own')
    end
    local now, recipients = string.format('%.0f', fair.now_ms()), 0
    for i = 3, #args, 3 do
        local id, number = args[i], tonumber(args[i + 1]) or 1
        local found = redis.call('XRANGE', normal, id, id)[1]
        if found and redis.call('HEXISTS', base .. 'progress', 'normal/' .. id) == 0 then
            local fields = found[2]
            if not field_of(fields, 'r') and not field_of(fields, 's') then
                fields[#fields + 1], fields[#fields + 2] = 'r', args[i + 2]
            end
            if moved == 0 then
                redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
            end
            redis.call('XADD', key, '*', unpack(fields))
            entry_delete(base, normal, 'normal', id)
            moved, recipients = moved + 1, recipients + number
        elseif not found then
            redis.call('XACK', normal, GROUP, id)
        end
    end
    if moved > 0 then
        local queue = base .. 'queue:' .. name
        redis.call('SADD', base .. 'tenants', name)
        redis.call('HSETNX', queue, 'created', now)
        redis.call('HSETNX', queue, 'tenant', tenant)
        redis.call('HINCRBY', queue, 'submitted', recipients)
        redis.call('HINCRBY', base .. 'queue:normal', 'moved', recipients)
        local state = redis.call('HGET', queue, 'state')
        if state ~= 'paused' and state ~= 'cancelled' then
            redis.call('ZADD', base .. 'active', 'NX', redis.call('HGET', base .. 'stats', 'virtual_time') or '0', name)
        end
    end
    return moved
end

-- ARGV: base, stream, queue, ID, its recipients in truth, a history (all of them). A producer counted others than the job has (dedupe leaves repeated
-- ones out): what was counted is put right, and the entry is another one from here on, which says so. 1, or 0 when it is gone.
local function recount(keys, args)
    local base, stream, id, truth = args[1], args[2], args[4], tonumber(args[5])
    local key = base .. 'q:' .. stream
    local found = redis.call('XRANGE', key, id, id)[1]
    local fields = found and found[2] or {}
    local said, content = tonumber(field_of(fields, 'n') or ''), field_of(fields, 'c')
    if not said or field_of(fields, 'r') or field_of(fields, 's') or redis.call('HEXISTS', base .. 'progress', stream .. '/' .. id) == 1 then
        return 0
    end
    for i = 1, #fields, 2 do
        fields[i + 1] = fields[i] == 'n' and args[5] or fields[i + 1]
    end
    fields[#fields + 1], fields[#fields + 2] = 'r', args[6]
    redis.call('XADD', key, '*', unpack(fields))
    entry_delete(base, key, stream, id)
    redis.call('HINCRBY', base .. 'stats', 'depth', truth - said)
    redis.call('HINCRBY', base .. 'queue:' .. args[3], 'submitted', truth - said)
    if content then
        redis.call('HINCRBY', base .. 'contents', content, truth - said)
    end
    lists.wake(base, args[3])
    return 1
end

register('bypost_read', read)
register('bypost_recount', recount)
register('bypost_groups', groups)
register('bypost_take', take)
register('bypost_pending', pending)
register('bypost_overflow', overflow)
-- ARGV: base, queue. One that has nothing to read leaves `active`. 1 when nothing of it is under way.
register('bypost_retire', function(keys, args) return fair.retire(args[1], args[2], fair.now_ms()) end)
