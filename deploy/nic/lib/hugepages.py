"""Hugepages for DPDK: what is reserved on each NUMA node, reserving more, and the file that does it at each boot."""
import os
import re

from say import NicError, Steps

PERSIST = "/etc/sysctl.d/60-bypost-hugepages.conf"
SIZE_KIB = 2048


def nodes(machine):
    """[{"node", "size_kib", "total", "free"}] for each node and size; one entry with node None on a kernel without NUMA."""
    found = []
    for node in [name for name in machine.names("devices", "system", "node") if re.fullmatch(r"node\d+", name)]:
        base = ("devices", "system", "node", node, "hugepages")
        found += [_entry(machine, int(node[4:]), *base, size) for size in machine.names(*base)]
    if not found:
        base = ("kernel", "mm", "hugepages")
        found = [_entry(machine, None, *base, size) for size in machine.names(*base)]
    return found


def _entry(machine, node, *path):
    return {"node": node, "size_kib": int(re.search(r"\d+", path[-1])[0]), "total": machine.number(*path, "nr_hugepages", default=0),
            "free": machine.number(*path, "free_hugepages", default=0), "file": machine.sys(*path, "nr_hugepages")}


def reserve(machine, count, node, options):
    """`count` pages of 2 MiB on one node, or on each when node is None. All or nothing. Returns (before, after, steps)."""
    before = [entry for entry in nodes(machine) if entry["size_kib"] == SIZE_KIB]
    if not before:
        raise NicError("this kernel offers no hugepages of 2 MiB; bypost runs without: `hugepages: off`.")
    chosen = [entry for entry in before if node is None or entry["node"] == node]
    if not chosen:
        raise NicError(f"there is no NUMA node {node}; there are {', '.join(str(entry['node']) for entry in before)}.")
    with Steps(options.dry_run) as steps:
        for entry in chosen:
            in_use = entry["total"] - entry["free"]
            if count < in_use:
                raise NicError(f"{in_use} pages are in use{_where(entry)}, so {count} is too few; stop bypost first.")
            steps.do(f"reserve {count} pages of 2 MiB{_where(entry)} (there are {entry['total']})", lambda entry=entry: _set(entry, count),
                     lambda entry=entry: _write(entry, entry["total"]))
        if options.persist:
            lines = f"# bypost: hugepages of 2 MiB, reserved at each boot over all NUMA nodes\nvm.nr_hugepages = {count * len(chosen)}\n"
            steps.do(f"write {options.persist}, which reserves them at each boot", lambda: _persist(options.persist, lines))
    return before, [entry for entry in nodes(machine) if entry["size_kib"] == SIZE_KIB], steps.told


def _where(entry):
    return "" if entry["node"] is None else f" on NUMA node {entry['node']}"


def _write(entry, count):
    with open(entry["file"], "w") as file:
        file.write(f"{count}\n")


def _set(entry, count):
    try:
        _write(entry, count)
    except OSError as error:
        raise NicError(f"the kernel refused {count} hugepages: {error.strerror}; run as root, outside of a container.") from None
    with open(entry["file"]) as file:
        got = int(file.read())
    if got < count:
        _write(entry, entry["total"])
        raise NicError(f"memory{_where(entry)} is too full or fragmented: {got} of {count} pages could be had, and the {entry['total']} of before are back; "
                       "ask for fewer, or reserve them at boot.")


def _persist(path, text):
    with open(path + ".part", "w") as file:
        file.write(text)
    os.replace(path + ".part", path)
