-- submit.lua: work from producers: once for each id, counted, and refused while the queue is full. Not allow-oom: what comes from outside must stop
-- before what drains the queue does.

local ID_SECONDS = 604800            -- so long a repeated id is known
local MEMORY_CHECK_BYTES = 1048576   -- after so many submitted bytes Redis is asked how full it is,
local MEMORY_CHECK_CALLS = 256       -- or after so many calls

local submit = {bytes = MEMORY_CHECK_BYTES, calls = 0} -- what this part shares with campaign.lua, and when memory was looked at

function submit.now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A queue that has something to read comes into the fair order, at the least time that is there. What is paused or cancelled stays out; who reads the
-- order looks at not_before, window and rate.
function submit.wake(base, queue)
    if STANDARD[queue] then
        return
    end
    local state = redis.call('HGET', base .. 'queue:' .. queue, 'state')
    if state ~= 'paused' and state ~= 'cancelled' then
        local first = redis.call('ZRANGE', base .. 'active', 0, 0, 'WITHSCORES')
        redis.call('ZADD', base .. 'active', 'NX', first[2] or 0, queue)
    end
end

-- nil, or the error that tells a producer to wait. `limits`, which control writes from its configuration: max_depth in recipients, max_memory as a
-- share of maxmemory (of the machine's memory where Redis has no maxmemory).
function submit.full(base, recipients, bytes)
    local limits = redis.call('HMGET', base .. 'limits', 'max_depth', 'max_memory')
    local most, share = tonumber(limits[1] or ''), tonumber(limits[2] or '')
    if most and most > 0 then
        local depth = tonumber(redis.call('HGET', base .. 'stats', 'depth') or '') or 0
        if depth + recipients > most then
            return redis.error_reply(string.format('QUEUE_FULL %.0f recipients wait and %.0f may: submit again later, or raise queue.max_depth', depth, most))
        end
    end
    submit.bytes, submit.calls = submit.bytes + bytes, submit.calls + 1
    if share and share > 0 and (submit.bytes >= MEMORY_CHECK_BYTES or submit.calls >= MEMORY_CHECK_CALLS) then
        local info = redis.call('INFO', 'memory')
        local used, maximum = tonumber(info:match('used_memory:(%d+)')), tonumber(info:match('maxmemory:(%d+)'))
        if maximum == 0 then
            maximum = tonumber(info:match('total_system_memory:(%d+)'))
        end
        if used > maximum * share then
            submit.bytes = MEMORY_CHECK_BYTES -- asked again by the next
            return redis.error_reply(string.format(
                'QUEUE_FULL Redis uses %.0f bytes of %.0f and producers may fill %.0f %%: submit again later, or raise maxmemory or queue.max_memory_percent',
                used, maximum, share * 100))
        end
        submit.bytes, submit.calls = 0, 0
    end
end

-- Appends an entry, with everything that counts it. Returns its ID.
function submit.append(base, queue, job, recipients, content)
    local fields = {'job', job, 'n', recipients} -- n tells settle that these count in depth
    if content ~= '' then
        fields[#fields + 1], fields[#fields + 2] = 'c', content
    end
    local id = redis.call('XADD', base .. 'q:' .. queue, '*', unpack(fields))
    if content ~= '' then
        redis.call('HINCRBY', base .. 'contents', content, recipients)
    end
    redis.call('HINCRBY', base .. 'queue:' .. queue, 'submitted', recipients)
    redis.call('HINCRBY', base .. 'stats', 'depth', recipients)
    submit.wake(base, queue)
    return id
end

-- What is wrong with a queue's name, the key it came with or a number of recipients; nil when nothing is.
function submit.fault(keys, base, queue, recipients)
    if not base or base:sub(-1) ~= ':' or not queue or keys[1] ~= base .. 'q:' .. queue then
        return redis.error_reply('ARGUMENTS KEYS[1] must be the base (PREFIX:{SHARD}:) with q: and the name of the queue behind it')
    end
    if queue == 'retry' or #queue > 47 or not queue:match('^[%w._-]+$') then
        return redis.error_reply("ARGUMENTS a queue's name has 1 to 47 letters, digits, '.', '_' or '-', and is not retry")
    end
    if not recipients or recipients < 1 or recipients > 500 or recipients % 1 ~= 0 then
        return redis.error_reply('ARGUMENTS a job has 1 to 500 recipients')
    end
end

-- nil, or why nothing can be added to a campaign.
function submit.closed(base, queue)
    if STANDARD[queue] then
        return
    end
    local known = redis.call('HMGET', base .. 'queue:' .. queue, 'created', 'closed', 'state')
    if not known[1] then
        return redis.error_reply('CAMPAIGN_UNKNOWN there is no campaign ' .. queue .. ': create it with `bypost campaign create` or bypost_campaign_create, or use high, normal or bulk')
    elseif known[3] == 'cancelled' or known[3] == 'discarded' then
        return redis.error_reply('CAMPAIGN_CLOSED the campaign ' .. queue .. ' is cancelled: submit to another, or undo it with `bypost campaign resume`')
    elseif known[2] == '1' then
        return redis.error_reply('CAMPAIGN_CLOSED the upload of the campaign ' .. queue .. ' is complete: create another for more recipients')
    end
end

-- KEYS: the queue's stream. ARGV: base, queue, job, its recipients, id or '', content ID or ''. Returns {entry ID, 'submitted'}; for an id that was there
-- in the last 7 days {its first entry's ID, 'repeated', its queue}.
function submit.submit(keys, args)
    local base, queue, job, recipients, id, content = args[1], args[2], args[3], tonumber(args[4] or '1'), args[5] or '', args[6] or ''
    local fault = submit.fault(keys, base, queue, recipients)
    if fault or not job or job == '' then
        return fault or redis.error_reply('ARGUMENTS give base, queue, job, recipients, id and content')
    end
    if id ~= '' then
        local before = redis.call('GET', base .. 'id:' .. id)
        if before then
            local first_queue, entry = before:match('^(%S+) (%S+)$')
            return {entry or '', 'repeated', first_queue or ''}
        end
    end
    fault = submit.closed(base, queue) or submit.full(base, recipients, #job)
    if fault then
        return fault
    end
    local entry = submit.append(base, queue, job, recipients, content)
    if id ~= '' then
        redis.call('SET', base .. 'id:' .. id, queue .. ' ' .. entry, 'EX', ID_SECONDS)
    end
    return {entry, 'submitted'}
end

redis.register_function{function_name = 'bypost_submit', callback = submit.submit}
