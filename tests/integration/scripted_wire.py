"""One connection of a scripted server: bytes as they come and go, TLS by memory BIOs that may be broken anywhere, FIN, RST, single bytes."""
import asyncio
import socket
import ssl
import struct

LINE_MAX = 4096
LINGER_S = 20.0  # a connection that we only listen to ends after this
SPLIT_BURST = 4  # segments of one byte at a time: fewer than the first window has room for


class Gone(Exception):
    """The connection is over, by either side."""


class Wire:
    """Bytes of one connection. What is written leaves at once; in TLS as records of what each write was given."""

    def __init__(self, sock):
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.tls = self.incoming = self.outgoing = None
        self.buffer = b""
        self.read_bytes = 65536  # at a time
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def raw_read(self):
        try:
            data = await self.loop.sock_recv(self.sock, self.read_bytes)
        except OSError as error:
            raise Gone(str(error)) from None
        if not data:
            raise Gone("FIN")
        return data

    async def raw_write(self, data):
        try:
            await self.loop.sock_sendall(self.sock, data)
        except OSError as error:
            raise Gone(str(error)) from None

    async def raw_write_split(self, data):
        """A segment for each byte: a pause after each handful, so that the window has room for the next ones."""
        for index in range(len(data)):
            await self.raw_write(data[index : index + 1])
            if index % SPLIT_BURST == SPLIT_BURST - 1:
                await asyncio.sleep(0.001)

    async def more(self):
        """Waits for bytes and appends them to the buffer."""
        if self.tls is None:
            self.buffer += await self.raw_read()
            return
        while True:
            try:
                data = self.tls.read(65536)
                if not data:
                    raise Gone("close_notify")
                self.buffer += data
                return
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self.raw_read())
            except ssl.SSLError as error:
                raise Gone(str(error)) from None

    def has_more(self):
        """Is there something that has come and was not read?"""
        return bool(self.buffer or (self.tls is not None and (self.tls.pending() or self.incoming.pending)))

    async def line(self):
        """The next line without its line end, and whether it was ended by CR LF."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > LINE_MAX:
                raise Gone("a command line without an end")
            await self.more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return (line[:-1], True) if line.endswith(b"\r") else (line, False)

    async def exactly(self, count):
        while len(self.buffer) < count:
            await self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def flush(self):
        data = self.outgoing.read()
        if data:
            await self.raw_write(data)

    async def write(self, data):
        if self.tls is None:
            await self.raw_write(data)
        else:
            self.tls.write(data)
            await self.flush()

    async def write_split(self, data, records=False):
        """Each byte in a segment; in TLS the bytes of its record, or with `records` a record for each byte."""
        if self.tls is None:
            await self.raw_write_split(data)
        elif records:
            for index in range(len(data)):
                await self.write(data[index : index + 1])
                if index % SPLIT_BURST == SPLIT_BURST - 1:
                    await asyncio.sleep(0.001)
        else:
            self.tls.write(data)
            await self.raw_write_split(self.outgoing.read())

    async def shake_hands(self, context, on_flight=None):
        """The server's side of a handshake. on_flight(data) may write a flight in its own way, or break it by raising Gone."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        if self.buffer:
            self.incoming.write(self.buffer)
            self.buffer = b""
        first = True
        while True:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as error:
                try:
                    await self.flush()  # the alert
                except Gone:
                    pass
                raise Gone(f"handshake: {error}") from None
            data = self.outgoing.read()
            if data:
                if first and on_flight is not None:
                    await on_flight(data)
                else:
                    await self.raw_write(data)
                first = False
            if done:
                self.tls = tls
                return
            self.incoming.write(await self.raw_read())

    async def drain(self, seconds=LINGER_S):
        """Reads and forgets what comes until the peer ends it; returns the bytes as they came over TCP."""
        seen = self.buffer
        self.buffer = b""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    data = await self.raw_read()
                    if self.tls is None and len(seen) < 65536:
                        seen += data
        except (Gone, TimeoutError):
            return seen

    def finish(self):
        """FIN, without a close_notify: SMTP says itself where messages end."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self):
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.sock.close()
