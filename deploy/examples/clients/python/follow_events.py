#!/usr/bin/python3
"""Outcomes as they happen: follow_events.py [LAST_ID [COUNT]] prints the ID, type and recipient of each, behind LAST_ID ($: from now on)."""
import json
import sys

from bypost_queue import SHARDS, base, connect

last = dict.fromkeys((base(shard) + "events" for shard in range(SHARDS)), sys.argv[1] if len(sys.argv) > 1 else "$")
left = int(sys.argv[2]) if len(sys.argv) > 2 else -1
client = connect()
while left != 0:
    for stream, entries in client.xread(last, count=1000, block=5000):
        for entry, fields in entries:
            event = json.loads(fields["event"])
            print(entry, event["type"], event["recipient"], event.get("response", {}).get("code", ""), flush=True)
            last[stream] = entry  # remember it where a restart finds it
            left -= 1
            if left == 0:
                sys.exit()
