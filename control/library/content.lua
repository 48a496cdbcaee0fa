-- content.lua: shared contents that nobody waits for any more.

-- KEYS: contents. ARGV: base, content ID. Its count goes when it is 0. Returns the count that stands: 0, or recipients that need the content again.
register('bypost_content_forget', function(keys, args)
    local count = tonumber(redis.call('HGET', args[1] .. 'contents', args[2]) or '0') or 0
    if count <= 0 then
        redis.call('HDEL', args[1] .. 'contents', args[2])
        return 0
    end
    return count
end)
