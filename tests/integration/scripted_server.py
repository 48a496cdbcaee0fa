"""An SMTP server for tests that can do anything wrong, in plain and inside TLS: one process serves every address of a network as a cell of its own.

A cell is told by the server's address. --cells names a JSON list; each item has `addresses` and what its server is like (class Cell). All that happens goes to
--record, a JSON line each: open, command, secured, auth, mail, fault, after (said to a server that only listens), accepted, confused, close. As a module: Dialogue
may be derived from.
"""
import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import traceback

from scripted_wire import Gone, Wire

SIP_BYTES = 1024
IDLE_S = 0.25    # a session without a command for so long is idle
BODY_PART = 20 * 1024  # so much of a body is read before a fault in its middle
GARBAGE = b"\x16\x03\x01 what\x00 is\xff this\x7f?\r\n\r\n\x80\x81\r\n"
CODE_4XX, CODE_5XX, CODE_421 = b"451 4.3.0 scripted\r\n", b"554 5.0.0 scripted\r\n", b"421 4.3.2 scripted: closing\r\n"
USER, SECRET = "relay-user", "relay-secret"


class Cell:
    """What a server is like: {"cell": NUMBER, "addresses": [FAULTY, GOOD], "domain", "phase", "fault", "hit", "sticky", "everywhere", "transfer",
    "starttls", "implicit", "auth", "lockstep", "refuse": [REGEX of recipients that get a 550], "without": [extensions that it has not], "also": [EHLO words besides, under TLS where it has TLS], "inject": what
    STARTTLS `extra` and handshake `early` say in plain behind the 220}; all but cell and addresses may be left out."""

    def __init__(self, fields):
        self.number = fields["cell"]
        self.domain = fields.get("domain")
        self.phase, self.fault = fields.get("phase"), fields.get("fault")
        self.hit = fields.get("hit")                      # the number of the message whose transaction has the fault; None: any
        self.sticky = fields.get("sticky", False)         # the fault is there each time, not once
        self.everywhere = fields.get("everywhere", False)  # at every address
        self.transfer = fields.get("transfer", "data")
        self.starttls, self.implicit, self.auth = fields.get("starttls", False), fields.get("implicit", False), fields.get("auth")
        self.lockstep = fields.get("lockstep", False)
        self.refuse = [re.compile(pattern) for pattern in fields.get("refuse", [])]
        self.without, self.also = fields.get("without", []), fields.get("also", [])
        self.inject = fields.get("inject", "250 2.0.0 extra\r\n").encode("latin-1")
        self.fired = 0
        self.has = set()  # (message, recipient) that it has taken


# Which reply an early one is sent with.
BEFORE = {"EHLO": "banner", "STARTTLS": "EHLO-plain", "AUTH": "EHLO", "MAIL": "EHLO", "RCPT": "MAIL", "DATA": "RCPT", "body": "DATA", "RSET": "refusal", "QUIT": "final"}
GOOD = {"STARTTLS": b"220 2.0.0 go ahead\r\n", "AUTH": b"235 2.7.0 yes\r\n", "MAIL": b"250 2.1.0 ok\r\n", "RCPT": b"250 2.1.5 ok\r\n", "DATA": b"354 go\r\n",
        "body": b"250 2.0.0 taken\r\n", "RSET": b"250 2.0.0 forgotten\r\n", "QUIT": b"221 2.0.0 bye\r\n", "EHLO": b"250 early.test\r\n"}


class Dialogue:
    """One connection to one cell."""

    def __init__(self, server, cell, host, wire, number):
        self.server, self.cell, self.host, self.wire, self.number = server, cell, host, wire, number
        self.secured = self.authenticated = False
        self.sender = self.message = None
        self.recipients = []
        self.ahead = None      # the phase whose reply was sent early
        self.open = False      # a transaction
        self.raw = b""         # chunks before the last
        self.chunked = False

    def note(self, at, **fields):
        self.server.note(at, cell=self.cell.number, host=self.host, connection=self.number, tls=self.secured, **fields)

    # -- faults --

    def due(self, phase, message=None):
        cell = self.cell
        return (cell.phase == phase and (self.host == 0 or cell.everywhere) and (cell.sticky or not cell.fired) and
                (message is None or cell.hit is None or message == cell.hit))

    def fire(self, phase):
        self.cell.fired += 1
        self.note("fault", phase=phase, message=self.message, recipients=list(self.recipients))

    async def listen(self):
        """Nothing more is said on this connection."""
        seen = await self.wire.drain()
        for line in re.findall(rb"(?im)^(?:MAIL|RCPT|DATA|BDAT|EHLO|HELO|RSET|QUIT)[^\r\n]*", seen):
            self.note("after", line=line.decode("latin-1"))
        raise Gone("listened to the end")

    async def reply(self, phase, good, message=None):
        """Says what is right, or what the cell's fault makes of it. Returns whether the command was granted."""
        if self.ahead == phase:
            self.ahead = None
            return True
        fault = self.cell.fault
        if fault != "early" and self.due(phase, message):
            return await self.wrong(phase, good)
        if fault == "early" and BEFORE.get(self.cell.phase) == phase and self.due(self.cell.phase, message):
            self.fire(self.cell.phase)
            self.ahead = self.cell.phase
            good += GOOD[self.cell.phase]
        await self.wire.write(good)
        return True

    def overlong(self, good):
        if self.cell.transfer == "data":
            return good[:3] + b" " + b"x" * 2100 + b"\r\n"
        return (good[:3] + b"-more\r\n") * 101 + good

    async def wrong(self, phase, good):
        fault = self.cell.fault
        self.fire(phase)
        if fault in ("4xx", "5xx"):
            code = CODE_4XX if fault == "4xx" else CODE_5XX
            if phase == "AUTH":
                code = b"454 4.7.0 scripted\r\n" if fault == "4xx" else b"535 5.7.8 scripted\r\n"
            if phase == "EHLO" and fault == "5xx":
                code = b"502 5.5.1 scripted\r\n"
            await self.wire.write(code)
            return False
        if fault == "421":
            await self.wire.write(CODE_421)
            self.wire.finish()
            await self.listen()
        if fault == "EOF":
            self.wire.finish()
            await self.listen()
        if fault == "RST":
            self.wire.reset()
            raise Gone("reset")
        if fault == "stall":
            await self.listen()
        if fault == "garbage":
            if self.wire.tls is not None and self.cell.transfer != "data":
                await self.wire.raw_write(GARBAGE)  # not even a record
            else:
                await self.wire.write(GARBAGE)
            await self.listen()
        if fault == "overlong":
            await self.wire.write(self.overlong(good))
            await self.listen()
        if fault == "mixed-good":
            if phase == "EHLO":
                lines = good.splitlines(keepends=True)
                await self.wire.write(b"".join(lines[:-1]) + b"550-what\r\n" + lines[-1])
            else:
                await self.wire.write((b"554" if phase == "banner" else b"550") + b"-not this line\r\n" + good)
            return True
        if fault == "mixed-bad":
            lines = good.splitlines(keepends=True)
            lines[-1] = lines[-1][:3] + b"-" + lines[-1][4:]
            await self.wire.write(b"".join(lines) + (b"454 4.7.0 scripted\r\n" if phase == "AUTH" else CODE_4XX))
            return False
        if fault == "extra":
            await self.wire.write(good + (self.cell.inject if phase == "STARTTLS" else b"250 2.0.0 extra\r\n"))
            return True
        if fault == "split":
            await self.wire.write_split(good, records=self.cell.transfer != "data")
            return True
        raise AssertionError(fault)

    async def wrong_flight(self, data):
        """A fault in place of the server's first flight."""
        fault = self.cell.fault
        self.fire("handshake")
        if fault in ("4xx", "5xx", "421"):
            await self.wire.raw_write({"4xx": CODE_4XX, "5xx": CODE_5XX, "421": CODE_421}[fault])
            if fault == "421":
                self.wire.finish()
            await self.listen()
        if fault in ("EOF", "RST", "stall"):
            await self.wire.raw_write(data[: len(data) // 2])
            if fault == "EOF":
                self.wire.finish()
            if fault == "RST":
                await asyncio.sleep(0.001)
                self.wire.reset()
                raise Gone("reset")
            await self.listen()
        if fault == "garbage":
            await self.wire.raw_write(b"\x99" + GARBAGE)  # by its first byte no record
            await self.listen()
        if fault == "overlong":
            await self.wire.raw_write(b"\x16\x03\x03\xff\xff" + b"\x02" * 70000)
            await self.listen()
        if fault == "split":
            await self.wire.raw_write_split(data)
            return
        await self.wire.raw_write(data)  # extra comes behind the handshake

    async def shake_hands(self):
        wrong = self.due("handshake") and self.cell.fault != "early"
        await self.wire.shake_hands(self.server.context, self.wrong_flight if wrong else None)
        self.secured = True
        self.note("secured", version=self.wire.tls.version(), cipher=self.wire.tls.cipher()[0])
        if wrong and self.cell.fault == "extra":
            await self.wire.write(b"250 2.0.0 extra\r\n")

    # -- the dialogue --

    async def run(self):
        self.note("open")
        if self.cell.phase == "body":
            # Small steps, so that the rest of a long body cannot be on its way when there is something to say about it.
            self.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            self.wire.read_bytes = 4096
        try:
            if self.cell.implicit:
                await self.shake_hands()
            if not await self.reply("banner", b"220 scripted.test ESMTP\r\n"):
                await self.refuse_all()
            while True:
                await self.command()
        except Gone as gone:
            self.note("close", why=str(gone))
        finally:
            if self.wire.sock.fileno() >= 0:
                self.wire.sock.close()

    async def refuse_all(self):
        while True:
            line, _ = await self.wire.line()
            self.note("command", line=line.decode("latin-1"))
            if line.upper().startswith(b"QUIT"):
                await self.wire.write(GOOD["QUIT"])
                raise Gone("QUIT")
            await self.wire.write(b"503 5.5.1 not here\r\n")

    async def next_line(self):
        """A command; in a cell whose fault is in idle sessions it may find itself idle first."""
        cell = self.cell
        if cell.phase == "idle" and self.due("idle") and not self.open and len(cell.has) >= 2 and b"\n" not in self.wire.buffer:
            waiting = asyncio.ensure_future(self.wire.line())
            done, _ = await asyncio.wait([waiting], timeout=IDLE_S)
            if done:
                return waiting.result()
            if cell.fault == "early":
                self.fire("idle")
                await self.wire.write(GOOD["MAIL"])
            elif cell.fault == "split":
                await self.wire.write_split(CODE_421, records=cell.transfer != "data")
                self.fire("idle")  # a record that is not whole says nothing yet
            else:
                if cell.fault in ("EOF", "RST", "421", "stall", "garbage", "overlong"):
                    # These close or listen on their own: the pending read must not take what they look for.
                    waiting.cancel()
                    await asyncio.wait([waiting])
                await self.wrong("idle", b"250 2.0.0 noise\r\n")
            return await waiting
        return await self.wire.line()

    async def command(self):
        line, clean = await self.next_line()
        text = line.decode("latin-1")
        self.note("command", line=text, **({} if clean else {"bare_lf": True}))
        verb = text.split(" ", 1)[0].upper()
        handler = getattr(self, "on_" + verb.lower(), None) if verb.isalpha() else None
        if handler is None:
            await self.wire.write(b"500 5.5.2 what?\r\n")
        else:
            await handler(text)

    async def on_ehlo(self, text):
        cell = self.cell
        offers_tls = cell.starttls and not self.secured
        words = [b"scripted.test"]
        if not cell.lockstep:
            words.append(b"PIPELINING")
        if offers_tls:
            words.append(b"STARTTLS")
        words += [b"SIZE 50000000", b"8BITMIME", b"ENHANCEDSTATUSCODES", b"SMTPUTF8", b"DSN"]
        if cell.transfer != "data":
            words.append(b"CHUNKING")
        if cell.auth:
            words.append(b"AUTH " + cell.auth.encode())
        words = [word for word in words if word.decode().split(" ")[0] not in cell.without]
        if not offers_tls:
            words += [word.encode() for word in cell.also]
        good = b"".join(b"250-" + word + b"\r\n" for word in words[:-1]) + b"250 " + words[-1] + b"\r\n"
        self.forget()
        # The plain EHLO of a session that goes on in TLS has no faults of its own.
        await self.reply("EHLO-plain" if offers_tls else "EHLO", good)

    async def on_helo(self, text):
        self.forget()
        await self.wire.write(b"250 scripted.test\r\n")

    async def on_starttls(self, text):
        if not self.cell.starttls or self.secured:
            await self.wire.write(b"503 5.5.1 not here\r\n")
            return
        if not await self.reply("STARTTLS", GOOD["STARTTLS"]):
            return
        if self.due("handshake") and self.cell.fault == "early":
            self.fire("handshake")
            await asyncio.sleep(0.03)
            await self.wire.raw_write(self.cell.inject)
        if self.wire.buffer and self.wire.buffer[:1] != b"\x16":
            self.note("confused", why="plaintext behind STARTTLS", line=self.wire.buffer[:60].decode("latin-1"))
        await self.shake_hands()
        self.forget()

    async def on_auth(self, text):
        words = text.split(" ")
        mechanism = words[1].upper() if len(words) > 1 else ""
        initial = words[2] if len(words) > 2 else None
        good = False
        try:
            if mechanism == "PLAIN":
                if initial is None:
                    await self.wire.write(b"334 \r\n")
                    initial = (await self.wire.line())[0]
                good = base64.b64decode(initial) == f"\0{USER}\0{SECRET}".encode()
            elif mechanism == "LOGIN":
                if initial is None:
                    await self.wire.write(b"334 VXNlcm5hbWU6\r\n")
                    initial = (await self.wire.line())[0]
                await self.wire.write(b"334 UGFzc3dvcmQ6\r\n")
                good = base64.b64decode(initial) == USER.encode() and base64.b64decode((await self.wire.line())[0]) == SECRET.encode()
            elif mechanism == "CRAM-MD5":
                challenge = b"<1.2@scripted.test>"
                await self.wire.write(b"334 " + base64.b64encode(challenge) + b"\r\n")
                answer = base64.b64decode((await self.wire.line())[0])
                good = answer == USER.encode() + b" " + hmac.new(SECRET.encode(), challenge, "md5").hexdigest().encode()
        except ValueError:
            pass
        self.note("auth", mechanism=mechanism, good=good)
        if not good:
            await self.wire.write(b"535 5.7.8 wrong\r\n")
            return
        self.authenticated = await self.reply("AUTH", GOOD["AUTH"])

    def forget(self):
        self.sender = self.message = None
        self.recipients = []
        self.open = False

    async def on_mail(self, text):
        match = re.match(r"MAIL FROM:<([^>]*)>(.*)$", text, re.I)
        if match is None:
            await self.wire.write(b"501 5.5.4 syntax\r\n")
            return
        if self.open:
            await self.wire.write(b"503 5.5.1 nested MAIL command\r\n")
            return
        if self.cell.auth and not self.authenticated:
            await self.wire.write(b"530 5.7.0 authentication required\r\n")
            return
        number = re.match(r"m(\d+)", match.group(1))
        self.message = int(number.group(1)) if number else None
        self.recipients = []
        self.note("mail", message=self.message, parameters=match.group(2))
        if await self.reply("MAIL", GOOD["MAIL"], self.message):
            self.sender, self.open = match.group(1), True

    async def on_rcpt(self, text):
        match = re.match(r"RCPT TO:<([^>]*)>", text, re.I)
        if match is None:
            await self.wire.write(b"501 5.5.4 syntax\r\n")
            return
        if not self.open:
            await self.wire.write(b"503 5.5.1 need MAIL\r\n")
            return
        address = match.group(1)
        if self.cell.domain and not address.lower().endswith("@" + self.cell.domain):
            self.note("confused", why="a recipient of another cell", line=text)
        if any(pattern.match(address) for pattern in self.cell.refuse):
            # Without PIPELINING no DATA follows: the last RCPT's reply is the one before RSET's.
            phase = "refusal" if self.cell.lockstep and not address.startswith("a") else "RCPT-refused"
            await self.reply(phase, b"550 5.0.0 scripted: refused\r\n", self.message)
            return
        # The fault is the second recipient's; of a transaction with one recipient, that one's.
        its = not address.startswith("a") or self.cell.fault == "early"
        self.recipients.append(address)
        if not await self.reply("RCPT", GOOD["RCPT"], self.message if its else -1):
            self.recipients.remove(address)

    async def on_rset(self, text):
        was_open = self.open
        self.forget()
        if was_open or self.ahead == "RSET":
            await self.reply("RSET", GOOD["RSET"])
        else:
            await self.wire.write(GOOD["RSET"])

    async def on_noop(self, text):
        await self.wire.write(b"250 2.0.0 ok\r\n")

    async def on_quit(self, text):
        await self.reply("QUIT", GOOD["QUIT"])
        self.wire.finish()
        await self.wire.drain(2)
        raise Gone("QUIT")

    # -- bodies --

    async def no_recipients(self):
        await self.reply("refusal", b"554 5.5.1 no valid recipients\r\n", self.message)

    async def on_data(self, text):
        if not self.open:
            await self.wire.write(b"503 5.5.1 need MAIL\r\n")
            return
        if not self.recipients:
            await self.no_recipients()
            return
        if not await self.reply("DATA", GOOD["DATA"], self.message):
            return
        self.chunked = False
        await self.read_body(self.read_dotted)

    async def on_bdat(self, text):
        match = re.match(r"BDAT (\d+)( LAST)?$", text, re.I)
        if match is None:
            raise Gone("BDAT without a number")
        size, last = int(match.group(1)), bool(match.group(2))
        self.chunked = True
        if not self.open or not self.recipients:
            await self.wire.exactly(size)
            if not self.open:
                await self.wire.write(b"503 5.5.1 need MAIL\r\n")
            else:
                await self.no_recipients()
            return
        if not last:
            self.raw += await self.wire.exactly(size)
            await self.wire.write(b"250 2.0.0 chunk\r\n")
            return
        if self.cell.phase == "body" and self.cell.fault == "early" and self.due("body", self.message):
            self.fire("body")
            await self.wire.write(GOOD["body"])
            self.ahead = "body"

        async def read_chunk():
            before, self.raw = self.raw, b""
            return before + await self.wire.exactly(size)

        await self.read_body(read_chunk)

    async def read_dotted(self):
        while b"\r\n.\r\n" not in (b"\r\n" + self.wire.buffer if self.wire.buffer[:3] == b".\r\n" else self.wire.buffer):
            await self.wire.more()
        buffer = b"\r\n" + self.wire.buffer
        raw, self.wire.buffer = buffer.split(b"\r\n.\r\n", 1)
        raw = raw[2:] + b"\r\n"
        return re.sub(rb"(^|\r\n)\.", rb"\1", raw)

    async def middle(self):
        """A part of the body has come."""
        while len(self.wire.buffer) < BODY_PART:
            await self.wire.more()

    async def read_body(self, read):
        message, fault = self.message, self.cell.fault
        if self.cell.phase == "body" and self.due("body", message):
            await self.wrong_body()
        elif self.cell.phase == "final" and fault == "early" and self.due("final", message):
            while not self.wire.buffer:
                await self.wire.more()
            self.fire("final")
            await self.wire.write(b"250 2.0.0 taken\r\n")
            self.ahead = "final"
        content = await read()
        early = self.ahead in ("body", "final")
        if early:
            self.ahead = None
        wrong = not early and self.due("final", message) and fault not in ("4xx", "5xx", "421", "mixed-bad")
        refused = not early and self.due("final", message) and fault in ("4xx", "5xx", "421", "mixed-bad")
        if not refused:
            self.accept(content, wrong)
        if not early:
            await self.reply("final", b"250 2.0.0 taken\r\n", message)
        self.forget()

    async def wrong_body(self):
        fault = self.cell.fault
        if fault == "early":
            return
        if fault == "split":
            self.fire("body")
            self.wire.read_bytes = SIP_BYTES
            return
        await self.middle()
        if fault in ("stall", "EOF"):
            self.fire("body")
            if fault == "stall":
                try:
                    await asyncio.sleep(8)  # without reading: the window closes
                finally:
                    self.wire.reset()
                raise Gone("stalled")
            self.wire.finish()
            await self.listen()
        await self.wrong("body", b"250 2.0.0 noise\r\n")
        if fault in ("4xx", "5xx", "mixed-bad"):
            await self.listen()
        # mixed-good, extra: reads on as if nothing had been said

    def accept(self, content, wrong=False):
        for recipient in self.recipients:
            self.cell.has.add((self.message, recipient))
        found = re.search(rb"(?im)^Message-ID:\s*(\S+)", content[:4096])
        lines = content.split(b"\r\n")
        ends = content.count(b"\r\n")
        self.note("accepted", message=self.message, recipients=list(self.recipients), sender=self.sender, bytes=len(content), chunked=self.chunked,
                  ahead=self.wire.has_more(), sha256=hashlib.sha256(content).hexdigest(),
                  id=found.group(1).decode("latin-1") if found else None, bare=content.count(b"\r") != ends or content.count(b"\n") != ends or b"\0" in content,
                  longest=max(len(line) for line in lines), **({"content": content.decode("latin-1")} if self.server.keep_content else {}))


class Server:
    def __init__(self, cells, record, context=None, keep_content=False, dialogue=Dialogue):
        self.cells = {}
        for fields in cells:
            cell = Cell(fields)
            for host, address in enumerate(fields["addresses"]):
                self.cells[address] = (cell, host)
        self.record, self.context, self.keep_content, self.dialogue = record, context, keep_content, dialogue
        self.connections = 0
        self.lines = []
        self.tasks = set()

    def note(self, at, **fields):
        self.lines.append(json.dumps({"at": at, **fields}))

    def write_notes(self):
        if self.lines:
            self.record.write("\n".join(self.lines) + "\n")
            self.record.flush()
            self.lines.clear()

    async def serve(self, ports, each=False):
        """Listens on all addresses of the machine, or with `each` on those of the cells alone, so that there is room for other servers."""
        loop = asyncio.get_running_loop()
        for address in self.cells if each else ("0.0.0.0",):
            for port in ports:
                listener = socket.create_server((address, port), backlog=4096)
                listener.setblocking(False)
                self.keep(self.accept(loop, listener))
        while True:
            await asyncio.sleep(0.1)
            self.write_notes()

    def keep(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print("".join(traceback.format_exception(task.exception())), file=sys.stderr, flush=True)

    async def accept(self, loop, listener):
        while True:
            sock, _ = await loop.sock_accept(listener)
            found = self.cells.get(sock.getsockname()[0])
            if found is None:
                sock.close()
                continue
            self.connections += 1
            self.keep(self.dialogue(self, *found, Wire(sock), self.connections).run())


def make_context(directory, name="scripted.test"):
    """A server's TLS context with a certificate of its own, written to directory/server.pem."""
    path = os.path.join(directory, "server.pem")
    if not os.path.exists(path):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                        "-addext", f"subjectAltName=DNS:{name},DNS:*.test", "-keyout", path, "-out", path + ".crt"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        with open(path, "a") as file, open(path + ".crt") as certificate:
            file.write(certificate.read())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", required=True, metavar="FILE")
    parser.add_argument("--record", required=True, metavar="FILE")
    parser.add_argument("--directory", required=True, help="for the certificate")
    parser.add_argument("--ports", default="25,465", metavar="PORT,...")
    parser.add_argument("--keep-content", action="store_true", help="record what was accepted, byte for byte (as latin-1)")
    parser.add_argument("--each", action="store_true", help="listen on the cells' addresses alone")
    arguments = parser.parse_args()
    with open(arguments.cells) as cells_file:
        given = json.load(cells_file)
    with open(arguments.record, "a") as record_file:
        asyncio.run(Server(given, record_file, make_context(arguments.directory), arguments.keep_content).serve(
            [int(port) for port in arguments.ports.split(",")], arguments.each))
