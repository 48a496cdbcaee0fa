-- campaign.lua: the life of a campaign: a queue of its own with stream, group and registration made together, filled by numbered chunks, stopped and
-- resumed by hand. Every function works on one shard; a client calls it on each.

local campaign = {CHUNKS_MAX = 16777216, LIST_MAX = 1000} -- a bitmap of 2 MiB at most

-- What a campaign's fields may be: nil when the value is good, else what it should be.
campaign.fields = {
    weight = function(value) value = tonumber(value) return not (value and value >= 0.01 and value <= 10000) and 'a number from 0.01 to 10000' or nil end,
    rate = function(value) value = tonumber(value) return not (value and value >= 0 and value < 1e9) and 'recipients a second, 0 for no limit' or nil end,
    not_before = function(value) return not value:match('^%d+$') and 'milliseconds since 1970' or nil end,
    expires_at = function(value) return not value:match('^%d+$') and 'milliseconds since 1970, 0 for none' or nil end,
    window = function(value)
        local from, to, offset = value:match('^(%d+)-(%d+) ([+-]?%d+)$')
        from, to, offset = tonumber(from), tonumber(to), tonumber(offset)
        local good = value == '' or (from and from < 1440 and to <= 1440 and from ~= to and math.abs(offset) <= 1440)
        return not good and 'MINUTE_FROM-MINUTE_TO OFFSET_MINUTES, or empty' or nil
    end,
    grace_ms = function(value) return not value:match('^%d+$') and 'milliseconds' or nil end,
    tenant = function(value) return #value > 31 and '31 bytes at most' or nil end,
    content = function(value) return #value > 63 and '63 bytes at most' or nil end,
    source = function(value) return #value > 512 and '512 bytes at most' or nil end,
    reason = function(value) return #value > 512 and '512 bytes at most' or nil end,
    closed = function(value) return value ~= '1' and '1' or nil end,
    state = function(value)
        return value ~= 'running' and value ~= 'paused' and value ~= 'cancelled' and value ~= 'discarded' and 'running, paused, cancelled or discarded' or nil
    end
}

-- Checks the pairs behind args[at]; an error or nil.
function campaign.pairs_fault(args, at)
    if (#args - at) % 2 ~= 0 then
        return redis.error_reply('ARGUMENTS give each field with its value')
    end
    for i = at + 1, #args, 2 do
        local check = campaign.fields[args[i]]
        local expected = not check and 'no field of a campaign' or check(args[i + 1])
        if expected then
            return redis.error_reply(string.format('ARGUMENTS %s: %s', tostring(args[i]), check and 'write ' .. expected or 'a campaign has no such field'))
        end
    end
end

function campaign.changed(base)
    return redis.call('INCR', base .. 'version')
end

-- KEYS: the queue's stream. ARGV: base, name, fields and values. {'created'}, or {'exists', its fields and values}: then nothing is changed.
function campaign.create(keys, args)
    local base, name = args[1], args[2]
    local fault = submit.fault(keys, base, name, 1) or campaign.pairs_fault(args, 2)
    if fault then
        return fault
    end
    local key = base .. 'queue:' .. name
    if STANDARD[name] then
        return redis.error_reply('ARGUMENTS ' .. name .. ' is a standard queue: choose another name for the campaign')
    elseif redis.call('HEXISTS', key, 'created') == 1 then
        return {'exists', unpack(redis.call('HGETALL', key))}
    elseif redis.call('EXISTS', key, keys[1]) > 0 then
        return redis.error_reply('CAMPAIGN_EXISTS there is a queue ' .. name .. ' that is no campaign: choose another name')
    end
    local full = submit.full(base, 1, 0)
    if full then
        return full
    end
    local now = string.format('%.0f', submit.now_ms())
    redis.call('XGROUP', 'CREATE', keys[1], GROUP, '0', 'MKSTREAM')
    redis.call('HSET', key, 'created', now, 'state', 'running', 'state_ms', now, 'chunks', 0)
    if #args > 2 then
        redis.call('HSET', key, unpack(args, 3))
    end
    redis.call('ZADD', base .. 'campaigns', now, name)
    campaign.changed(base)
    return {'created'}
end

-- KEYS: the queue's stream. ARGV: base, name, number of the chunk, job, its recipients, content ID or ''. {entry ID, 'submitted'}, or {'', 'repeated'} when
-- this chunk was there before.
function campaign.add(keys, args)
    local base, name, number, job, recipients, content = args[1], args[2], tonumber(args[3] or ''), args[4], tonumber(args[5] or ''), args[6] or ''
    local fault = submit.fault(keys, base, name, recipients)
    if fault then
        return fault
    elseif not job or job == '' or not number or number < 0 or number >= campaign.CHUNKS_MAX or number % 1 ~= 0 or STANDARD[name] then
        return redis.error_reply('ARGUMENTS give base, campaign, number of the chunk (below ' .. campaign.CHUNKS_MAX .. '), job, recipients and content')
    end
    local chunks = base .. 'chunks:' .. name
    if redis.call('GETBIT', chunks, number) == 1 then
        return {'', 'repeated'}
    end
    fault = submit.closed(base, name) or submit.full(base, recipients, #job)
    if fault then
        return fault
    end
    local entry = submit.append(base, name, job, recipients, content)
    redis.call('SETBIT', chunks, number, 1)
    local key = base .. 'queue:' .. name
    if number >= (tonumber(redis.call('HGET', key, 'chunks') or '') or 0) then
        redis.call('HSET', key, 'chunks', number + 1)
    end
    return {entry, 'submitted'}
end

-- KEYS: the queue's stream. ARGV: base, name, fields and values. {state before, state after, version}. A discarded campaign stays so.
function campaign.set(keys, args)
    local base, name = args[1], args[2]
    local fault = submit.fault(keys, base, name, 1) or campaign.pairs_fault(args, 2)
    if fault then
        return fault
    end
    local key = base .. 'queue:' .. name
    local known = redis.call('HMGET', key, 'created', 'state')
    if not known[1] then
        return redis.error_reply('CAMPAIGN_UNKNOWN there is no campaign ' .. name .. ': `bypost campaign list` shows them')
    end
    local before, after = known[2] or 'running', known[2] or 'running'
    local now = string.format('%.0f', submit.now_ms())
    for i = 3, #args, 2 do
        after = args[i] == 'state' and args[i + 1] or after
    end
    if before == 'discarded' and after ~= before then
        return redis.error_reply('CAMPAIGN_DISCARDED it is too late: the grace of the cancelled campaign ' .. name .. ' is over and what waited is ended; create it anew')
    end
    if #args > 2 then
        redis.call('HSET', key, unpack(args, 3))
    end
    if after ~= before then
        redis.call('HSET', key, 'state_ms', now)
    end
    if after == 'paused' or after == 'cancelled' then
        redis.call('ZREM', base .. 'active', name)
    elseif redis.call('XLEN', keys[1]) > 0 or redis.call('XLEN', base .. 'q:retry:' .. name) > 0 then
        redis.call('ZREM', base .. 'resting', name) -- for a rate, window or not_before that may be another by this
        submit.wake(base, name)
    end
    return {before, after, campaign.changed(base)}
end

-- How many of a campaign's recipients are not final, by its fields.
function campaign.open(fields)
    local open = tonumber(fields.submitted or '0')
    for _, counter in ipairs({'delivered', 'bounced', 'expired', 'suppressed', 'cancelled', 'dead'}) do
        open = open - (tonumber(fields[counter] or '') or 0)
    end
    return open
end

-- Its fields as {name = value}; notes the time when it is found finished for the first time.
function campaign.read(base, name)
    local flat, fields = redis.call('HGETALL', base .. 'queue:' .. name), {}
    for i = 1, #flat, 2 do
        fields[flat[i]] = flat[i + 1]
    end
    local entries = redis.call('XLEN', base .. 'q:' .. name) + redis.call('XLEN', base .. 'q:retry:' .. name)
    local ended = fields.closed == '1' or fields.state == 'discarded'
    if ended and not fields.finished and entries == 0 and campaign.open(fields) <= 0 then
        fields.finished = string.format('%.0f', submit.now_ms())
        redis.call('HSET', base .. 'queue:' .. name, 'finished', fields.finished)
    end
    fields.entries = tostring(entries)
    return fields
end

-- KEYS: campaigns. ARGV: base, a name or '' for all, how many to leave out, how many (1000 at most); the newest first. An array for each: its name, then
-- fields and values, `entries` among them: what stands in its streams.
function campaign.list(keys, args)
    local base, names = args[1], {args[2]}
    if not base or not args[2] or keys[1] ~= base .. 'campaigns' then
        return redis.error_reply('ARGUMENTS KEYS[1] must be the base (PREFIX:{SHARD}:) with campaigns behind it')
    end
    if args[2] == '' then
        local first, count = tonumber(args[3] or '0') or 0, math.min(tonumber(args[4] or '100') or 100, campaign.LIST_MAX)
        names = redis.call('ZREVRANGE', keys[1], first, first + count - 1)
    elseif redis.call('HEXISTS', base .. 'queue:' .. args[2], 'created') == 0 then
        names = {}
    end
    local listed = {}
    for i, name in ipairs(names) do
        listed[i] = {name}
        for field, value in pairs(campaign.read(base, name)) do
            listed[i][#listed[i] + 1] = field
            listed[i][#listed[i] + 1] = value
        end
    end
    return listed
end

-- KEYS: the queue's stream. ARGV: base, name. Takes away all that is kept of a campaign that is finished, or that never got a chunk. {'deleted', content}.
function campaign.delete(keys, args)
    local base, name = args[1], args[2]
    local fault = submit.fault(keys, base, name, 1)
    if fault then
        return fault
    end
    local fields = campaign.read(base, name)
    if not fields.created then
        return redis.error_reply('CAMPAIGN_UNKNOWN there is no campaign ' .. name .. ': `bypost campaign list` shows them')
    elseif not fields.finished and (fields.entries ~= '0' or campaign.open(fields) > 0) then
        return redis.error_reply('CAMPAIGN_BUSY the campaign ' .. name .. ' has recipients that wait: let it finish, or cancel it with --final first')
    end
    redis.call('DEL', keys[1], base .. 'q:retry:' .. name, base .. 'queue:' .. name, base .. 'chunks:' .. name)
    redis.call('ZREM', base .. 'active', name)
    redis.call('ZREM', base .. 'resting', name)
    redis.call('ZREM', base .. 'campaigns', name)
    campaign.changed(base)
    return {'deleted', fields.content or ''}
end

redis.register_function{function_name = 'bypost_campaign_create', callback = campaign.create}
redis.register_function{function_name = 'bypost_campaign_add', callback = campaign.add}
register('bypost_campaign_set', campaign.set)
register('bypost_campaign_list', campaign.list)
register('bypost_campaign_delete', campaign.delete)
