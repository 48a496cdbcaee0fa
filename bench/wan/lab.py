"""Two hosts with a bypost-wan between them, in network namespaces of their own: what bench/goodput and the integration tests run in."""
import json
import os
import re
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BYPOST_BUILD", os.path.join(ROOT, "build"))
WAN = os.path.join(BUILD, "bench/wan/bypost-wan")
BULK = os.path.join(BUILD, "bench/micro/bulk")
PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer.py")

# Left: bypost at .2, on the link's own frames (af_packet), and the kernel at .3. Right: the kernel. The router is the wan's word for itself.
BYPOST = "10.77.0.2"
LEFT = "10.77.0.3"
RIGHT = "10.77.0.1"
ROUTER = "10.77.0.254"
BYPOST6 = "fd77::2"
LEFT6 = "fd77::3"
RIGHT6 = "fd77::1"
ROUTER6 = "fd77::fe"
STEP_SECONDS = 60
PRIORITY = "-15"  # a path keeps its times, and a stack in a process wakes for its frames, though other processes want the processor

# So that 200 Mb/s over 200 ms fits, and no connection learns from the one before it.
SYSCTLS = {
    "net/ipv4/tcp_rmem": "4096 131072 67108864",
    "net/ipv4/tcp_wmem": "4096 131072 67108864",
    "net/ipv4/tcp_no_metrics_save": "1",
}


def command(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=STEP_SECONDS)


class Process:
    """A program of the lab: its output as lines, and its end in bounded time."""

    def __init__(self, words, directory, number):
        self.words = words
        self.errors_path = os.path.join(directory, "errors%d" % number)
        with open(self.errors_path, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True)
        self.text = None  # all of its output after the line that wait_line read, once it has ended

    def errors(self):
        with open(self.errors_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_line(self, word):
        """Reads its output up to a line that begins with `word`."""
        watchdog = threading.Timer(STEP_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                if line.startswith(word):
                    return
        finally:
            watchdog.cancel()
        raise RuntimeError("ended before it was %s: %s" % (word, self.story()))

    def wait_error(self, word):
        """Waits until its standard error says `word`."""
        end = time.monotonic() + STEP_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if word in self.errors():
                return
            time.sleep(0.01)
        raise RuntimeError("was not %s: %s" % (word, self.story()))

    def finish(self, seconds=STEP_SECONDS):
        """The rest of its output and its exit status."""
        if self.text is None:
            try:
                self.text = self.process.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.text = self.process.communicate()[0]
        return self.process.returncode

    def stop(self, seconds=STEP_SECONDS):
        if self.process.poll() is None:
            self.process.terminate()
        return self.finish(seconds)

    def result(self, seconds=STEP_SECONDS):
        """Its JSON, when it has ended."""
        self.finish(seconds)
        try:
            return json.loads(self.text[self.text.index("{"):])
        except ValueError:
            raise RuntimeError("no result: " + self.story()) from None

    def story(self):
        return "%s: exit %s\n%s\n%s" % (" ".join(self.words[-30:]), self.process.poll(), (self.text or "")[-2000:], self.errors()[-2000:])


class Lab:
    serial = 0

    def __init__(self, mtu=1500, v6=True):
        Lab.serial += 1
        self.id = "bp-wan%d-%d" % (os.getpid(), Lab.serial)
        self.mtu = mtu
        self.v6 = v6
        self.names = []
        self.processes = []
        self.directory = tempfile.TemporaryDirectory(prefix=self.id)

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.process.poll() is None:
                process.process.kill()
            process.process.wait()
            process.process.stdout.close()
        for name in self.names:
            command("ip", "netns", "del", name, check=False)
        self.directory.cleanup()

    def inside(self, place):
        return ("nsenter", "--net=/run/netns/%s%s" % (self.id, place))

    def build(self):
        for place in "lwr":
            command("ip", "netns", "add", self.id + place)
            self.names.append(self.id + place)
            command(*self.inside(place), "ip", "link", "set", "lo", "up")
            for key in ("all", "default") if place == "w" or not self.v6 else ():
                command(*self.inside(place), "sysctl", "-qw", "net/ipv6/conf/%s/disable_ipv6=1" % key)
        for place, link, far in (("l", "left", "wl"), ("r", "right", "wr")):
            command(*self.inside(place), "ip", "link", "add", link, "mtu", str(self.mtu), "type", "veth", "peer", "name", far, "mtu",
                    str(self.mtu), "netns", self.id + "w")
            for where, name in ((place, link), ("w", far)):
                command(*self.inside(where), "ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
                command(*self.inside(where), "ip", "link", "set", name, "txqueuelen", "10000", "up")
        for place, link, address, address6 in (("l", "left", LEFT, LEFT6), ("r", "right", RIGHT, RIGHT6)):
            command(*self.inside(place), "ip", "addr", "add", address + "/24", "dev", link)
            if self.v6:
                command(*self.inside(place), "ip", "addr", "add", address6 + "/64", "dev", link, "nodad")
            for key, value in SYSCTLS.items():
                command(*self.inside(place), "sysctl", "-qw", "%s=%s" % (key, value))

    def start(self, place, *words):
        process = Process(("nice", "-n", PRIORITY) + self.inside(place) + tuple(str(word) for word in words), self.directory.name, len(self.processes))
        self.processes.append(process)
        return process

    def wan(self, *words):
        """The path: a is the left side. Ready when it returns."""
        process = self.start("w", WAN, "--a", "net_af_packet0,iface=wl", "--b", "net_af_packet1,iface=wr", "--port-mtu", self.mtu,
                             "--router4", ROUTER, "--router6", ROUTER6, *words)
        process.wait_error("ready")
        return process

    def kernel(self, place, *words):
        """An endpoint on the kernel's stack; a listening one is ready when this returns."""
        process = self.start(place, "/usr/bin/python3", "-B", PEER, *words)
        process.wait_line("ready")
        return process

    def endpoint(self, stack, *words, v6=False):
        """An endpoint on the left, on either stack. Its listening address is its own: `--listen` takes none."""
        return self.bypost(*words, v6=v6) if stack == "bypost" else self.kernel("l", *self.with_address(words, LEFT6 if v6 else LEFT))

    @staticmethod
    def with_address(words, address):
        return [part for word in words for part in (("--listen", address) if word == "--listen" else (word,))]

    def bypost(self, *words, v6=False):
        """An endpoint on bypost's stack, on the left."""
        more = ("--address", BYPOST6 + "/64") if v6 else ()
        process = self.start("l", BULK, "--device", "net_af_packet0,iface=left", "--address", BYPOST + "/24", *more, "--mtu", self.mtu, *words)
        process.wait_line("ready")
        return process

    def trace(self, place, link, path, seconds):
        """tcpdump of a link, for looking into a run."""
        return self.start(place, "timeout", str(seconds), "tcpdump", "-i", link, "-s", "120", "-w", path)

    def congestion_controls(self):
        with open("/proc/sys/net/ipv4/tcp_available_congestion_control", encoding="ascii") as file:
            return re.findall(r"\w+", file.read())
