-- retry.lua: what waits: records in lists by time, and their way back into a stream.

local RETRY_STREAM_ENTRIES = 4096    -- promotion waits while a retry stream is longer
local PROMOTE_BYTES = 4194304        -- a call moves no more than this
local PROMOTE_BUCKETS = 1024         -- nor looks at more buckets
local JOB_RECIPIENTS = 500
local PROMOTE_ASIDE_MS = 1000        -- a bucket for which there is no room steps aside for so long: others must not wait behind it

-- Records, and who waits in them. A `history` is ORIGIN ... INDEXES, a `tail` SITE CLASS PROVIDER.
local lists = {}

-- How many recipients "0-3,7" names.
function lists.size(indexes)
    if indexes:find('^%d+$') then
        return 1
    end
    local size = 0
    for first, last in indexes:gmatch('(%d+)%-?(%d*)') do
        size = size + (last == '' and 1 or math.max(1, tonumber(last) - tonumber(first) + 1))
    end
    return math.min(size, JOB_RECIPIENTS) -- a wild number would be refused by Redis's counters, and stop what moves the record
end

-- Appends a record. kind J: the job is whole, S: it holds the recipients of the history only. A large whole job is kept beside the lists once, counted.
function lists.add(base, list, queue, history, tail, kind, job)
    if kind == 'J' and #job > KEEP_BYTES then
        local keep = queue .. '/' .. history:match('^%S+')
        if redis.call('HINCRBY', base .. 'kept:count', keep, 1) == 1 then
            redis.call('HSET', base .. 'kept', keep, job)
        end
        kind, job = 'K', keep
    end
    redis.call('RPUSH', list, history .. ' ' .. tail .. '\n' .. kind .. job)
end

-- What a record says: history, recipients, tail, kind, and what is behind the kind. nil when it makes no sense.
function lists.read(record)
    local head, kind, rest = record:match('^([^\n]*)\n([JSK])(.*)$')
    local history, indexes, tail = (head or ''):match('^(%S+ %d+ %d+ %d+ %d+ ([%d,-]+)) ?(.*)$')
    if history then
        return history, lists.size(indexes), tail, kind, rest
    end
end

-- Takes a record that has left its list apart, with what is kept for it: history, recipients, tail, the field of the entry that it becomes (r or s), job.
-- history nil: it makes no sense; job nil: it is lost.
function lists.take(base, record)
    local history, recipients, tail, kind, job = lists.read(record)
    if kind == 'K' then
        local keep = job
        job = redis.call('HGET', base .. 'kept', keep) or nil
        if redis.call('HINCRBY', base .. 'kept:count', keep, -1) <= 0 then
            redis.call('HDEL', base .. 'kept', keep)
            redis.call('HDEL', base .. 'kept:count', keep)
        end
    end
    return history, recipients, tail, kind == 'S' and 's' or 'r', job
end

-- Recipients that begin (or, below 0, end) to wait: kind retrying, parked or held. `tally` is a table of the call's own; lists.flush writes it.
function lists.note(tally, queue, kind, tail, recipients)
    local counter = queue .. ' ' .. kind
    tally.queues, tally.tails = tally.queues or {}, tally.tails or {}
    tally.queues[counter] = (tally.queues[counter] or 0) + recipients
    tally.tails[tail] = (tally.tails[tail] or 0) + recipients
end

function lists.flush(base, tally)
    for counter, recipients in pairs(tally.queues or {}) do
        local queue, kind = counter:match('^(.*) (%a+)$')
        if recipients ~= 0 and redis.call('HINCRBY', base .. 'queue:' .. queue, kind, recipients) < 0 then
            redis.call('HSET', base .. 'queue:' .. queue, kind, 0)
        end
    end
    for tail, recipients in pairs(tally.tails or {}) do
        local site, class, provider = tail:match('^(%S+) (%S+) (%S+)$')
        for name, value in pairs({site = site, class = class, provider = provider}) do
            if recipients ~= 0 and value ~= '-' and redis.call('HINCRBY', base .. 'waiting', name .. ':' .. value, recipients) <= 0 then
                redis.call('HDEL', base .. 'waiting', name .. ':' .. value)
            end
        end
    end
end

-- A record becomes an entry of its queue's retry stream, or a dead letter; its recipients wait no more. Returns the bytes that it took.
function lists.promote(base, queue, kind, record, tally)
    local history, recipients, tail, field, job = lists.take(base, record)
    if history then
        lists.note(tally, queue, kind, tail, -recipients)
    end
    if history and job then
        redis.call('XADD', base .. 'q:retry:' .. queue, '*', 'job', job, field, history)
        return #job
    end
    redis.call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_ENTRIES, '*', 'queue', queue, 'stream', 'retry:' .. queue, 'entry', '',
               'reason', 'the job of this retry is lost', 'bytes', 0, 'job', record:sub(1, DEAD_JOB_BYTES))
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'dead', recipients or 1)
    if history and math.floor(tonumber(history:match('^%S+ %d+ %d+ %d+ (%d+)')) / 8) % 2 == 1 then
        redis.call('HINCRBY', base .. 'stats', 'depth', -recipients)
    end
    return #record
end

-- A queue that has retries to read comes into the fair order, unless it is stopped. Who reads the order looks at not_before, window and rate.
function lists.wake(base, queue)
    if not STANDARD[queue] then
        local state = redis.call('HGET', base .. 'queue:' .. queue, 'state')
        if state ~= 'paused' and state ~= 'cancelled' then
            local first = redis.call('ZRANGE', base .. 'active', 0, 0, 'WITHSCORES')
            redis.call('ZADD', base .. 'active', 'NX', first[2] or 0, queue)
        end
    end
end

-- ARGV: base, stream, queue, ID, bucket's ms, head, ranges. A whole entry goes to the time buckets. 1, or 0 when it is gone.
local function schedule(keys, args)
    local base, stream, queue, id, member = args[1], args[2], args[3], args[4], args[3] .. ':' .. args[5]
    local key = base .. 'q:' .. stream
    local job = entry_job(key, id)
    if not job then
        entry_delete(base, key, stream, id)
        return 0
    end
    local tally = {}
    lists.add(base, base .. 'retry:' .. member, queue, args[6] .. ' ' .. args[7], '- - -', 'J', job)
    lists.note(tally, queue, 'retrying', '- - -', lists.size(args[7]))
    redis.call('ZADD', base .. 'due', args[5], member)
    entry_delete(base, key, stream, id)
    redis.call('HDEL', base .. 'progress', stream .. '/' .. id)
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'scheduled', 1)
    lists.flush(base, tally)
    return 1
end

-- ARGV: base, now in ms, records to move at most. What is due becomes entries of q:retry:NAME. Returns records moved, and when the next bucket is due (-1: none).
local function promote(keys, args)
    local base, now, limit = args[1], tonumber(args[2]), tonumber(args[3])
    local due = base .. 'due'
    local moved, bytes, offset, looked, room, tally = 0, 0, 0, 0, {}, {}
    while moved < limit and bytes < PROMOTE_BYTES and looked < PROMOTE_BUCKETS do
        local members = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', offset, 64)
        if #members == 0 then
            break
        end
        for i = 1, #members do
            local member = members[i]
            local queue, hold = member:match('^([^:]*):%d+:?(.*)$')
            queue = queue or ''
            local list = base .. 'retry:' .. member
            room[queue] = room[queue] or RETRY_STREAM_ENTRIES - redis.call('XLEN', base .. 'q:retry:' .. queue)
            local empty, before = false, moved
            while not empty and moved < limit and bytes < PROMOTE_BYTES and room[queue] > 0 do
                local records = redis.call('LPOP', list, math.min(16, limit - moved))
                empty = not records
                for j = 1, records and #records or 0 do
                    bytes = bytes + lists.promote(base, queue, hold == '' and 'retrying' or 'held', records[j], tally)
                    moved = moved + 1
                    room[queue] = room[queue] - 1
                end
            end
            if empty then
                redis.call('ZREM', due, member)
                if hold and hold ~= '' then
                    redis.call('SREM', base .. 'hold:' .. hold, member)
                end
            elseif room[queue] <= 0 then
                redis.call('ZADD', due, 'XX', string.format('%.0f', now + PROMOTE_ASIDE_MS), member)
                looked = looked + 1
            else
                offset, looked = offset + 1, looked + 1
            end
            if empty or moved > before then
                lists.wake(base, queue)
            end
        end
    end
    lists.flush(base, tally)
    local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    return {moved, next_due[2] and tonumber(next_due[2]) or -1}
end

register('bypost_schedule', schedule)
register('bypost_promote', promote)
