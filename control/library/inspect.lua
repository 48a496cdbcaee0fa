-- inspect.lua: what waits, for the eyes of operators: counts that cost a step each, never the recipients; and the search for one of them, in steps.

local inspect = {
    COUNT_RECORDS = 2000,      -- of a hold are read to know their recipients; the others are counted by the average
    SEEK_BYTES = 4194304,      -- a step of a search looks at no more
    SEEK_JOB_BYTES = 262144,   -- of a job that was found, so much is shown
    EDGES = {0, 60, 600, 3600, 21600, 86400} -- s: until when records wait
}

-- The queues: standard ones, campaigns by age, then what else is active (tenants' overflow). {names, next offset or -1}.
function inspect.names(base, offset, count)
    local standard, names = {'high', 'normal', 'bulk'}, {}
    while offset < #standard and #names < count do
        offset = offset + 1
        names[#names + 1] = standard[offset]
    end
    local campaigns = redis.call('ZCARD', base .. 'campaigns')
    if #names < count and offset - 3 < campaigns then
        for _, name in ipairs(redis.call('ZRANGE', base .. 'campaigns', offset - 3, offset - 4 + count - #names)) do
            names[#names + 1] = name
            offset = offset + 1
        end
    end
    if #names < count then
        local first = offset - 3 - campaigns
        local others = redis.call('ZRANGE', base .. 'active', first, first + count - #names - 1)
        for _, name in ipairs(others) do
            offset = offset + 1
            if not STANDARD[name] and not redis.call('ZSCORE', base .. 'campaigns', name) then
                names[#names + 1] = name
            end
        end
        if #others == 0 then
            offset = -1
        end
    end
    return names, offset
end

function inspect.queue(base, name)
    local flat, fields = redis.call('HGETALL', base .. 'queue:' .. name), {}
    for i = 1, #flat, 2 do
        fields[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1]
    end
    local function number(field)
        return tonumber(fields[field] or '') or 0
    end
    local entries, retries = redis.call('XLEN', base .. 'q:' .. name), redis.call('XLEN', base .. 'q:retry:' .. name)
    local first = redis.call('XRANGE', base .. 'q:' .. name, '-', '+', 'COUNT', 1)[1]
    local again = redis.call('XRANGE', base .. 'q:retry:' .. name, '-', '+', 'COUNT', 1)[1]
    local open = number('submitted')
    for _, counter in ipairs({'delivered', 'bounced', 'expired', 'suppressed', 'cancelled', 'dead', 'retrying', 'parked', 'held', 'moved'}) do
        open = open - number(counter)
    end
    local row = {
        queue = name, state = fields.state or 'running', entries = entries, retry_entries = retries,
        ready = entries + retries == 0 and 0 or math.max(open, entries + retries), -- recipients in the streams: counted ones, else one an entry
        retrying = number('retrying'), parked = number('parked'), held = number('held'), deciding = redis.call('LLEN', base .. 'held:' .. name),
        submitted = number('submitted'), delivered = number('delivered'), deferred = number('deferred'), bounced = number('bounced'),
        expired = number('expired'), suppressed = number('suppressed'), cancelled = number('cancelled'), dead = number('dead')
    }
    local oldest = math.min(first and tonumber(first[1]:match('^%d+')) or math.huge, again and tonumber(again[1]:match('^%d+')) or math.huge)
    row.oldest_ms = oldest < math.huge and oldest or nil
    return row
end

-- Of buckets behind a rank: {next rank or -1, records by EDGES and beyond}.
function inspect.due(base, rank, count, now)
    local members = redis.call('ZRANGE', base .. 'due', rank, rank + count - 1, 'WITHSCORES')
    local sums = {}
    for i = 1, #inspect.EDGES + 1 do
        sums[i] = 0
    end
    for i = 1, #members, 2 do
        local wait, edge = (tonumber(members[i + 1]) - now) / 1000, 1
        while edge <= #inspect.EDGES and wait > inspect.EDGES[edge] do
            edge = edge + 1
        end
        sums[edge] = sums[edge] + redis.call('LLEN', base .. 'retry:' .. members[i])
    end
    return {#members < 2 * count and -1 or rank + count, unpack(sums)}
end

-- {recipients, 1 when all were counted}.
function inspect.hold(base, id)
    local records, read, recipients = 0, 0, 0
    local members = redis.call('SRANDMEMBER', base .. 'hold:' .. id, 10000)
    for i = 1, #members do
        local list = base .. 'retry:' .. members[i]
        local length = redis.call('LLEN', list)
        records = records + length
        if read < inspect.COUNT_RECORDS then
            for _, record in ipairs(redis.call('LRANGE', list, 0, inspect.COUNT_RECORDS - read - 1)) do
                local _, size = lists.read(record)
                recipients = recipients + (size or 1)
                read = read + 1
            end
        end
    end
    if read == records then
        return {recipients, 1}
    end
    return {math.floor(recipients * records / math.max(read, 1) + 0.5), 0}
end

-- Does one of the needles stand in it?
function inspect.has(text, needles)
    text = text:lower()
    for i = 1, #needles do
        if text:find(needles[i], 1, true) then
            return true
        end
    end
    return false
end

-- Records `from`.. of a list. Adds {head, kind, job} of those that hold a needle to found; returns how many were looked at, and their bytes.
function inspect.list(base, list, from, count, needles, found, where)
    local records, bytes = redis.call('LRANGE', list, from, from + count - 1), 0
    for _, record in ipairs(records) do
        local head, kind, rest = record:match('^([^\n]*)\n(.)(.*)$')
        local job = kind == 'K' and redis.call('HGET', base .. 'kept', rest) or rest or ''
        bytes = bytes + #record
        if inspect.has((head or '') .. job, needles) then
            found[#found + 1] = {where, head or '', kind == 'S' and 's' or 'r', job:sub(1, inspect.SEEK_JOB_BYTES)}
        end
    end
    return #records, bytes
end

-- A step of the search through lists: `zset` names them, `cursor` is RANK:OFFSET. {next cursor or '', records looked at, found}.
function inspect.lists(base, zset, prefix, cursor, limit, needles)
    local rank, offset = cursor:match('^(%d+):(%d+)$')
    rank, offset = tonumber(rank or 0), tonumber(offset or 0)
    local looked, bytes, found, tries = 0, 0, {}, 0
    while looked < limit and bytes < inspect.SEEK_BYTES and tries < 1000 do
        tries = tries + 1
        local member = redis.call('ZRANGE', base .. zset, rank, rank)[1]
        if not member then
            return {'', looked, found}
        end
        local count = math.min(100, limit - looked)
        local got, size = inspect.list(base, base .. prefix .. member, offset, count, needles, found, member)
        looked, bytes, offset = looked + got, bytes + size, offset + got
        if got < count then
            rank, offset = rank + 1, 0
        end
    end
    return {rank .. ':' .. offset, looked, found}
end

-- The same of a stream; `cursor` is the last ID. Found are {stream, ID, job, progress, fields...}.
function inspect.stream(base, name, cursor, limit, needles)
    local entries = redis.call('XRANGE', base .. 'q:' .. name, cursor == '' and '-' or '(' .. cursor, '+', 'COUNT', math.min(limit, 100))
    local found = {}
    for _, entry in ipairs(entries) do
        local job = field_of(entry[2], 'job') or ''
        local history = field_of(entry[2], 'r') or field_of(entry[2], 's') or ''
        if inspect.has(entry[1] .. ' ' .. history .. ' ' .. job, needles) then
            found[#found + 1] = {name, entry[1], job:sub(1, inspect.SEEK_JOB_BYTES), redis.call('HGET', base .. 'progress', name .. '/' .. entry[1]) or '',
                                 field_of(entry[2], 'r') or '', field_of(entry[2], 's') or ''}
        end
    end
    return {entries[1] and entries[#entries][1] or '', #entries, found}
end

-- ARGV: base, what, more of it.
--   queues OFFSET COUNT [NAME]   {next offset or -1, JSON rows}
--   due RANK COUNT NOW           {next rank or -1, records due now, within a minute, 10 minutes, 1 h, 6 h, 24 h, later}
--   sums                         {recipients that wait for a time, by the counters of the first 1,000 queues}
--   hold ID                      {recipients that wait because of it, 1: exactly}
--   seek retry|park|held|stream NAME CURSOR LIMIT NEEDLES...   {next cursor or '', looked at, found}
local function inspect_call(keys, args)
    local base, what = args[1], args[2]
    if what == 'queues' then
        local names, offset = {args[5]}, -1
        if not args[5] then
            names, offset = inspect.names(base, tonumber(args[3]), tonumber(args[4]))
        end
        local rows = {}
        for i = 1, #names do
            rows[i] = inspect.queue(base, names[i])
        end
        return {offset, #rows == 0 and '[]' or cjson.encode(rows)}
    elseif what == 'due' then
        return inspect.due(base, tonumber(args[3]), tonumber(args[4]), tonumber(args[5]))
    elseif what == 'sums' then
        local sum, names = 0, inspect.names(base, 0, 1000)
        for _, name in ipairs(names) do
            local counts = redis.call('HMGET', base .. 'queue:' .. name, 'retrying', 'held')
            sum = sum + (tonumber(counts[1] or '') or 0) + (tonumber(counts[2] or '') or 0)
        end
        return {sum}
    elseif what == 'hold' then
        return inspect.hold(base, args[3])
    elseif what == 'seek' then
        local needles = {unpack(args, 7)}
        if args[3] == 'retry' then
            return inspect.lists(base, 'due', 'retry:', args[5], tonumber(args[6]), needles)
        elseif args[3] == 'park' then
            return inspect.lists(base, 'parked', 'park:', args[5], tonumber(args[6]), needles)
        elseif args[3] == 'stream' then
            return inspect.stream(base, args[4], args[5], tonumber(args[6]), needles)
        end
        local found, from = {}, tonumber(args[5]) or 0
        local got = inspect.list(base, base .. 'held:' .. args[4], from, math.min(100, tonumber(args[6])), needles, found, args[4])
        return {got == 0 and '' or tostring(from + got), got, found}
    end
    return redis.error_reply('ARGUMENTS what to inspect: queues, due, sums, hold or seek')
end

redis.register_function{function_name = 'bypost_inspect', callback = inspect_call, flags = {'no-writes', 'allow-oom'}}
