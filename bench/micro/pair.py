"""One worker of bypost-dataplane and bypost-sink on a core each, joined by virtio_user and vhost, and what feeds the worker (bench/micro/orders):
bench/messages and bench/tls run in it. Postfix's pair for comparison, over loopback in a namespace."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BYPOST_BUILD", os.path.join(ROOT, "build"))
SINK = os.path.join(BUILD, "bench/sink/bypost-sink")
DATAPLANE = os.path.join(BUILD, "dataplane/bypost-dataplane")
ORDERS = os.path.join(BUILD, "bench/micro/orders")
SERVERS = "198.18.1.1-198.18.1.16/16"
CLIENTS = ["198.18.2.%d/16" % last for last in range(1, 5)]
SLOTS = 16384
MEMORY_MIB = 256
START_SECONDS = 20
STOP_SECONDS = 20
SOURCE_SECONDS = 120
PRIORITY = "-10"  # of every program that is measured: others on the machine want the processors, too


class BenchError(Exception):
    """A sentence for the person at the terminal."""


def needs(*programs):
    """Root, and programs that were built or installed."""
    if os.geteuid() != 0:
        raise BenchError("needs root, for priorities and a namespace.")
    for program in programs:
        if shutil.which(program) is None:
            raise BenchError(f"{program} is not there: build the tree (ninja -C build), or set BYPOST_BUILD; deploy/setup installs the rest.")


def cores():
    """A core each; the same one twice on a machine of one."""
    have = sorted(os.sched_getaffinity(0))
    return (have[0], have[1]) if len(have) > 1 else (have[0], have[0])


def prefer(pid):
    """Kernels that share processors by session (sched_autogroup) see `nice` within a session only; so the session gets the priority, too."""
    try:
        with open(f"/proc/{pid}/autogroup", "w") as file:
            file.write(PRIORITY)
    except OSError:
        pass  # the kernel has none, or the process has ended


def processor_seconds(pid):
    """Of all its threads."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Programs:
    """Processes with their logs in a directory that ends with the block; each ends by its process ID."""

    def __init__(self, name):
        self.directory = tempfile.mkdtemp(prefix=f"bypost-{name}-", dir="/tmp")
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.stop(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, name, words, **pipes):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
        with open(self.path(name + ".log"), "ab") as log:
            process = subprocess.Popen([str(word) for word in words], stderr=log, start_new_session=True, text=True, **pipes)
        self.processes.append(process)
        if "nice" in words[:1]:
            prefer(process.pid)
        return process

    def stop(self, process):
        """Its exit status."""
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return process.returncode

    def forget(self, name):
        """So that another process of that name begins a log of its own."""
        os.unlink(self.path(name + ".log"))

    def log(self, name):
        try:
            with open(self.path(name + ".log"), errors="replace") as file:
                return "".join(line for line in file if "VHOST_CONFIG" not in line)[-2000:]
        except FileNotFoundError:
            return ""

    def wait_log(self, name, process, word, seconds=START_SECONDS):
        deadline = time.monotonic() + seconds
        while word not in self.log(name):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{name} did not start:\n{self.log(name)}")
            time.sleep(0.02)

    # -- what is the same over every wire --

    def start_sink(self, device, addresses, core, *words, inside=()):
        """`inside`: words before it that enter a namespace."""
        sink = self.start("sink", ["nice", "-n", PRIORITY, *inside, SINK, "--device", device, "--address", addresses, "--lcores", core, "--main-lcore", core,
                                   "--transactions", "8192", "--memory-mib", MEMORY_MIB, "--stats", self.path("stats.json"), *words])
        self.wait_log("sink", sink, "bypost-sink: ready")
        return sink

    def start_dataplane(self, port, core, *words, inside=()):
        dataplane = self.start("dataplane", ["nice", "-n", PRIORITY, *inside, DATAPLANE, "--journal", self.path("journal"), "--socket", self.path("dp.sock"),
                                             "--slots", SLOTS, "--paths", "16", "--lcores", core, "--main-lcore", core, "--memory-mib", MEMORY_MIB,
                                             "--arena-mib", "32", "--drain-timeout-ms", "2000", "--port", port, *words])
        self.wait_log("dataplane", dataplane, "bypost-dataplane: worker 0:")
        return dataplane

    def start_orders(self, core, to, sources, *words, **pipes):
        from_words = [word for source in sources for word in ("--from", source)]
        return self.start("orders", ["nice", "-n", PRIORITY, "taskset", "-c", core, ORDERS, "--journal", self.path("journal"), "--socket", self.path("dp.sock"), "--slots", SLOTS,
                                     "--to", to, *from_words, *words], stdout=subprocess.PIPE, **pipes)

    def finish_orders(self, orders, seconds):
        """Its figures."""
        try:
            text, _ = orders.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            orders.kill()
            text, _ = orders.communicate()
        if orders.returncode != 0 or not text.strip():
            raise BenchError(f"bench/micro/orders failed:\n{self.log('orders')}{self.log('dataplane')}")
        return json.loads(text)

    def stats(self, sink):
        """The sink's statistics, written anew."""
        path = self.path("stats.json")
        before = os.path.exists(path) and os.stat(path).st_ino
        sink.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if os.path.exists(path) and os.stat(path).st_ino != before:
                with open(path) as file:
                    return json.load(file)
            time.sleep(0.01)
        raise BenchError("bypost-sink wrote no statistics.")


class Pair(Programs):
    """Dataplane and sink over virtio_user. `tls`: with a CA and a certificate of their own. The words are more options of theirs."""

    def __init__(self, name, sessions=4096, tls=False, sink_words=(), dataplane_words=()):
        super().__init__(name)
        if tls:
            sink_words = ("--tls-test-ca", self.path("ca"), *sink_words)
        self.sessions, self.sink_words, self.dataplane_words = sessions, sink_words, dataplane_words
        self.sink_core, self.dataplane_core = cores()

    def __enter__(self):
        try:
            self.sink = self.start_sink(f"net_vhost0,iface={self.path('vhost.sock')}", SERVERS, self.sink_core, "--sessions", self.sessions + 64,
                                        *self.sink_words)
            addresses = ";".join(f"address={source}" for source in CLIENTS)
            self.dataplane = self.start_dataplane(f"device=net_virtio_user0,path={self.path('vhost.sock')},queue_size=1024;{addresses}", self.dataplane_core,
                                                  "--max-sessions", self.sessions, *self.dataplane_words)
        except BaseException:
            self.__exit__()
            raise
        return self

    def orders(self, *words, **pipes):
        """On the sink's core: the worker's is measured."""
        return self.start_orders(self.sink_core, SERVERS, CLIENTS, *words, **pipes)


class Postfix(Programs):
    """smtp-sink on one core and smtp-source on the other, over loopback in a namespace of their own."""

    PORT = 2525
    SESSIONS = 20

    def __init__(self):
        super().__init__("postfix")
        self.namespace = f"bp-messages-{os.getpid()}"
        self.inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        self.sink_core, self.source_core = cores()

    def __enter__(self):
        try:
            subprocess.run(["ip", "netns", "add", self.namespace], check=True)
            subprocess.run([*self.inside, "ip", "link", "set", "lo", "up"], check=True)
            self.sink = self.start("smtp-sink", ["nice", "-n", PRIORITY, *self.inside, "taskset", "-c", self.sink_core, "smtp-sink", "-u", "nobody",
                                                 f"127.0.0.1:{self.PORT}", "256"])
            deadline = time.monotonic() + START_SECONDS
            while subprocess.run([*self.inside, "bash", "-c", f"echo QUIT > /dev/tcp/127.0.0.1/{self.PORT}"], stderr=subprocess.DEVNULL, check=False).returncode:
                if time.monotonic() > deadline or self.sink.poll() is not None:
                    raise BenchError(f"smtp-sink did not start:\n{self.log('smtp-sink')}")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        super().__exit__()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)

    def send(self, messages, size, reuse):
        """Messages a second of smtp-source."""
        words = ["nice", "-n", PRIORITY, *self.inside, "taskset", "-c", str(self.source_core), "smtp-source", *(["-d"] if reuse else []), "-s", str(self.SESSIONS),
                 "-m", str(messages), "-l", str(size), "-f", "a@example.org", "-t", "b@example.net", f"inet:127.0.0.1:{self.PORT}"]
        began = time.monotonic()
        source = self.start("smtp-source", words)
        try:
            code = source.wait(SOURCE_SECONDS)
        except subprocess.TimeoutExpired:
            code = "it does not end"
        seconds = time.monotonic() - began
        if code != 0:
            raise BenchError(f"smtp-source: {code}: {self.log('smtp-source')}")
        self.processes.remove(source)
        return messages / seconds

    def rate(self, seconds, size, reuse, guess):
        """The same over about `seconds`, when some `guess` a second are expected."""
        return self.send(max(200, int(guess * seconds)), size, reuse)
