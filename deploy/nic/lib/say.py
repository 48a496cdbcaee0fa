"""How the commands speak: sentences with remedies, JSON, and steps that are undone together when one of them fails."""
import json
import shlex
import subprocess
import sys


class NicError(Exception):
    """A sentence for the person at the terminal, with the remedy."""


def command(*arguments, check=True, timeout=60):
    """Runs a command to its end and returns its output; a NicError with its words when it fails."""
    try:
        result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        if not check:
            return ""
        raise NicError(f"there is no program {arguments[0]} here; deploy/setup installs it.") from None
    except subprocess.TimeoutExpired:
        raise NicError(f"`{shlex.join(arguments)}` did not end within {timeout} s.") from None
    if check and result.returncode != 0:
        raise NicError(f"`{shlex.join(arguments)}` failed: {(result.stderr or result.stdout).strip()}")
    return result.stdout


class Steps:
    """Changes to the machine, each with what takes it back. In a `with` block: an error undoes what was done, newest first."""

    def __init__(self, dry_run, out=None):
        self.dry_run = dry_run
        self.done = []
        self.undone = []
        self.told = []
        self.out = out or sys.stderr

    def do(self, what, action, undo=None):
        """`what` is an imperative sentence. In a dry run it is only told."""
        self.told.append(what)
        if self.dry_run:
            return None
        value = action()
        if undo is not None:
            self.done.append((what, undo))
        return value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            return False
        for what, undo in reversed(self.done):
            try:
                undo()
                self.undone.append(what)
            except (OSError, NicError) as reason:
                print(f"could not be undone: {what}: {reason}", file=self.out)
        self.done = []
        return False


def print_json(value):
    print(json.dumps(value, indent=1, sort_keys=False))
