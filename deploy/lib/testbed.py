"""A private world for bypost: a network namespace with a DNS server, SMTP servers behind kernel TCP, a Redis on a socket, and bypost on a veth.

Used by deploy/quickstart and by tests/integration. Everything lives in one temporary directory and one namespace; close() removes both and ends
every process that was started here, by its process ID.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = "/usr/bin/python3"
SENDER_ADDRESS = "10.99.0.2"
SERVER_NETWORK = "10.99.0"
SENDER_ADDRESS6 = "2001:db8:99::2"  # the documentation's prefix, which exists nowhere
SERVER_NETWORK6 = "2001:db8:99:"
EHLO_NAME = "sender.example.org"
SENDER_DOMAIN = "example.org"


PATIENCE = 3


class TestbedError(Exception):
    """A sentence for the person at the terminal, with the remedy."""


def build_directory():
    return os.environ.get("BYPOST_BUILD", os.path.join(ROOT, "build"))


def binary(name):
    build = build_directory()
    path = {"bypost": "control/cli/bypost", "bypost-control": "control/bypost-control", "bypost-dataplane": "dataplane/bypost-dataplane",
            "bypost-sink": "bench/sink/bypost-sink"}[name]
    return os.path.join(build, path)


def wait_for(condition, seconds, what, step=0.02):
    """The first true value of condition(), asked every `step` seconds; a TestbedError that names `what` after PATIENCE times `seconds`.

    A busy machine is no fault of what is tested: a test of how long something takes measures it."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(step)
    raise TestbedError(f"{what} did not happen within {seconds} s.")


def control_stats(path):
    """Control's counters from its socket, or None while it is not there."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            client.connect(path)
            client.sendall(b"stats\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = client.recv(65536)
                if not part:
                    return None
                answer += part
        return json.loads(answer)
    except (OSError, ValueError):
        return None


def bracketed(address):
    """As it stands before ":port"."""
    return f"[{address}]" if ":" in address else address


class Testbed:
    """Order of use: servers and names, start_redis, start_dns, write_config, start_bypost; close, or leave the `with` block.

    With keep=True close() leaves the two directories, for a look at the logs.
    """

    def __init__(self, keep=False, name="bypost", stored_bytes=256 << 20):
        """stored_bytes: what the servers will store at most."""
        if os.geteuid() != 0:
            raise TestbedError("this makes a network namespace, which needs root: run it with sudo.")
        self.processes = []
        self.directory = tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp")
        os.chmod(self.directory, 0o755)
        self.namespace = f"{name}-{os.getpid()}"
        self.redis_socket = os.path.join(self.directory, "redis.sock")
        self.keep = keep
        self.sinks = self._memory_directory(name, stored_bytes)
        self.shaping = None
        self.dkim_keys, self.dkim_records = [], {}
        self.zones = []
        self.run_process = None
        try:
            self._make_namespace()
        except TestbedError:
            self.close()
            raise

    # -- the machine --

    def _memory_directory(self, name, stored_bytes):
        """Where servers store: smtp-sink makes a file for each message first, which on a disk costs more than all its SMTP. On the disk all the
        same when memory has no room for twice what will come."""
        parent = self.directory
        if os.access("/dev/shm", os.W_OK):
            memory = os.statvfs("/dev/shm")
            if memory.f_bavail * memory.f_frsize > 2 * stored_bytes:
                parent = "/dev/shm"
        directory = tempfile.mkdtemp(prefix=f"{name}-", dir=parent)
        os.chmod(directory, 0o777)
        return directory

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def command(self, *arguments, check=True, **options):
        """Runs a command to its end and returns its output; failing is a TestbedError unless check=False."""
        result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        if check and result.returncode != 0:
            raise TestbedError(f"`{' '.join(arguments)}` failed: {result.stdout.strip()}")
        return result.stdout

    def inside(self, *arguments):
        """The same command in the namespace. (`ip netns exec` would remount /sys, which a chroot refuses.)"""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *arguments]

    def start(self, name, arguments, inside=True, **options):
        """Starts a process with its output in NAME.log."""
        log = open(self.path(name + ".log"), "ab")
        process = subprocess.Popen(self.inside(*arguments) if inside else list(arguments), stdin=subprocess.DEVNULL, stdout=options.pop("stdout", log),
                                   stderr=log, start_new_session=True, **options)
        log.close()
        self.processes.append((name, process))
        return process

    def log(self, name, lines=15):
        """The end of NAME.log."""
        try:
            with open(self.path(name + ".log"), errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _make_namespace(self):
        self.command("ip", "netns", "add", self.namespace)
        for arguments in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "link", "add", "byp", "type", "veth", "peer", "name", "srv"),
            ("ip", "addr", "add", f"{SERVER_NETWORK}.1/24", "dev", "srv"),
            ("sysctl", "-qw", "net.ipv6.conf.byp.disable_ipv6=1"),  # its link-local address would be bypost's too
            ("ip", "link", "set", "srv", "up"),
            ("ip", "link", "set", "byp", "up"),
            ("sysctl", "-qw", "net.ipv4.tcp_congestion_control=cubic"),
            ("sysctl", "-qw", "net.core.somaxconn=4096"),
            ("sysctl", "-qw", "net.ipv6.conf.srv.disable_ipv6=0"),
            # bypost verifies checksums, and takes frames of the MTU: the kernel must finish both.
            ("ethtool", "-K", "srv", "tx", "off", "tso", "off", "gso", "off", "gro", "off"),
            ("ethtool", "-K", "byp", "tx", "off", "tso", "off", "gso", "off", "gro", "off"),
        ):
            self.command(*self.inside(*arguments), check=arguments[0] != "sysctl")
        if os.path.exists("/proc/sys/net/ipv6"):  # a kernel may have been started without
            self.add_server_address6(1)

    def add_server_address(self, last):
        """One more address on the servers' side, by its last byte."""
        address = f"{SERVER_NETWORK}.{last}"
        self.command(*self.inside("ip", "addr", "add", f"{address}/24", "dev", "srv"))
        return address

    def add_server_address6(self, last):
        """The same for IPv6; `last` is its last 16 bits, in hexadecimal."""
        address = f"{SERVER_NETWORK6}:{last}"
        self.command(*self.inside("ip", "-6", "addr", "add", f"{address}/64", "dev", "srv", "nodad"))
        return address

    # -- servers --

    def start_redis(self, append_only=True, fsync="everysec"):
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        if server is None:
            raise TestbedError("there is no redis-server: deploy/setup installs it.")
        process = self.start("redis", [server, "--port", "0", "--unixsocket", self.redis_socket, "--unixsocketperm", "777", "--dir", self.directory,
                                       "--appendonly", "yes" if append_only else "no", "--appendfsync", fsync, "--save", "",
                                       "--maxmemory-policy", "noeviction"])
        wait_for(lambda: self._redis_answers() or process.poll() is not None, 10, "an answer of redis-server")
        if process.poll() is not None:
            raise TestbedError(f"redis-server ended: {self.log('redis')}")
        return process

    def _redis_answers(self):
        try:
            return self.redis().ping()
        except Exception:  # not yet there, or still loading
            return False

    def redis(self):
        import redis

        return redis.Redis(unix_socket_path=self.redis_socket)

    def mx(self, domain, *hosts):
        """An MX record for each (preference, host, address, ...), and the address records of its addresses, of either family."""
        for preference, host, *addresses in hosts:
            self.zones.append(f'local-data: "{domain}. 60 IN MX {preference} {host}."')
            for address in addresses:
                self.zones.append(f'local-data: "{host}. 60 IN {"AAAA" if ":" in address else "A"} {address}"')

    def start_dns(self):
        """unbound with what mx() and `zones` named; all else in test. and example.org. does not exist."""
        path = self.path("unbound.conf")
        seen = set()
        with open(path, "w") as file:
            file.write(
                f"""server:
  directory: "{self.directory}"
  chroot: ""
  username: ""
  pidfile: "{self.path('unbound.pid')}"
  interface: 127.0.0.1@53
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." static
  local-zone: "example.org." static
  num-threads: 1
"""
            )
            for line in self.zones:
                if line not in seen:
                    seen.add(line)
                    file.write(f"  {line}\n")
            file.write("remote-control:\n  control-enable: no\n")
        unbound = shutil.which("unbound") or "/usr/sbin/unbound"
        process = self.start("unbound", [unbound, "-d", "-c", path])
        time.sleep(0.2)
        if process.poll() is not None:
            raise TestbedError(f"unbound ended: {self.log('unbound')}")

    def start_sink(self, name, address, *options, port=25):
        """Postfix's smtp-sink; what it received is in NAME.dump."""
        dump = os.path.join(self.sinks, name + ".dump")
        sink = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
        self.start("sink-" + name, [sink, "-u", "nobody", "-D", dump, *options, f"{bracketed(address)}:{port}", "1000"])
        self._wait_for_port(address, port)
        return dump

    def start_mailserver(self, name, address, *options, port=25):
        """deploy/lib/mailserver.py: aiosmtpd that keeps what it takes, and refuses or defers by the recipient's name."""
        dump = os.path.join(self.sinks, name + ".dump")
        self.start(name, [PYTHON, os.path.join(ROOT, "deploy", "lib", "mailserver.py"), "--listen", f"{bracketed(address)}:{port}", "--dump", dump, *options])
        self._wait_for_port(address, port)
        return dump

    def start_bypost_sink(self, name, addresses, *options):
        """bypost-sink in the kernel's place on the servers' link; `addresses` as it takes them, none of them the kernel's. Its process, whose
        figures bypost_sink_stats gives; NAME.record has a line for each recipient of a message that it took."""
        process = self.start(name, [binary("bypost-sink"), "--device", f"net_af_packet_{name},iface=srv,blocksz=1048576,framesz=2048,framecnt=4096,qdisc_bypass=1",
                                    "--address", addresses, "--stats", self.path(name + ".json"), "--record", self.path(name + ".record"), *options])
        wait_for(lambda: "bypost-sink: ready" in self.log(name) or process.poll() is not None, 20, "bypost-sink's start", 0.05)
        if process.poll() is not None:
            raise TestbedError(f"bypost-sink ended at its start:\n{self.log(name)}")
        return process

    def bypost_sink_stats(self, name, process):
        """What it counts now, as a dictionary; NAME.record is complete up to here."""
        path = self.path(name + ".json")
        before = os.path.exists(path) and os.stat(path).st_ino
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: os.path.exists(path) and os.stat(path).st_ino != before, 10, "bypost-sink's statistics")
        with open(path) as file:
            return json.load(file)

    def _wait_for_port(self, address, port):
        probe = f"import socket; socket.create_connection(({address!r}, {port}), 1).close()"
        wait_for(lambda: subprocess.run(self.inside(PYTHON, "-c", probe), stderr=subprocess.DEVNULL).returncode == 0, 15, f"a server on {address}:{port}", 0.1)

    def make_certificate(self, host):
        """A CA of this moment, in ca.pem, and HOST.pem: a key with its certificate for `host`."""
        def openssl(*arguments):
            try:
                self.command("openssl", *arguments)
            except FileNotFoundError:
                raise TestbedError("there is no openssl: deploy/setup installs it.") from None
        key, path = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"), self.path(host + ".pem")
        openssl("req", "-x509", *key, "-keyout", self.path("ca.key"), "-out", self.path("ca.pem"), "-days", "2", "-subj", "/CN=a CA of this moment")
        openssl("req", *key, "-keyout", path, "-out", self.path(host + ".csr"), "-subj", "/CN=" + host)
        with open(self.path(host + ".ext"), "w") as file:
            file.write(f"subjectAltName=DNS:{host}\n")
        openssl("x509", "-req", "-in", self.path(host + ".csr"), "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-set_serial", "2", "-days", "2",
                "-extfile", self.path(host + ".ext"), "-out", self.path(host + ".crt"))
        with open(self.path(host + ".crt")) as certificate, open(path, "a") as file:
            file.write(certificate.read())
        return path

    # -- bypost --

    def make_dkim_key(self, domain=SENDER_DOMAIN, selector="s1", kinds=("rsa",)):
        """Keys that write_config then names, a selector each: `selector`, then with the kind behind it. dkim_record is the first one's DNS record,
        dkim_records those of all by their selectors. The first key's file."""
        for kind in kinds:
            name = selector if kind == kinds[0] else selector + kind
            key = self.path("dkim.pem" if kind == kinds[0] else f"dkim-{kind}.pem")
            output = self.command(binary("bypost"), "dkim", "keygen", "--domain", domain, "--selector", name, "--out", key, *(("--type", kind) if kind != "rsa" else ()))
            self.dkim_records[name] = next(part for part in output.replace('"', " ").split("\n") if "p=" in part)
            self.dkim_keys.append({"domain": domain, "selector": name, "key": key})
        self.dkim_record = self.dkim_records[selector]
        return self.dkim_keys[0]["key"]

    def write_config(self, extra=None, shaping=None, slots=4096, lcores=None, retry=None, ipv6=False):
        """bypost.yaml (JSON is YAML) and shaping.yaml for this world. With `ipv6` the port has an IPv6 address and gateway too, and the pool both
        addresses.

        `extra` goes over the top-level keys, merged where both are mappings; `shaping` replaces the generous default limits.
        """
        cores = os.sched_getaffinity(0)
        config = {
            "sandbox": True,
            "node": "testbed",
            "run_directory": self.path("run"),
            "state_directory": self.path("state"),
            "shaping": self.path("shaping.yaml"),
            "redis": {"address": f"unix:{self.redis_socket}"},
            "dataplane": {
                "lcores": lcores or [max(cores)],
                "memory": "384M",
                "arena": "128M",
                "hugepages": "off",
                "max_sessions": 4096,
                "drain_timeout": "10s",
                "ports": [{"device": "net_af_packet0,iface=byp,blocksz=1048576,framesz=2048,framecnt=4096,qdisc_bypass=1", "addresses": [f"{SENDER_ADDRESS}/24"],
                           "gateway": f"{SERVER_NETWORK}.1"}],
            },
            "journal": {"path": self.path("run", "journal"), "slots": slots, "paths": 512},
            "dns": {"servers": ["127.0.0.1"]},
            "signing_threads": len(cores),  # the worker idles adaptively and leaves most of its core to others
            "pools": {"default": [{"address": SENDER_ADDRESS, "ehlo": EHLO_NAME}]},
            "logs": {"delivery": self.path("delivery.log")},
            "metrics": {"listen": "none"},  # several nodes may share this namespace
            "events": {"types": ["delivered", "deferred", "bounced", "expired", "dead"]},
            "queues": {"*": {"retry": retry or {"first": "2s", "max": "10s", "give_up": "10m"}}},
        }
        if self.dkim_keys:
            config["dkim"] = {"keys": self.dkim_keys}
        if ipv6:
            port = config["dataplane"]["ports"][0]
            port["addresses"].append(f"{SENDER_ADDRESS6}/64")
            port["gateway"] = [port["gateway"], f"{SERVER_NETWORK6}:1"]
            config["pools"]["default"].append({"address": SENDER_ADDRESS6, "ehlo": EHLO_NAME})
        for key, value in (extra or {}).items():
            if isinstance(value, dict) and isinstance(config.get(key), dict):
                config[key].update(value)
            else:
                config[key] = value
        os.makedirs(self.path("run"), exist_ok=True)
        os.makedirs(self.path("state"), exist_ok=True)
        generous = {"connection_limit": 20, "max_connection_rate": "1000/s", "max_message_rate": "100000/s", "max_deliveries_per_connection": 1000,
                    "provider_connection_limit": 1000, "provider_max_connection_rate": "1000/s", "provider_max_message_rate": "100000/s"}
        with open(self.path("shaping.yaml"), "w") as file:
            json.dump({"default": shaping or generous}, file, indent=1)
        with open(self.path("bypost.yaml"), "w") as file:
            json.dump(config, file, indent=1)
        return self.path("bypost.yaml")

    def start_bypost(self, *options):
        """`bypost run`, until both processes answer."""
        self.run_process = self.start("bypost", [binary("bypost"), "run", "--config", self.path("bypost.yaml"), *options])
        wait_for(lambda: self.stats() is not None or self.run_process.poll() is not None, 30, "bypost's start")
        if self.run_process.poll() is not None:
            raise TestbedError(f"bypost ended at its start:\n{self.log('bypost')}")
        wait_for(lambda: (self.stats() or {}).get("dataplane"), 30, "the dataplane's start")
        return self.run_process

    def stop_bypost(self, seconds=40):
        """SIGTERM, the drain, and the exit status; None when it was not running."""
        if self.run_process is None or self.run_process.poll() is not None:
            return None
        self.run_process.terminate()
        try:
            return self.run_process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TestbedError(f"bypost did not stop within {seconds} s:\n{self.log('bypost')}") from None

    def stats(self):
        """Control's counters, or None while it is not there."""
        return control_stats(self.path("run", "control.sock"))

    def child(self, name):
        """The process ID of bypost-control or bypost-dataplane under `bypost run`, or None."""
        if self.run_process is None:
            return None
        try:
            with open(f"/proc/{self.run_process.pid}/task/{self.run_process.pid}/children") as file:
                children = [int(pid) for pid in file.read().split()]
            for pid in children:
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == name:
                    return pid
        except OSError:
            pass
        return None

    def events(self):
        """Every event in Redis, as dictionaries; one of no recipient (a dead letter) has "" there."""
        client = self.redis()
        events, last = [], b"-"
        while True:
            batch = client.xrange("bypost:{0}:events", min=last, count=5000)
            if not batch:
                return events
            events.extend({"recipient": "", **json.loads(fields[b"event"])} for _, fields in batch)
            last = b"(" + batch[-1][0]

    # -- the end --

    def close(self):
        """Ends everything: bypost by its drain, servers by a signal, what is left in the namespace by force."""
        if self.run_process is not None and self.run_process.poll() is None:
            try:
                self.stop_bypost(20)
            except TestbedError:
                pass
        for _, process in reversed(self.processes):
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except OSError:
                    pass
        for _, process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        for pid in self.command("ip", "netns", "pids", self.namespace, check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except (OSError, ValueError):
                pass
        self.command("ip", "netns", "del", self.namespace, check=False)
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(self.sinks, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_dump(path):
    """The messages of an smtp-sink dump, or of mailserver.py: (recipients, message bytes with LF line ends)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    mark = b"X-Client-Addr: "
    start = 0 if data.startswith(mark) else -1
    while start >= 0:
        end = data.find(b"\n" + mark, start)
        record = data[start : end + 1 if end >= 0 else len(data)]
        recipients = []
        head = 0
        while True:
            line_end = record.find(b"\n", head)
            line = record[head:line_end]
            if line.startswith(b"X-Rcpt-Args: "):
                recipients.append(line[13:].strip().split(b" ")[0].strip(b"<>").decode("utf-8", "replace"))
            elif not line.startswith((b"X-", b"Received: from", b"\t")):
                break
            head = line_end + 1
        body = record[head:]
        yield recipients, body[:-1] if body.endswith(b"\n\n") else body
        start = end + 1 if end >= 0 else -1


def header(message, name):
    """The first header field of that name, unfolded, or None."""
    head = message.split(b"\n\n", 1)[0]
    wanted = name.lower().encode() + b":"
    lines = head.split(b"\n")
    for index, line in enumerate(lines):
        if line.lower().startswith(wanted):
            value = line[len(wanted):]
            for more in lines[index + 1 :]:
                if not more.startswith((b" ", b"\t")):
                    break
                value += more
            return value.strip().decode("utf-8", "replace")
    return None


if __name__ == "__main__":
    sys.exit("testbed.py is used by deploy/quickstart and by tests/integration.")
