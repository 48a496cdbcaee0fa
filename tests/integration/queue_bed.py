"""A redis-server of a test's own, and queue_probe (fetch and settle with a sender that sends nothing) against it."""
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
warnings.simplefilter("ignore")
import redis  # noqa: E402

BUILD = os.environ.get("BYPOST_BUILD", os.path.join(ROOT, "build"))
PROBE = os.path.join(BUILD, "tests", "unit", "settle", "queue_probe")
PATIENCE = 40
BASE = "bypost:{0}:"


class Server:
    """redis-server on a Unix socket in a directory of its own; every commit is on disk before it is answered."""

    def __init__(self, *options):
        self.directory = tempfile.mkdtemp(prefix="bypost-queue-")
        self.socket = os.path.join(self.directory, "redis.sock")
        self.options = options
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", self.directory, "--save", "", "--appendonly", "yes",
             "--appendfsync", "always", "--loglevel", "warning", *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        password = self.options[self.options.index("--requirepass") + 1] if "--requirepass" in self.options else None
        self.client = redis.Redis(unix_socket_path=self.socket, decode_responses=True, password=password)
        wait_for(self.answers, "redis-server answers")

    def answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Probe:
    """queue_probe, its output gathered line by line."""

    def __init__(self, server, *options):
        self.lines = []
        self.errors = []
        self.process = subprocess.Popen([PROBE, "--redis", "unix:" + server.socket, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=self.gather, args=pair) for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def gather(stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))

    def wait(self, timeout=PATIENCE):
        """Its report; it ends by itself when it has been idle for --idle-ms."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return {"timeout": True}
        for thread in self.threads:
            thread.join()
        if self.process.returncode != 0:
            raise RuntimeError(f"the probe ended with status {self.process.returncode}: {self.errors[-30:]}")
        reports = [line for line in self.lines if line.startswith("{")]
        return json.loads(reports[-1]) if reports else {"status": self.process.returncode, "errors": self.errors[-20:]}

    def kill(self):
        self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join()

    def attempts(self):
        return [line.split() for line in self.lines if line.startswith("attempt ")]


def wait_for(condition, what, timeout=PATIENCE):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    raise TimeoutError(what)


def with_server(*options):
    """A test(t, server) with a server that lives as long as it."""
    def decorate(body):
        def run(t):
            server = Server(*options)
            try:
                body(t, server)
            finally:
                server.close()
        run.__name__ = body.__name__
        return run
    return decorate


def run_all(t, tests, only):
    """Each of them; one that fails does not hide the others."""
    if not os.access(PROBE, os.X_OK):
        t.check(False, "queue_probe is built", f"{PROBE} is not there: build it, or name the build directory in BYPOST_BUILD")
        return
    if not shutil.which("redis-server"):
        t.check(True, "queue # SKIP redis-server is not installed")
        return
    for test in tests:
        if not only or test.__name__ in only:
            try:
                test(t)
            except Exception as error:
                t.check(False, f"{test.__name__} ran to its end", repr(error))
