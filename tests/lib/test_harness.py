"""Checks the test runner: each way in which a test program can fail must be seen as a failure, and a skip as neither."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import parts  # noqa: E402
import process  # noqa: E402


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


def main():
    failed = 0
    print("1..%d" % (len(CHECKS) + 2))
    for number, (name, script, wanted) in enumerate(CHECKS, 1):
        got = counts(script)
        failed += got != wanted
        print("%sok %d - %s" % ("" if got == wanted else "not ", number, name))
        if got != wanted:
            print("# passed, failed, skipped: %s, wanted %s" % (got, wanted))
    # A hanging program that ignores SIGTERM, with a child: ended at its limit, and nothing of it lives on.
    outcome = process.run(["/bin/sh", "-c", "trap '' TERM; echo 1..1; sleep 97 & while :; do sleep 1; done"], 1)
    alive = [entry for entry in os.listdir("/proc") if entry.isdigit() and command_of(entry) == "sleep 97 "]
    good = outcome.timed_out and not alive
    print("%sok %d - a program over its limit is ended with its children" % ("" if good else "not ", len(CHECKS) + 1))
    unsteady = told_as_unsteady()
    print("%sok %d - a test that fails once is told as unsteady, one that fails twice as failed" % ("" if unsteady else "not ", len(CHECKS) + 2))
    return 1 if failed or not good or not unsteady else 0


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


if __name__ == "__main__":
    sys.exit(main())
