-- nodes.lua: who is there, whose work is taken over, and how limits are shared. Times are Redis's own: clocks of nodes do not matter.

local members = {}                   -- helpers of this part: the main chunk has few names to give
local MEMBER_FORGET_MS = 86400000    -- a node whose work is moved stays visible so long
local MEMBERS_MAX = 64
local PAGE_STREAMS = 16              -- queues a step looks at, where Redis keeps them in a table

function members.now()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- EPOCH LAST_BEAT_MS STATE INSTANCE SEEN. Instance: a process's own word. Seen: the highest epoch that its last beat was told of.
function members.parse(value)
    local epoch, beat, state, instance, seen = (value or ''):match('^(%d+) (%d+) (%a+) (%S+) (%d+)')
    return epoch and {epoch = epoch, beat = tonumber(beat), state = state, instance = instance, seen = tonumber(seen)}
end

function members.put(base, node, member)
    redis.call('HSET', base .. 'nodes', node,
               string.format('%s %.0f %s %s %.0f', member.epoch, member.beat, member.state, member.instance, member.seen))
end

function members.get(base, node)
    return members.parse(redis.call('HGET', base .. 'nodes', node))
end

-- One that no process ever had: above all before, and, should Redis lose its memory, above those too.
function members.epoch(base, now)
    local last = tonumber(redis.call('HGET', base .. 'stats', 'node_epoch') or '0') or 0
    local epoch = string.format('%.0f', math.max(last + 1, now))
    redis.call('HSET', base .. 'stats', 'node_epoch', epoch)
    return epoch
end

function members.holds(base, node, epoch)
    local member = members.get(base, node)
    return member and member.state == 'alive' and member.epoch == epoch
end

-- ARGV: base, node, epoch (0: register), instance, life in ms, 1 when the process has just started. Returns what became of it (ok; fenced: the epoch holds no
-- longer; used: another living process has this name; many), the epoch, and then each node's name and value.
function members.beat(keys, args)
    local base, node, epoch, instance, life = args[1], args[2], args[3], args[4], tonumber(args[5])
    local now, mine, highest, alive, status = members.now(), nil, 0, 0, 'ok'
    local all = redis.call('HGETALL', base .. 'nodes')
    for i = 1, #all, 2 do
        local member = members.parse(all[i + 1])
        if not member or (member.state == 'gone' and now - member.beat > MEMBER_FORGET_MS) then
            redis.call('HDEL', base .. 'nodes', all[i])
        elseif all[i] == node then
            mine = member
        elseif member.state == 'alive' then
            alive = alive + 1
            highest = math.max(highest, tonumber(member.epoch))
        end
    end
    if epoch == '0' then
        local other = mine and mine.state == 'alive' and now - mine.beat <= life and mine.instance ~= instance
        if other and args[6] ~= '1' then
            status = 'used'
        elseif alive >= MEMBERS_MAX then
            status = 'many'
        else
            mine = {epoch = members.epoch(base, now), state = 'alive', instance = instance}
        end
    elseif not mine or mine.epoch ~= epoch or mine.state ~= 'alive' then
        status = 'fenced'
    end
    if status == 'ok' then
        mine.beat, mine.seen = now, highest
        members.put(base, node, mine)
    end
    local answer = {status, status == 'ok' and mine.epoch or '0'}
    for _, word in ipairs(redis.call('HGETALL', base .. 'nodes')) do
        answer[#answer + 1] = word
    end
    return answer
end

-- ARGV: base, node, epoch. An orderly end: others need not wait for its death.
function members.leave(keys, args)
    local member = members.get(args[1], args[2])
    if not member or member.state ~= 'alive' or member.epoch ~= args[3] then
        return 0
    end
    member.state = 'left'
    members.put(args[1], args[2], member)
    return 1
end

-- Where queues are found: kind -> key and the kind behind it. Tenants' queues and those that a raw XADD made leave `active` while entries are under way.
members.pages = {c = {'campaigns', 't0'}, t = {'tenants', 'a0'}, a = {'active', 'r0'}, r = {'resting', 'd0'}, d = {'draining', ''}}

-- The names of some queues, and where the next ones are: 's' the standard ones, then a kind of members.pages with a cursor; '' behind the last.
function members.page(base, cursor)
    local kind, at = cursor:match('^(%a)(%d*)$')
    local page = members.pages[kind]
    if not page then
        return {'high', 'normal', 'bulk'}, 'c0'
    end
    local is_set = kind == 't'
    local found = redis.call(is_set and 'SSCAN' or 'ZSCAN', base .. page[1], at, 'COUNT', PAGE_STREAMS)
    local names = {}
    for i = 1, #found[2], is_set and 1 or 2 do
        names[#names + 1] = found[2][i]
    end
    return names, found[1] ~= '0' and kind .. found[1] or page[2]
end

-- Entries of one stream change hands. A consumer with nothing pending goes: with something pending its entries would go with it.
function members.claim(base, stream, from, to, limit)
    local key = base .. 'q:' .. stream
    local pending = redis.pcall('XPENDING', key, GROUP, '-', '+', limit, from)
    if pending.err then
        return 0 -- no such stream, or no group: nothing was read of it
    end
    if #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', key, GROUP, from)
        return 0
    end
    local command = {'XCLAIM', key, GROUP, to, 0}
    for i = 1, #pending do
        command[#command + 1] = pending[i][1]
    end
    command[#command + 1] = 'JUSTID'
    redis.call(unpack(command))
    return #pending
end

-- ARGV: base, node, epoch, the dead node, its epoch and last beat as they were seen, cursor ('s' first, 'e' when a whole pass moved nothing), entries to move.
-- Returns what (ok, fenced, alive: it is not dead after all), entries moved, the next cursor ('': the pass is over).
function members.takeover(keys, args)
    local base, node, dead, limit = args[1], args[2], args[4], tonumber(args[8])
    if not members.holds(base, node, args[3]) then
        return {'fenced', 0, ''}
    end
    local member = members.get(base, dead)
    if not member or member.state == 'gone' or dead == node then
        return {'alive', 0, ''}
    end
    if member.state == 'alive' then
        if member.epoch ~= args[5] or member.beat ~= tonumber(args[6]) then
            return {'alive', 0, ''}
        end
        member.state, member.epoch = 'dead', members.epoch(base, members.now()) -- the fence: the epoch that it knows is none any more
        members.put(base, dead, member)
    end
    if args[7] == 'e' then
        member.state, member.epoch = 'gone', members.epoch(base, members.now())
        members.put(base, dead, member)
        return {'ok', 0, ''}
    end
    local queues, next_cursor = members.page(base, args[7])
    local moved = 0
    for i = 1, #queues do
        for _, stream in ipairs({queues[i], 'retry:' .. queues[i]}) do
            if moved < limit then
                moved = moved + members.claim(base, stream, dead, node, limit - moved)
            end
        end
    end
    return {'ok', moved, moved >= limit and args[7] or next_cursor}
end

-- ARGV: base, life in ms, cursor. Consumers that have entries and never registered (of an earlier version, or of a Redis that lost its memory), or whose work
-- was thought to be moved, count as dead nodes from here on. Returns how many, and the next cursor.
function members.orphans(keys, args)
    local base, life = args[1], tonumber(args[2])
    local queues, next_cursor = members.page(base, args[3])
    local found = 0
    for i = 1, #queues do
        for _, stream in ipairs({queues[i], 'retry:' .. queues[i]}) do
            local consumers = redis.pcall('XINFO', 'CONSUMERS', base .. 'q:' .. stream, GROUP)
            for j = 1, consumers.err and 0 or #consumers do
                local name, pending, idle = field_of(consumers[j], 'name'), field_of(consumers[j], 'pending'), field_of(consumers[j], 'idle')
                local member = pending > 0 and idle > life and members.get(base, name)
                if member == nil or (member and member.state == 'gone') then
                    local now = members.now()
                    members.put(base, name, {epoch = members.epoch(base, now), beat = now, state = 'dead', instance = '-', seen = 0})
                    found = found + 1
                end
            end
        end
    end
    return {found, next_cursor}
end

-- Max-min fair: no asker gets more than it wants, and none more than another that wants more. The parts of all who want something, by name; what is left
-- over of whole numbers goes to some, in turns of 10 s where there is not one for each.
function members.divide(total, wants, now)
    local order, parts, left = {}, {}, total
    for name, want in pairs(wants) do
        if want > 0 then
            order[#order + 1] = name
        end
    end
    table.sort(order, function(a, b)
        return wants[a] < wants[b] or (wants[a] == wants[b] and a < b)
    end)
    for i = 1, #order do
        local count = #order - i + 1
        local fair = math.floor(left / count)
        if wants[order[i]] > fair then
            local over, turn = left - fair * count, fair == 0 and math.floor(now / 10000) or 0
            for j = i, #order do
                parts[order[j]] = fair + ((j - i + turn) % count < over and 1 or 0)
            end
            return parts
        end
        parts[order[i]] = wants[order[i]]
        left = left - wants[order[i]]
    end
    return parts
end

-- ARGV: base of the rates (PREFIX:{r}:rate:), node, life of a lease in ms; then for each limit: its name, and three times what there is of it in all, what
-- this node wants of it, and what it cannot give back yet. Returns three parts for each: of a total, never more than others have left.
-- A limit's key holds, by node, UNTIL_MS and three times WANT HAS.
function members.lease(keys, args)
    local base, node, life = args[1], args[2], tonumber(args[3])
    local now, answer = members.now(), {}
    for at = 4, #args - 9, 10 do
        local key = base .. args[at]
        local all = redis.call('HGETALL', key)
        local wants, taken, entry, mine = {{}, {}, {}}, {0, 0, 0}, {now + life}, 0
        for i = 1, #all, 2 do
            local numbers = {}
            for word in all[i + 1]:gmatch('%d+') do
                numbers[#numbers + 1] = tonumber(word)
            end
            if all[i] ~= node then
                if #numbers ~= 7 or numbers[1] <= now or numbers[1] > now + 2 * life then
                    redis.call('HDEL', key, all[i])
                else
                    for k = 1, 3 do
                        wants[k][all[i]] = numbers[2 * k]
                        taken[k] = taken[k] + numbers[2 * k + 1]
                    end
                end
            end
        end
        for k = 1, 3 do
            local total, want, held = tonumber(args[at + 3 * k - 2]), tonumber(args[at + 3 * k - 1]), tonumber(args[at + 3 * k])
            wants[k][node] = want
            local part = math.min(members.divide(total, wants[k], now)[node] or 0, math.max(0, total - taken[k]))
            answer[#answer + 1] = part
            entry[#entry + 1] = want
            entry[#entry + 1] = math.max(part, held)
            mine = mine + want + held
        end
        if mine == 0 then
            redis.call('HDEL', key, node)
        else
            for i = 1, #entry do
                entry[i] = string.format('%.0f', entry[i])
            end
            redis.call('HSET', key, node, table.concat(entry, ' '))
            redis.call('PEXPIRE', key, 2 * life)
        end
    end
    return answer
end

register('bypost_beat', members.beat)
register('bypost_leave', members.leave)
register('bypost_takeover', members.takeover)
register('bypost_orphans', members.orphans)
register('bypost_lease', members.lease)
