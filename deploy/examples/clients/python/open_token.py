#!/usr/bin/python3
"""Opens unsubscribe tokens as `bypost token show` does, for the web server that takes the clicks: open_token.py KEYFILE TOKEN... (Debian: python3-cryptography)."""
import base64
import hmac
import json
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NAMES = {1: "recipient", 2: "tenant", 3: "campaign", 4: "list", 5: "id"}


def open_token(secret, token):
    """What a token says; cryptography.exceptions.InvalidTag (or ValueError) for one that is forged, damaged, or of another key."""
    data = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != token:
        raise ValueError("no token: each has one form only")
    if data[:1] != b"\x01":
        raise ValueError("no token of version 1")
    key = hmac.digest(secret, b"bypost token 1", "sha256")
    payload = AESGCM(key).decrypt(data[1:13], data[13:], data[:1])
    found = {}
    while payload:
        kind, value, payload = payload[0], payload[2:2 + payload[1]], payload[2 + payload[1]:]
        if kind in NAMES:
            found[NAMES[kind]] = value.decode()
        elif kind == 6:
            found["job"], found["shard"] = f"{int.from_bytes(value[:6], 'big')}-{int.from_bytes(value[6:10], 'big')}", value[10]
        elif kind == 7:
            found["index"] = int.from_bytes(value, "big")
    return found


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        identity_key = file.read(4096)
    for text in sys.argv[2:]:
        print(json.dumps(open_token(identity_key, text)))
