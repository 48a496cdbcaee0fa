"""A receiving server on aiosmtpd for the quickstart and the tests: keeps what it takes, refuses or defers by the recipient's name.

  refuse-*   550 5.1.1 at RCPT
  defer-*    450 4.2.0 at the first RCPT of that address, taken afterwards
  grey-*     451 4.7.1, greylisted, at the first RCPT of that address, taken afterwards
  others     taken; with --maildir those of inbox.test are stored in a Maildir too
"""
import argparse
import asyncio
import mailbox
import time

from aiosmtpd.smtp import SMTP


class Handler:
    def __init__(self, dump, maildir):
        self.dump = open(dump, "ab")
        self.maildir = mailbox.Maildir(maildir, create=True) if maildir else None
        self.seen = set()

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
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
            message = mailbox.MaildirMessage(content)
            message.set_date(time.time())
            self.maildir.add(message)
        return "250 2.0.0 Ok: queued"


async def serve(arguments):
    address, port = arguments.listen.rsplit(":", 1)
    handler = Handler(arguments.dump, arguments.maildir)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname=arguments.name, enable_SMTPUTF8=True, data_size_limit=64 << 20, loop=loop), address.strip("[]"), int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--dump", required=True, metavar="FILE", help="what was taken, in smtp-sink's format")
    parser.add_argument("--maildir", metavar="DIRECTORY")
    parser.add_argument("--name", default="mailserver.test")
    asyncio.run(serve(parser.parse_args()))
