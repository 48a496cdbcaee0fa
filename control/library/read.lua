-- read.lua: reading of the streams, with their groups and progress.

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

register('bypost_read', read)
register('bypost_groups', groups)
register('bypost_retire', retire)
