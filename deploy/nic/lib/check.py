"""Looks at the machine and at one device: each finding is a sentence, and one that is not in order says what to do."""
import os
import re

import bind
import device as devices
import hugepages
import share

RINGS_WANTED = 2048  # one TLS handshake step fits between two polls
HUGEPAGES_WANTED = 256  # 512 MiB, the default of dataplane.memory
MEMLOCK_WANTED_KIB = 64 << 10
AF_XDP_KERNEL = (5, 3)
CGROUP_ACCOUNTING_KERNEL = (5, 11)  # since then BPF memory is no longer counted against memlock


class Findings:
    def __init__(self):
        self.items = []

    def ok(self, topic, text):
        self.items.append({"level": "ok", "topic": topic, "text": text})

    def note(self, topic, text, remedy=None):
        self._add("note", topic, text, remedy)

    def problem(self, topic, text, remedy):
        self._add("problem", topic, text, remedy)

    def _add(self, level, topic, text, remedy):
        self.items.append({"level": level, "topic": topic, "text": text, **({"remedy": remedy} if remedy else {})})


def check(machine, wanted=None):
    """Findings for the machine, and for one device when it is named."""
    findings = Findings()
    device = devices.find(machine, wanted) if wanted else None
    check_iommu(machine, findings, device)
    check_modules(machine, findings)
    check_hugepages(machine, findings, device)
    check_memlock(machine, findings)
    check_processors(machine, findings, device)
    check_kernel(machine, findings)
    check_firewall(machine, findings)
    if device:
        check_device(findings, device)
    return device, findings.items


def iommu_on(machine):
    return bool(machine.names("kernel", "iommu_groups"))


def check_iommu(machine, findings, device):
    line = machine.read_proc("cmdline")
    if not iommu_on(machine):
        asked = re.search(r"(intel|amd)_iommu=on", line)
        findings.note("iommu", "The IOMMU is off, so a device can be bound whole only with --no-iommu, with which it can write to all memory.",
                      "Switch VT-d or AMD-Vi on in the firmware." if asked else
                      "Switch VT-d or AMD-Vi on in the firmware and add `intel_iommu=on iommu=pt` (Intel) or `iommu=pt` (AMD) to the kernel's command line, then reboot.")
        return
    if "iommu=pt" not in line:
        findings.note("iommu", "The IOMMU is on, and kernel devices go through it too, which costs them some speed.", "Add `iommu=pt` to the kernel's command line.")
    else:
        findings.ok("iommu", "The IOMMU is on, in pass-through mode for the kernel's own devices.")
    if device and device["pci"]:
        group, others = bind.group_of(machine, device["pci"])
        blocks = bind.group_blocks(machine, others)
        if group is None:
            findings.problem("iommu", f"{device['pci']} is in no IOMMU group.", "Put the card into another slot, or look for an ACS option in the firmware.")
        elif blocks:
            findings.problem("iommu", f"IOMMU group {group} of {device['pci']} also has {', '.join(blocks)}, which the kernel uses.",
                             f"Bind those too (`nic bind {blocks[0]}`), or put the card into another slot.")
        else:
            findings.ok("iommu", f"{device['pci']} is in IOMMU group {group}" + (f" with {', '.join(others)}, which nothing uses." if others else ", alone."))


def check_modules(machine, findings):
    have = [name for name in ("vfio-pci", "uio_pci_generic", "igb_uio") if machine.names("bus", "pci", "drivers", name)]
    if "vfio-pci" in have:
        findings.ok("modules", "vfio-pci is loaded.")
        return
    release = "" if machine.facts is not None else os.uname().release
    there = release and os.path.exists(f"/lib/modules/{release}/kernel/drivers/vfio")
    findings.note("modules", "vfio-pci is not loaded" + (", but this kernel has it." if there else ", and this kernel seems not to have it: no device can be bound whole."),
                  "Run `modprobe vfio-pci`; `nic bind` does it by itself." if there else "Use `nic share` or AF_PACKET, or a kernel with vfio-pci.")


def check_hugepages(machine, findings, device):
    have = [entry for entry in hugepages.nodes(machine) if entry["size_kib"] == hugepages.SIZE_KIB]
    node = (device or {}).get("numa_node")
    near = [entry for entry in have if node in (None, -1) or entry["node"] in (None, node)]
    free = sum(entry["free"] for entry in near)
    place = "" if node in (None, -1) or (near and near[0]["node"] is None) else f" on NUMA node {node}, where the device is"
    if free >= HUGEPAGES_WANTED:
        findings.ok("hugepages", f"{free} hugepages of 2 MiB are free{place}.")
    else:
        findings.note("hugepages", f"{free} hugepages of 2 MiB are free{place}; with fewer than {HUGEPAGES_WANTED} bypost runs in ordinary memory, which vfio-pci needs an "
                      "IOMMU for, and slower.", f"Run `nic hugepages {HUGEPAGES_WANTED * 2}{' --node ' + str(node) if place else ''} --persist`.")


def check_memlock(machine, findings):
    if machine.release() >= CGROUP_ACCOUNTING_KERNEL:
        need, why = MEMLOCK_WANTED_KIB, "AF_XDP's frames and vfio's mappings are locked memory"
    else:
        need, why = MEMLOCK_WANTED_KIB, "AF_XDP, BPF maps and vfio's mappings are locked memory"
    match = re.search(r"^Max locked memory\s+(\S+)", machine.read_proc("self", "limits"), re.M)
    if not match:
        return
    if match[1] == "unlimited" or int(match[1]) >> 10 >= need:
        findings.ok("memlock", f"Locked memory is limited to {match[1] if match[1] == 'unlimited' else str(int(match[1]) >> 20) + ' MiB'} here.")
    else:
        findings.note("memlock", f"Locked memory is limited to {int(match[1]) >> 10} KiB here, and {why}.",
                      "Use `LimitMEMLOCK=infinity` in the unit (deploy/systemd has it), or `ulimit -l unlimited` as root.")


def processor_list(text):
    found = set()
    for part in [part for part in text.replace("\n", "").split(",") if part]:
        low, _, high = part.partition("-")
        if low.isdigit() and (high.isdigit() or not high):
            found.update(range(int(low), int(high or low) + 1))
    return found


def check_processors(machine, findings, device):
    slow = sorted({machine.read("devices", "system", "cpu", name, "cpufreq", "scaling_governor") for name in machine.names("devices", "system", "cpu")
                   if re.fullmatch(r"cpu\d+", name)} - {"", "performance"})
    if slow:
        findings.note("processors", f"The frequency governor is `{slow[0]}`, which slows a worker down when it sleeps.", "Run `cpupower frequency-set -g performance`.")
    isolated = processor_list(machine.read("devices", "system", "cpu", "isolated"))
    if isolated:
        findings.ok("processors", f"Processors {machine.read('devices', 'system', 'cpu', 'isolated')} are kept free for workers; name them in dataplane.lcores.")
    else:
        findings.note("processors", "No processor is isolated: the kernel may run others' work on a worker's core.",
                      "For steady latency add `isolcpus=2-5 nohz_full=2-5 rcu_nocbs=2-5` (your workers' cores) to the kernel's command line.")
    node = (device or {}).get("numa_node")
    if node not in (None, -1):
        near = machine.read("devices", "system", "node", f"node{node}", "cpulist")
        if near and len([name for name in machine.names("devices", "system", "node") if re.fullmatch(r"node\d+", name)]) > 1:
            findings.note("processors", f"The device is on NUMA node {node}, whose processors are {near}.", f"Take dataplane.lcores from {near}.")


def check_kernel(machine, findings):
    release = ".".join(str(part) for part in machine.release())
    if machine.release() < AF_XDP_KERNEL:
        findings.problem("kernel", f"Linux {release} is too old for sharing by AF_XDP.", "Use Linux 5.10 or newer (Debian 12 has 6.1).")
    else:
        findings.ok("kernel", f"Linux {release} has AF_XDP as sharing needs it.")


def check_firewall(machine, findings):
    tables = len(re.findall(r"^table ", machine.ask("nft", "list", "tables"), re.M))
    rules = machine.read_proc("net", "ip_tables_names").split()
    if tables or rules:
        findings.note("firewall", "The kernel has firewall rules, which see nothing of bypost's frames: neither to restrict nor to count.",
                      "Restrict bypost by its own configuration (relays, prohibited_hosts) or on the next router; connection tracking needs no rule for it.")
    else:
        findings.ok("firewall", "The kernel has no firewall rules; it would see nothing of bypost's frames in any case.")


def check_device(findings, device):
    name = device["name"] or device["pci"]
    used = devices.in_use(device)
    if used:
        findings.note("use", f"{name} is in use: {used}.", "Leave it to the kernel and share it, or take another device.")
    if device["name"] is None:
        findings.ok("device", f"{name} is with {device['driver'] or 'no driver'}, so the kernel tells nothing of its link, rings and offloads.")
        return
    if device["link"] not in ("up", "unknown"):
        findings.problem("link", f"{name}'s link is {device['link']}.", f"Plug a cable in, and run `ip link set {name} up`.")
    queues, rings, rss, offloads = device.get("queues"), device.get("rings"), device["rss"], device["offloads"]
    if queues:
        findings.ok("queues", f"{name} has {queues['now']} of at most {queues['max']} queue pairs; each worker needs one.")
    else:
        findings.note("queues", f"{name} tells no number of queues, so it has one: one worker receives and hands over to the others.")
    if rss["table_size"] and rss["key_bytes"]:
        findings.ok("rss", f"Replies are spread by a hash with a key of {rss['key_bytes']} bytes over a table of {rss['table_size']}: bypost chooses its ports by it.")
    elif queues and queues["max"] > 1:
        findings.note("rss", f"{name} does not tell its hash key and table, so with several workers replies are handed over between them.")
    if rings and rings["rx"] < RINGS_WANTED <= rings["rx_max"]:
        findings.note("rings", f"{name}'s receive ring has {rings['rx']} of at most {rings['rx_max']} places.", f"For sharing run `ethtool -G {name} rx {RINGS_WANTED}`; a bound device is set by bypost.")
    elif rings and rings["rx_max"] < RINGS_WANTED:
        findings.note("rings", f"{name}'s receive ring has at most {rings['rx_max']} places, so bursts are lost while a worker does something long.")
    elif rings:
        findings.ok("rings", f"{name}'s receive ring has {rings['rx']} places.")
    if device["mtu"] and device["mtu"] > share.MTU_MAX:
        findings.note("mtu", f"{name} has an MTU of {device['mtu']}, and AF_XDP takes at most {share.MTU_MAX}.", f"To share it run `ip link set {name} mtu 1500`.")
    elif device["mtu"] and device["mtu"] < 1500:
        findings.note("mtu", f"{name} has an MTU of {device['mtu']}: write `mtu: {device['mtu']}` into bypost.yaml's port.")
    kind = {"zero-copy": "AF_XDP without a copy (Linux says; the first start shows)", "native": "XDP of its own, so that AF_XDP copies once",
            "generic": "no XDP of its own, so AF_XDP runs in generic mode: it works, at about AF_PACKET's speed", None: "no AF_XDP on this kernel"}[device["xdp"]]
    findings.ok("af_xdp", f"{name}'s driver {device.get('kernel_driver') or 'unknown'} has {kind}.")
    if offloads.get("large-receive-offload"):
        findings.problem("offloads", f"{name} has large-receive-offload on, which XDP refuses.", f"Run `ethtool -K {name} lro off`.")
    if offloads.get("rx-vlan-offload"):
        findings.note("offloads", f"{name} takes VLAN tags away before XDP sees them; for a port in a VLAN `nic share --vlan` turns that off.")
