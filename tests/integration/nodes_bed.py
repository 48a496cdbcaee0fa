"""Several nodes of bypost on one machine: each with a link, processes and folders of its own, one Redis and the same receiving servers for all.

As a program: a receiving server that writes what arrives when, a line each: TIME open|close|message CLIENT SERVER RECIPIENT (CLOCK_MONOTONIC).
"""
import asyncio
import json
import os
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "lib"))
from testbed import PYTHON, Testbed, TestbedError, binary, control_stats, wait_for  # noqa: E402


class Receiver(asyncio.Protocol):
    def __init__(self, file, delay):
        self.file, self.delay, self.data, self.text, self.recipients = file, delay, b"", False, []

    def note(self, what, recipient="-"):
        self.file.write(f"{time.monotonic():.6f} {what} {self.client} {self.server} {recipient}\n")
        self.file.flush()

    def connection_made(self, transport):
        self.transport = transport
        self.client, self.server = transport.get_extra_info("peername")[0], transport.get_extra_info("sockname")[0]
        self.note("open")
        transport.write(b"220 sink.test ESMTP\r\n")

    def connection_lost(self, error):
        self.note("close")

    def data_received(self, data):
        self.data += data
        while True:
            if self.text:
                head, dot, rest = self.data.partition(b"\r\n.\r\n")
                if not dot:
                    return
                self.data, self.text = rest, False
                for recipient in self.recipients:
                    self.note("message", recipient)
                self.recipients = []
                asyncio.get_running_loop().call_later(self.delay, self.reply, b"250 2.0.0 taken\r\n")
                continue
            line, end, rest = self.data.partition(b"\r\n")
            if not end:
                return
            self.data = rest
            self.command(line)

    def reply(self, text):
        if not self.transport.is_closing():
            self.transport.write(text)

    def command(self, line):
        verb = line[:4].upper()
        if verb == b"EHLO":
            self.reply(b"250-sink.test\r\n250 ENHANCEDSTATUSCODES\r\n")
        elif verb == b"RCPT":
            self.recipients.append(line.split(b"<")[1].split(b">")[0].decode())
            self.reply(b"250 2.1.5 ok\r\n")
        elif verb == b"DATA":
            self.text, self.data = True, b"\r\n" + self.data
            self.reply(b"354 go on\r\n")
        elif verb == b"QUIT":
            self.reply(b"221 2.0.0 bye\r\n")
            self.transport.close()
        else:
            self.reply(b"250 2.0.0 ok\r\n")


async def receive(path, delay, addresses):
    with open(path, "a") as file:
        servers = [await asyncio.get_running_loop().create_server(lambda: Receiver(file, delay), address, 25) for address in addresses]
        await asyncio.gather(*(server.serve_forever() for server in servers))


class Node:
    """A bypost with a link of its own. Its source address is the client that the servers see."""

    def __init__(self, bed, number, name=None):
        self.bed, self.number, self.name, self.process = bed, number, name or f"node{number}", None
        self.folder = bed.path(f"n{number}")
        self.network = f"10.98.{number}"
        self.address = f"{self.network}.2"
        os.makedirs(os.path.join(self.folder, "run"), exist_ok=True)
        os.makedirs(os.path.join(self.folder, "state"), exist_ok=True)
        for arguments in (("ip", "link", "add", f"byp{number}", "type", "veth", "peer", "name", f"srv{number}"),
                          ("sysctl", "-qw", f"net.ipv6.conf.byp{number}.disable_ipv6=1"),
                          ("ip", "addr", "add", f"{self.network}.1/24", "dev", f"srv{number}"),
                          ("ip", "link", "set", f"srv{number}", "up"), ("ip", "link", "set", f"byp{number}", "up"),
                          ("ethtool", "-K", f"srv{number}", "tx", "off", "tso", "off", "gso", "off", "gro", "off"),
                          ("ethtool", "-K", f"byp{number}", "tx", "off", "tso", "off", "gso", "off", "gro", "off")):
            bed.command(*bed.inside(*arguments), check=arguments[0] != "sysctl")

    def write_config(self, **more):
        with open(self.bed.path("bypost.yaml")) as file:
            config = json.load(file)
        cores = sorted(os.sched_getaffinity(0))
        config.update(node=self.name, run_directory=os.path.join(self.folder, "run"), state_directory=os.path.join(self.folder, "state"), signing_threads=1,
                      pools={"default": [{"address": self.address, "ehlo": "sender.example.org"}]}, logs={"delivery": os.path.join(self.folder, "delivery.log")})
        config["journal"].update(path=os.path.join(self.folder, "run", "journal"), slots=1024, paths=64)
        config["dataplane"].update(lcores=[cores[self.number % len(cores)]], memory="224M", arena="64M", max_sessions=512, idle="adaptive", drain_timeout="5s")
        config["dataplane"]["ports"] = [{"device": f"net_af_packet0,iface=byp{self.number},blocksz=262144,framesz=2048,framecnt=512,qdisc_bypass=1",
                                         "addresses": [f"{self.address}/24"], "gateway": f"{self.network}.1"}]
        config.update(more)
        with open(os.path.join(self.folder, "bypost.yaml"), "w") as file:
            json.dump(config, file, indent=1)

    def start(self, **more):
        self.write_config(**more)
        self.process = self.bed.start(f"bypost{self.number}", [binary("bypost"), "run", "--config", os.path.join(self.folder, "bypost.yaml")])

    def wait(self):
        wait_for(lambda: (self.stats() or {}).get("dataplane") or self.process.poll() is not None, 40, f"the start of {self.name}")
        if self.process.poll() is not None:
            raise TestbedError(f"{self.name} ended at its start:\n{self.bed.log(f'bypost{self.number}')}")

    def stats(self):
        return control_stats(os.path.join(self.folder, "run", "control.sock"))

    def pids(self):
        """bypost run and its children."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return [self.process.pid] + [int(pid) for pid in file.read().split()]

    def signal(self, number, name=None):
        """To all of its processes, or to the one of this name; `bypost run` first, so that it starts nothing anew."""
        for pid in self.pids():
            if name is None or os.path.basename(os.readlink(f"/proc/{pid}/exe")) == name:
                os.kill(pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def log(self):
        return self.bed.log(f"bypost{self.number}", 60)


class NodesBed(Testbed):
    """With servers on `sites` addresses, dN.test each, that write what arrives."""

    def begin(self, sites, delay=0.0, own_mx=(), **more):
        self.start_redis()
        addresses = [self.add_server_address(10 + n) for n in range(sites)]
        for n, address in enumerate(addresses):
            if n not in own_mx:  # those are in `zones` already
                self.mx(f"d{n}.test", (10, f"mx{n}.test", address))
        self.start_dns()
        self.arrivals_path = self.path("arrivals")
        self.receiver = self.start("receiver", [PYTHON, os.path.abspath(__file__), self.arrivals_path, str(delay), *addresses])
        for address in addresses:
            self._wait_for_port(address, 25)
        open(self.arrivals_path, "a").close()
        self.write_config(**more)
        return addresses

    def arrivals(self, prefix=""):
        """(time, what, client, server, recipient) of each line whose recipient begins so."""
        found = []
        with open(self.arrivals_path) as file:
            for line in file:
                words = line.split()
                if len(words) == 5 and line.endswith("\n") and words[4].startswith(prefix):
                    found.append((float(words[0]), *words[1:]))
        return found

    def messages(self, prefix=""):
        return [entry for entry in self.arrivals(prefix) if entry[1] == "message"]


if __name__ == "__main__":
    asyncio.run(receive(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
