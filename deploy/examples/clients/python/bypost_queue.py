"""Where the queue is, and how its Functions are called. Needs python3-redis."""
import binascii
import os
import time

import redis

PREFIX = os.environ.get("BYPOST_PREFIX", "bypost")
SHARDS = int(os.environ.get("BYPOST_SHARDS", "1"))


def connect():
    if "REDIS_SOCKET" in os.environ:
        return redis.Redis(unix_socket_path=os.environ["REDIS_SOCKET"], decode_responses=True)
    return redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)


def base(shard):
    return f"{PREFIX}:{{{shard}}}:"


def shard_of(text):
    """An id's shard: its repeat must meet it there."""
    return binascii.crc_hqx(text.encode(), 0) % SHARDS


def call(client, function, shard, queue, *arguments, patience=600):
    """Calls a Function of a queue; while the queue is full it waits, at most `patience` seconds."""
    end, wait = time.monotonic() + patience, 0.1
    while True:
        try:
            return client.execute_command("FCALL", function, 1, f"{base(shard)}q:{queue}", base(shard), queue, *arguments)
        except redis.ResponseError as error:
            full = str(error).startswith(("QUEUE_FULL", "OOM")) or isinstance(error, redis.exceptions.OutOfMemoryError)
            if not full or time.monotonic() > end:
                raise
            time.sleep(wait)
            wait = min(wait * 2, 5)
