#!/usr/bin/python3
"""A campaign: send_campaign.py NAME < recipients.jsonl, a JSON object {"to", "merge_data"} a line. Run it again after a break, and it goes on."""
import hashlib
import itertools
import json
import sys

from bypost_queue import PREFIX, SHARDS, call, connect

CHUNK = 200

name = sys.argv[1]
content = json.dumps({"from": "Example News <news@example.org>", "subject": "{{first_name}}, the March letter", "text": "Dear {{first_name}}!\n"},
                     sort_keys=True)
content_id = hashlib.sha256(content.encode()).hexdigest()[:32]  # the same content is stored once
client = connect()
client.set(f"{PREFIX}:content:{content_id}", content)
for shard in range(SHARDS):
    call(client, "bypost_campaign_create", shard, name, "content", content_id, "weight", "1")
recipients = (json.loads(line) for line in sys.stdin if line.strip())
for number in itertools.count():
    chunk = list(itertools.islice(recipients, CHUNK))
    if not chunk:
        break
    job = {"content": content_id, "campaign": name, "recipients": chunk}
    call(client, "bypost_campaign_add", number % SHARDS, name, number, json.dumps(job), len(chunk), content_id)
    client.persist(f"{PREFIX}:content:{content_id}")  # while more is coming the content stays
for shard in range(SHARDS):
    call(client, "bypost_campaign_set", shard, name, "closed", "1")
print(name, "is complete")
