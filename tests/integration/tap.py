"""Test results in TAP: each check prints its line at once; the plan comes last."""
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor


class Tap:
    """Counts the checks of one test program."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def check(self, condition, name, detail=""):
        """One result; `detail` is shown when it failed. Returns whether it passed."""
        self.count += 1
        if not condition:
            self.failed += 1
        print(f"{'ok' if condition else 'not ok'} {self.count} - {name}", flush=True)
        if not condition and detail:
            for line in str(detail).splitlines()[:40]:
                print(f"# {line}", flush=True)
        return bool(condition)

    def equal(self, got, wanted, name):
        return self.check(got == wanted, name, f"got {got!r}, wanted {wanted!r}")

    def note(self, text):
        """Lines that are no results."""
        for line in str(text).splitlines():
            print(f"# {line}", flush=True)

    def run(self, body):
        """Runs a test's body(tap); an exception is a failed check, not a crash without a plan. Returns the exit status."""
        try:
            body(self)
        except Exception:
            self.check(False, "ran to its end", traceback.format_exc())
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed or self.count == 0 else 0


class Aside(Tap):
    """What a section that runs beside others finds, told when it has ended."""

    def __init__(self):
        super().__init__()
        self.told = []

    def check(self, condition, name, detail=""):
        self.told.append((Tap.check, (bool(condition), name, detail)))
        return bool(condition)

    def note(self, text):
        self.told.append((Tap.note, (text,)))


def side_by_side(t, sections, at_once):
    """Runs sections that share nothing and mostly wait, `at_once` of them together; one that fails does not hide the others."""
    def run(section):
        aside = Aside()
        try:
            section(aside)
        except Exception:
            aside.check(False, f"{section.__name__} ran to its end", traceback.format_exc())
        return aside
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        for aside in pool.map(run, sections):
            for what, arguments in aside.told:
                what(t, *arguments)


def main(body):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a test has started is ended on the way out
    sys.exit(Tap().run(body))
