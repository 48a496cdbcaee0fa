-- hold.lua: what operators have stopped, and what they move by hand. Moving goes in steps: the caller asks again while there is more.

local HOLDS_MAX = 10000
local MOVE_BYTES = 4194304 -- of records a step

-- Everything of this part, in one local.
local hold = {}

function hold.changed(base)
    return redis.call('INCR', base .. 'version')
end

-- A list's member of `due` is due now. Its bucket stays where it is: the score alone says when.
function hold.due_now(base, member, now)
    if redis.call('EXISTS', base .. 'retry:' .. member) == 1 then
        redis.call('ZADD', base .. 'due', now, member)
        return 1
    end
    return 0
end

-- The queue of a member `NAME:MS` or `NAME:MS:HOLD` of `due`, and its hold.
function hold.member(member)
    local queue, id = member:match('^(.-):%d+:(.+)$')
    if queue then
        return queue, id
    end
    return member:match('^(.*):%d+$')
end

-- ARGV: base, the version that the caller knows or ''. Cheap while nothing changes. Returns the version, IDs of holds whose records are being let go, and,
-- when the version is another, queues that do not run {name, state, state_ms, grace_ms, 1 when it is finished} and holds {ID, JSON}.
function hold.state(keys, args)
    local base = args[1]
    local version = redis.call('GET', base .. 'version') or '0'
    local ending = redis.call('SRANDMEMBER', base .. 'ending', 16)
    if version == args[2] then
        return {version, ending}
    end
    local queues = {}
    local function look(queue)
        local found = redis.call('HMGET', base .. 'queue:' .. queue, 'state', 'state_ms', 'grace_ms', 'finished')
        if found[1] and found[1] ~= 'running' and found[1] ~= '' then
            queues[#queues + 1] = {queue, found[1], found[2] or '0', found[3] or '', found[4] and '1' or ''}
        end
    end
    for queue in pairs(STANDARD) do
        look(queue)
    end
    for _, queue in ipairs(redis.call('ZRANGE', base .. 'campaigns', 0, -1)) do
        if not STANDARD[queue] then
            look(queue)
        end
    end
    for _, queue in ipairs(redis.call('SMEMBERS', base .. 'tenants')) do
        look(queue)
    end
    local rules, flat = {}, redis.call('HGETALL', base .. 'holds')
    for i = 1, #flat, 2 do
        rules[#rules + 1] = {flat[i], flat[i + 1]}
    end
    return {version, ending, queues, rules}
end

-- ARGV: base, ID, JSON. 1 when it is new, 0 when it was there and is renewed.
function hold.set(keys, args)
    local base, id = args[1], args[2]
    local known = redis.call('HEXISTS', base .. 'holds', id)
    if known == 0 and redis.call('HLEN', base .. 'holds') >= HOLDS_MAX then
        return redis.error_reply('HOLDS_FULL there are ' .. HOLDS_MAX .. ' holds: release some')
    end
    redis.call('HSET', base .. 'holds', id, args[3])
    redis.call('SREM', base .. 'ending', id)
    hold.changed(base)
    return 1 - known
end

-- ARGV: base, ID, now in ms, members at most. The hold goes at once, its records become due in steps. Returns members left, and 1 when the hold was there.
function hold.finish(keys, args)
    local base, id, now, limit = args[1], args[2], args[3], tonumber(args[4]) or 100
    local was = redis.call('HDEL', base .. 'holds', id)
    local key = base .. 'hold:' .. id
    if was == 1 then
        hold.changed(base)
        redis.call('SADD', base .. 'ending', id)
    elseif redis.call('HEXISTS', base .. 'holds', id) == 1 then
        return {0, 0}
    end
    local members = redis.call('SPOP', key, limit)
    for i = 1, #members do
        hold.due_now(base, members[i], now)
    end
    local left = redis.call('SCARD', key)
    if left == 0 then
        redis.call('SREM', base .. 'ending', id)
    end
    return {left, was}
end

-- ARGV: base, queue, state_ms. The grace of a cancelled queue is over: its recipients end as they are read. 1, or 0 when it is not cancelled any more.
function hold.discard(keys, args)
    local base, queue = args[1], args[2]
    local key = base .. 'queue:' .. queue
    local found = redis.call('HMGET', key, 'state', 'state_ms')
    if found[1] ~= 'cancelled' or (found[2] or '0') ~= args[3] then
        return 0
    end
    redis.call('HSET', key, 'state', 'discarded')
    if not STANDARD[queue] then
        local first = redis.call('ZRANGE', base .. 'active', 0, 0, 'WITHSCORES')
        redis.call('ZADD', base .. 'active', 'NX', first[2] or 0, queue)
    end
    hold.changed(base)
    return 1
end

-- Does a record belong to what is moved? `what` is queue (all of it), site, provider, or text: one of the words stands in its job, without case.
function hold.record_is(base, what, words, record, now, scheduled)
    local head, kind, rest = record:match('^([^\n]*)\n(.)(.*)$')
    if not head then
        return false
    end
    local attempt, first, site, provider = head:match('^%S+ (%d+) (%d+) %S+ %S+ %S+ ?(%S*) ?%S* ?(%S*)')
    if not attempt then
        return false
    end
    if not scheduled and attempt == '0' and tonumber(first) > now then
        return false -- a job whose send_at is ahead
    end
    if what == 'queue' then
        return true
    elseif what == 'site' then
        return site == words[1]
    elseif what == 'provider' then
        return provider == words[1]
    end
    local job = kind == 'K' and redis.call('HGET', base .. 'kept', rest) or rest
    job = (job or ''):lower()
    for i = 1, #words do
        if job:find(words[i], 1, true) then
            return true
        end
    end
    return false
end

-- ARGV: base, due cursor ('0' first), now in ms, members at most, 'all' or '' (without jobs of a later send_at and records of holds), queue or '', 'whole' or ''.
-- With `whole` all buckets of a queue become due now, and with them, of a queue that is discarded, what awaits a decision. Returns the next cursor ('0': done), records moved, and the lists that must be gone through record by
-- record (bypost_move_list): member, length, ...
function hold.move(keys, args)
    local base, cursor, now, all, queue, moved, lists = args[1], args[2], args[3], args[5] == 'all', args[6], 0, {}
    if cursor == 'held' then
        local left = hold.decide(keys, {base, queue, now, args[4]})
        return {left > 0 and 'held' or '0', 0, {}}
    end
    local found = redis.call('ZSCAN', base .. 'due', cursor, 'COUNT', tonumber(args[4]))
    for i = 1, #found[2], 2 do
        local member, score = found[2][i], tonumber(found[2][i + 1])
        local of, id = hold.member(member)
        if of and (queue == '' or of == queue) and (all or not id) and score > tonumber(now) then
            local length = redis.call('LLEN', base .. 'retry:' .. member)
            if args[7] == 'whole' and (all or not redis.call('HGET', base .. 'queue:' .. of, 'scheduled')) then
                moved = moved + length
                hold.due_now(base, member, now)
            elseif length > 0 then
                lists[#lists + 1] = member
                lists[#lists + 1] = length
            end
        end
    end
    local ends = args[7] == 'whole' and all and found[1] == '0' and redis.call('HGET', base .. 'queue:' .. queue, 'state') == 'discarded'
    return {ends and redis.call('EXISTS', base .. 'held:' .. queue) == 1 and 'held' or found[1], moved, lists}
end

-- ARGV: base, member, now in ms, records at most, 'all' or '', what, words. From the list's front: what is wanted goes to a bucket of now, the rest to the
-- list's end: called until as many were looked at as were there. Returns records looked at, records moved.
function hold.move_list(keys, args)
    local base, member, now, all, words = args[1], args[2], args[3], args[5] == 'all', {}
    local queue, list, looked, moved, bytes = hold.member(member), base .. 'retry:' .. member, 0, 0, 0
    for i = 7, #args do
        words[#words + 1] = args[i]
    end
    local _, id = hold.member(member)
    local target = (queue or '') .. ':' .. now .. (id and ':' .. id or '')
    while queue and looked < tonumber(args[4]) and bytes < MOVE_BYTES do
        local record = redis.call('LPOP', list)
        if not record then
            break
        end
        local wanted = hold.record_is(base, args[6], words, record, tonumber(now), all)
        redis.call('RPUSH', wanted and (base .. 'retry:' .. target) or list, record)
        looked, moved, bytes = looked + 1, moved + (wanted and 1 or 0), bytes + #record
    end
    if moved > 0 then
        redis.call('ZADD', base .. 'due', now, target)
        if redis.call('EXISTS', list) == 0 then
            redis.call('ZREM', base .. 'due', member)
        end
    end
    return {looked, moved}
end

-- ARGV: base, queue, now in ms, records at most. What awaits a decision becomes due. Returns how many still wait.
function hold.decide(keys, args)
    local base, queue, now = args[1], args[2], args[3]
    local list, member, bytes, tally = base .. 'held:' .. queue, queue .. ':' .. now, 0, {}
    for _ = 1, tonumber(args[4]) do
        local record = bytes < MOVE_BYTES and redis.call('LPOP', list)
        if not record then
            break
        end
        bytes = bytes + #record
        redis.call('RPUSH', base .. 'retry:' .. member, record)
        redis.call('ZADD', base .. 'due', now, member)
        local history, recipients, tail = lists.read(record)
        if history then
            lists.note(tally, queue, 'held', tail, -recipients)
            lists.note(tally, queue, 'retrying', tail, recipients)
        end
    end
    lists.flush(base, tally)
    return redis.call('LLEN', list)
end

-- ARGV: base, cursor ('0' first), now in ms, members at most, queue or '', site or ''. Parks are looked at now. Returns the next cursor, and how many.
function hold.unpark(keys, args)
    local base, queue, site, count = args[1], args[5], args[6], 0
    local found = redis.call('ZSCAN', base .. 'parked', args[2], 'COUNT', tonumber(args[4]))
    for i = 1, #found[2], 2 do
        local of, at = found[2][i]:match('^(.-):(.*)$')
        if of and (queue == '' or of == queue) and (site == '' or at == site) and tonumber(found[2][i + 1]) > tonumber(args[3]) then
            redis.call('ZADD', base .. 'parked', args[3], found[2][i])
            count = count + 1
        end
    end
    return {found[1], count}
end

register('bypost_state', hold.state)
register('bypost_hold_set', hold.set)
register('bypost_hold_end', hold.finish)
register('bypost_discard', hold.discard)
register('bypost_move', hold.move)
register('bypost_move_list', hold.move_list)
register('bypost_decide', hold.decide)
register('bypost_unpark_now', hold.unpark)
