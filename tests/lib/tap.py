"""Reads TAP as cmocka and the integration tests print it: plans, results, skips."""

import re

PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*SKIP\b\s*(.*))?\s*$", re.I)
RESULT = re.compile(r"^(not )?ok (\d+)\b\s*(?:-\s*)?(.*)$")
DIRECTIVE = re.compile(r"#\s*(SKIP|TODO)\b:?\s*(.*)$", re.I)


class Case:
    """One result: name, verdict ('passed', 'failed' or 'skipped'), and why it was skipped."""

    def __init__(self, name, verdict, why=""):
        self.name = name
        self.verdict = verdict
        self.why = why


def parse(text):
    """Returns (cases, faults, planned): faults are what makes the output itself untrustworthy; planned is None without a plan.

    A program of several cmocka groups prints several plans; each must be fulfilled by as many results as it promises.
    """
    cases, faults, plans = [], [], []
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            plans.append(int(plan.group(1)))
            if plan.group(1) == "0":
                cases.append(Case("all", "skipped", plan.group(2) or "no reason given"))
            continue
        result = RESULT.match(line)
        if result:
            name = result.group(3).strip()
            directive = DIRECTIVE.search(name)
            if directive and directive.group(1).upper() == "SKIP":
                # cmocka puts the name after the word: "not ok 3 # SKIP name".
                before = name[: directive.start()].strip(" -")
                cases.append(Case(before or directive.group(2), "skipped", directive.group(2) if before else "the test said so"))
            else:
                cases.append(Case(name or "case %d" % (len(cases) + 1), "failed" if result.group(1) else "passed"))
            continue
        if line.startswith("Bail out!"):
            faults.append(line.strip())
    planned = sum(plans) if plans else None
    seen = sum(1 for case in cases if not (case.verdict == "skipped" and case.name == "all"))
    if planned is not None and seen != planned:
        faults.append("%d results where the plan says %d" % (seen, planned))
    return cases, faults, planned
