"""Network devices: what each is, who uses it, and in words what bypost can do with it."""
import glob
import json
import os
import re

from machine import PCI_ADDRESS
from say import NicError

PCI_IDS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
PMD_PATTERN = "/usr/lib/*/dpdk/pmds-*/librte_net_*.so"
PCI_CLASS_NETWORK = 0x02
ANY_ID = 0xFFFF
KERNELLESS = ("vfio-pci", "igb_uio", "uio_pci_generic")
OFFLOADS = ("rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload", "generic-receive-offload", "large-receive-offload",
            "rx-vlan-offload", "tx-vlan-offload", "ntuple-filters", "receive-hashing")

# Kernel drivers with XDP of their own (others: the generic mode, in which the kernel has made an skb first), and the release that brought it;
# then the release that brought AF_XDP without a copy, None: not yet. From the kernel's Documentation and its drivers' ndo_bpf.
XDP_DRIVERS = {
    "ixgbe": ((4, 12), (4, 20)), "i40e": ((4, 13), (4, 20)), "ice": ((5, 5), (5, 5)), "mlx5_core": ((4, 9), (5, 3)), "igc": ((5, 13), (5, 14)),
    "igb": ((5, 10), (6, 14)), "virtio_net": ((4, 10), (6, 11)), "gve": ((6, 4), (6, 4)), "stmmac": ((5, 13), (5, 13)), "nfp": ((4, 10), (5, 18)),
    "tsnep": ((6, 3), (6, 4)), "ixgbevf": ((4, 17), None), "mlx4_en": ((4, 8), None), "bnxt_en": ((4, 11), None), "ena": ((5, 6), None),
    "qede": ((4, 10), None), "sfc": ((5, 5), None), "hv_netvsc": ((5, 6), None), "mana": ((5, 17), None), "vmxnet3": ((6, 6), None),
    "ionic": ((6, 9), None), "veth": ((4, 20), None), "tun": ((4, 14), None), "bonding": ((5, 15), None),
}


def pci_names(vendor, device, paths=PCI_IDS):
    """Vendor and device in words, from pci.ids; the numbers when it has none."""
    vendor_words, device_words = f"vendor {vendor:04x}", f"device {device:04x}"
    for path in paths:
        try:
            with open(path, errors="replace") as file:
                inside = False
                for line in file:
                    if line.startswith("#") or not line.strip():
                        continue
                    if not line.startswith("\t"):
                        if inside:
                            break
                        inside = line.startswith(f"{vendor:04x}  ")
                        if inside:
                            vendor_words = line[6:].strip()
                    elif inside and line.startswith(f"\t{device:04x}  "):
                        device_words = line[7:].strip()
                        break
        except OSError:
            continue
        break
    return vendor_words, device_words


def pmds(machine):
    """What DPDK's installed drivers say of themselves: [{"name", "pci_ids", "kmod"}]."""
    if machine.facts is not None:
        return machine.facts.get("pmds", [])
    found = []
    for path in glob.glob(PMD_PATTERN):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            continue
        for match in re.finditer(rb"PMD_INFO_STRING= (\{[^\0]*\})\0", data):
            try:
                found.append(json.loads(match[1]))
            except ValueError:
                continue
    return found


def pmd_of(drivers, vendor, device):
    for driver in drivers:
        for ids in driver.get("pci_ids", []):
            if ids[0] == vendor and ids[1] in (device, ANY_ID):
                return driver
    return None


def carriers(machine):
    """Names of the devices by which the kernel's default routes leave, with the devices below them (of a bond, a bridge, a VLAN)."""
    names = set()
    for line in machine.read_proc("net", "route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            names.add(fields[0])
    for line in machine.read_proc("net", "ipv6_route").splitlines():
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            names.add(fields[9])
    return with_lower(machine, names)


def with_lower(machine, names):
    found, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting.update(entry[6:] for entry in machine.names("class", "net", name) if entry.startswith("lower_"))
    return found


def kernel_addresses(machine):
    """{device: [address/prefix]}"""
    try:
        links = json.loads(machine.ask("ip", "-j", "addr", "show") or "[]")
    except ValueError:
        links = []
    return {link.get("ifname"): [f"{entry['local']}/{entry['prefixlen']}" for entry in link.get("addr_info", []) if "local" in entry] for link in links}


def pci_of(machine, name):
    """The PCI address of a kernel device, also through virtio; None for a virtual one."""
    path = os.path.realpath(machine.sys("class", "net", name, "device"))
    while path not in ("/", os.path.realpath(machine.sysfs)) and len(path) > 1:
        if PCI_ADDRESS.fullmatch(os.path.basename(path)):
            return os.path.basename(path)
        path = os.path.dirname(path)
    return None


def net_names(machine, pci):
    base = machine.sys("bus", "pci", "devices", pci)
    return sorted(os.path.basename(path) for pattern in ("net/*", "virtio*/net/*") for path in glob.glob(os.path.join(base, pattern)))


def _last_numbers(text, label):
    return [int(value) for value in re.findall(rf"^{label}:\s+(\d+)", text, re.M)]


def ethtool_facts(machine, name):
    """Queues, rings, RSS and offloads, as far as the driver tells."""
    facts = {}
    combined = _last_numbers(machine.ask("ethtool", "-l", name), "Combined")
    if len(combined) == 2:
        facts["queues"] = {"now": combined[1], "max": combined[0]}
    rings = machine.ask("ethtool", "-g", name)
    receive, send = _last_numbers(rings, "RX"), _last_numbers(rings, "TX")
    if len(receive) == 2 and len(send) == 2:
        facts["rings"] = {"rx": receive[1], "rx_max": receive[0], "tx": send[1], "tx_max": send[0]}
    rss = machine.ask("ethtool", "-x", name)
    key = re.search(r"^([0-9a-f]{2}(?::[0-9a-f]{2})+)$", rss, re.M)
    rows = re.findall(r"^\s*\d+:((?:\s+\d+)+)\s*$", rss, re.M)
    facts["rss"] = {"key_bytes": len(key[1].split(":")) if key else 0, "table_size": sum(len(row.split()) for row in rows)}
    offloads = dict(re.findall(r"^([a-z0-9-]+): (on|off)", machine.ask("ethtool", "-k", name), re.M))
    facts["offloads"] = {offload: offloads[offload] == "on" for offload in OFFLOADS if offload in offloads}
    return facts


def kernel_driver(machine, name):
    """The driver that the kernel's name stands for; virtual devices tell theirs by ethtool."""
    driver = machine.link("class", "net", name, "device", "driver")
    if driver:
        return driver
    match = re.search(r"^driver: (\S+)", machine.ask("ethtool", "-i", name), re.M)
    return match[1] if match else None


def device_list(machine):
    """Every network device: those with a PCI address, and the kernel's virtual ones but lo."""
    drivers = pmds(machine)
    routed = carriers(machine)
    addresses = kernel_addresses(machine)
    ssh = machine.ssh_address()
    by_ssh = with_lower(machine, {name for name, have in addresses.items() if ssh and ssh in [address.split("/")[0] for address in have]})
    found, seen = [], set()
    for pci in machine.names("bus", "pci", "devices"):
        if (machine.number("bus", "pci", "devices", pci, "class", default=0) >> 16) != PCI_CLASS_NETWORK:
            continue
        names = net_names(machine, pci)
        seen.update(names)
        for name in names or [None]:
            found.append((pci, name))
    for name in machine.names("class", "net"):
        if name not in seen and name != "lo" and machine.names("class", "net", name):
            found.append((pci_of(machine, name), name))
    return [describe(machine, pci, name, drivers, routed, addresses, by_ssh) for pci, name in found]


def describe(machine, pci, name, drivers, routed, addresses, by_ssh):
    device = {"name": name, "pci": pci, "vendor": None, "device": None, "driver": None, "link": None, "speed_mbps": None, "numa_node": None, "mac": None,
              "mtu": None, "addresses": addresses.get(name, []), "default_route": name in routed, "ssh": name in by_ssh}
    pmd = None
    if pci:
        base = ("bus", "pci", "devices", pci)
        vendor, number = machine.number(*base, "vendor", default=0), machine.number(*base, "device", default=0)
        device["vendor"], device["device"] = pci_names(vendor, number)
        device["pci_id"] = f"{vendor:04x}:{number:04x}"
        device["driver"] = machine.link(*base, "driver")
        device["numa_node"] = machine.number(*base, "numa_node", default=-1)
        pmd = pmd_of(drivers, vendor, number)
    if name:
        base = ("class", "net", name)
        kernel = kernel_driver(machine, name)
        device["kernel_driver"] = kernel
        device["driver"] = device["driver"] or kernel
        device["link"] = machine.read(*base, "operstate") or None
        speed = machine.number(*base, "speed", default=-1)
        device["speed_mbps"] = speed if speed > 0 else None
        device["mac"] = machine.read(*base, "address") or None
        device["mtu"] = machine.number(*base, "mtu")
        device.update(ethtool_facts(machine, name))
    device["pmd"] = pmd["name"] if pmd else None
    device["bifurcated"] = bool(pmd) and "ib_uverbs" in str(pmd.get("kmod", "")) and "vfio" not in pmd["kmod"]
    device["xdp"] = xdp_support(machine, device)
    device["ways"] = ways(device)
    return device


def xdp_support(machine, device):
    """"zero-copy", "native" or "generic"; None without a kernel device, or before Linux 5.3."""
    if device["name"] is None or machine.release() < (5, 3):
        return None
    since = XDP_DRIVERS.get(device.get("kernel_driver"))
    if since is None or machine.release() < since[0]:
        return "generic"
    return "zero-copy" if since[1] and machine.release() >= since[1] else "native"


def in_use(device):
    """Why it must not be taken from the kernel, or None."""
    if device["default_route"]:
        return "the kernel's default route leaves by it"
    if device["ssh"]:
        return "this ssh session comes in by it"
    return None


def ways(device):
    """What bypost can do with it, best first, in words."""
    result = []
    used = in_use(device)
    name, pci = device["name"], device["pci"]
    if device["driver"] in KERNELLESS:
        result.append(f"ready: bound to {device['driver']}; write `device: \"{pci}\"` into bypost.yaml")
    elif device["bifurcated"]:
        result.append(f"whole device without unbinding (bifurcated, DPDK's {device['pmd']}): write `device: \"{pci}\"` into bypost.yaml; the kernel keeps {name} "
                      "for what bypost does not take" + (f"; but {used}, so try that with a console at hand" if used else ""))
    elif device["pmd"] and pci:
        if used:
            result.append(f"not offered whole: {used} (`nic bind {name or pci} --force` does it all the same)")
        else:
            result.append(f"whole device by vfio-pci (DPDK's {device['pmd']}): `nic bind {name or pci}`; the kernel loses it until `nic unbind`")
    elif pci:
        result.append("not as a whole device: DPDK has no driver for it here")
    if device["xdp"]:
        speed = {"zero-copy": "without a copy", "native": "with a copy in the driver's own XDP", "generic": "in generic mode: the slowest, with a copy"}
        result.append(f"shared with the kernel by AF_XDP, {speed[device['xdp']]}: `nic share {name} --address ...` or `--ports ...`")
    if name:
        result.append(f"by AF_PACKET, on any kernel, slow: `device: net_af_packet0,iface={name}` with an address that the kernel does not have")
    return result


def find(machine, wanted):
    """The device of a kernel name or a PCI address, with or without its domain."""
    devices = device_list(machine)
    for device in devices:
        if wanted in (device["name"], device["pci"]) or (device["pci"] and "0000:" + wanted == device["pci"]):
            return device
    raise NicError(f"there is no network device {wanted} here; `nic list` shows those that there are.")
