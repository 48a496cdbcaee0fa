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

-- Entries that end whole, all in the same way: stream, queue, charge, action, how many, their IDs, their recipients (two bytes each; '' when each has one),
-- 0 or as many events as recipients. The entry itself is the progress.
function batch.whole(at)
    local args, status = batch.args, batch.status
    local stream, queue, charge, action, count = args[at + 1], args[at + 2], args[at + 3], args[at + 4], tonumber(args[at + 5])
    local key, first, sizes = batch.base .. 'q:' .. stream, at + 6, args[at + 6 + tonumber(args[at + 5])]
    local events, event_at, fresh = tonumber(args[first + count + 1]), first + count + 2, 0
    local known = sizes ~= '' and batch.known(stream, first, count) or {}
    local partly = false
    for i = 1, count do
        partly = partly or known[i]
    end
    local all = not partly and redis.call('XACK', key, GROUP, unpack(args, first, first + count - 1)) == count
    if all then
        redis.call('XDEL', key, unpack(args, first, first + count - 1))
    end
    for i = 1, count do
        local size = 1
        if sizes ~= '' then
            local low, high = sizes:byte(2 * i - 1, 2 * i)
            size = low + 256 * high
        end
        local letter = 'S'
        if known[i] then
            letter = 'A' -- some of it ended before: one by one
        elseif not all then
            local acked = partly and redis.call('XACK', key, GROUP, args[first + i - 1]) or 0
            letter = redis.call('XDEL', key, args[first + i - 1]) + acked > 0 and 'S' or 'R'
        end
        status[#status + 1] = size == 1 and letter or string.rep(letter, size)
        if letter == 'S' then
            fresh = fresh + size
            for event = event_at, events > 0 and event_at + size - 1 or 0 do
                batch.event(args[event])
            end
        end
        event_at = event_at + (events > 0 and size or 0)
    end
    if fresh > 0 then
        batch.count(queue, action, charge, fresh)
    end
    return event_at
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

-- The progress of `count` entries whose IDs begin at `first`: false where there is none.
function batch.known(stream, first, count)
    local fields = {}
    for i = 1, count do
        fields[i] = stream .. '/' .. batch.args[first + i - 1]
    end
    return redis.call('HMGET', batch.base .. 'progress', unpack(fields)), fields
end

-- Which of a group's bits are new: nil when all are, else their bytes; and how many they are of how many. `pairs_of`: position, bits, position, bits ...
-- behind the letter.
function batch.fresh(pairs_of, bits)
    local band, ones, new, count, size = batch.band, batch.ones, nil, 0, 0
    for i = 2, #pairs_of, 2 do
        local mine, before = pairs_of[i + 1], bits[pairs_of[i] + 1] or 0
        size = size + ones[mine]
        if before ~= 0 then
            local twice = band(mine, before)
            if twice ~= 0 then
                new = new or {}
                new[i] = mine - twice
                count = count - ones[twice]
            end
        end
    end
    return new, count + size, size
end

-- Sets them.
function batch.mark(pairs_of, bits, new)
    for missing = #bits + 1, pairs_of[#pairs_of - 1] + 1 do
        bits[missing] = 0
    end
    for i = 2, #pairs_of, 2 do
        local byte = pairs_of[i] + 1
        bits[byte] = bits[byte] + (new and new[i] or pairs_of[i + 1])
    end
end

-- The letters of a group of which some were settled before: `letter` for the others. Its events go with those.
function batch.mixed(pairs_of, new, letter, events_at, events)
    local letters, number, band = {}, 0, batch.band
    for i = 2, #pairs_of, 2 do
        local byte, fresh = pairs_of[i + 1], new and new[i] or pairs_of[i + 1]
        while byte > 0 do
            local low = band(byte, -byte)
            byte = byte - low
            local is_fresh = band(fresh, low) ~= 0
            letters[#letters + 1] = is_fresh and letter or 'R'
            if is_fresh and letter == 'S' and events > 0 then
                batch.event(batch.args[events_at + number])
            end
            number = number + 1
        end
    end
    return table.concat(letters)
end

-- Writes what a section of entries changed: their bits, or their end. Also after an error: what was recorded as waiting must not be recorded again.
function batch.write()
    local later = batch.later
    batch.later = nil
    if later then
        if later.open and later.count > 0 then -- an error in the midst of it
            later.set[#later.set + 1] = later.open
            later.set[#later.set + 1] = string.char(later.count % 256, math.floor(later.count / 256), unpack(later.bits))
        end
        if #later.set > 0 then
            redis.call('HSET', batch.base .. 'progress', unpack(later.set))
        end
        if #later.ended > 0 then
            redis.call('XACK', later.key, GROUP, unpack(later.ended))
            redis.call('XDEL', later.key, unpack(later.ended))
        end
        if #later.unset > 0 then
            redis.call('HDEL', batch.base .. 'progress', unpack(later.unset))
        end
    end
end

-- Some recipients of entries of several: stream, queue, charge, how many entries, their IDs; for each: its recipients, groups; then each group: action (a
-- capital: with a notice behind) and its bits, [notice], 0 or as many events as bits are set, they; for waits ms, where, history, tail, the text of the job for
-- them or '' for all of it.
function batch.several(at)
    local args, status, later = batch.args, batch.status, {set = {}, unset = {}, ended = {}}
    local stream, queue, charge, entries = args[at + 1], args[at + 2], args[at + 3], tonumber(args[at + 4])
    local key, first = batch.base .. 'q:' .. stream, at + 5
    local known, fields = batch.known(stream, first, entries)
    later.key, batch.later = key, later
    at = first + entries
    for entry = 1, entries do
        local id, progress, pending, groups = args[first + entry - 1], known[entry], tonumber(args[at]), tonumber(args[at + 1])
        local count, bits, job, job_field = 0, nil, nil, nil
        if progress then
            count, bits = progress:byte(1) + 256 * progress:byte(2), {progress:byte(3, -1)}
        elseif entry_exists(key, id) then
            bits = {}
        end
        local before = count
        at = at + 2
        later.open, later.count, later.bits = bits and fields[entry], count, bits
        for _ = 1, groups do
            local mine, notice = {args[at]:byte(1, -1)}, ''
            local action = string.char(mine[1])
            if mine[1] < 97 then
                action, at, notice = action:lower(), at + 1, args[at + 1]
            end
            local waits, events, events_at = WAITS[action], tonumber(args[at + 1]), at + 2
            local wait_at = events_at + events
            local new, fresh, size = batch.fresh(mine, bits or {})
            local letter = 'S'
            if not bits or fresh == 0 then
                letter = 'R'
            elseif waits and batch.fenced then
                letter = 'F'
            elseif waits then
                local text = args[wait_at + 4]
                if fresh < size then
                    letter = 'A' -- each comes again by itself: this text is of all of them
                elseif text == '' then
                    if not job then
                        local found = redis.call('XRANGE', key, id, id)
                        local values = found[1] and found[1][2] or {}
                        job, job_field = field_of(values, 'job'), field_of(values, 's') and 'S' or 'J'
                    end
                    letter = job and (job_field == 'J' or fresh == pending) and 'S' or 'A'
                end
                if letter == 'S' then
                    batch.wait(queue, action, wait_at, fresh, text == '' and job_field or 'S', text == '' and job or text)
                end
            end
            if letter == 'S' then
                batch.mark(mine, bits, new)
                count = count + fresh
                later.count = count
                batch.count(queue, action, charge, fresh)
                batch.notice(notice)
            end
            if letter == 'S' and fresh == size then
                status[#status + 1] = string.rep('S', size)
                for i = 0, events - 1 do
                    batch.event(args[events_at + i])
                end
            elseif letter == 'R' or letter == 'F' then
                status[#status + 1] = string.rep(letter, size)
            else
                status[#status + 1] = batch.mixed(mine, new, letter, events_at, events)
            end
            at = wait_at + (waits and 5 or 0)
        end
        later.open = nil
        if bits and count >= pending then
            later.ended[#later.ended + 1] = id
            if progress then
                later.unset[#later.unset + 1] = fields[entry]
            end
        elseif count > before then
            local low = count % 256
            later.set[#later.set + 1] = fields[entry]
            later.set[#later.set + 1] = string.char(low, (count - low) / 256, unpack(bits))
        end
    end
    batch.write()
    return at
end

function batch.run()
    local args, at = batch.args, 5
    local total = #args
    while at <= total do
        local kind = args[at]
        if kind == 'S' then
            at = batch.whole(at)
        elseif kind == 'E' then
            at = batch.several(at)
        elseif kind == 'W' then
            at = batch.single(at)
        else
            error({err = 'ARGUMENTS bypost_settle knows no section ' .. kind})
        end
    end
end

-- ARGV: base, events to keep, node, its epoch (0: none); then sections, each begun by its letter: S (batch.whole), W (batch.single), E (batch.several).
-- Returns a letter an outcome, in their order: S settled, R settled before, F refused (of a node that is fenced, and not final), A to be sent again by itself.
-- After an error what was done before it stands, and is counted: sent again it is answered with R.
local function settle(keys, args)
    local base = args[1]
    batch.args, batch.base, batch.status, batch.queues, batch.charges, batch.tally, batch.events = args, base, {}, {}, {}, {}, 0
    batch.events_key, batch.later, batch.band = base .. 'events', nil, bit.band -- which the library cannot name while it is loaded
    batch.fenced = batch.is_fenced(base, args[3], args[4])
    local done, fault = pcall(batch.run)
    if not done then
        batch.write()
    end
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
    local answer = done and table.concat(batch.status)
    batch.args, batch.status, batch.queues, batch.charges, batch.tally = nil, nil, nil, nil, nil
    if not done then
        return type(fault) == 'table' and fault or redis.error_reply(tostring(fault))
    end
    return answer
end

-- A number that anybody may have written: from 1 to `most`, or 1.
function batch.number(text, most)
    local number = tonumber(text or '')
    return number and number >= 1 and number <= most and math.floor(number) or 1
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
    local recipients, flags = batch.number(number, JOB_RECIPIENTS), (number or content ~= '') and 8 or 0
    if history then
        local said, indexes = history:match('^%S+ %d+ %d+ %d+ (%d+) ([%d,-]+)')
        recipients, flags = batch.number(indexes and lists.size(indexes), JOB_RECIPIENTS), said and tonumber(said) <= 15 and tonumber(said) or 0
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
