#!lua name=bypost
-- common.lua: what all parts of the Function library share. The parts follow one another in one text (meson.build): a name that is local here is known in all.
-- README.md beside it describes the keys. Only the Redis 7.0 command set. Every function is flagged allow-oom unless it says otherwise: a full Redis must still drain.

local VERSION = 4
local GROUP = 'senders'
local KEEP_BYTES = 2048              -- a longer job is kept once for all its waiting retries
local DEAD_JOB_BYTES = 65536         -- of a job that cannot be understood, so much is shown
local DEAD_ENTRIES = 10000
local STANDARD = {high = true, normal = true, bulk = true}

local function field_of(fields, name)
    for i = 1, #fields, 2 do
        if fields[i] == name then
            return fields[i + 1]
        end
    end
end

-- The job's bytes, or nil when the entry is gone.
local function entry_job(key, id)
    local found = redis.call('XRANGE', key, id, id)
    if found[1] then
        return field_of(found[1][2], 'job')
    end
end

-- {0, 1, 2, 7} -> "0-2,7"
local function ranges_of(indexes)
    table.sort(indexes)
    local parts, first, last = {}, indexes[1], indexes[1]
    for i = 2, #indexes + 1 do
        local index = indexes[i]
        if index ~= last + 1 then
            parts[#parts + 1] = first == last and tostring(first) or (first .. '-' .. last)
            first = index
        end
        last = index
        if not index then
            break
        end
    end
    return table.concat(parts, ',')
end


local function entry_delete(base, key, stream, id)
    redis.call('XACK', key, GROUP, id)
    local deleted = redis.call('XDEL', key, id)
    return deleted == 1
end

-- Does this entry still wait to be settled? The pending list is asked first: its answer does not carry the job.
local function entry_exists(key, id)
    local pending = redis.pcall('XPENDING', key, GROUP, id, id, 1)
    if not pending.err and pending[1] then
        return true
    end
    return redis.call('XRANGE', key, id, id)[1] ~= nil
end

local function events_trim(base, maximum)
    if maximum > 0 then
        local trimmed = redis.call('XTRIM', base .. 'events', 'MAXLEN', '~', maximum)
        if trimmed > 0 then
            redis.call('HINCRBY', base .. 'stats', 'events_trimmed', trimmed)
        end
    end
end

local function register(name, callback)
    redis.register_function{function_name = name, callback = callback, flags = {'allow-oom'}}
end
redis.register_function{function_name = 'bypost_version', callback = function() return VERSION end, flags = {'no-writes', 'allow-oom', 'allow-stale'}}
