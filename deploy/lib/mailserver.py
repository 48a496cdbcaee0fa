"""A receiving server on aiosmtpd for the quickstart and the tests: keeps what it takes, refuses or defers by the recipient's name.

  refuse-*   550 5.1.1 at RCPT
  defer-*    450 4.2.0 at the first RCPT of that address, taken afterwards
  grey-*     451 4.7.1, greylisted, at the first RCPT of that address, taken afterwards
  others     taken; with --maildir those of inbox.test are stored in a Maildir too

With --certificate FILE it offers STARTTLS.
With --script FILE its rules come first: a JSON list of {"at": "mail"|"rcpt", "client": ADDRESS, "address": REGEX, "after": N, "reply": TEXT}; what is left out matches
all, "after" a recipient that comes behind N accepted ones.
The file is looked at again at each command, so that a test can change its receiver's mind.
"""
import argparse
import asyncio
import json
import mailbox
import os
import re
import ssl

from aiosmtpd.smtp import SMTP


class Script:
    def __init__(self, path):
        self.path, self.stamp, self.rules = path, None, []

    def reply(self, at, client, address="", accepted=0):
        """What the first matching rule says, or None."""
        if self.path is None:
            return None
        stamp = os.stat(self.path).st_mtime_ns
        if stamp != self.stamp:
            with open(self.path) as file:
                self.rules = json.load(file)
            self.stamp = stamp
        for rule in self.rules:
            if rule.get("at", "rcpt") == at and rule.get("client", client) == client and accepted >= rule.get("after", 0) and re.search(rule.get("address", ""), address):
                return rule["reply"]
        return None


class Handler:
    def __init__(self, dump, maildir, script):
        self.dump = open(dump, "ab")
        self.maildir = mailbox.Maildir(maildir, create=True) if maildir else None
        self.seen = set()
        self.script = script

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        reply = self.script.reply("mail", session.peer[0], address)
        if reply is None:
            envelope.mail_from = address
            envelope.mail_options.extend(mail_options)
        return reply or "250 2.1.0 Ok"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        reply = self.script.reply("rcpt", session.peer[0], address, len(envelope.rcpt_tos))
        if reply is not None:
            return reply
        if address.startswith("refuse-"):
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        if address.startswith(("defer-", "grey-")) and address not in self.seen:
            self.seen.add(address)
            return f"450 4.2.0 <{address}>: Mailbox busy, try again later" if address[0] == "d" else f"451 4.7.1 <{address}>: Greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        content = envelope.content.replace(b"\r\n", b"\n")
        head = [f"X-Client-Addr: {session.peer[0]}", f"X-Mail-Args: <{envelope.mail_from}>"]
        head += [f"X-Rcpt-Args: <{recipient}>" for recipient in envelope.rcpt_tos]
        self.dump.write("\n".join(head).encode("utf-8", "surrogateescape") + b"\nReceived: from kept\n" + content + b"\n")
        self.dump.flush()
        if self.maildir is not None:
            self.maildir.add(content)  # the bytes, which its DKIM signature covers
        return "250 2.0.0 Ok: queued"


async def serve(arguments):
    address, port = arguments.listen.rsplit(":", 1)
    handler = Handler(arguments.dump, arguments.maildir, Script(arguments.script))
    loop = asyncio.get_running_loop()
    tls = None
    if arguments.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.certificate)
    server = await loop.create_server(
        lambda: SMTP(handler, hostname=arguments.name, enable_SMTPUTF8=True, data_size_limit=64 << 20, tls_context=tls, loop=loop), address.strip("[]"), int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--dump", required=True, metavar="FILE", help="what was taken, in smtp-sink's format")
    parser.add_argument("--maildir", metavar="DIRECTORY")
    parser.add_argument("--script", metavar="FILE")
    parser.add_argument("--certificate", metavar="FILE", help="PEM of a key and its certificate")
    parser.add_argument("--name", default="mailserver.test")
    asyncio.run(serve(parser.parse_args()))
