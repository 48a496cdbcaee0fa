"""The whole way on the cores that there are: producers, Redis, bypost-control, bypost-dataplane, bypost-sink. bench/endtoend and bench/newsletter run in it.

Dataplane and sink are joined by virtio_user and vhost; DNS, Redis and they live in a namespace of their own. Every program is the product's own."""
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "lib"))
from testbed import SENDER_DOMAIN, Testbed, TestbedError, binary, wait_for  # noqa: E402

BASE = "bypost:{0}:"
CHUNK = 200
SITES = 16
SINK_ADDRESS = "198.18.1.%d"
SINK_ADDRESSES = "198.18.1.1-198.18.1.16/16"
SOURCES = [f"198.18.2.{last}" for last in range(1, 5)]
PRIORITY = -10  # of all that is measured, producers included: others on the machine want the processors, too
IN_FLIGHT = 256  # commands without an answer while a queue is filled
QUIET_SECONDS = 20  # no arrival for so long ends a run
SAMPLE_SECONDS = 0.1
STEADY = (0.10, 0.95)  # a rate in steady state counts between these shares of the arrivals
SELECTORS = {"rsa": "s1", "ed25519": "e1"}
ALGORITHMS = {"none": (), "rsa": ("rsa",), "ed25519": ("ed25519",), "both": ("rsa", "ed25519")}
LINE = "the quick brown fox jumps over the lazy dog while mail flows from here\n"


LAYOUTS = {"apart": lambda cores: cores[0], "together": lambda cores: cores[-1]}  # the sink's core; the worker has the last


class Unable(Exception):
    """What this tree or this machine cannot do: the reason."""


def take_priority():
    """For this process and what it starts."""
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def thread_seconds(pid):
    """Processor seconds of a process by thread: {thread: (name, seconds)}."""
    found = {}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                seconds = int(file.read().split()[0]) / 1e9
            with open(f"/proc/{pid}/task/{task}/comm") as file:
                found[int(task)] = (file.read().strip(), seconds)
    except OSError:
        pass
    return found


def process_seconds(pid):
    return sum(seconds for _, seconds in thread_seconds(pid).values())


def plain_text(size):
    """`size` bytes of ASCII that every encoder leaves as they are: 7bit, so that their digest is known before."""
    return (LINE * (size // len(LINE) + 1))[: size - 2].rstrip().ljust(size - 2, "-") + ".\n"


def body_digest(text):
    return "sha256=" + hashlib.sha256(text.replace("\n", "\r\n").encode()).hexdigest()


def command(*words):
    """In Redis's wire format."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def interpolated(samples, share, total):
    """The sample at which that share of `total` had arrived: time and each processor figure, between two samples."""
    wanted = share * total
    for before, after in zip(samples, samples[1:]):
        if after["arrived"] >= wanted:
            step = after["arrived"] - before["arrived"]
            part = (wanted - before["arrived"]) / step if step else 0
            parts = {name: before["cpu"][name] + part * (after["cpu"][name] - before["cpu"][name]) for name in after["cpu"]}
            return {"at": before["at"] + part * (after["at"] - before["at"]), "arrived": wanted, "cpu": parts}
    return samples[-1]


def between(first, last):
    """Messages a second and microseconds of processor a message between two samples."""
    messages, seconds = last["arrived"] - first["arrived"], last["at"] - first["at"]
    return {"per_second": messages / max(seconds, 1e-6), "seconds": seconds,
            "cpu_us": {name: (last["cpu"][name] - first["cpu"][name]) * 1e6 / max(messages, 1) for name in last["cpu"]},
            "cores": {name: (last["cpu"][name] - first["cpu"][name]) / max(seconds, 1e-6) for name in last["cpu"]}}


class Whole(Testbed):
    """Everything runs when the `with` block is entered. `sign`: a name of ALGORITHMS, `layout` of LAYOUTS. Raises Unable where this tree cannot sign so."""

    def __init__(self, name, sign="none", messages=4 << 20, threads=None, slots=16384, layout="apart", extra=None):
        super().__init__(name=name, stored_bytes=1 << 30)
        try:
            self._start(sign, messages, threads, slots, layout, extra)
        except BaseException:
            self.close()
            raise

    def _start(self, sign, messages, threads, slots, layout, extra):
        cores = sorted(os.sched_getaffinity(0))
        self.filled = 0
        self.sink_core, self.worker_core = LAYOUTS[layout](cores), cores[-1]
        # Redis as in production, but for its disk (here memory, as Postfix's queue is beside it) and the rewriting of its log, which would fall into some runs.
        self.redis_process = self.start("redis", [
            shutil.which("redis-server") or "valkey-server", "--port", "0", "--unixsocket", self.redis_socket, "--unixsocketperm", "777", "--dir", self.sinks,
            "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0", "--save", "", "--maxmemory-policy", "noeviction"])
        vhost = self.path("vhost.sock")
        self.sink = self.start("sink", [
            binary("bypost-sink"), "--device", f"net_vhost0,iface={vhost}", "--address", SINK_ADDRESSES, "--lcores", str(self.sink_core), "--main-lcore",
            str(self.sink_core), "--sessions", "4096", "--transactions", "8192", "--messages", str(messages), "--stats", os.path.join(self.sinks, "sink.json")])
        for site in range(SITES):
            self.mx(f"site{site}.test", (10, f"mx.site{site}.test", SINK_ADDRESS % (site + 1)))
        self.start_dns()
        wait_for(lambda: "bypost-sink: ready" in self.log("sink") or self.sink.poll() is not None, 20, "bypost-sink's start")
        wait_for(self._redis_answers, 10, "an answer of redis-server")
        self.write_config(self._config(sign, threads, vhost, extra), slots=slots, lcores=[self.worker_core], shaping={
            "connection_limit": 32, "max_connection_rate": "10000/s", "max_message_rate": "1000000/s", "max_deliveries_per_connection": 10000, "provider_connection_limit": 1000,
            "provider_max_connection_rate": "10000/s", "provider_max_message_rate": "1000000/s"})
        try:
            self._run()
        except TestbedError as error:
            raise Unable(f"bypost does not start with --sign {sign}: {error}") if sign not in ("none", "rsa") else error
        self.control, self.dataplane = self.child("bypost-control"), self.child("bypost-dataplane")

    def _run(self):
        """As start_bypost, and an end says why in fewer lines."""
        self.run_process = self.start("bypost", [binary("bypost"), "run", "--config", self.path("bypost.yaml")])
        wait_for(lambda: (self.stats() or {}).get("dataplane") or self.run_process.poll() is not None, 30, "bypost's start")
        if self.run_process.poll() is not None:
            raise TestbedError("".join(line for line in self.log("bypost", 20).splitlines(True) if not line.startswith("bypost-dataplane")) or self.log("bypost"))

    def _config(self, sign, threads, vhost, extra):
        config = {
            "dataplane": {"memory": "384M", "arena": "192M", "max_sessions": 4096, "ports": [
                {"device": f"net_virtio_user0,path={vhost},queue_size=1024", "addresses": [f"{address}/16" for address in SOURCES], "gateway": SINK_ADDRESS % 1}]},
            "pools": {"default": [{"address": address, "ehlo": "sender.example.org"} for address in SOURCES]},
            "logs": {"delivery": os.path.join(self.sinks, "delivery.log"), "rotate_size": "1G", "rotate_keep": 1},
            "queues": {"*": {"retry": {"first": "60s", "max": "600s", "give_up": "24h"}}},
        }
        if threads:
            config["signing_threads"] = threads
        keys = [{"domain": SENDER_DOMAIN, "selector": SELECTORS[kind], "key": self._key(kind)} for kind in ALGORITHMS[sign]]
        if keys:
            config["dkim"] = {"keys": keys}
        for name, value in (extra or {}).items():
            config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
        return config

    def _key(self, kind):
        path = self.path(f"dkim-{kind}.pem")
        words = ("-algorithm", "ed25519") if kind == "ed25519" else ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        self.command("openssl", "genpkey", *words, "-out", path)
        os.chmod(path, 0o600)
        return path

    # -- the queue --

    def pour(self, commands):
        """Many commands over one connection; Redis's word for the first that it refuses is a TestbedError."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.redis_socket)
        answers = client.makefile("rb")
        waiting = 0
        for at in range(0, len(commands), IN_FLIGHT // 2):
            part = commands[at : at + IN_FLIGHT // 2]
            client.sendall(b"".join(part))
            waiting += len(part)
            while waiting > IN_FLIGHT // 2:
                self._answer(answers)
                waiting -= 1
        while waiting:
            self._answer(answers)
            waiting -= 1
        client.close()

    def _answer(self, answers):
        line = answers.readline()
        if line[:1] == b"-" or not line:
            raise TestbedError(f"Redis answers {line.decode()!r}")
        if line[:1] == b"$" and line[1:2] != b"-":
            answers.read(int(line[1:]) + 2)
        elif line[:1] == b"*":
            for _ in range(int(line[1:])):
                self._answer(answers)

    def campaign(self, name, content, count, recipient):
        """Fills a campaign, paused, in chunks: recipient(number) is the recipient's JSON. `go` lets it run."""
        client = self.redis()
        client.set(f"bypost:content:{name}", json.dumps(content))
        client.execute_command("FCALL", "bypost_campaign_create", 1, BASE + "q:" + name, BASE, name, "content", name)
        client.execute_command("FCALL", "bypost_campaign_set", 1, BASE + "q:" + name, BASE, name, "state", "paused")
        for first in range(0, count, CHUNK * 500):
            commands = []
            for start in range(first, min(first + CHUNK * 500, count), CHUNK):
                people = [recipient(number) for number in range(start, min(start + CHUNK, count))]
                commands.append(command("FCALL", "bypost_campaign_add", 1, BASE + "q:" + name, BASE, name, start // CHUNK,
                                        f'{{"content":"{name}","recipients":[{",".join(people)}]}}', len(people), name))
            self.pour(commands)

    def go(self, name):
        self.redis().execute_command("FCALL", "bypost_campaign_set", 1, BASE + "q:" + name, BASE, name, "state", "running")

    # -- what happens --

    def sink_stats(self):
        path = os.path.join(self.sinks, "sink.json")
        before = os.path.exists(path) and os.stat(path).st_ino
        self.sink.send_signal(signal.SIGUSR1)
        wait_for(lambda: os.path.exists(path) and os.stat(path).st_ino != before, 10, "bypost-sink's statistics", 0.002)
        with open(path) as file:
            return json.load(file)

    def cpu(self):
        """Processor seconds so far. control_main is its event loop; control_press its other threads: those that render and sign."""
        control = thread_seconds(self.control)
        main = control.get(self.control, ("", 0))[1]
        return {"control_main": main, "control_press": sum(seconds for _, seconds in control.values()) - main, "dataplane": process_seconds(self.dataplane),
                "redis": process_seconds(self.redis_process.pid), "sink": process_seconds(self.sink.pid)}

    def sample(self):
        stats = self.sink_stats()
        return {"at": time.monotonic(), "arrived": stats["messages_unique"], "cpu": self.cpu(), "stats": stats}

    def follow(self, total, begin=None, each=None):
        """Samples until `total` more messages than in the first have arrived. begin() is called behind the first, each(sample) for every other one."""
        samples = [self.sample()]
        if begin is not None:
            begin()
        goal, moved_at = samples[0]["arrived"] + total, time.monotonic()
        while samples[-1]["arrived"] < goal:
            time.sleep(SAMPLE_SECONDS)
            samples.append(self.sample())
            if each is not None:
                each(samples[-1])
            if samples[-1]["arrived"] != samples[-2]["arrived"]:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > QUIET_SECONDS:
                raise TestbedError(f"nothing arrives any more: {samples[-1]['arrived']} of {goal}; {json.dumps(self.stats()['settle'])}\n{self.log('bypost')}")
            if self.run_process.poll() is not None:
                raise TestbedError(f"bypost ended in the middle:\n{self.log('bypost')}")
        base = samples[0]["arrived"]
        for sample in samples:
            sample["arrived"] -= base
        return samples

    def settled(self, before, total):
        """Waits until control has counted `total` more recipients as delivered; the counters."""
        wait_for(lambda: self.stats()["settle"]["delivered"] - before["settle"]["delivered"] >= total, 20, "the last commit", 0.05)
        return self.stats()

    def flaws(self, samples, before, after, total):
        """What makes a measurement worthless, in words."""
        first, last = samples[0]["stats"], samples[-1]["stats"]
        more = {name: last[name] - first[name] for name in last if isinstance(last[name], int) and isinstance(first.get(name), int)}
        found = [] if more["messages_unique"] == total else [f"{more['messages_unique']} messages arrived of {total}"]
        if more["digests_bad"] or not more["digests_good"]:
            found.append(f"{more['digests_bad']} bodies were damaged, {more['digests_good']} good")
        found += [f"{name}: {more[name]}" for name in more if more[name] and (name.startswith("errors_") or name in ("messages_repeated", "messages_without_id", "messages_untold",
                                                                                                                 "messages_refused", "messages_deferred"))]
        found += [f"{name}: {after['settle'][name] - before['settle'][name]}" for name in ("deferred", "bounced", "expired", "uncertain")
                  if after["settle"][name] != before["settle"][name]]
        return found


class Feeder(threading.Thread):
    """Pours commands while others watch; error is what went wrong, or None."""

    def __init__(self, bed, commands):
        super().__init__(daemon=True)
        self.bed, self.commands, self.error, self.seconds = bed, commands, None, None

    def run(self):
        began = time.monotonic()
        try:
            self.bed.pour(self.commands)
        except (OSError, TestbedError, ValueError) as error:
            self.error = str(error)
        self.seconds = time.monotonic() - began


def first_sentence(text):
    return re.sub(r"\s+", " ", text).strip()[:300]
