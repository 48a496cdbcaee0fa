-- retry.lua: what waits: records in lists by time, and their way back into a stream.

local RETRY_STREAM_ENTRIES = 4096    -- promotion waits while a retry stream is longer
local PROMOTE_BYTES = 4194304        -- a call moves no more than this
local PROMOTE_BUCKETS = 1024         -- nor looks at more buckets

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

register('bypost_schedule', schedule)
register('bypost_promote', promote)
