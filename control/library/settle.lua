-- settle.lua: outcomes, in batches, each once; dead letters.

local COUNTERS = {
    a = 'accepted', b = 'bounced', c = 'cancelled', d = 'delivered', f = 'deferred', r = 'returned', s = 'suppressed', x = 'expired'
}
local WAITS = {f = 'retrying', h = 'held', p = 'parked', r = 'retrying'} -- actions after which the recipient waits, and as what

-- What a call of bypost_settle works on, in one table: `args`, `base`, `fenced`, and what it counts. `ones`: bits set in a byte.
local batch = {ones = {[0] = 0}}
for byte = 1, 255 do
    batch.ones[byte] = batch.ones[(byte - byte % 2) / 2] + byte % 2
end

-- A dead or departed node's commits wait for nobody: its entries are others' now.
function batch.is_fenced(base, node, epoch)
    local known = epoch ~= '0' and redis.call('HGET', base .. 'nodes', node)
    if not known then
        return false
    end
    local current, state = known:match('^(%S+) %S+ ?(%S*)')
    return current ~= epoch or state == 'dead' or state == 'left'
end

-- So many recipients ended so. `charge`: how the submit Function counted them: '' not at all, else n (in depth) or - and the ID of a counted content.
function batch.count(queue, action, charge, recipients)
    local counts = batch.queues[queue]
    if not counts then
        counts = {}
        batch.queues[queue] = counts
    end
    counts[action] = (counts[action] or 0) + recipients
    if charge ~= '' and not WAITS[action] then
        batch.charges[charge] = (batch.charges[charge] or 0) + recipients
    end
end

function batch.event(event)
    if event ~= '' then
        redis.call('XADD', batch.events_key, '*', 'event', event)
        batch.events = batch.events + 1
    end
end

function batch.notice(notice)
    if notice ~= '' then
        redis.call('XADD', batch.base .. 'q:normal', '*', 'job', notice)
    end
end

-- Takes charges off: depth, and contents.
function batch.discharge(base, charges)
    local depth = 0
    for charge, recipients in pairs(charges) do
        if charge:sub(1, 1) == 'n' then
            depth = depth + recipients
        end
        if #charge > 1 then
            redis.call('HINCRBY', base .. 'contents', charge:sub(2), -recipients)
        end
    end
    if depth > 0 then
        redis.call('HINCRBY', base .. 'stats', 'depth', -depth)
    end
end

-- Adds the record of `recipients` to where it waits. args from `at`: ms, where (a hold's id, a site, or ''), history, tail.
function batch.wait(queue, action, at, recipients, kind, job)
    local base, args = batch.base, batch.args
    local ms, where, tail = args[at], args[at + 1], args[at + 3]
    local list
    if action == 'p' then
        list = 'park:' .. queue .. ':' .. where
        redis.call('ZADD', base .. 'parked', 'LT', ms, queue .. ':' .. where)
    elseif action == 'h' and where == '' then
        list = 'held:' .. queue
    else
        local member = queue .. ':' .. ms
        if where ~= '' and redis.call('HEXISTS', base .. 'holds', where) == 1 then
            member = member .. ':' .. where
            redis.call('SADD', base .. 'hold:' .. where, member)
        elseif where ~= '' then -- the hold ended meanwhile: due at once
            local time = redis.call('TIME')
            ms, action = time[1] .. '000', 'r'
            member = queue .. ':' .. ms
        end
        list = 'retry:' .. member
        redis.call('ZADD', base .. 'due', ms, member)
    end
    lists.add(base, base .. list, queue, args[at + 2], tail, kind, job)
    lists.note(batch.tally, queue, WAITS[action], tail, recipients)
end

-- Entries of one recipient each, with the same end: stream, queue, charge, action, how many, their IDs, 0 or as many events. The entry itself is the progress.
function batch.singles(at)
    local args, status = batch.args, batch.status
    local queue, charge, action, count = args[at + 2], args[at + 3], args[at + 4], tonumber(args[at + 5])
    local key, first = batch.base .. 'q:' .. args[at + 1], at + 6
    local events, fresh = tonumber(args[first + count]), 0
    if redis.call('XACK', key, GROUP, unpack(args, first, first + count - 1)) == count then
        redis.call('XDEL', key, unpack(args, first, first + count - 1))
        fresh = count
        status[#status + 1] = string.rep('S', count)
        for i = 1, events do
            batch.event(args[first + count + i])
        end
    else
        for i = 0, count - 1 do
            local settled = redis.call('XDEL', key, args[first + i]) == 1
            status[#status + 1] = settled and 'S' or 'R'
            if settled then
                fresh = fresh + 1
                if events > 0 then
                    batch.event(args[first + count + 1 + i])
                end
            end
        end
    end
    if fresh > 0 then
        batch.count(queue, action, charge, fresh)
    end
    return first + count + 1 + events
end

-- One entry of one recipient that waits, or whose end has a notice: stream, queue, charge, action, ID, notice, event; for waits ms, where, history, tail.
function batch.single(at)
    local args = batch.args
    local queue, action, id = args[at + 2], args[at + 4], args[at + 5]
    local key, letter, after = batch.base .. 'q:' .. args[at + 1], 'R', at + (WAITS[action] and 12 or 8)
    if WAITS[action] and batch.fenced then
        letter = 'F'
    else
        if WAITS[action] then
            local found = redis.call('XRANGE', key, id, id)
            local fields = found[1] and found[1][2]
            local job = fields and field_of(fields, 'job')
            if job then -- before the entry goes: what a key of the wrong type makes fail here must not be lost
                batch.wait(queue, action, at + 8, 1, field_of(fields, 's') and 'S' or 'J', job)
                letter = 'S'
            end
        end
        redis.call('XACK', key, GROUP, id)
        if redis.call('XDEL', key, id) == 1 and (letter == 'S' or not WAITS[action]) then
            letter = 'S'
            batch.count(queue, action, args[at + 3], 1)
            batch.event(args[at + 7])
            batch.notice(args[at + 6])
        end
    end
    batch.status[#batch.status + 1] = letter
    return after
end

-- An entry of several as it stands: how many bits are set, and which. nil when it is gone.
function batch.progress(key, field, id, pending, sure)
    local progress = redis.call('HGET', batch.base .. 'progress', field)
    if progress then
        return progress:byte(1) + 256 * progress:byte(2), {progress:byte(3, -1)}
    elseif sure or entry_exists(key, id) then
        return 0, {}
    end
end

-- The letters of a group of which some were settled before: `letter` for the others. Its events go with those.
function batch.mixed(bits, skip, new, letter, events_at, events)
    local letters, number = {}, 0
    for i = 1, #bits do
        local byte, fresh = bits[i], new[i]
        while byte > 0 do
            local low = bit.band(byte, -byte)
            byte = byte - low
            local is_fresh = bit.band(fresh, low) ~= 0
            letters[#letters + 1] = is_fresh and letter or 'R'
            if is_fresh and letter == 'S' and events > 0 then
                batch.event(batch.args[events_at + number])
            end
            number = number + 1
        end
    end
    return table.concat(letters)
end

-- Some recipients of an entry of several: stream, queue, charge, ID, recipients of the entry, groups; then each group: action, the first byte of its bits,
-- its bits, how many are set, notice, 0 or as many events, they; for waits ms, where, history, tail, the text of the job for them or '' for all of it.
function batch.several(at)
    local args, base, status = batch.args, batch.base, batch.status
    local stream, queue, charge, id = args[at + 1], args[at + 2], args[at + 3], args[at + 4]
    local pending, groups = tonumber(args[at + 5]), tonumber(args[at + 6])
    local key, field = base .. 'q:' .. stream, stream .. '/' .. id
    at = at + 7
    -- What ends whole in this call is asked by its removal whether it was there.
    local whole = groups == 1 and not WAITS[args[at]] and tonumber(args[at + 3]) == pending
    local count, bits = batch.progress(key, field, id, pending, whole)
    local before, job, job_field = count, nil, nil
    local gone = not count
    if whole and count == 0 then
        local acked = redis.call('XACK', key, GROUP, id)
        gone = redis.call('XDEL', key, id) + acked == 0
    end
    for _ = 1, groups do
        local action, skip, size, notice, events = args[at], tonumber(args[at + 1]), tonumber(args[at + 3]), args[at + 4], tonumber(args[at + 5])
        local events_at, wait_at = at + 6, at + 6 + events
        local waits = WAITS[action]
        if gone then
            status[#status + 1] = string.rep('R', size)
        elseif waits and batch.fenced then
            status[#status + 1] = string.rep('F', size)
        else
            local mine, new, fresh = {args[at + 2]:byte(1, -1)}, {}, 0
            for missing = #bits + 1, skip + #mine do
                bits[missing] = 0
            end
            for i = 1, #mine do
                new[i] = bit.band(mine[i], bit.bnot(bits[skip + i]))
                fresh = fresh + batch.ones[new[i]]
            end
            local letter = 'S'
            if waits and fresh > 0 then
                local text = args[wait_at + 4]
                if fresh < size then
                    letter = 'A' -- each comes again by itself: this text is of all of them
                elseif text == '' then
                    if not job then
                        local found = redis.call('XRANGE', key, id, id)
                        local fields = found[1] and found[1][2] or {}
                        job, job_field = field_of(fields, 'job'), field_of(fields, 's') and 'S' or 'J'
                    end
                    letter = job and (job_field == 'J' or fresh == pending) and 'S' or 'A'
                end
                if letter == 'S' then
                    batch.wait(queue, action, wait_at, fresh, text == '' and job_field or 'S', text == '' and job or text)
                end
            end
            if fresh == size and letter == 'S' then
                status[#status + 1] = string.rep('S', size)
                for i = 0, events - 1 do
                    batch.event(args[events_at + i])
                end
            elseif fresh == 0 then
                status[#status + 1] = string.rep('R', size)
            else
                status[#status + 1] = batch.mixed(mine, skip, new, letter, events_at, events)
            end
            if fresh > 0 and letter == 'S' then
                for i = 1, #mine do
                    bits[skip + i] = bits[skip + i] + new[i]
                end
                count = count + fresh
                batch.count(queue, action, charge, fresh)
                batch.notice(notice)
            end
        end
        at = wait_at + (waits and 5 or 0)
    end
    if gone then
        return at
    elseif count >= pending then
        if not whole or before > 0 then
            entry_delete(base, key, stream, id)
        end
        if before > 0 then
            redis.call('HDEL', base .. 'progress', field)
        end
    elseif count > before then
        local low = count % 256
        redis.call('HSET', base .. 'progress', field, string.char(low, (count - low) / 256, unpack(bits)))
    end
    return at
end

-- ARGV: base, events to keep, node, its epoch (0: none); then sections, each begun by its letter: S (batch.singles), W (batch.single), E (batch.several).
-- Returns a letter an outcome, in their order: S settled, R settled before, F refused (of a node that is fenced, and not final), A to be sent again by itself.
local function settle(keys, args)
    batch.args, batch.base, batch.status, batch.queues, batch.charges, batch.tally, batch.events = args, args[1], {}, {}, {}, {}, 0
    batch.events_key = batch.base .. 'events'
    batch.fenced = batch.is_fenced(batch.base, args[3], args[4])
    local at, total = 5, #args
    while at <= total do
        local kind = args[at]
        if kind == 'S' then
            at = batch.singles(at)
        elseif kind == 'E' then
            at = batch.several(at)
        elseif kind == 'W' then
            at = batch.single(at)
        else
            return redis.error_reply('ARGUMENTS bypost_settle knows no section ' .. kind)
        end
    end
    local base = batch.base
    for queue, counts in pairs(batch.queues) do
        for action, times in pairs(counts) do
            if COUNTERS[action] then
                redis.call('HINCRBY', base .. 'queue:' .. queue, COUNTERS[action], times)
            end
        end
    end
    batch.discharge(base, batch.charges)
    lists.flush(base, batch.tally)
    if batch.events > 0 then
        events_trim(base, tonumber(args[2]))
    end
    local answer = table.concat(batch.status)
    batch.args, batch.status, batch.queues, batch.charges, batch.tally = nil, nil, nil, nil, nil
    return answer
end

-- ARGV: base, stream, queue, ID, reason, event or '', events to keep. An entry that cannot be understood goes to the dead letters. 1, or 0 when it is gone.
local function dead(keys, args)
    local base, stream, queue, id, reason = args[1], args[2], args[3], args[4], args[5]
    local key = base .. 'q:' .. stream
    local found = redis.call('XRANGE', key, id, id)
    if not found[1] then
        redis.call('XACK', key, GROUP, id)
        return 0
    end
    local fields = found[1][2]
    local job, history = field_of(fields, 'job') or '', field_of(fields, 'r') or field_of(fields, 's')
    local number = field_of(fields, 'n')
    local content = field_of(fields, 'c') or ''
    local recipients, flags = tonumber(number or '') or 1, (number or content ~= '') and 8 or 0
    if history then
        local said, indexes = history:match('^%S+ %d+ %d+ %d+ (%d+) ([%d,-]+)')
        recipients, flags = indexes and lists.size(indexes) or 1, tonumber(said or '') or 0
        if math.floor(flags / 2) % 2 == 1 and content == '' then
            content = job:match('"content"%s*:%s*"([%w._-]+)"') or ''
        end
    end
    local progress = redis.call('HGET', base .. 'progress', stream .. '/' .. id)
    if progress then -- the others ended before
        recipients = math.max(0, recipients - progress:byte(1) - 256 * progress:byte(2))
    end
    redis.call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_ENTRIES, '*', 'queue', queue, 'stream', stream, 'entry', id, 'reason', reason, 'bytes', #job,
               'job', job:sub(1, DEAD_JOB_BYTES))
    entry_delete(base, key, stream, id)
    redis.call('HDEL', base .. 'progress', stream .. '/' .. id)
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'dead', recipients)
    batch.discharge(base, {[(math.floor(flags / 8) % 2 == 1 and 'n' or '-') .. content] = recipients})
    if args[6] ~= '' then
        redis.call('XADD', base .. 'events', '*', 'event', args[6])
        events_trim(base, tonumber(args[7]))
    end
    return 1
end

register('bypost_settle', settle)
register('bypost_dead', dead)
