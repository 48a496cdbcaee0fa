"""Takes a device from the kernel for DPDK (vfio-pci by driver_override), and gives it back. What fails is undone."""
import glob
import os
import time

import device as devices
from say import NicError, Steps, command

VFIO = "vfio-pci"
NO_IOMMU = ("module", "vfio", "parameters", "enable_unsafe_noiommu_mode")
SETTLE_SECONDS = 3.0  # a driver's probe can take a while
BRIDGE_CLASS = 0x06


def pci_path(pci, *parts):
    return ("bus", "pci", "devices", pci, *parts)


def driver_of(machine, pci):
    return machine.link(*pci_path(pci, "driver"))


def group_of(machine, pci):
    """(number, other devices of the group); (None, []) without an IOMMU."""
    group = machine.link(*pci_path(pci, "iommu_group"))
    if group is None:
        return None, []
    return group, [name for name in machine.names("kernel", "iommu_groups", group, "devices") if name != pci]


def group_blocks(machine, others):
    """Devices of the group that a kernel driver still holds: vfio gives none of a group while one is held. Bridges do not count."""
    return [other for other in others if driver_of(machine, other) not in (None, VFIO, "pci-stub") and
            (machine.number(*pci_path(other, "class"), default=0) >> 16) != BRIDGE_CLASS]


def wait_driver(machine, pci, wanted):
    """True once wanted(driver name or None) holds."""
    end = time.monotonic() + SETTLE_SECONDS
    while not wanted(driver_of(machine, pci)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def holders(machine, pci):
    """Process IDs that have the device's vfio group open: unbinding would wait for them for ever."""
    group, _ = group_of(machine, pci)
    names = {f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"} if group is not None else set()
    found = set()
    for path in glob.glob(os.path.join(machine.proc, "[0-9]*", "fd", "*")):
        try:
            if os.readlink(path) in names:
                found.add(int(path.split("/")[-3]))
        except (OSError, ValueError):
            continue
    return sorted(found)


def move(machine, pci, override, release, wanted):
    """Sets or clears the override, releases the device from `release` (or None) and lets the kernel look for a driver."""
    machine.write(override + "\n", *pci_path(pci, "driver_override"))
    if release is not None:
        machine.write(pci + "\n", "bus", "pci", "drivers", release, "unbind")
        if not wait_driver(machine, pci, lambda now: now is None):
            return False
    machine.write(pci + "\n", "bus", "pci", "drivers_probe")
    return wait_driver(machine, pci, wanted)


def give_back(machine, pci, driver):
    """The undo of bind: to `driver`, or to whatever the kernel finds. An error when it stays without."""
    held = driver_of(machine, pci)
    if held == driver and held is not None:
        machine.write("\n", *pci_path(pci, "driver_override"))
        return
    if not move(machine, pci, "", held, lambda now: now not in (None, VFIO)):
        raise NicError(f"{pci} has no driver; `echo {pci} > /sys/bus/pci/drivers/{driver or 'DRIVER'}/bind` gives it one")


def bind(machine, wanted, options):
    found = devices.find(machine, wanted)
    pci, name, old = found["pci"], found["name"], found["driver"]
    what = f"{name} ({pci})" if name else pci
    if pci is None:
        raise NicError(f"{wanted} is a virtual device and cannot be bound; use net_af_packet0,iface={wanted} or `nic share {wanted}`.")
    if old == VFIO:
        return found, []
    used = devices.in_use(found)
    if used and not options.force:
        raise NicError(f"{what} is in use: {used}; choose another device, `nic share {name}`, or --force with a console at hand.")
    if found["bifurcated"]:
        raise NicError(f"{what} needs no binding: DPDK uses it beside the kernel's driver; write `device: \"{pci}\"` into bypost.yaml.")
    group, others = group_of(machine, pci)
    if group is None and not options.no_iommu:
        raise NicError(f"{what} is in no IOMMU group; switch the IOMMU on (VT-d or AMD-Vi in the firmware, `intel_iommu=on` or `amd_iommu=on` on the kernel's "
                       "command line, then reboot), or say --no-iommu, with which the device can write to all memory.")
    blocks = group_blocks(machine, others)
    if blocks:
        raise NicError(f"IOMMU group {group} of {what} also has {', '.join(blocks)}, which the kernel uses; bind those too (`nic bind {blocks[0]}`), or put the "
                       "card into another slot.")
    with Steps(options.dry_run) as steps:
        if not machine.names("bus", "pci", "drivers", VFIO):
            steps.do(f"load the module {VFIO}", lambda: machine.ask("modprobe", VFIO))
            if not options.dry_run and not machine.names("bus", "pci", "drivers", VFIO):
                raise NicError(f"this kernel has no {VFIO}: `modprobe {VFIO}` does not bring it; install the distribution's full kernel (not a cloud or micro-VM one), "
                               f"or use `nic share {name or pci}`.")
        if group is None:
            before = machine.read(*NO_IOMMU) or "N"
            if before not in ("Y", "1"):
                steps.do("allow vfio without an IOMMU (unsafe: the device can write to all memory)", lambda: machine.write("Y\n", *NO_IOMMU),
                         lambda: machine.write(before + "\n", *NO_IOMMU))
        if name and found["link"] not in (None, "down"):
            steps.do(f"set {name} down", lambda: _link(machine, name, "down"), lambda: _link(machine, name, "up"))

        def take():
            if not move(machine, pci, VFIO, old, lambda now: now == VFIO):
                raise NicError(f"{VFIO} did not take {what}; `dmesg | tail` tells why. The device is back with {old or 'no driver'}.")

        # One step and its undo, noted first: half a move is undone too.
        if not options.dry_run:
            steps.done.append((f"bind {what} to {VFIO}", lambda: give_back(machine, pci, old)))
        steps.do(f"take {what} from {old or 'no driver'} and bind it to {VFIO}", take)
    return found, steps.told


def unbind(machine, wanted, options):
    found = devices.find(machine, wanted)
    pci = found["pci"]
    if pci is None or found["driver"] not in devices.KERNELLESS:
        raise NicError(f"{wanted} is with the kernel already ({found['driver'] or 'no driver'}).")
    users = holders(machine, pci)
    if users:
        raise NicError(f"process {users[0]} uses {pci}; stop bypost first.")
    with Steps(options.dry_run) as steps:
        def give():
            if not move(machine, pci, "", found["driver"], lambda now: now not in (None, *devices.KERNELLESS)):
                raise NicError(f"no driver of the kernel took {pci}; load its module (`lspci -k -s {pci}` names it) and run this again.")

        if not options.dry_run:
            steps.done.append((f"give {pci} back", lambda: move(machine, pci, found["driver"], driver_of(machine, pci), lambda now: now == found["driver"])))
        steps.do(f"give {pci} from {found['driver']} back to the kernel", give)
    return found, steps.told


def _link(machine, name, state):
    if machine.facts is None:
        command("ip", "link", "set", name, state)
