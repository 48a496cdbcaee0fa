"""Postfix with OpenDKIM, from smtp-source to smtp-sink, tuned as one would for this: what bench/endtoend compares with."""
import base64
import os
import pwd
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "lib"))
from postfix_master import PICKUP, master_cf  # noqa: E402
from testbed import SENDER_DOMAIN, Testbed, TestbedError, read_dump, wait_for  # noqa: E402
from whole import ALGORITHMS, QUIET_SECONDS, SAMPLE_SECONDS, SELECTORS, Unable, between, thread_seconds  # noqa: E402

SMTPD, SINK, PROBE = 2525, 2526, 2527
SESSIONS = (8, 20, 40)  # of smtp-source: the best is measured
TRIED_SECONDS = 1.5
# What was set, told with the figures. All of it helps Postfix, or leaves out what bypost does not do either.
TUNING = {
    "queue_directory": "on tmpfs, so that fsync costs nothing; bypost's Redis writes its log, everysec, on tmpfs too",
    "default_destination_concurrency_limit, initial_destination_concurrency": "50: few processes suffice for two cores, and the limit is not met",
    "qmgr_message_active_limit, qmgr_message_recipient_limit": "100000",
    "in_flow_delay": "0: arrivals are never slowed down",
    "smtp_connection_cache_on_demand": "yes (the default), and smtp_connection_cache_destinations names the sink: connections are reused",
    "max_use": "100000, max_idle 1000s: no process is started anew in a run",
    "default_process_limit": "100",
    "names": "no DNS at all (relayhost by address, no reverse lookup of the client); bypost looks up every domain's MX",
    "log": "maillog_file on tmpfs by postlogd; bypost writes its delivery log and events",
    "opendkim": "a milter on a Unix socket, one for each algorithm, relaxed/relaxed, no log, the same fields oversigned",
}
MAIN = """compatibility_level = 3.6
queue_directory = {base}/spool
data_directory = {base}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
maillog_file = {base}/log
maillog_file_prefixes = /dev/shm, /tmp, /var
relayhost = [127.0.0.1]:{sink}
transport_maps = inline:{{ probe.test=smtp:[127.0.0.1]:{probe} }}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
smtp_tls_security_level = none
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = [127.0.0.1]:{sink}
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
default_process_limit = 100
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
in_flow_delay = 0
max_use = 100000
max_idle = 1000s
message_size_limit = 0
alias_maps =
{milter}
"""
MASTER = master_cf("{smtpd} inet n - n - - smtpd", PICKUP, "retry unix - - n - - error", "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
                   "scache unix - - n - 1 scache")
PARTS = {"smtpd": "smtpd", "cleanup": "cleanup", "qmgr": "qmgr", "smtp": "smtp", "opendkim": "opendkim", "smtp-sink": "sink", "smtp-source": "source",
         "trivial-rewrite": "rewrite", "postlogd": "postlogd"}


class Postfix(Testbed):
    """Runs when the `with` block is entered. Raises Unable where this machine's Postfix or OpenDKIM cannot do it."""

    def __init__(self, sign):
        super().__init__(name="bp-endtoend", stored_bytes=1 << 30)
        self.started, self.records = False, {}
        try:
            for program in ("postfix", "smtp-source", "smtp-sink", *(("opendkim",) if sign != "none" else ())):
                if shutil.which(program) is None:
                    raise Unable(f"{program} is not installed")
            self._start(sign)
        except BaseException:
            self.close()
            raise

    def _start(self, sign):
        self.base = os.path.join(self.sinks, "postfix")  # on tmpfs
        self.counts = os.path.join(self.sinks, "counts")
        os.chmod(self.sinks, 0o755)
        for name in ("etc", "spool", "data"):
            os.makedirs(os.path.join(self.base, name))
        os.chown(os.path.join(self.base, "data"), pwd.getpwnam("postfix").pw_uid, -1)
        milter = ""
        if sign != "none":
            milters = ", ".join(self._start_opendkim(kind) for kind in ALGORITHMS[sign])
            milter = f"smtpd_milters = {milters}\nmilter_default_action = tempfail\nmilter_protocol = 6"
        with open(os.path.join(self.base, "etc", "main.cf"), "w") as file:
            file.write(MAIN.format(base=self.base, sink=SINK, probe=PROBE, milter=milter))
        with open(os.path.join(self.base, "etc", "master.cf"), "w") as file:
            file.write(MASTER.format(smtpd=SMTPD))
        with open(self.counts, "wb") as counts:  # -c: a running count, which is one small write a message
            self.start("smtp-sink", ["smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{SINK}", "1000"], stdout=counts)
        probe = os.path.join(self.sinks, "probe")
        os.mkdir(probe)
        os.chmod(probe, 0o777)
        self.probe = os.path.join(probe, "dump")
        self.start("probe", ["smtp-sink", "-u", "nobody", "-D", self.probe, f"127.0.0.1:{PROBE}", "10"])
        self.start("postfix", ["/usr/sbin/postfix", "-c", os.path.join(self.base, "etc"), "start-fg"])
        self.started = True
        for port in (SINK, PROBE, SMTPD):
            self._wait_for_port("127.0.0.1", port)

    def _start_opendkim(self, kind):
        """One for each algorithm: opendkim 2.11 makes signatures of one only. The milter's address."""
        path, base = os.path.join(self.base, kind + ".pem"), os.path.join(self.base, "opendkim-" + kind)
        words = ("-algorithm", "ed25519") if kind == "ed25519" else ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
        self.command("openssl", "genpkey", *words, "-out", path)
        os.chmod(path, 0o600)
        public = "".join(self.command("openssl", "pkey", "-in", path, "-pubout").strip().split("\n")[1:-1])
        if kind == "ed25519":  # RFC 8463: the raw key, the last 32 bytes of the SubjectPublicKeyInfo
            public = base64.b64encode(base64.b64decode(public)[-32:]).decode()
        self.records[SELECTORS[kind]] = f"v=DKIM1; k={kind}; p={public}"
        with open(base + ".conf", "w") as file:
            file.write(f"""Syslog no
Mode s
Canonicalization relaxed/relaxed
SignatureAlgorithm {kind}-sha256
Domain {SENDER_DOMAIN}
Selector {SELECTORS[kind]}
KeyFile {path}
OversignHeaders From,To,Cc,Subject,Reply-To
InternalHosts 127.0.0.1
RequireSafeKeys no
UMask 000
Socket local:{base}.sock
""")
        name = "opendkim-" + kind
        process = self.start(name, ["opendkim", "-f", "-x", base + ".conf"])
        try:
            wait_for(lambda: os.path.exists(base + ".sock") or process.poll() is not None, 10, "opendkim's start", 0.05)
        except TestbedError as error:
            raise Unable(str(error)) from None
        if process.poll() is not None:
            raise Unable(f"opendkim does not start with {kind}: {self.log(name)}")
        return f"unix:{base}.sock"

    def check_signatures(self, sign):
        """One message by way of a server that keeps it, judged by dkimpy."""
        import dkim

        self._source(1, 1, 1000, "a@probe.test")
        try:
            wait_for(lambda: os.path.exists(self.probe) and os.path.getsize(self.probe) > 1000, 5, "the probe's arrival", 0.1)
        except TestbedError:
            raise Unable(f"opendkim signs nothing with {sign}: {self.mail_log()}")
        _, message = next(read_dump(self.probe))
        message = re.sub(b"\r*\n", b"\r\n", message)
        verifier = dkim.DKIM(message)
        wanted = ALGORITHMS[sign]
        found = message.count(b"DKIM-Signature:")
        if found != len(wanted):
            raise Unable(f"opendkim made {found} signatures, {len(wanted)} were asked for")

        def record(name, timeout=5):
            selector = (name.decode() if isinstance(name, bytes) else name).split(".")[0]
            return self.records[selector].encode()

        for index in range(found):
            try:
                good = verifier.verify(idx=index, dnsfunc=record)
            except Exception as error:  # what dkimpy says of a signature it cannot read
                good, why = False, f": {error}"
            else:
                why = ""
            if not good:
                raise Unable(f"dkimpy does not verify what opendkim signed with {sign}{why}")

    def mail_log(self):
        try:
            with open(os.path.join(self.base, "log"), errors="replace") as file:
                return "".join(file.readlines()[-6:])
        except FileNotFoundError:
            return ""

    def _source(self, count, sessions, size, recipient, wait=True):
        process = self.start("smtp-source", ["smtp-source", "-d", "-s", str(sessions), "-m", str(count), "-l", str(size), "-f", f"news@{SENDER_DOMAIN}", "-t", recipient,
                                                  f"inet:127.0.0.1:{SMTPD}"])
        if wait and process.wait(60) != 0:
            raise TestbedError(f"smtp-source failed: {self.log('smtp-source')}\n{self.mail_log()}")
        return process

    def arrived(self):
        """smtp-sink's own count."""
        with open(self.counts, "rb") as file:
            file.seek(max(0, os.path.getsize(self.counts) - 200))
            words = file.read().split(b"mesg=")
        return int(words[-1].split()[0]) if len(words) > 1 and words[-1].split() else 0

    def cpu(self):
        parts = dict.fromkeys(sorted({*PARTS.values(), "rest"}), 0.0)
        for pid in self.command("ip", "netns", "pids", self.namespace, check=False).split():
            try:
                with open(f"/proc/{pid}/stat") as file:  # of threads that have ended, too: opendkim has one for each connection
                    name, fields = file.read().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            parts[PARTS.get(name, "rest")] += sum(int(ticks) for ticks in fields.split()[11:13]) / os.sysconf("SC_CLK_TCK")
        return parts

    def send(self, count, sessions, size):
        """Messages a second from the beginning of the submission to the last receipt, and processor a message."""
        first = {"at": time.monotonic(), "arrived": self.arrived(), "cpu": self.cpu()}
        source = self._source(count, sessions, size, "b@site0.test", wait=False)
        moved_at, seen, source_s = time.monotonic(), first["arrived"], 0.0
        while (now := self.arrived()) < first["arrived"] + count:
            time.sleep(SAMPLE_SECONDS / 5)
            if source.poll() is None:
                source_s = sum(seconds for _, seconds in thread_seconds(source.pid).values()) or source_s  # it is gone at the end
            if now != seen:
                moved_at, seen = time.monotonic(), now
            elif time.monotonic() - moved_at > QUIET_SECONDS:
                raise TestbedError(f"Postfix delivers no more: {now - first['arrived']} of {count}\n{self.mail_log()}")
        last = {"at": time.monotonic(), "arrived": now, "cpu": self.cpu()}
        if source.wait(10) != 0:
            raise TestbedError(f"smtp-source failed: {self.log('smtp-source')}")
        last["cpu"]["source"] = first["cpu"]["source"] + source_s
        return between(first, last)

    def best_sessions(self, size, quick=False):
        """(sessions, messages a second) of the best of SESSIONS, after a warm-up; the middle one where it must be quick."""
        rate = self.send(60 if quick else 200, SESSIONS[1], size)["per_second"]
        if quick:
            return SESSIONS[1], rate
        tried = {sessions: self.send(max(100, int(rate * TRIED_SECONDS)), sessions, size)["per_second"] for sessions in SESSIONS}
        best = max(tried, key=tried.get)
        return best, tried[best]

    def close(self):
        if self.started:
            subprocess.run(["/usr/sbin/postfix", "-c", os.path.join(self.base, "etc"), "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.started = False
        super().close()
