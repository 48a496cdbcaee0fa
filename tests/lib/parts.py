"""The parts of a full run: formatting, headers, unit tests, simulation, integration, sanitizers, clang-tidy, clang and fuzzing.

A part names its tests without building anything; prepare() builds what they need; each test is one program.
"""

import glob
import json
import os
import re
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import process
import tap

ROOMS = ("include", "dataplane", "control", "bench", "tests", "deploy")
CORES = os.cpu_count() or 1

BUILD_LIMIT_SECONDS = 900
HARNESS_LIMIT_SECONDS = 120
UNIT_LIMIT_SECONDS = 60  # where meson says nothing else
SIM_LIMIT_SECONDS = 300
INTEGRATION_LIMIT_SECONDS = 300
HEADER_LIMIT_SECONDS = 60
TIDY_LIMIT_SECONDS = 180  # of processor time, one file
TIDY_NODES = 30000  # of the exploded graph, for each function (225000 by default)
TIDY_BUDGET_SECONDS = 480  # from when all else is done; files not reached are skipped and named
SANITIZER_SLOWDOWN = 4
FUZZ_SECONDS = 4

# The release whose clang-format and clang-tidy decide; other versions format differently.
CLANG_TOOLS_VERSION = 14


class Place:
    """Where things lie."""

    def __init__(self, root, build, cache):
        self.root = root
        self.build = build
        self.cache = cache

    def sources(self, *suffixes):
        found = []
        for room in ROOMS:
            for folder, folders, files in os.walk(os.path.join(self.root, room)):
                folders[:] = [name for name in folders if not name.startswith((".", "build", "__"))]
                found += [os.path.relpath(os.path.join(folder, name), self.root) for name in files if name.endswith(suffixes)]
        return sorted(found)


class Result:
    """What one program gave: cases, its output when something failed, its time."""

    def __init__(self, name, cases, text="", seconds=0.0):
        self.name = name
        self.cases = cases
        self.text = text
        self.seconds = seconds
        self.unsteady = []  # what had failed, and did not when it was run again


def single(name, failure, text="", seconds=0.0):
    case = tap.Case(failure or name, "failed" if failure else "passed")
    return Result(name, [case], text, seconds)


def skip(name, why):
    return Result(name, [tap.Case("all", "skipped", why)])


class Test:
    def __init__(self, name, action, slow=False):
        self.name = name
        self.action = action
        self.slow = slow
        self.ready = True

    def run(self):
        return self.action(self.name)


class Part:
    name = ""
    slow = False
    jobs = CORES
    beside = False  # needs nothing but processors: begins at once, and takes the time that the other parts leave

    def __init__(self, place):
        self.place = place

    def tests(self):
        return []

    def prepare(self, tests):
        """Builds what the tests need. Returns results of what could not be built, after clearing `ready` of those tests."""
        return []

    def finish(self):
        """Called behind the last test."""

    def awaited(self):
        """Called when nothing is left but to wait for a part that runs beside the others."""


def judge_tap(name, outcome, need_plan):
    """TAP decides, and the exit status must agree with it."""
    cases, faults, planned = tap.parse(outcome.text)
    if not cases and not need_plan and planned is None:
        return single(name, outcome.failure(), outcome.text if outcome.failure() else "", outcome.seconds)
    if planned is None:
        faults.append("no plan (1..N)")
    failed = any(case.verdict == "failed" for case in cases)
    if outcome.failure() and (outcome.timed_out or outcome.status < 0 or not failed):
        faults.append(outcome.failure())
    if failed and not outcome.failure():
        faults.append("a case failed and the exit status is 0")
    for left in outcome.leftover:
        faults.append("left a process running: " + left)
    cases += [tap.Case(fault, "failed") for fault in faults]
    bad = failed or faults
    return Result(name, cases, outcome.text if bad else "", outcome.seconds)


def tool_version(tool):
    try:
        text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    found = re.search(r"version (\d+)", text)
    return int(found.group(1)) if found else 0


def tool_refusal(tool):
    version = tool_version(tool)
    if not version:
        return tool + " is not installed"
    if version != CLANG_TOOLS_VERSION:
        return "%s is version %d, the tree is kept with %d" % (tool, version, CLANG_TOOLS_VERSION)
    return ""


class Harness(Part):
    """The test runner itself: what must count as a failure does."""

    name = "harness"

    def tests(self):
        return [Test("harness/test_harness", self.check)]

    def check(self, name):
        path = os.path.join(self.place.root, "tests/lib/test_harness.py")
        return judge_tap(name, process.run(["/usr/bin/python3", "-B", path], HARNESS_LIMIT_SECONDS, watch_leftover=True), need_plan=True)


class Format(Part):
    name = "format"

    def tests(self):
        return [Test("format/clang-format", self.check)]

    def check(self, name):
        refusal = tool_refusal("clang-format")
        if refusal:
            return skip(name, refusal)
        files = self.place.sources(".c", ".h")
        with ThreadPoolExecutor(CORES) as pool:
            shares = [files[first::CORES] for first in range(CORES)]
            outcomes = list(pool.map(lambda share: process.run(["clang-format", "--dry-run", "-Werror"] + share, 120, cwd=self.place.root), shares))
        wrong = sorted({line.split(":", 1)[0] for outcome in outcomes for line in outcome.text.splitlines() if " error: " in line})
        failure = next((outcome.failure() for outcome in outcomes if outcome.failure()), "")
        return single(name, failure, "mend with: clang-format -i " + " ".join(wrong), max(outcome.seconds for outcome in outcomes))


def compile_commands(build):
    try:
        with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return []


class Headers(Part):
    """A header includes what it needs, and may be included twice."""

    name = "header"

    def tests(self):
        return [Test("header/" + path, self.check) for path in self.place.sources(".h")]

    def flags(self, header):
        """The flags of a source in the header's folder, or of any source: of the one that includes from the most places."""
        best, rank = None, (False, -1)
        for entry in compile_commands(self.place.build):
            path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), self.place.root)
            mine = (os.path.dirname(path) == os.path.dirname(header), entry["command"].count(" -I") + entry["command"].count(" -isystem"))
            if best is None or mine > rank:
                best, rank = entry, mine
        if best is None:
            return None
        words = shlex.split(best["command"])
        kept, at = [], 0
        while at < len(words):
            if words[at] in ("-o", "-MF", "-MQ", "-MT"):
                at += 2
                continue
            if words[at] not in ("-c", "-MD", "-MMD", best["file"]) and not words[at].startswith("-O"):
                kept.append(words[at])
            at += 1
        return kept

    def check(self, name):
        header = name.split("/", 1)[1]
        flags = self.flags(header)
        if flags is None:
            return single(name, "the build directory has no compile_commands.json")
        source = '#include "%s"\n' % os.path.join(self.place.root, header)
        script = 'printf %s "$0" | "$@"'
        command = flags + ["-fdiagnostics-color=never", "-fsyntax-only", "-x", "c", "-"]
        outcome = process.run(["/bin/sh", "-c", script, source + source] + command, HEADER_LIMIT_SECONDS, cwd=self.place.build)
        return single(name, outcome.failure(), outcome.text, outcome.seconds)


def meson_tests(build):
    try:
        done = subprocess.run(["meson", "introspect", "--tests", build], capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else []
    except (OSError, ValueError):
        return []


def meson_prefix(entry):
    """unit, unless the test's suite says sim or fuzz."""
    for suite in entry.get("suite", []):
        last = suite.split(":")[-1]
        if last in ("sim", "fuzz"):
            return last
    return "unit"


class Unit(Part):
    """The programs that meson knows as tests, mostly cmocka groups; every case counts."""

    name = "unit"
    prefix = ""
    slowdown = 1
    env = {}

    def build(self):
        return self.place.build

    def tests(self):
        self.entries = {}
        for entry in meson_tests(self.place.build):
            self.entries[self.prefix + meson_prefix(entry) + "/" + entry["name"]] = entry
        long_first = sorted(self.entries, key=lambda name: (-(self.entries[name].get("timeout") or 0), name))
        return [Test(name, self.check) for name in long_first]

    def target(self, name):
        """The program of the test in this part's build directory."""
        return os.path.relpath(self.entries[name]["cmd"][0], self.place.build)

    def arguments(self, name):
        """What meson builds and the test is given: modules, probes."""
        return [argument for argument in self.entries[name]["cmd"][1:] if "/" in argument and not os.path.isabs(argument)]

    def prepare(self, tests):
        targets = sorted({target for test in tests for target in [self.target(test.name)] + self.arguments(test.name) if not target.startswith("..")})
        return build_targets(self.build(), targets, tests, self.target)

    def check(self, name):
        entry = self.entries[name]
        target = self.target(name)
        program = entry["cmd"][0] if target.startswith("..") else os.path.join(self.build(), target)
        env = dict(entry.get("env") or {})
        env.update(self.env)
        env["CMOCKA_MESSAGE_OUTPUT"] = "TAP"
        limit = (entry.get("timeout") or UNIT_LIMIT_SECONDS) * self.slowdown
        outcome = process.run([program] + entry["cmd"][1:], limit, env=env, cwd=entry.get("workdir") or self.build(), watch_leftover=True)
        return judge_tap(name, outcome, need_plan=False)


def build_targets(build, targets, tests, target_of):
    """Compiles targets, going on after an error. Tests whose program is missing or stale afterwards fail."""
    if not targets:
        return []
    outcome = process.run(["ninja", "-C", build, "-k", "0"] + targets, BUILD_LIMIT_SECONDS)
    if not outcome.failure():
        return []
    results = []
    for test in tests:
        again = process.run(["ninja", "-C", build, "-n", target_of(test.name)], 60)
        if again.failure() or "no work to do" not in again.text:
            test.ready = False
            results.append(single(test.name, "does not compile"))
    results.append(single("build of " + os.path.basename(build), outcome.failure(), build_errors(outcome)))
    return results


def build_errors(outcome):
    return "\n".join([line for line in outcome.text.splitlines() if not line.startswith(("[", "ninja:"))][:200])


class Sanitize(Unit):
    """The same programs under AddressSanitizer and UndefinedBehaviorSanitizer, from the second compiler's build."""

    name = "sanitize"
    prefix = "sanitize/"
    slow = True
    slowdown = SANITIZER_SLOWDOWN
    env = {
        "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }

    def build(self):
        return sanitized_build(self.place)

    def tests(self):
        """All but those that valgrind runs: a sanitizer's own instructions would count too, and its memory is not valgrind's."""
        return [test for test in super().tests() if not test.name.endswith(("_instructions", "_secret"))]

    def prepare(self, tests):
        return sanitized_failure(self.place, tests) or super().prepare(tests)


def configure(place, build, options, env, idle):
    """meson setup, anew when the directory is of another tree or other options. Returns a failed result or None."""
    marker = os.path.join(build, ".bypost-options")
    wanted = "\n".join([place.root, place.cache] + options)
    try:
        with open(marker, encoding="utf-8") as file:
            if file.read() == wanted and os.path.exists(os.path.join(build, "build.ninja")):
                return None
    except OSError:
        pass
    command = ["meson", "setup", build, place.root, "-Dwolfssl_prefix=" + os.path.join(place.cache, "wolfssl")] + options
    if os.path.exists(os.path.join(build, "meson-private")):
        command.insert(2, "--wipe")
    outcome = process.run(command, 180, env=env, idle=idle)
    if outcome.failure():
        return single("configure " + os.path.basename(build), outcome.failure(), outcome.text, outcome.seconds)
    with open(marker, "w", encoding="utf-8") as file:
        file.write(wanted)
    return None


def sanitized_build(place):
    return place.build + "-clang"


def configure_sanitized(place, idle=False):
    # fuzzer-no-link: the rooms are instrumented too, or libFuzzer would see no coverage.
    options = ["-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Doptimization=1", "-Ddebug=true"]
    options.append("-Dc_args=-fsanitize=fuzzer-no-link")
    return configure(place, sanitized_build(place), options, {"CC": "clang"}, idle)


def sanitized_failure(place, tests):
    """Configures; without that none of the tests is ready. The failed result in a list, or an empty one."""
    failure = configure_sanitized(place)
    for test in tests if failure else []:
        test.ready = False
    return [failure] if failure else []


class Sim(Part):
    """The protocol rooms under virtual time, from many seeds."""

    name = "sim"

    def tests(self):
        found = []
        for program in ("run", "mutations"):
            path = os.path.join(self.place.root, "tests/sim", program)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                found.append(Test("sim/" + program, self.check, slow=program == "mutations"))
        return found

    def check(self, name):
        path = os.path.join(self.place.root, "tests", name)
        outcome = process.run([path], SIM_LIMIT_SECONDS, cwd=self.place.root, watch_leftover=True)
        return judge_tap(name, outcome, need_plan=False)


def declared(path):
    """What the first lines of an integration test say."""
    said = {}
    with open(path, "rb") as file:
        head = file.read(4096).decode("utf-8", "replace").splitlines()[:30]
    for line in head:
        found = re.match(r"^#\s*(slow|alone|timeout|needs)\s*(?::\s*(.*?))?\s*$", line)
        if found:
            said[found.group(1)] = found.group(2) or ""
    return said


class Integration(Part):
    """Whole processes, two tests at a time: they wait more than they work. The first lines of a test may say "# slow", "# timeout: SECONDS",
    "# needs: root" and "# alone: why", for one that measures something.

    One that fails is run once more. When it passes then, it is told as unsteady, with what had failed: a race, or a machine too busy."""

    name = "integration"
    alone = False
    strict = False  # nothing is run once more

    def tests(self):
        found = []
        for path in sorted(glob.glob(os.path.join(self.place.root, "tests/integration/test_*"))):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                said = declared(path)
                if ("alone" in said) == self.alone:
                    test = Test("integration/" + os.path.basename(path), self.check, slow="slow" in said)
                    found.append((-self.limit(said), test.name, test))
        return [test for _, _, test in sorted(found, key=lambda entry: entry[:2])]  # the long ones first: none is left over at the end

    @staticmethod
    def limit(said):
        return int(said["timeout"]) if said.get("timeout", "").isdigit() else INTEGRATION_LIMIT_SECONDS

    def prepare(self, tests):
        self.before = self.namespaces()
        return []

    def finish(self):
        left = self.namespaces() - self.before
        if left:
            print("warning: network namespaces that appeared while these ran: %s" % " ".join(sorted(left)), flush=True)

    @staticmethod
    def namespaces():
        try:
            return set(os.listdir("/run/netns"))
        except OSError:
            return set()

    def check(self, name):
        path = os.path.join(self.place.root, "tests", name)
        said = declared(path)
        if "root" in said.get("needs", "") and os.geteuid() != 0:
            return skip(name, "needs root")

        def run():
            return judge_tap(name, process.run([path], self.limit(said), cwd=self.place.root, watch_leftover=True), need_plan=True)

        return run() if self.strict else steady(run)


def steady(run):
    """The result of run(), or of a second run() when the first had failures: with those as `unsteady` when it has none itself."""
    first = run()
    failures = [case.name for case in first.cases if case.verdict == "failed"]
    if not failures:
        return first
    second = run()
    second.seconds += first.seconds
    if any(case.verdict == "failed" for case in second.cases):
        second.text = "%s\n---- it had failed before, too:\n%s" % (second.text, first.text)
    else:
        second.unsteady, second.text = failures, first.text
    return second


class Alone(Integration):
    """One at a time, and what runs beside the other parts stands still."""

    name = "alone"
    jobs = 1
    alone = True

    def prepare(self, tests):
        process.hold(True)
        return super().prepare(tests)

    def finish(self):
        process.hold(False)
        super().finish()


class Clang(Part):
    """The second compiler takes the tree. The fuzz targets and the sanitized tests are in its build."""

    name = "clang"
    slow = True
    beside = True

    def tests(self):
        return [Test("clang/build", self.check)]

    def check(self, name):
        failure = configure_sanitized(self.place, idle=True)
        if failure:
            return failure
        command = ["ninja", "-C", sanitized_build(self.place), "-k", "0", "-j", str(CORES)]
        outcome = process.run(command, BUILD_LIMIT_SECONDS, idle=True)
        return single(name, outcome.failure(), build_errors(outcome), outcome.seconds)


class Fuzz(Part):
    """A few seconds of each fuzz target from its corpus."""

    name = "fuzz"
    slow = True

    def tests(self):
        paths = sorted(glob.glob(os.path.join(self.place.root, "tests/fuzz/*_fuzz.c")))
        return [Test("clang/fuzz_" + os.path.basename(path)[: -len("_fuzz.c")], self.check) for path in paths]

    @staticmethod
    def target(name):
        return "tests/fuzz/" + name.split("/", 1)[1]

    def prepare(self, tests):
        return sanitized_failure(self.place, tests) or build_targets(sanitized_build(self.place), [self.target(test.name) for test in tests], tests, self.target)

    def check(self, name):
        build = sanitized_build(self.place)
        short = name.split("/fuzz_", 1)[1]
        corpus = [os.path.join(self.place.root, "tests/fuzz/corpus", short)]
        scratch = os.path.join(build, "fuzz-" + short)
        os.makedirs(scratch, exist_ok=True)
        command = [os.path.join(build, self.target(name)), "-max_total_time=%d" % FUZZ_SECONDS, "-timeout=10", "-rss_limit_mb=2048", scratch]
        words = os.path.join(self.place.root, "tests/fuzz", short + ".dict")
        command += ["-dict=" + words] if os.path.exists(words) else []
        outcome = process.run(command + [path for path in corpus if os.path.isdir(path)], 60, cwd=scratch)
        return single(name, outcome.failure(), outcome.text[-6000:], outcome.seconds)


class Tidy(Part):
    """clang-tidy on every source of the compile database."""

    name = "tidy"
    slow = True
    beside = True
    deadline = None

    def tests(self):
        self.flags_of = {}
        for entry in compile_commands(self.place.build):
            path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), self.place.root)
            if path.startswith(ROOMS) and path.endswith(".c"):
                self.flags_of[path] = entry
        return [Test("tidy/" + path, self.check) for path in sorted(self.flags_of)]

    def prepare(self, tests):
        self.refusal = tool_refusal("clang-tidy")
        return []

    def awaited(self):
        self.deadline = time.monotonic() + TIDY_BUDGET_SECONDS

    def check(self, name):
        if self.refusal:
            return skip(name, self.refusal)
        if self.deadline and time.monotonic() > self.deadline:
            return skip(name, "the %d s for clang-tidy are used up" % TIDY_BUDGET_SECONDS)
        path = name.split("/", 1)[1]
        # The database is gcc's: clang is asked to overlook flags of gcc that it does not know.
        # A bound on the analyzer's paths: with its own the whole takes three times as long, and found nothing more in this tree.
        bound = ["--extra-arg=" + word for word in ("-Xclang", "-analyzer-config", "-Xclang", "max-nodes=%d" % TIDY_NODES)]
        command = ["clang-tidy", "--quiet", "-p", self.place.build, "--extra-arg=-Wno-unknown-warning-option", *bound, path]
        outcome = process.run(command, TIDY_LIMIT_SECONDS, cwd=self.place.root, idle=True)
        return single(name, outcome.failure(), outcome.text, outcome.seconds)


def all_parts(place):
    return [kind(place) for kind in (Harness, Format, Headers, Unit, Sim, Integration, Alone, Clang, Fuzz, Sanitize, Tidy)]
