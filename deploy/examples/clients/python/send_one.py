#!/usr/bin/python3
"""One message, once: send_one.py ID FROM TO SUBJECT TEXT. Run it again with the same ID, and nothing is sent twice."""
import json
import sys

from bypost_queue import call, connect, shard_of

identity, sender, recipient, subject, text = sys.argv[1:6]
job = {"id": identity, "from": sender, "to": recipient, "subject": subject, "text": text}
answer = call(connect(), "bypost_submit", shard_of(identity), "normal", json.dumps(job), 1, identity, "")
print(answer[0], answer[1])  # the entry's ID; `submitted` or `repeated`
