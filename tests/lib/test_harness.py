"""Checks the test runner: each way in which a test program can fail must be seen as a failure, and a skip as neither."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import parts  # noqa: E402
import process  # noqa: E402
import runner  # noqa: E402


def counts(script, timeout=10):
    """Runs a shell script as an integration test would be, and returns (passed, failed, skipped)."""
    result = parts.judge_tap("t", process.run(["/bin/sh", "-c", script], timeout, watch_leftover=True), need_plan=True)
    return tuple(sum(1 for case in result.cases if case.verdict == verdict) for verdict in ("passed", "failed", "skipped"))


CHECKS = (
    ("two results and a plan pass", "echo 1..2; echo ok 1 - a; echo ok 2 - b", (2, 0, 0)),
    ("a plan at the end is a plan", "echo ok 1 - a; echo 1..1", (1, 0, 0)),
    ("two cmocka groups have two plans", "echo 1..1; echo ok 1 - a; echo 1..1; echo ok 1 - b", (2, 0, 0)),
    ("a failed case fails", "echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 1", (1, 1, 0)),
    ("a failed case with exit status 0 is two failures", "echo 1..1; echo not ok 1 - a", (0, 2, 0)),
    ("an exit status without a failed case fails", "echo 1..1; echo ok 1 - a; exit 3", (1, 1, 0)),
    ("no plan fails", "echo ok 1 - a", (1, 1, 0)),
    ("silence fails", "true", (0, 1, 0)),
    ("fewer results than planned fail", "echo 1..3; echo ok 1 - a; echo ok 2 - b", (2, 1, 0)),
    ("more results than planned fail", "echo 1..1; echo ok 1 - a; echo ok 2 - b", (2, 1, 0)),
    ("a signal fails", "echo 1..1; echo ok 1 - a; kill -SEGV $$", (1, 1, 0)),
    ("bailing out fails", "echo 1..1; echo ok 1 - a; echo Bail out! no disk", (1, 1, 0)),
    ("a skipped case counts as neither", "echo 1..2; echo ok 1 - a; echo 'ok 2 - b # SKIP no root'", (1, 0, 1)),
    ("cmocka 1.1.5 writes a skip as not ok", "echo 1..1; echo 'not ok 1 # SKIP b'", (0, 0, 1)),
    ("a skipped program counts as neither", "echo '1..0 # SKIP no root'", (0, 0, 1)),
    ("prose that begins with ok is no result", "echo 1..1; echo ok, now the rest; echo ok 1 - a", (1, 0, 0)),
    ("a process left running fails", "echo 1..1; echo ok 1 - a; sleep 30 >/dev/null 2>&1 &", (1, 1, 0)),
)


def ended_at_its_limit():
    """A hanging program that ignores SIGTERM, with a child."""
    outcome = process.run(["/bin/sh", "-c", "trap '' TERM; echo 1..1; sleep 97 & while :; do sleep 1; done"], 1)
    return outcome.timed_out and not alive("sleep 97 ")


def least_share():
    """Of a program that takes what others leave, until a hurry begins that finds it running."""
    with tempfile.TemporaryDirectory(prefix="bypost-harness-") as folder, ThreadPoolExecutor(1) as pool:
        tell = "cat /proc/self/autogroup 2>/dev/null; chrt -p $$; echo limit $(ulimit -t)"
        wait = "%s; touch %s/up; until [ -e %s/go ]; do sleep 0.05; done; echo then; %s" % (tell, folder, folder, tell)
        running = pool.submit(process.run, ["/bin/sh", "-c", wait], 10, idle=True)
        until(lambda: os.path.exists(folder + "/up"), 30)
        process.hurry(True)
        with open(folder + "/go", "w", encoding="ascii"):
            pass
        said, _, hurried = running.result().text.partition("then")
        process.hurry(False)
    may = subprocess.run(["chrt", "--idle", "0", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    return (("SCHED_IDLE" in said or not may) and ("autogroup" not in said or "nice 19" in said) and "limit 10" in said and
            ("SCHED_OTHER" in hurried or os.geteuid() != 0) and "nice 19" not in hurried)


def standstill():
    """Of a program that takes what others leave, with what it has begun, as long as it is held; one that begins meanwhile waits."""
    with tempfile.TemporaryDirectory(prefix="bypost-harness-") as folder, ThreadPoolExecutor(2) as pool:
        count = "until [ -e %s/end ]; do echo . >>%s/ticks; sleep 0.01; done" % (folder, folder)
        first = pool.submit(process.run, ["/bin/sh", "-c", "(%s) & wait" % count], 10, idle=True)
        ticks = lambda: os.path.exists(folder + "/ticks") and os.path.getsize(folder + "/ticks")  # noqa: E731
        until(ticks, 30)
        process.hold(True)
        second = pool.submit(process.run, ["/bin/sh", "-c", "echo >%s/second" % folder], 10, idle=True)
        time.sleep(0.1)
        held = ticks()
        time.sleep(0.5)
        still = ticks() == held and not os.path.exists(folder + "/second")
        process.hold(False)
        until(lambda: ticks() > held and os.path.exists(folder + "/second"), 30)
        with open(folder + "/end", "w", encoding="ascii"):
            pass
        return still and ticks() > held and first.result().status == 0 == second.result().status


class Beside(parts.Part):
    """Ends before the other part does."""

    name = "beside"
    beside = True

    def tests(self):
        return [parts.Test("beside/a", lambda name: done.set() or parts.single(name, "no good"))]


class Waits(parts.Part):
    name = "waits"

    def tests(self):
        return [parts.Test("waits/b", lambda name: parts.single(name, "" if done.wait(10) else "what is beside did not begin"))]


done = threading.Event()


def told_in_turn():
    """What runs beside others is told behind them, its failures too."""
    told = []
    tally = runner.Tally(False)
    tally.print_line = lambda result, good, bad: told.append((result.name, bool(bad)))
    runner.run_parts([(part, part.tests()) for part in (Waits(None), Beside(None))], tally)
    return told == [("waits/b", False), ("beside/a", True)] and (tally.passed, tally.failed) == (1, 1)


def ended_by_interrupt():
    """SIGINT at a run with a test that has a child and something to take down."""
    with tempfile.TemporaryDirectory(prefix="bypost-harness-") as root:
        os.makedirs(root + "/tests/integration")
        test = root + "/tests/integration/test_sleeps"
        with open(test, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\ntrap 'touch %s/down; exit 143' TERM\ntouch %s/up\nsleep 98 &\nwait\n" % (root, root))
        os.chmod(test, 0o755)
        env = dict(os.environ, BYPOST_ROOT=root, BYPOST_BUILD=root, BYPOST_CACHE=root)
        command = ["env", "--default-signal=INT", "/usr/bin/python3", "-B", runner.__file__, "--only", "integration/test_sleeps"]
        child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        until(lambda: os.path.exists(root + "/up"), 30)
        child.send_signal(signal.SIGINT)
        text, _ = child.communicate(timeout=30)
        lines = text.splitlines()
        return (child.returncode == 130 and "interrupted" in lines and lines[-1] == "0 passed, 0 failed" and
                os.path.exists(root + "/down") and not alive("sleep 98 "))


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def alive(command):
    return [entry for entry in os.listdir("/proc") if entry.isdigit() and command_of(entry) == command]


def told_as_unsteady():
    """Runs what fails at first, and what always does."""
    def results(*verdicts):
        left = list(verdicts)
        return lambda: parts.Result("t", [parts.tap.Case("a", left.pop(0))], "text")

    once, twice = parts.steady(results("failed", "passed")), parts.steady(results("failed", "failed"))
    fine = parts.steady(results("passed"))
    return (once.unsteady, twice.unsteady, fine.unsteady) == (["a"], [], []) and (once.cases[0].verdict, twice.cases[0].verdict) == ("passed", "failed")


def command_of(pid):
    try:
        with open("/proc/%s/cmdline" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


WHOLES = (
    ("a program over its limit is ended with its children", ended_at_its_limit),
    ("a test that fails once is told as unsteady, one that fails twice as failed", told_as_unsteady),
    ("what runs beside the tests takes the least share of the processors until it is awaited, and a bounded time of them", least_share),
    ("what runs beside stands still while tests that measure run, and what is to begin waits", standstill),
    ("what runs beside the tests begins at once and is told in its turn", told_in_turn),
    ("an interrupted run ends what it started, and lets it take down what it made", ended_by_interrupt),
)


def main():
    failed = 0
    print("1..%d" % (len(CHECKS) + len(WHOLES)))
    for number, (name, script, wanted) in enumerate(CHECKS, 1):
        got = counts(script)
        failed += got != wanted
        print("%sok %d - %s" % ("" if got == wanted else "not ", number, name))
        if got != wanted:
            print("# passed, failed, skipped: %s, wanted %s" % (got, wanted))
    for number, (name, check) in enumerate(WHOLES, len(CHECKS) + 1):
        good = check()
        failed += not good
        print("%sok %d - %s" % ("" if good else "not ", number, name))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
