-- settle.lua: outcomes, in batches, each once; dead letters.

local WAITS = {f = true, h = true, r = true} -- actions after which the recipient waits somewhere
local COUNTERS = {
    a = 'accepted', b = 'bounced', c = 'cancelled', d = 'delivered', f = 'deferred', h = 'held', r = 'returned', s = 'suppressed', x = 'expired'
}

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

register('bypost_settle', settle)
register('bypost_dead', dead)
