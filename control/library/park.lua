-- park.lua: the way back of what waits for room in its site's window.

local parking = {
    RECORDS = 512,     -- a call moves no more than this,
    BYTES = 4194304,   -- nor more of jobs
    ENDS_MS = 250,     -- what is let out to end is looked at again after this
    STOPPED_MS = 5000, -- a park of a queue that is stopped is looked at again after this
}

-- Must the first record of a list go, whatever room there is: it waited for longer than its queue tries?
function parking.is_old(list, cutoff)
    local first = redis.call('LINDEX', list, 0)
    return first and (tonumber(first:match('^%S+ %d+ (%d+) ')) or cutoff) < cutoff
end

-- ARGV: base, now in ms, then for each park: NAME:SITE, recipients wanted, when to look again (ms), and before when (ms) its records must have been
-- queued first to be given up. Records become entries of q:retry:NAME, in the order in which they came; all those of a queue that is discarded or has
-- expired, so that they end. Returns the recipients moved of each.
function parking.unpark(keys, args)
    local base, now, parked = args[1], tonumber(args[2]), args[1] .. 'parked'
    local moved, records, bytes, tally = {}, 0, 0, {}
    for i = 3, #args, 4 do
        local member, wanted, again, cutoff = args[i], tonumber(args[i + 1]) or 0, tonumber(args[i + 2]) or now + 1000, tonumber(args[i + 3]) or 0
        local name, list = member:match('^([^:]*):') or '', base .. 'park:' .. member
        local queue = redis.call('HMGET', base .. 'queue:' .. name, 'state', 'expires_at')
        local expires, count, before = tonumber(queue[2] or '') or 0, 0, records
        local ends = queue[1] == 'discarded' or (expires > 0 and expires <= now)
        if queue[1] == 'paused' or queue[1] == 'cancelled' then
            again = now + parking.STOPPED_MS
        else
            local room = RETRY_STREAM_ENTRIES - redis.call('XLEN', base .. 'q:retry:' .. name)
            while room > 0 and records < parking.RECORDS and bytes < parking.BYTES and (count < wanted or ends or parking.is_old(list, cutoff)) do
                local record = redis.call('LPOP', list)
                if not record then
                    break
                end
                local _, recipients = lists.read(record)
                bytes = bytes + lists.promote(base, name, 'parked', record, tally)
                count, records, room = count + (recipients or 1), records + 1, room - 1
            end
        end
        if redis.call('EXISTS', list) == 0 then
            redis.call('ZREM', parked, member)
        else
            again = ends and now + parking.ENDS_MS or count < wanted and math.min(again, now + 1000) or again
            redis.call('ZADD', parked, string.format('%.0f', again), member)
        end
        if records > before then
            lists.wake(base, name)
        end
        moved[#moved + 1] = count
    end
    lists.flush(base, tally)
    return moved
end

register('bypost_unpark', parking.unpark)
