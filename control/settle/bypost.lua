#!lua name=bypost
-- bypost.lua: what must happen in Redis in one step: settling, retries, dead letters, promotion of what is due. README.md beside it describes the keys.
-- Only the Redis 7.0 command set. Every function is flagged allow-oom: a full Redis must still drain.

local VERSION = 3
local GROUP = 'senders'
local KEEP_BYTES = 2048              -- a longer job is kept once for all its waiting retries
local DEAD_JOB_BYTES = 65536         -- of a job that cannot be understood, so much is shown
local DEAD_ENTRIES = 10000
local RETRY_STREAM_ENTRIES = 4096    -- promotion waits while a retry stream is longer
local PROMOTE_BYTES = 4194304        -- a call moves no more than this
local PROMOTE_BUCKETS = 1024         -- nor looks at more buckets
local STANDARD = {high = true, normal = true, bulk = true}
local WAITS = {f = true, h = true, r = true} -- actions after which the recipient waits somewhere
local COUNTERS = {
    a = 'accepted', b = 'bounced', c = 'cancelled', d = 'delivered', f = 'deferred', h = 'held', r = 'returned', s = 'suppressed', x = 'expired'
}

local function field_of(fields, name)
    for i = 1, #fields, 2 do
        if fields[i] == name then
            return fields[i + 1]
        end
    end
end

-- The job's bytes, or nil when the entry is gone.
local function entry_job(key, id)
    local found = redis.call('XRANGE', key, id, id)
    if found[1] then
        return field_of(found[1][2], 'job')
    end
end

-- {0, 1, 2, 7} -> "0-2,7"
local function ranges_of(indexes)
    table.sort(indexes)
    local parts, first, last = {}, indexes[1], indexes[1]
    for i = 2, #indexes + 1 do
        local index = indexes[i]
        if index ~= last + 1 then
            parts[#parts + 1] = first == last and tostring(first) or (first .. '-' .. last)
            first = index
        end
        last = index
        if not index then
            break
        end
    end
    return table.concat(parts, ',')
end

-- Appends a record to a list; a large job is kept beside it once, counted. `head` begins with the origin's ID.
local function record_add(base, list, queue, head, ranges, job)
    local record
    if #job > KEEP_BYTES then
        local keep = queue .. '/' .. head:match('^%S+')
        if redis.call('HINCRBY', base .. 'kept:count', keep, 1) == 1 then
            redis.call('HSET', base .. 'kept', keep, job)
        end
        record = head .. ' ' .. ranges .. '\nK' .. keep
    else
        record = head .. ' ' .. ranges .. '\nJ' .. job
    end
    redis.call('RPUSH', list, record)
end

local function bucket_add(base, queue, slot_ms, head, ranges, job)
    local member = queue .. ':' .. slot_ms
    record_add(base, base .. 'retry:' .. member, queue, head, ranges, job)
    redis.call('ZADD', base .. 'due', slot_ms, member)
end

-- The reverse of record_add: head with ranges, job. nil when the record makes no sense or its job is lost.
local function record_take(base, record)
    local history, kind, rest = record:match('^([^\n]*)\n(.)(.*)$')
    if kind == 'J' then
        return history, rest
    elseif kind == 'K' then
        local job = redis.call('HGET', base .. 'kept', rest)
        if redis.call('HINCRBY', base .. 'kept:count', rest, -1) <= 0 then
            redis.call('HDEL', base .. 'kept', rest)
            redis.call('HDEL', base .. 'kept:count', rest)
        end
        return history, job or nil
    end
end

local function entry_delete(base, key, stream, id)
    redis.call('XACK', key, GROUP, id)
    local deleted = redis.call('XDEL', key, id)
    return deleted == 1
end

-- Does this entry still wait to be settled? The pending list is asked first: its answer does not carry the job.
local function entry_exists(key, id)
    local pending = redis.pcall('XPENDING', key, GROUP, id, id, 1)
    if not pending.err and pending[1] then
        return true
    end
    return redis.call('XRANGE', key, id, id)[1] ~= nil
end

local function events_trim(base, maximum)
    if maximum > 0 then
        local trimmed = redis.call('XTRIM', base .. 'events', 'MAXLEN', '~', maximum)
        if trimmed > 0 then
            redis.call('HINCRBY', base .. 'stats', 'events_trimmed', trimmed)
        end
    end
end

-- What settle works on. Outcomes are read where they stand in `args`: a table for each would cost more than all else here.
local call, base, args, status, counts, events_key, events_count

local function outcome_take(at)
    local action, event = args[at + 1], args[at + 2]
    counts[action] = (counts[action] or 0) + 1
    if event ~= '' then
        call('XADD', events_key, '*', 'event', event)
        events_count = events_count + 1
    end
end

local function retry_add(queue, action, slot_ms, head, ranges, job)
    if action == 'h' then
        record_add(base, base .. 'held:' .. queue, queue, head, ranges, job)
    else
        bucket_add(base, queue, slot_ms, head, ranges, job)
    end
end

-- The only recipient of an entry: the entry itself is the progress.
local function settle_single(key, stream, queue, id, at)
    local action, job = args[at + 1], nil
    if WAITS[action] then
        job = entry_job(key, id)
        if job then -- before the entry goes: what a key of the wrong type makes fail here must not be lost
            retry_add(queue, action, args[at + 3], args[at + 4], args[at], job)
        end
    end
    call('XACK', key, GROUP, id)
    if call('XDEL', key, id) ~= 1 or (WAITS[action] and not job) then
        return false
    end
    outcome_take(at)
    return true
end

-- Some recipients of an entry of several: `offsets` tells where each outcome stands, `number` the place of the first one's letter.
local function settle_several(key, stream, queue, id, pending, offsets, number)
    local progress_field = stream .. '/' .. id
    local progress = call('HGET', base .. 'progress', progress_field)
    local count, bits, job = 0, {}, nil
    if progress then
        count = progress:byte(1) + 256 * progress:byte(2)
        bits = {progress:byte(3, -1)}
    elseif not entry_exists(key, id) then
        return
    end
    for i = 1, #offsets do
        if WAITS[args[offsets[i] + 1]] then
            job = entry_job(key, id)
            if not job then
                call('XACK', key, GROUP, id)
                call('HDEL', base .. 'progress', progress_field)
                return
            end
            break
        end
    end

    local before, retries, order = count, nil, nil
    for i = 1, #offsets do
        local at = offsets[i]
        local index = tonumber(args[at])
        local low = index % 8
        local byte, mask = (index - low) / 8 + 1, 2 ^ low
        for missing = #bits + 1, byte do
            bits[missing] = 0
        end
        if bits[byte] % (mask + mask) < mask then
            bits[byte] = bits[byte] + mask
            count = count + 1
            status[number + i - 1] = 'S'
            outcome_take(at)
            local action = args[at + 1]
            if WAITS[action] then
                local slot_ms, head = args[at + 3], args[at + 4]
                local which = action .. slot_ms .. ' ' .. head
                retries, order = retries or {}, order or {}
                if not retries[which] then
                    retries[which] = {action, slot_ms, head, {}}
                    order[#order + 1] = retries[which]
                end
                local indexes = retries[which][4]
                indexes[#indexes + 1] = index
            end
        end
    end
    for i = 1, order and #order or 0 do
        local retry = order[i]
        retry_add(queue, retry[1], retry[2], retry[3], ranges_of(retry[4]), job)
    end
    if count >= pending then
        entry_delete(base, key, stream, id)
        call('HDEL', base .. 'progress', progress_field)
    elseif count > before then
        local low = count % 256
        call('HSET', base .. 'progress', progress_field, string.char(low, (count - low) / 256, unpack(bits)))
    end
end

-- ARGV: base, events to keep; then entries: stream, queue, ID, recipients of it, outcomes; then each outcome: index, action, event, and for the actions
-- f, h and r the bucket's ms and the head of the retry. Returns a letter an outcome: S settled, R settled before.
local function settle(keys, given)
    call, args, base, status, events_count = redis.call, given, given[1], {}, 0
    events_key = base .. 'events'
    local queues, at, number, total = {}, 3, 1, #args
    while at <= total do
        local stream, queue, id, pending, outcomes = args[at], args[at + 1], args[at + 2], tonumber(args[at + 3]), tonumber(args[at + 4])
        local key = base .. 'q:' .. stream
        local offsets = pending > 1 and {} or nil
        local first = at + 5
        at = first
        for i = 0, outcomes - 1 do
            status[number + i] = 'R'
            if offsets then
                offsets[i + 1] = at
            end
            at = at + (WAITS[args[at + 1]] and 5 or 3)
        end
        counts = queues[queue]
        if not counts then
            counts = {}
            queues[queue] = counts
        end
        if offsets then
            settle_several(key, stream, queue, id, pending, offsets, number)
        elseif settle_single(key, stream, queue, id, first) then
            status[number] = 'S'
        end
        number = number + outcomes
    end
    for queue, totals in pairs(queues) do
        for action, times in pairs(totals) do
            call('HINCRBY', base .. 'queue:' .. queue, COUNTERS[action] or action, times)
        end
    end
    if events_count > 0 then
        events_trim(base, tonumber(args[2]))
    end
    local answer = table.concat(status)
    args, status, counts = nil, nil, nil
    return answer
end

-- ARGV: base, stream, queue, ID, bucket's ms, head, ranges. A whole entry goes to the time buckets. 1, or 0 when it is gone.
local function schedule(keys, args)
    local base, stream, queue, id = args[1], args[2], args[3], args[4]
    local key = base .. 'q:' .. stream
    local job = entry_job(key, id)
    if not job then
        entry_delete(base, key, stream, id)
        return 0
    end
    bucket_add(base, queue, args[5], args[6], args[7], job)
    entry_delete(base, key, stream, id)
    redis.call('HDEL', base .. 'progress', stream .. '/' .. id)
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'scheduled', 1)
    return 1
end

-- ARGV: base, stream, queue, ID, reason, event or '', events to keep. An entry that cannot be understood goes to the dead letters. 1, or 0 when it is gone.
local function dead(keys, args)
    local base, stream, queue, id, reason = args[1], args[2], args[3], args[4], args[5]
    local key = base .. 'q:' .. stream
    if not redis.call('XRANGE', key, id, id)[1] then
        redis.call('XACK', key, GROUP, id)
        return 0
    end
    local job = entry_job(key, id) or ''
    redis.call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_ENTRIES, '*', 'queue', queue, 'stream', stream, 'entry', id, 'reason', reason, 'bytes', #job,
               'job', job:sub(1, DEAD_JOB_BYTES))
    entry_delete(base, key, stream, id)
    redis.call('HDEL', base .. 'progress', stream .. '/' .. id)
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'dead', 1)
    if args[6] ~= '' then
        redis.call('XADD', base .. 'events', '*', 'event', args[6])
        events_trim(base, tonumber(args[7]))
    end
    return 1
end

-- ARGV: base, now in ms, records to move at most. What is due becomes entries of q:retry:NAME. Returns records moved, and when the next bucket is due (-1: none).
local function promote(keys, args)
    local base, now, limit = args[1], tonumber(args[2]), tonumber(args[3])
    local due = base .. 'due'
    local moved, bytes, offset, room = 0, 0, 0, {}
    while moved < limit and bytes < PROMOTE_BYTES and offset < PROMOTE_BUCKETS do
        local members = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', offset, 64)
        if #members == 0 then
            break
        end
        for i = 1, #members do
            local member = members[i]
            local queue = member:match('^(.*):%d+$') or ''
            local stream, list = base .. 'q:retry:' .. queue, base .. 'retry:' .. member
            room[queue] = room[queue] or RETRY_STREAM_ENTRIES - redis.call('XLEN', stream)
            local empty = false
            while not empty and moved < limit and bytes < PROMOTE_BYTES and room[queue] > 0 do
                local records = redis.call('LPOP', list, math.min(16, limit - moved))
                empty = not records
                for j = 1, records and #records or 0 do
                    local history, job = record_take(base, records[j])
                    if history and job then
                        redis.call('XADD', stream, '*', 'job', job, 'r', history)
                        bytes = bytes + #job
                    else
                        redis.call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_ENTRIES, '*', 'queue', queue, 'stream', 'retry:' .. queue, 'entry', '',
                                   'reason', 'the job of this retry is lost', 'bytes', 0, 'job', records[j]:sub(1, DEAD_JOB_BYTES))
                    end
                    moved = moved + 1
                    room[queue] = room[queue] - 1
                end
            end
            if empty then
                redis.call('ZREM', due, member)
                if not STANDARD[queue] then
                    local first = redis.call('ZRANGE', base .. 'active', 0, 0, 'WITHSCORES')
                    redis.call('ZADD', base .. 'active', 'NX', first[2] or 0, queue)
                end
            else
                offset = offset + 1
            end
        end
    end
    local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    return {moved, next_due[2] and tonumber(next_due[2]) or -1}
end

-- ARGV: base, stream, consumer, start (an ID: this consumer's pending entries behind it; '>': new ones), count. Returns the last ID and its entries, each
-- {ID, fields, progress}: read in one step, so that what was settled before is never taken for unsettled.
local function read(keys, args)
    local base, stream, consumer = args[1], args[2], args[3]
    local key = base .. 'q:' .. stream
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
    return {last, entries}
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

-- ARGV: base, queue. A drained campaign leaves `active`. 1 when it did.
local function retire(keys, args)
    local base, queue = args[1], args[2]
    if redis.call('XLEN', base .. 'q:' .. queue) == 0 and redis.call('XLEN', base .. 'q:retry:' .. queue) == 0 then
        return redis.call('ZREM', base .. 'active', queue)
    end
    return 0
end

local function register(name, callback)
    redis.register_function{function_name = name, callback = callback, flags = {'allow-oom'}}
end
register('bypost_settle', settle)
register('bypost_schedule', schedule)
register('bypost_dead', dead)
register('bypost_promote', promote)
register('bypost_read', read)
register('bypost_groups', groups)
register('bypost_retire', retire)
redis.register_function{function_name = 'bypost_version', callback = function() return VERSION end, flags = {'no-writes', 'allow-oom', 'allow-stale'}}
