-- suppress.lua: addresses that get no mail. The base is PREFIX:{u}:suppress: here. A list (of a tenant; the empty one is for all tenants) is a linear hash: it has as
-- many hashes as keep LOAD entries in each, and grows by splitting one at a time, so that every hash stays a listpack (128 fields) whatever the list's size.
-- tenants: HASH tenant -> `ENTRIES HASHES`. log: STREAM of changes, each a line of what (+ added, - removed, ~ strikes only, t trust) and a line an address;
-- version: how many there ever were, so that a reader knows when it missed some. trust: HASH provider -> until when the guard believes it.

local suppress = {LOAD = 24, LOG = 500, SPLITS = 1000}

function suppress.open(base, tenant)
    local known = redis.call('HGET', base .. 'tenants', tenant) or ''
    local count, buckets = known:match('^(%d+) (%d+)$')
    local list = {base = base, tenant = tenant, key = base .. tenant .. ':', count = tonumber(count) or 0, buckets = tonumber(buckets) or 1, round = 1}
    while list.round * 2 <= list.buckets do
        list.round = list.round * 2
    end
    return list
end

function suppress.close(list)
    redis.call('HSET', list.base .. 'tenants', list.tenant, math.max(list.count, 0) .. ' ' .. list.buckets)
end

function suppress.hash(address)
    return tonumber(redis.sha1hex(address):sub(1, 8), 16)
end

-- The hash may come from who knows it: it costs more than all else here.
function suppress.bucket(list, address, hash)
    local bucket = (tonumber(hash) or suppress.hash(address)) % (list.round * 2)
    return list.key .. (bucket < list.buckets and bucket or bucket % list.round)
end

function suppress.grow(list, wanted)
    local splits = 0
    while wanted > list.buckets * suppress.LOAD and splits < suppress.SPLITS do
        splits = splits + 1
        local from, into = list.key .. (list.buckets - list.round), list.key .. list.buckets
        local all, moved, gone = redis.call('HGETALL', from), {}, {}
        for i = 1, #all, 2 do
            if suppress.hash(all[i]) % (list.round * 2) == list.buckets then
                moved[#moved + 1], moved[#moved + 2], gone[#gone + 1] = all[i], all[i + 1], all[i]
            end
        end
        for i = 1, #gone, 500 do
            redis.call('HSET', into, unpack(moved, 2 * i - 1, math.min(2 * i + 998, #moved)))
            redis.call('HDEL', from, unpack(gone, i, math.min(i + 499, #gone)))
        end
        list.buckets = list.buckets + 1
        if list.buckets == list.round * 2 then
            list.round = list.buckets
        end
    end
end

function suppress.note(base, what, lines)
    if #lines > 0 then
        redis.call('INCR', base .. 'version')
        redis.call('XADD', base .. 'log', 'MAXLEN', '~', suppress.LOG, '*', 'l', what .. '\n' .. table.concat(lines, '\n'))
    end
end

-- `REASON SOURCE SINCE EXPIRES PROVIDER`, times in seconds. A reason behind `!` counts strikes and suppresses nothing: `!REASON COUNT FIRST EXPIRES LAST`.
-- nil for what nobody here wrote, and for what has expired.
function suppress.parse(value, now)
    local reason, source, since, expires, provider = (value or ''):match('^(%S+) (%S+) (%d+) (%d+) (%S+)$')
    expires = tonumber(expires)
    if reason and (expires == 0 or expires > now) then
        return reason, source, tonumber(since), expires, provider
    end
end

-- ARGV: base, now (s), tenant, then addresses, or @domain for a whole one. For each false, or `t` (the tenant's list) or `g` (the list for all) and the entry.
local function suppressed(keys, args)
    local base, now = args[1], tonumber(args[2]) or 0
    local lists = {{'t ', suppress.open(base, args[3])}, {'g ', suppress.open(base, '')}}
    if args[3] == '' then
        table.remove(lists, 1)
    end
    local found = {}
    for i = 4, #args do
        found[i - 3] = false
        for _, pair in ipairs(lists) do
            local bucket = suppress.bucket(pair[2], args[i])
            local value = redis.call('HGET', bucket, args[i])
            local reason = value and suppress.parse(value, now)
            if value and not reason then
                redis.call('HDEL', bucket, args[i])
                pair[2].count, pair[2].changed = pair[2].count - 1, true
            elseif reason and reason:sub(1, 1) ~= '!' and not found[i - 3] then
                found[i - 3] = pair[1] .. value
            end
        end
    end
    for _, pair in ipairs(lists) do
        if pair[2].changed then
            suppress.close(pair[2])
        end
    end
    return found
end

-- ARGV: base, now (s), tenant, keep (1: what is on the list stays as it is), then three for each: the address's hash (its SHA-1's first 32 bits)
-- or nothing, the address, the entry. How many are new.
local function suppress_add(keys, args)
    local base, now, keep = args[1], tonumber(args[2]) or 0, args[4] == '1'
    local list, new, lines = suppress.open(base, args[3]), 0, {args[3]}
    for i = 6, #args - 1, 3 do
        local bucket = suppress.bucket(list, args[i], args[i - 1])
        local reason = keep and suppress.parse(redis.call('HGET', bucket, args[i]), now)
        if not reason or reason:sub(1, 1) == '!' then
            new = new + redis.call('HSET', bucket, args[i], args[i + 1])
            lines[#lines + 1] = args[i]
        end
    end
    if #lines > 1 then
        list.count = list.count + new
        suppress.grow(list, list.count)
        suppress.close(list)
        suppress.note(base, '+', lines)
    end
    return new
end

-- ARGV: base, tenant, how many entries will come. Splitting is cheap before they are there. 1 when there is room for so many, else 0: to be called again.
local function suppress_reserve(keys, args)
    local list, wanted = suppress.open(args[1], args[2]), tonumber(args[3]) or 0
    suppress.grow(list, wanted)
    suppress.close(list)
    return wanted > list.buckets * suppress.LOAD and 0 or 1
end

-- ARGV: base, tenant, strikes (1: only what counts strikes), then addresses. How many there were.
local function suppress_remove(keys, args)
    local base, list, lines = args[1], suppress.open(args[1], args[2]), {args[2]}
    for i = 4, #args do
        local bucket = suppress.bucket(list, args[i])
        local value = redis.call('HGET', bucket, args[i])
        if value and (args[3] ~= '1' or value:sub(1, 1) == '!') then
            redis.call('HDEL', bucket, args[i])
            lines[#lines + 1] = args[i]
        end
    end
    if #lines > 1 then
        list.count = list.count - (#lines - 1)
        suppress.close(list)
        suppress.note(base, '-', lines)
    end
    return #lines - 1
end

-- ARGV: base, now (s), tenant, address, reason, provider, strikes needed, over so many seconds at least, seconds between two that count, life of the count (s),
-- life of the entry (s; 0: for good). Returns 1 when this strike puts the address on the list.
local function suppress_strike(keys, args)
    local base, now, address, reason = args[1], tonumber(args[2]) or 0, args[4], args[5]
    local need, span, spacing, memory, life = tonumber(args[7]) or 1, tonumber(args[8]) or 0, tonumber(args[9]) or 0, tonumber(args[10]) or 0, tonumber(args[11]) or 0
    local list = suppress.open(base, args[3])
    local bucket = suppress.bucket(list, address)
    local known, count, first, _, last = suppress.parse(redis.call('HGET', bucket, address), now)
    if known and known:sub(1, 1) ~= '!' then
        return 0
    end
    if known == '!' .. reason then
        count, last = tonumber(count) or 0, tonumber(last) or 0
        if now - last < spacing then
            return 0
        end
    else
        count, first = 0, now
    end
    count = count + 1
    local ends = count >= need and now - first >= span
    local value = ends and table.concat({reason, 'class', now, life > 0 and now + life or 0, args[6]}, ' ') or
        table.concat({'!' .. reason, count, first, now + memory, now}, ' ')
    list.count = list.count + redis.call('HSET', bucket, address, value)
    suppress.grow(list, list.count)
    suppress.close(list)
    suppress.note(base, ends and '+' or '~', {args[3], address})
    return ends and 1 or 0
end

-- ARGV: base, now (s), tenant, first hash, how many, reason, provider (empty: any), since, until (s), dry (1: only counts). What the class table put there and fits
-- goes; so does what has expired. Returns how many hashes the list has, how many fitted, how many had expired.
local function suppress_undo(keys, args)
    local base, now, first = args[1], tonumber(args[2]) or 0, tonumber(args[4]) or 0
    local since_min, since_max, dry = tonumber(args[8]) or 0, tonumber(args[9]) or 0, args[10] == '1'
    local list, lines, expired = suppress.open(base, args[3]), {args[3]}, 0
    for index = first, math.min(first + (tonumber(args[5]) or 0), list.buckets) - 1 do
        local all, gone = redis.call('HGETALL', list.key .. index), {}
        for i = 1, #all, 2 do
            local reason, source, since, _, provider = suppress.parse(all[i + 1], now)
            if not reason then
                gone[#gone + 1] = all[i]
                expired = expired + 1
            elseif source == 'class' and (args[6] == '' or reason == args[6]) and (args[7] == '' or provider == args[7]) and since >= since_min and
                since <= since_max then
                gone[#gone + 1] = all[i]
                lines[#lines + 1] = all[i]
            end
        end
        if not dry then
            for i = 1, #gone, 500 do
                list.count = list.count - redis.call('HDEL', list.key .. index, unpack(gone, i, math.min(i + 499, #gone)))
            end
        end
    end
    if not dry then
        suppress.close(list)
        if #lines > 1 then
            suppress.note(base, '-', lines)
        end
    end
    return {list.buckets, #lines - 1, expired}
end

-- ARGV: base. Where a reader begins: version, the log's last ID, the lists, whom the guard trusts.
local function suppress_tail(keys, args)
    local last = redis.call('XREVRANGE', args[1] .. 'log', '+', '-', 'COUNT', 1)[1]
    return {redis.call('GET', args[1] .. 'version') or '0', last and last[1] or '0-0', redis.call('HGETALL', args[1] .. 'tenants'), redis.call('HGETALL', args[1] .. 'trust')}
end

-- ARGV: base, the last ID that was read, how many. The version, and entries of the log behind that ID: ID, text, ID, text...
local function suppress_log(keys, args)
    local flat = {}
    for _, entry in ipairs(redis.call('XRANGE', args[1] .. 'log', '(' .. args[2], '+', 'COUNT', args[3])) do
        flat[#flat + 1], flat[#flat + 2] = entry[1], field_of(entry[2], 'l') or ''
    end
    return {redis.call('GET', args[1] .. 'version') or '0', flat}
end

-- ARGV: base, provider, until (s; 0: no longer). What it says of unknown recipients is believed.
local function suppress_trust(keys, args)
    if args[3] == '0' then
        redis.call('HDEL', args[1] .. 'trust', args[2])
    else
        redis.call('HSET', args[1] .. 'trust', args[2], args[3])
    end
    suppress.note(args[1], 't', {args[2], args[3]})
    return 1
end

register('bypost_suppressed', suppressed)
register('bypost_suppress_add', suppress_add)
register('bypost_suppress_reserve', suppress_reserve)
register('bypost_suppress_remove', suppress_remove)
register('bypost_suppress_strike', suppress_strike)
register('bypost_suppress_undo', suppress_undo)
register('bypost_suppress_tail', suppress_tail)
register('bypost_suppress_log', suppress_log)
register('bypost_suppress_trust', suppress_trust)
