"""Runs one test program in a session of its own: a time limit, its output, and what it left behind."""

import os
import signal
import subprocess
import threading
import time

MAX_OUTPUT_BYTES = 4 << 20
LEFTOVER_GRACE_SECONDS = 1.0
END_GRACE_SECONDS = 5.0  # for a test to take down its namespaces
IDLE_LIMIT_SECONDS = 1500  # of what takes only the time that others leave: it may have to wait for long
HOLD_LOOKS = 20  # for what a session begins while it is stopped

_running = {}  # processes by session
_idle = set()  # those of them that take what others leave
_lock = threading.Lock()
_hurried = threading.Event()
_free_to_run = threading.Event()  # cleared while idle runs are held
_free_to_run.set()
_interrupted = threading.Event()


class Outcome:
    """status (negative: ended by that signal), text, seconds, timed_out, and leftover: the processes still alive after it."""

    def __init__(self, status, text, seconds, timed_out, leftover):
        self.status = status
        self.text = text
        self.seconds = seconds
        self.timed_out = timed_out
        self.leftover = leftover

    def failure(self):
        if self.timed_out:
            return "ran longer than its limit and was ended after %.0f s" % self.seconds
        if self.status < 0:
            return "ended by %s" % signal.Signals(-self.status).name
        if self.status:
            return "exit status %d" % self.status
        return ""


def _members(session):
    """Process names of a session, from /proc, zombies left out."""
    names = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry, encoding="utf-8", errors="replace") as stat:
                head, tail = stat.read().rsplit(")", 1)
        except OSError:
            continue
        fields = tail.split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            names.append((int(entry), head.split("(", 1)[1]))
    return names


def _end_session(session):
    for pid, _ in _members(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


# Kernels that share processors by session (sched_autogroup) see the idle class within a session only; so the session gets the least share, too.
# A container may forbid either.
IDLE = ["/bin/sh", "-c", '{ echo 19 >/proc/self/autogroup; chrt --idle --pid 0 $$; } >/dev/null 2>&1; exec "$@"', "idle"]


def hurry(on):
    """From here on, or until here, idle runs are like others: nothing is left that they could be in the way of."""
    with _lock:
        _hurried.set() if on else _hurried.clear()
        sessions = list(_idle)
    for session in sessions:
        try:
            with open("/proc/%d/autogroup" % session, "w", encoding="ascii") as file:
                file.write("0" if on else "19")
        except OSError:
            pass  # the kernel has none, or the process has ended
        for pid, _ in _members(session):
            try:
                os.sched_setscheduler(pid, os.SCHED_OTHER if on else os.SCHED_IDLE, os.sched_param(0))
            except OSError:
                pass  # it has ended, or only root may


def _hold_session(session):
    """Stops what runs in it, and what that had begun meanwhile."""
    stopped = set()
    for _ in range(HOLD_LOOKS):
        fresh = {pid for pid, _ in _members(session)} - stopped
        if not fresh:
            return
        for pid in sorted(fresh):  # parents first: they begin nothing more
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        stopped |= fresh


def hold(on):
    """From here on, or until here, idle runs stand still: what measures shares caches and memory with them, too."""
    with _lock:
        _free_to_run.clear() if on else _free_to_run.set()
        sessions = list(_idle)
    for session in sessions:
        if on:
            _hold_session(session)
            continue
        for pid, _ in _members(session):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass


def run(command, timeout, env=None, cwd=None, watch_leftover=False, idle=False):
    """Runs command without standard input; output and errors come back together.

    idle: with the processor time that nothing else wants, but in a hurry. `timeout` is then processor time, of each process."""
    started = time.monotonic()
    if _interrupted.is_set():
        return Outcome(-signal.SIGTERM, "", 0.0, False, [])
    if idle:
        _free_to_run.wait(IDLE_LIMIT_SECONDS)
        command = ([] if _hurried.is_set() else IDLE) + ["prlimit", "--cpu=%d:%d" % (timeout, timeout + 5)] + command
        timeout = IDLE_LIMIT_SECONDS
    full_env = dict(os.environ)
    full_env.update(env or {})
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=full_env,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(127, "%s: %s\n" % (command[0], error), 0.0, False, [])
    with _lock:
        _running[child.pid] = child
        if idle:
            _idle.add(child.pid)
    if idle and not _free_to_run.is_set():
        _hold_session(child.pid)
    if _interrupted.is_set():
        child.terminate()
    chunks = []

    def read():
        total = 0
        for chunk in iter(lambda: child.stdout.read1(65536), b""):
            if total < MAX_OUTPUT_BYTES:
                chunks.append(chunk)
                total += len(chunk)
        child.stdout.close()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    timed_out = False
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        # First the polite way, so that a test can take down its namespaces.
        try:
            os.kill(child.pid, signal.SIGTERM)
            child.wait(END_GRACE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        _end_session(child.pid)
        child.wait()
    leftover = _members(child.pid)
    if leftover:
        time.sleep(LEFTOVER_GRACE_SECONDS)
        leftover = _members(child.pid)
        _end_session(child.pid)
    reader.join(5)
    with _lock:
        del _running[child.pid]
        _idle.discard(child.pid)
    text = b"".join(chunks).decode("utf-8", "replace")
    names = ["%s (pid %d)" % (name, pid) for pid, name in leftover] if watch_leftover and not timed_out else []
    return Outcome(child.returncode, text, time.monotonic() - started, timed_out, names)


def end_all():
    """Ends what is running, for an interrupted run, and what may still begin."""
    _interrupted.set()
    hold(False)
    with _lock:
        running = dict(_running)
    deadline = time.monotonic() + END_GRACE_SECONDS
    try:
        for child in running.values():
            child.terminate()
        for child in running.values():
            child.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for session in running:
            _end_session(session)
