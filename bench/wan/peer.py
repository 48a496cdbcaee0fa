#!/usr/bin/python3 -B
"""A TCP endpoint on the kernel's sockets with the options of bench/micro/bulk, so that the same script runs on either stack. Prints JSON."""
import argparse
import errno
import json
import selectors
import signal
import socket
import struct
import sys
import time

PERIOD = 65521  # a prime: bytes from a wrong place differ
BLOCK = bytes(((i * 2654435761 & 0xFFFFFFFF) >> 24 ^ (i * 2654435761 & 0xFFFFFFFF) >> 11) & 255 for i in range(PERIOD))
BLOCKS = memoryview(BLOCK * 18)
READ_BYTES = 1 << 20
WRITE_BYTES = 1 << 20
SLOW_READ_BYTES = 16384


class Conn:
    """One connection and what it has yet to do."""

    def __init__(self, sock, options, connected):
        self.sock = sock
        self.options = options
        self.sent = self.received = self.wrong = self.skipped = 0
        self.eof = self.shut = self.done = False
        self.error = "none"
        self.begin = time.monotonic()
        self.connected = connected
        self.last = self.begin
        sock.setblocking(False)
        if connected:
            self.established()

    def established(self):
        self.connected = True
        self.begin = self.last = time.monotonic()

    def age(self):
        return time.monotonic() - self.begin

    def left(self):
        """Bytes to send now."""
        if self.shut or (self.options.send_after_eof and not self.eof):
            return 0
        return self.options.send - self.sent

    def may_read(self):
        """How many bytes to read now."""
        if self.eof or self.age() * 1000 < self.options.read_wait_ms:
            return 0
        if self.options.read_rate == 0:
            return READ_BYTES
        allowed = int((self.age() - self.options.read_wait_ms / 1000) * self.options.read_rate) - self.received
        return min(allowed, SLOW_READ_BYTES) if allowed > 1024 else 0

    def fail(self, error):
        names = {errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timed out", errno.ECONNREFUSED: "refused",
                 errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable"}
        self.error = names.get(error, errno.errorcode.get(error, str(error)))
        self.done = True

    def reset(self, word):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.error = word
        self.done = True

    def read(self):
        room = self.may_read()
        if room == 0:
            return
        data = self.sock.recv(room)
        if not data:
            self.eof = True
            return
        at = self.received % PERIOD
        if data != BLOCKS[at:at + len(data)]:
            self.wrong += sum(a != b for a, b in zip(data, BLOCKS[at:at + len(data)]))
        self.received += len(data)
        self.last = time.monotonic()
        if self.last - self.begin < self.options.skip:
            self.skipped = self.received

    def write(self):
        left = min(self.left(), WRITE_BYTES)
        if left > 0:
            at = self.sent % PERIOD
            self.sent += self.sock.send(BLOCKS[at:at + left])

    def step(self, readable, writable):
        try:
            if not self.connected:
                error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    self.fail(error)
                elif writable:
                    self.established()
                return
            if readable:
                self.read()
            if writable:
                self.write()
            self.rules()
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(error.errno)

    def rules(self):
        """What follows from what has happened."""
        options = self.options
        if options.reset_after and self.sent + self.received >= options.reset_after:
            self.reset("aborted")
            return
        if options.seconds and self.age() >= options.seconds:
            self.reset("stopped")
            return
        sent_all = self.left() <= 0 and (self.eof or not options.send_after_eof)
        closes = self.age() * 1000 >= options.close_at_ms if options.close_at_ms else sent_all and (self.eof or not options.close_after_eof)
        if closes and not self.shut:
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True
        if self.shut and self.eof:
            self.done = True

    def events(self):
        if not self.connected:
            return selectors.EVENT_WRITE
        return (selectors.EVENT_READ if self.may_read() else 0) | (selectors.EVENT_WRITE if self.left() > 0 else 0)

    def summary(self):
        seconds = max(self.last - self.begin, 1e-6)
        return {"sent": self.sent, "received": self.received, "wrong": self.wrong, "eof": self.eof, "error": self.error,
                "seconds": round(self.age(), 6), "mbps_received": round(self.received * 8e-6 / seconds, 3),
                "mbps_after_skip": round((self.received - self.skipped) * 8e-6 / max(seconds - self.options.skip, 1e-6), 3)}


def prepare(sock, options):
    if options.congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    if options.buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.buffer)
    if options.nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def arguments():
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="ADDRESS")
    where.add_argument("--listen", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--count", type=int, default=1, help="connections, one after the other")
    parser.add_argument("--send", type=int, default=0, help="bytes")
    parser.add_argument("--send-after-eof", action="store_true")
    parser.add_argument("--close-after-eof", action="store_true")
    parser.add_argument("--close-at-ms", type=float, default=0)
    parser.add_argument("--reset-after", type=int, default=0, help="bytes, both ways")
    parser.add_argument("--read-wait-ms", type=float, default=0)
    parser.add_argument("--read-rate", type=int, default=0, help="bytes a second")
    parser.add_argument("--seconds", type=float, default=0, help="after them the connection is reset and the figures stand")
    parser.add_argument("--skip", type=float, default=0, help="seconds that mbps_after_skip leaves out")
    parser.add_argument("--limit", type=float, default=60, help="seconds for all")
    parser.add_argument("--congestion", default="")
    parser.add_argument("--buffer", type=int, default=0)
    parser.add_argument("--nodelay", action="store_true")
    return parser.parse_args()


def start_connect(options):
    sock = socket.socket(family_of(options.connect))
    prepare(sock, options)
    sock.setblocking(False)
    rc = sock.connect_ex((options.connect, options.port))
    conn = Conn(sock, options, False)
    if rc not in (0, errno.EINPROGRESS):
        conn.fail(rc)
    return conn


def start_listen(options):
    server = socket.socket(family_of(options.listen))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    prepare(server, options)
    server.bind((options.listen, options.port))
    server.listen(128)
    server.setblocking(False)
    return server


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = start_listen(options) if options.listen else None
    print("ready", flush=True)
    end = time.monotonic() + options.limit
    live, finished, started = [], [], 0
    while len(finished) < options.count and time.monotonic() < end:
        if server is None and not live and started < options.count:
            live.append(start_connect(options))
            started += 1
        selector = selectors.DefaultSelector()
        if server is not None:
            selector.register(server, selectors.EVENT_READ)
        for conn in live:
            if conn.events() and not conn.done:
                selector.register(conn.sock, conn.events(), conn)
        ready = {key.data: events for key, events in selector.select(0.01) if key.data}
        selector.close()
        if server is not None:
            try:
                while True:
                    live.append(Conn(server.accept()[0], options, True))
                    prepare(live[-1].sock, options)
            except BlockingIOError:
                pass
        for conn in live:
            events = ready.get(conn, 0)
            if not conn.done:
                conn.step(events & selectors.EVENT_READ, events & selectors.EVENT_WRITE)
            if conn.done:
                conn.sock.close()
                finished.append(conn)
        live = [conn for conn in live if not conn.done]
    for conn in live:
        conn.error = "unfinished"
        conn.sock.close()
    print(json.dumps({"stack": "linux", "connections": [conn.summary() for conn in finished + live]}), flush=True)


if __name__ == "__main__":
    main()
