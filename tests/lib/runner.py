"""Runs all tests of bypost. Called by tests/run after deploy/setup; the parts are in parts.py."""

import argparse
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import parts  # noqa: E402
import process  # noqa: E402

NAME_COLUMNS = 58
NAMED_MAX = 5  # skipped for one reason; more are told by their number, each has its own line above


class Tally:
    """Counts and keeps what is told at the end."""

    def __init__(self, verbose):
        self.verbose = verbose
        self.passed = 0
        self.failed = 0
        self.skipped = []
        self.failures = []
        self.unsteady = []
        self.part_seconds = {}

    def take(self, result):
        bad = [case for case in result.cases if case.verdict == "failed"]
        good = sum(1 for case in result.cases if case.verdict == "passed")
        self.passed += good
        self.failed += len(bad)
        for case in result.cases:
            if case.verdict == "skipped":
                self.skipped.append((result.name if case.name == "all" else "%s: %s" % (result.name, case.name), case.why))
        if bad:
            self.failures.append((result, bad))
        if result.unsteady:
            self.unsteady.append(result)
        self.print_line(result, good, bad)

    def print_line(self, result, good, bad):
        verdict = "not ok" if bad else "ok" if good else "skip"
        count = "" if len(result.cases) == 1 else "%d cases" % len(result.cases)
        line = "%-6s  %-*s %10s %8.2f s" % (verdict, NAME_COLUMNS, result.name, count, result.seconds)
        skips = [case for case in result.cases if case.verdict == "skipped"]
        if skips and verdict == "skip":
            line += "  # " + skips[0].why
        elif skips:
            line += "  # %d skipped" % len(skips)
        print(line, flush=True)
        for name in result.unsteady:
            print("        unsteady  failed at first, and not when run again: %s" % name, flush=True)
        for case in result.cases:
            if case.verdict == "failed" and len(result.cases) > 1:
                print("        not ok  %s" % case.name, flush=True)
            elif self.verbose and len(result.cases) > 1:
                print("        %-6s  %s" % ({"passed": "ok", "skipped": "skip"}[case.verdict], case.name), flush=True)

    def print_end(self, left_out):
        for result, bad in self.failures:
            print("\n==== %s: %s" % (result.name, ", ".join(case.name for case in bad)))
            if result.text.strip():
                print(result.text.rstrip())
        for result in self.unsteady:
            print("\n==== unsteady: %s: passed when run again; what had failed: %s" % (result.name, ", ".join(result.unsteady)))
            print(result.text.rstrip())
        if self.skipped:
            print("\nskipped, and counted as neither passed nor failed:")
            reasons = {}
            for name, why in self.skipped:
                reasons.setdefault((name.split("/", 1)[0], why), []).append(name)
            for (part, why), names in reasons.items():
                print("  %s: %s" % (", ".join(names) if len(names) <= NAMED_MAX else "%d tests of %s" % (len(names), part), why))
        for name, why in left_out:
            print("left out: %s (%s)" % (name, why))
        if self.part_seconds:
            print("\ntime: " + ", ".join("%s %.0f s" % pair for pair in self.part_seconds.items()))
        if self.unsteady:
            print("unsteady, and counted as they were when run again: " + " ".join(result.name for result in self.unsteady))
        if self.failures:
            print("failed: " + " ".join(result.name for result, _ in self.failures))


def run_part(part, tests, take):
    """Prepares the part and runs the tests, and gives each result to take() when it is there."""
    for result in part.prepare(tests):
        take(result)
    with ThreadPoolExecutor(max_workers=part.jobs) as pool:
        futures = [pool.submit(test.run) for test in tests if test.ready]
        try:
            for future in as_completed(futures):
                take(future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            process.end_all()
            raise
    part.finish()


class Beside:
    """Runs parts that need nothing but processors, one after the other, beside those that also wait. Their results are told when it is their turn."""

    def __init__(self, chosen):
        self.results = {part.name: queue.SimpleQueue() for part, _ in chosen}
        threading.Thread(target=self.run, args=(chosen,), daemon=True).start()

    def run(self, chosen):
        for part, tests in chosen:
            end = None
            try:
                run_part(part, tests, self.results[part.name].put)
            except BaseException as error:
                end = error
            self.results[part.name].put(end)

    def wait(self, part, take):
        part.awaited()
        process.hurry(True)
        while (result := self.results[part.name].get()) is not None:
            if isinstance(result, BaseException):
                raise result
            take(result)
        process.hurry(False)


def run_parts(chosen, tally):
    beside = Beside([(part, tests) for part, tests in chosen if part.beside])
    for part, tests in chosen:
        started = time.monotonic()
        if part.beside:
            beside.wait(part, tally.take)
        else:
            run_part(part, tests, tally.take)
        tally.part_seconds[part.name] = time.monotonic() - started


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    return parser.parse_args()


def interrupted(signum, frame):
    raise KeyboardInterrupt


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    sys.stderr = sys.stdout
    place = parts.Place(os.environ["BYPOST_ROOT"], os.environ["BYPOST_BUILD"], os.environ["BYPOST_CACHE"])
    tally = Tally(args.verbose)
    parts.Integration.strict = args.strict
    left_out = []
    chosen = []
    status = 0
    try:
        for part in parts.all_parts(place):
            tests = part.tests()
            if args.only:
                tests = [test for test in tests if any(word in test.name for word in args.only)]
            if args.quick:
                slow = [test for test in tests if part.slow or test.slow]
                tests = [test for test in tests if test not in slow]
                if slow:
                    left_out.append(("%s, %d tests" % (part.name, len(slow)) if part.slow else slow_names(slow), "--quick"))
            if tests:
                chosen.append((part, tests))
        if args.list:
            for _, tests in chosen:
                print("\n".join(test.name for test in tests))
            return 0
        run_parts(chosen, tally)
    except KeyboardInterrupt:
        process.end_all()
        print("\ninterrupted")
        status = 130
    if os.geteuid() != 0:
        print("\nnot root: tests that need namespaces or reserved memory are skipped")
    tally.print_end(left_out)
    if not chosen:
        print("no test has %s in its name; tests/run --list names them" % (" or ".join(args.only) or "anything"))
        status = status or 2
    print("%d passed, %d failed" % (tally.passed, tally.failed), flush=True)
    return status or (1 if tally.failed else 0)


def slow_names(tests):
    return ", ".join(test.name for test in tests)


if __name__ == "__main__":
    sys.exit(main())
