"""What deploy/quickstart does once the machine is set up."""
import argparse
import json
import multiprocessing
import os
import signal
import socket
import stat
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from testbed import SENDER_DOMAIN, Testbed, TestbedError, binary, header, read_dump  # noqa: E402

SITES = 4
SECURE_MESSAGES = 100  # at most a tenth: so many go to a server with STARTTLS, which is written in Python
QUIET_SECONDS = 60  # no progress for so long ends the run
SIGNED = {"none": (), "rsa": ("rsa",), "ed25519": ("ed25519",), "both": ("rsa", "ed25519")}
STREAM = "bypost:{0}:q:normal"
WORDS = "the quick brown fox jumps over the lazy dog while mail flows from queue to wire ".split()


def parse_arguments():
    parser = argparse.ArgumentParser(prog="deploy/quickstart", usage="deploy/quickstart --help lists the options")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--domains", type=int, default=100)
    parser.add_argument("--recipients-per-job", type=int, default=1)
    parser.add_argument("--refuse", type=float, default=0)
    parser.add_argument("--defer", type=float, default=0)
    parser.add_argument("--sign", choices=tuple(SIGNED), default="none")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--check-options", action="store_true", help=argparse.SUPPRESS)  # deploy/quickstart asks before its setup
    options = parser.parse_args()
    for name, low, high in (("messages", 1, 10_000_000), ("size", 1, 20_000_000), ("domains", 1, 10_000), ("recipients_per_job", 1, 500),
                            ("refuse", 0, 100), ("defer", 0, 100)):
        if not low <= getattr(options, name) <= high:
            parser.error(f"--{name.replace('_', '-')} takes a number from {low} to {high}")
    if options.refuse + options.defer > 100:
        parser.error("--refuse and --defer are more than 100 percent together")
    if options.ipv6 and not os.path.exists("/proc/sys/net/ipv6"):
        parser.error("--ipv6: this kernel was started without IPv6")
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def make_text(size):
    """ASCII text of `size` bytes in lines of ordinary length."""
    lines, used, index = [], 0, 0
    while used < size:
        line = " ".join(WORDS[(index + offset) % len(WORDS)] for offset in range(12))[:70]
        lines.append(line)
        used += len(line) + 1
        index += 5
    return "\n".join(lines)[: max(size - 1, 0)] + "\n"


def spread(places, percent, total):
    """`percent` of `total` of these places, evenly among them."""
    count = min(round(total * percent / 100), len(places))
    return {places[number * len(places) // count] for number in range(count)}


def make_recipients(options):
    """The addresses, with the refused and the deferred ones spread evenly among them."""
    places = list(range(options.messages))
    refused = spread(places, options.refuse, options.messages)
    deferred = spread([place for place in places if place not in refused], options.defer, options.messages)
    others = [place for place in places if place not in refused and place not in deferred]
    secure = set(others[:: max(10, -(-len(others) // SECURE_MESSAGES))])
    recipients = []
    for number in places:
        domain = number % options.domains
        if number in refused:
            recipients.append(f"refuse-{number:07d}@strict{domain}.test")
        elif number in deferred:
            recipients.append(f"defer-{number:07d}@strict{domain}.test")
        elif number in secure:
            recipients.append(f"user{number:07d}@secure.test")
        else:
            recipients.append(f"user{number:07d}@d{domain}.test")
    return recipients


def on_ipv6(site, options):
    return options.ipv6 and site % 2 == 1


def make_world(bed, options):
    """Servers and names: domains share a few sites, as domains at a mail provider do; with --ipv6 every other site has nothing but IPv6."""
    dumps = []
    for site in range(SITES):
        address = bed.add_server_address6(10 + site) if on_ipv6(site, options) else bed.add_server_address(10 + site)
        dumps.append(bed.start_sink(f"site{site}", address))
        for domain in range(site, options.domains, SITES):
            bed.mx(f"d{domain}.test", (10, f"mx.site{site}.test", address))
    strict = bed.add_server_address(30)
    dumps.append(bed.start_mailserver("strict", strict))
    for domain in range(options.domains):
        bed.mx(f"strict{domain}.test", (10, "mx.strict.test", strict))
    secure = bed.add_server_address(32)
    dumps.append(bed.start_mailserver("secure", secure, "--certificate", bed.make_certificate("mx.secure.test")))
    bed.mx("secure.test", (10, "mx.secure.test", secure))
    inbox = bed.add_server_address(31)
    bed.start_mailserver("inbox", inbox, "--maildir", bed.path("inbox.test"))
    bed.mx("inbox.test", (10, "mx.inbox.test", inbox))
    bed.start_dns()
    return dumps


def protocol(*parts):
    """One command in Redis's wire format."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in encoded)


def make_commands(recipients, options):
    text = make_text(options.size)
    commands = []
    for start in range(0, len(recipients), options.recipients_per_job):
        group = recipients[start : start + options.recipients_per_job]
        job = {"from": f"Quick Start <news@{SENDER_DOMAIN}>", "subject": f"Message {start}", "text": text}
        if options.recipients_per_job == 1:
            job["to"] = group[0]
        else:
            job["recipients"] = [{"to": recipient} for recipient in group]
        commands.append(protocol("XADD", STREAM, "*", "job", json.dumps(job)))
    return commands


def submit(bed, commands):
    """All of them, pipelined over one connection as `redis-cli --pipe` does."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(bed.redis_socket)
    replies = [0]

    def count():
        left = b"\r\n"
        while replies[0] < len(commands):
            data = client.recv(1 << 20)
            if not data:
                return
            if b"\r\n-" in left + data:  # an error: the jobs without an answer tell how many were refused
                return
            replies[0] += data.count(b"$")
            left = data[-2:]

    reader = threading.Thread(target=count)
    reader.start()
    for start in range(0, len(commands), 500):
        client.sendall(b"".join(commands[start : start + 500]))
    reader.join(120)
    client.close()
    if replies[0] != len(commands):
        raise TestbedError(f"Redis took {replies[0]} of {len(commands)} jobs: {bed.log('redis')}")


def cpu_seconds(bed):
    """User and system seconds of each part so far."""
    tick = os.sysconf("SC_CLK_TCK")
    parts = {"dataplane": [bed.child("bypost-dataplane")], "control": [bed.child("bypost-control")]}
    for name, process in bed.processes:
        part = "servers" if name.startswith(("sink", "strict", "secure", "inbox")) else name
        if part != "bypost":
            parts.setdefault(part, []).append(process.pid)
    seconds = {}
    for part, pids in parts.items():
        total = 0
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
            except (OSError, TypeError):
                pass
        seconds[part] = total / tick
    with open("/proc/stat") as file:
        fields = [int(value) for value in file.readline().split()[1:]]
    seconds["machine"] = sum(fields[:3] + fields[5:8]) / tick
    return seconds


def follow(bed, total):
    """Until every recipient has an end, or nothing moves any more."""
    done, moved_at, shown_at = -1, time.monotonic(), 0.0
    while True:
        stats = bed.stats()
        settle = (stats or {}).get("settle", {})
        ended = settle.get("delivered", 0) + settle.get("bounced", 0) + settle.get("expired", 0)
        now = time.monotonic()
        progress = ended + settle.get("deferred", 0)
        if progress != done:
            done, moved_at = progress, now
        if sys.stderr.isatty() or now - shown_at > 5:
            shown_at = now
            say(f"  {ended} of {total} ended; {settle.get('deferred', 0)} deferrals so far" + ("\033[F" if sys.stderr.isatty() else ""))
        if ended >= total:
            return True
        if bed.run_process.poll() is not None:
            raise TestbedError(f"bypost ended in the middle:\n{bed.log('bypost')}")
        if now - moved_at > QUIET_SECONDS:
            return False
        time.sleep(0.25)


_records = {}


def verify_one(message):
    """How many of its signatures verify. (dkimpy looks at one at a time.)"""
    import dkim

    message = message.replace(b"\n", b"\r\n")
    good = 0
    for index in range(message.split(b"\r\n\r\n", 1)[0].count(b"DKIM-Signature:")):
        try:
            good += dkim.DKIM(message).verify(index, dnsfunc=lambda name, timeout=5: _records[name.split(b".")[0]])
        except Exception:  # a damaged message is a failed signature
            pass
    return good


def _verify_start(records):
    _records.update({selector.encode(): record.encode() for selector, record in records.items()})


def verify_signatures(messages, records):
    """The signatures that verify, of all messages."""
    with multiprocessing.Pool(os.cpu_count() or 1, _verify_start, (records,)) as pool:
        return sum(pool.imap_unordered(verify_one, messages, 64))


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def milliseconds(event, name):
    value = (event.get("times") or {}).get(name)  # seconds since 1970
    return value * 1000 if value else None


def take_stock(bed, recipients, dumps, options):
    """What arrived, by what the servers stored."""
    copies, messages, identities, by_ipv6 = {}, [], set(), 0
    for site, dump in enumerate(dumps):
        for stored, message in read_dump(dump):
            for recipient in stored:
                copies[recipient] = copies.get(recipient, 0) + 1
                by_ipv6 += site < SITES and on_ipv6(site, options)
            identities.add(header(message, "Message-ID"))
            if options.sign != "none":
                messages.append(message)
    events = bed.events()
    bounced = {event["recipient"]: event for event in events if event["type"] == "bounced"}
    expected = set(recipients)
    arrived = expected & copies.keys()
    delivered_events = [event for event in events if event["type"] == "delivered" and event["recipient"] in expected]
    latencies = sorted(milliseconds(event, "finished") - milliseconds(event, "queued") for event in delivered_events if milliseconds(event, "finished"))
    report = {
        "submitted": len(recipients),
        "delivered": len(arrived),
        "deferred": sum(1 for event in events if event["type"] == "deferred"),
        "bounced": len(expected & bounced.keys()),
        "lost": len(expected - arrived - bounced.keys()),
        "duplicated": sum(count - 1 for recipient, count in copies.items() if recipient in expected),
    }
    if options.ipv6:
        report["delivered_by_ipv6"] = by_ipv6
    report["delivered_over_tls"] = sum(1 for event in delivered_events if event.get("tls_version"))
    report["delivered_verified"] = sum(1 for event in delivered_events if event.get("tls_verified"))
    report["distinct_message_ids"] = len(identities)
    report["uncertain"] = sum(1 for event in events if event.get("uncertain"))
    if latencies:
        last = max(milliseconds(event, "finished") for event in delivered_events)
        report["messages_per_second"] = round(len(arrived) / max((last - options.started_ms) / 1000, 0.001), 1)
    else:
        report["messages_per_second"] = 0.0
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        report[f"latency_ms_{name}"] = percentile(latencies, share)
    report = {name: round(value, 1) if isinstance(value, float) else value for name, value in report.items()}
    report["unexplained_refusals"] = sum(1 for recipient in recipients if recipient.startswith("refuse-") and (
        recipient not in bounced or bounced[recipient].get("response", {}).get("code") != 550))
    report["unexpected_recipients"] = len(copies.keys() - expected)
    if options.sign != "none":
        wanted = len(messages) * len(SIGNED[options.sign])
        say(f"verifying {wanted} DKIM signatures ...")
        report["signatures_verified"] = verify_signatures(messages, bed.dkim_records)
        report["signatures_failed"] = wanted - report["signatures_verified"]
    return report


def print_report(report, cpu, seconds):
    say("")
    say(f"  the servers stored {report['distinct_message_ids']} distinct messages")
    for name in ("submitted", "delivered", "deferred", "bounced", "lost", "duplicated"):
        note = f", {report['delivered_by_ipv6']} of them over IPv6" if name == "delivered" and "delivered_by_ipv6" in report else ""
        if name == "delivered" and report["delivered_over_tls"]:
            note += f", {report['delivered_over_tls']} to a server that offers TLS: the certificates of {report['delivered_verified']} were verified"
        say(f"  {name:<12} {report[name]}{note}")
    say(f"  rate         {report['messages_per_second']} messages/s, first submit to last delivery")
    if report["latency_ms_p50"] is not None:
        say(f"  latency      p50 {report['latency_ms_p50']:.0f} ms, p95 {report['latency_ms_p95']:.0f} ms, p99 {report['latency_ms_p99']:.0f} ms, submit to delivered")
    if "signatures_verified" in report:
        say(f"  DKIM         {report['signatures_verified']} signatures verified, {report['signatures_failed']} failed")
    total = max(cpu["machine"], 0.01)
    shares = ", ".join(f"{part} {cpu[part] / total:.0%}" for part in sorted(cpu, key=cpu.get, reverse=True) if part != "machine" and cpu[part] / total >= 0.005)
    say(f"  processor    {cpu['machine']:.1f} s used in {seconds:.1f} s on {os.cpu_count()} cores: {shares}; the rest is kernel work in softirqs, and this script")


def write_stop(bed):
    """--keep: a script that ends what was left running."""
    path = bed.path("stop")
    with open(path, "w") as file:
        file.write("#!/bin/sh\n# Ends this quickstart and removes it.\n")
        file.write(f"kill -TERM {bed.run_process.pid} 2>/dev/null\n")
        file.write(f"for i in $(seq 100); do kill -0 {bed.run_process.pid} 2>/dev/null || break; sleep 0.1; done\n")
        for _, process in bed.processes:
            file.write(f"kill -s TERM -- -{process.pid} 2>/dev/null\n")
        file.write(f"sleep 0.5\nip netns del {bed.namespace}\nrm -rf {bed.directory} {bed.sinks}\n")
    os.chmod(path, stat.S_IRWXU)
    return path


def explain_keep(bed):
    stop = write_stop(bed)
    job = '{"from":"Ann <ann@%s>","to":"bob@inbox.test","subject":"Hello","text":"Hi Bob"}' % SENDER_DOMAIN
    say("\nEverything keeps running. Send one yourself:\n")
    say(f"  redis-cli -s {bed.redis_socket} XADD '{STREAM}' '*' job '{job}'\n")
    say(f"It appears in  {bed.path('inbox.test', 'new')}/")
    say(f"Its event:     redis-cli -s {bed.redis_socket} XREVRANGE 'bypost:{{0}}:events' + - COUNT 1")
    say(f"Counters:      {binary('bypost')} stats --config {bed.path('bypost.yaml')}")
    say(f"Logs:          {bed.path('bypost.log')} and {bed.path('delivery.log')}")
    say(f"Stop it:       {stop}")


def run(bed, options):
    recipients = make_recipients(options)
    say(f"servers: {SITES} sites of smtp-sink, a strict server and one with TLS for {options.domains} domains, DNS and Redis in namespace {bed.namespace}")
    bed.start_redis()
    dumps = make_world(bed, options)
    if options.sign != "none":
        bed.make_dkim_key(kinds=SIGNED[options.sign])
    bed.write_config({"tls": {"ca_file": bed.path("ca.pem")}}, ipv6=options.ipv6)
    bed.start_bypost()
    commands = make_commands(recipients, options)
    say(f"submitting {len(recipients)} recipients in {len(commands)} jobs through Redis")
    before, started = cpu_seconds(bed), time.monotonic()
    options.started_ms = time.time() * 1000
    submit(bed, commands)
    complete = follow(bed, len(recipients))
    seconds = time.monotonic() - started
    after = cpu_seconds(bed)
    report = take_stock(bed, recipients, dumps, options)
    print_report(report, {part: after[part] - before.get(part, 0) for part in after}, seconds)
    good = complete and report["lost"] == 0 and report["unexplained_refusals"] == 0 and report["unexpected_recipients"] == 0
    good = good and report["distinct_message_ids"] == report["delivered"] and report["duplicated"] <= report["uncertain"]
    good = good and report.get("signatures_failed", 0) == 0
    secure = sum(1 for recipient in recipients if recipient.endswith("@secure.test"))
    good = good and report["delivered_over_tls"] == report["delivered_verified"] == secure
    if not complete:
        say(f"\nnothing moved for {QUIET_SECONDS} s; the end of bypost's log:\n{bed.log('bypost')}")
    if options.keep:
        explain_keep(bed)
    if options.json:
        print(json.dumps(report), flush=True)
    return 0 if good else 1


def main():
    options = parse_arguments()
    if options.check_options:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bed = None
    kept = False
    try:
        bed = Testbed(keep=options.keep, name="bypost-quick", stored_bytes=options.messages * (options.size * 3 // 2 + 2048))
        code = run(bed, options)
        kept = options.keep
        return code
    except TestbedError as error:
        say(f"deploy/quickstart: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if bed is not None and not kept:
            bed.keep = False
            bed.close()


if __name__ == "__main__":
    sys.exit(main())
