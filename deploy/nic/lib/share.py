"""Sharing a device with the kernel by AF_XDP: compiles bypost_xdp.bpf.c for addresses or a port range, tries it, and writes down what to undo."""
import ipaddress
import json
import os
import re
import shlex
import shutil
import socket
import struct

import bpf
from say import NicError, Steps, command

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bypost_xdp.bpf.c")
STATE_DIRECTORY = "/var/lib/bypost-nic"  # root's: what lies here, root's dataplane loads into the kernel
PROGRAM = "bypost_share"
ADDRESSES_MAX = 64  # of a port of bypost
QUEUES_MAX = 64  # of the program's map
PORTS_MIN = 256  # each worker holds ports in blocks
MTU_MAX = 3498  # a frame, its headroom and its trailer lie in one page
KERNEL_MIN = (5, 3)
DEVICE_NAME = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}")  # goes into a path and, between commas, into bypost.yaml
VLAN_MAX = 4094
RESERVED_PORTS = "/proc/sys/net/ipv4/ip_local_reserved_ports"


# -- what was asked --

def parse_addresses(text):
    """Addresses with an optional prefix length, separated by commas."""
    result = []
    for part in [part.strip() for part in (text or "").split(",") if part.strip()]:
        try:
            address = ipaddress.ip_interface(part)
        except ValueError:
            raise NicError(f"`{part}` is no IP address; write for example 192.0.2.10 or 2001:db8::10/64.") from None
        if address.ip.is_multicast or address.ip.is_unspecified or address.ip.is_loopback or address.ip.is_link_local:
            raise NicError(f"{address.ip} cannot be an address of bypost; write a unicast address of the device's network.")
        if address.ip in [other.ip for other in result]:
            raise NicError(f"{address.ip} stands twice among the addresses; remove one.")
        result.append(address)
    if len(result) > ADDRESSES_MAX:
        raise NicError(f"there are {len(result)} addresses, and a port of bypost has at most {ADDRESSES_MAX}; remove some.")
    return result


def parse_ports(text):
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not match or not 1024 <= first <= last <= 65535:
        raise NicError(f"`{text}` is no range of ports; write for example 40000-49999, within 1024-65535.")
    if last - first + 1 < PORTS_MIN:
        raise NicError(f"a worker needs at least {PORTS_MIN} ports; write a longer range than {text}.")
    return first, last


def prefix_given(address):
    return address.network.prefixlen < address.max_prefixlen


# -- the program --

def header_text(addresses, ports, vlan):
    """The header that tells the program what is bypost's."""
    first, last = ports or (0, 0)
    lines = [f"#define SHARE_VLAN {vlan}", f"#define SHARE_PORT_FIRST {first}", f"#define SHARE_PORT_LAST {last}"]
    four = " ".join(f"case 0x{int(a.ip):08x}u:" for a in addresses if a.version == 4)
    six = " ".join(f"SHARE_IPV6_TEST(0x{int(a.ip) >> 64:016x}ull, 0x{int(a.ip) & (1 << 64) - 1:016x}ull)" for a in addresses if a.version == 6)
    return "\n".join(lines + [f"#define SHARE_IPV4_CASES {four}".rstrip(), f"#define SHARE_IPV6_TESTS {six}".rstrip(), ""])


def compile_program(addresses, ports, vlan, path, source=SOURCE):
    """Writes PATH (an ELF object for BPF) and PATH.h beside it; an older object stays until the new one is whole."""
    with open(path + ".h", "w") as file:
        file.write(header_text(addresses, ports, vlan))
    part = path + ".part"
    if shutil.which("clang") is None:
        raise NicError("the XDP program is compiled for its addresses, and there is no clang here; run `apt-get install clang libbpf-dev`.")
    try:
        command("clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", f"-I/usr/include/{os.uname().machine}-linux-gnu", "-include", path + ".h", "-c",
                source, "-o", part)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _ethernet(vlan, protocol):
    tag = struct.pack("!HH", 0x8100, vlan) if vlan else b""
    return b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02" + tag + struct.pack("!H", protocol)


def tcp_frame(target, port, vlan=0, source=None, source_port=25):
    """A bare TCP segment to an address and port, as the wire would bring it (no checksums: the program does not look)."""
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 1, 0x50, 0x10, 65535, 0, 0)
    if target.version == 4:
        source = source or ipaddress.ip_address("192.0.2.1")
        return _ethernet(vlan, 0x0800) + struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0x4000, 64, 6, 0) + source.packed + target.packed + tcp
    source = source or ipaddress.ip_address("2001:db8::1")
    return _ethernet(vlan, 0x86DD) + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source.packed + target.packed + tcp


def try_program(path, addresses, ports, vlan):
    """Loads it and sees that it takes what it should and nothing else. Nothing is attached."""
    with bpf.Program(path, PROGRAM) as program:
        for address in addresses:
            inside = ports[0] if ports else 40000
            if program.run(tcp_frame(address.ip, inside, vlan)) not in ("drop", "redirect"):
                raise NicError(f"the program does not take what is for {address.ip}; this is a defect of bypost, please report it.")
            if ports and program.run(tcp_frame(address.ip, 22, vlan)) != "pass":
                raise NicError(f"the program takes ssh to {address.ip}; this is a defect of bypost, please report it.")
            other = ipaddress.ip_address(int(address.ip) ^ 1)
            if other not in [a.ip for a in addresses] and program.run(tcp_frame(other, inside, vlan)) != "pass":
                raise NicError(f"the program takes what is for {other}; this is a defect of bypost, please report it.")


# -- the machine --

def link_facts(device):
    answer = command("ip", "-j", "-d", "link", "show", "dev", device, check=False)
    links = json.loads(answer) if answer.strip() else []
    if not links:
        raise NicError(f"there is no network device {device} here; `nic list` shows those that there are.")
    return links[0]


def device_addresses(device=None):
    """[(device, ip_interface)] of the kernel."""
    arguments = ["ip", "-j", "addr", "show"] + (["dev", device] if device else [])
    answer = command(*arguments, check=False)
    result = []
    for link in json.loads(answer) if answer.strip() else []:
        for entry in link.get("addr_info", []):
            if entry.get("scope") == "global" and "local" in entry:
                result.append((link["ifname"], ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}")))
    return result


def gateways(device):
    """{4: address, 6: address} of the kernel's default routes by way of the device: what bypost's own gateway usually is."""
    result = {}
    for version in (4, 6):
        answer = command("ip", "-j", f"-{version}", "route", "show", "default", "dev", device, check=False)
        for route in json.loads(answer) if answer.strip() else []:
            if "gateway" in route:
                result.setdefault(version, route["gateway"])
    return result


def channels(device):
    """(combined now, combined at most); (1, 1) when the device says nothing."""
    numbers = [int(value) for value in re.findall(r"^Combined:\s+(\d+)", command("ethtool", "-l", device, check=False), re.M)]
    return (numbers[-1], numbers[0]) if len(numbers) == 2 and numbers[-1] else (1, 1)


def receive_queues(device):
    """How many queues receive where the driver counts them apart from those that send, as veth does; net_af_xdp then uses the first alone."""
    text = command("ethtool", "-l", device, check=False)
    numbers = [int(value) for value in re.findall(r"^RX:\s+(\d+)", text, re.M)]
    return numbers[-1] if numbers and not re.search(r"^Combined:\s+[1-9]", text, re.M) else 1


def listeners(first, last):
    """Ports of the range on which this machine listens or is connected."""
    used = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{name}") as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            port = int(fields[1].rsplit(":", 1)[1], 16)
            if first <= port <= last and fields[3] != "06":  # TIME_WAIT holds nothing up
                used.add(port)
    return sorted(used)


def reserved_ports():
    try:
        with open(RESERVED_PORTS) as file:
            return file.read().strip()
    except OSError:
        return ""


def write_reserved_ports(text):
    with open(RESERVED_PORTS, "w") as file:
        file.write(text + "\n")


def ports_without(text, first, last):
    """A list of the kernel's such as "8080,9000-9010" without a range."""
    keep = []
    for part in [part for part in text.split(",") if part]:
        low, _, high = part.partition("-")
        low, high = int(low), int(high or low)
        if low < first:
            keep.append((low, min(high, first - 1)))
        if high > last:
            keep.append((max(low, last + 1), high))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in keep)


def solicited_node_mac(address):
    """RFC 4291 2.7.1, RFC 2464 7."""
    return "33:33:ff:" + ":".join(f"{byte:02x}" for byte in address.packed[-3:])


def kernel_version():
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# -- share and unshare --

def paths(directory, device):
    if not DEVICE_NAME.fullmatch(device) or device in (".", ".."):
        raise NicError(f"`{device}` is no name of a device that bypost can be told; `ip link set {shlex.quote(device)} name eth9` gives it another.")
    return os.path.join(directory, device + ".o"), os.path.join(directory, device + ".json")


def make_directory(path):
    os.makedirs(path, mode=0o755, exist_ok=True)
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise NicError(f"others can write to {path}, whose programs are loaded into the kernel; run `chown root {path}` and `chmod 755 {path}`.")


def read_record(directory, device):
    try:
        with open(paths(directory, device)[1]) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def stanza(device, object_path, addresses, queues, vlan, ports, routers):
    """What belongs into bypost.yaml."""
    listed = ", ".join(str(a) if prefix_given(a) else f"{a.ip}/{24 if a.version == 4 else 64}" for a in addresses)
    lines = ["dataplane:"]
    if ports:
        lines.append(f"  tcp_ports: {ports[0]}-{ports[1]}")
    if queues > 1:
        lines.append(f'  lcores: "1-{queues}"   # as many workers as {device} has queues')
    lines += ["  ports:", f"    - device: net_af_xdp0,iface={device},start_queue=0,queue_count={queues},xdp_prog={object_path}", f"      addresses: [{listed}]"]
    if routers:
        lines.append(f"      gateway: {routers[0] if len(routers) == 1 else '[' + ', '.join(routers) + ']'}")
    if vlan:
        lines.append(f"      vlan: {vlan}")
    return "\n".join(lines)


def stale_program(ifindex, device, force):
    """What must be detached first, or None. Refuses what is not bypost's, and what a dataplane is using."""
    now = bpf.attached(ifindex)
    if now is None:
        return None
    if now["name"] != PROGRAM[: bpf.PROGRAM_NAME_BYTES] and not force:
        raise NicError(f"{device} has the XDP program `{now['name'] or now['id']}` of somebody else; end that first, or take it away with --force.")
    users = [pid for pid in bpf.holders(now["id"]) if pid != os.getpid()]
    if users and not force:
        raise NicError(f"{device} is shared and process {users[0]} uses it; stop bypost first, or take it away with --force.")
    return now


def share(device, options):
    """Does it and returns the record that is kept for `unshare`."""
    addresses = parse_addresses(options.address)
    ports = parse_ports(options.ports) if options.ports else None
    if not addresses and not ports:
        raise NicError("say what is bypost's: --address A[,A...] for addresses of its own, or --ports FIRST-LAST on the kernel's addresses.")
    if kernel_version() < KERNEL_MIN:
        raise NicError(f"AF_XDP sharing needs Linux {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or newer, this is {os.uname().release}; use net_af_packet0,iface={device}.")
    if not 0 <= options.vlan <= VLAN_MAX:
        raise NicError(f"there is no VLAN {options.vlan}; write --vlan with 1 to {VLAN_MAX}, or leave it away for untagged frames.")
    object_path, record_path = paths(options.state_dir, device)
    facts = link_facts(device)
    if facts["ifname"] != device:
        raise NicError(f"{device} is another name of {facts['ifname']}; write `nic share {facts['ifname']}`, which is the name that AF_XDP knows.")
    if facts["mtu"] > MTU_MAX:
        raise NicError(f"{device} has an MTU of {facts['mtu']}, and a frame of AF_XDP lies in one page; run `ip link set {device} mtu 1500`.")
    kernel = device_addresses()
    if ports:
        mine = [address for name, address in kernel if name == device]
        if not addresses:
            addresses = mine
        if not addresses:
            raise NicError(f"the kernel has no address on {device} to share; give it one, or use --address for one of bypost's own.")
        for index, address in enumerate(addresses):
            found = [other for other in mine if other.ip == address.ip]
            if not found:
                raise NicError(f"{address.ip} is not the kernel's on {device}, so there is nothing to share by ports; leave --ports away to make it bypost's own.")
            addresses[index] = found[0]
        busy = listeners(*ports)
        if busy:
            raise NicError(f"this machine uses port {busy[0]} of the range {ports[0]}-{ports[1]}; choose a range without it, or wait until that connection has ended.")
    else:
        for address in addresses:
            owner = [name for name, other in kernel if other.ip == address.ip]
            if owner:
                raise NicError(f"{address.ip} is the kernel's, on {owner[0]}; take it away with `ip address del {address.ip} dev {owner[0]}`, "
                               "or share it by --ports.")
        networks = [other.network for name, other in kernel if name == device]
        for index, address in enumerate(addresses):
            near = [network for network in networks if address.ip in network]
            if not prefix_given(address) and near:
                addresses[index] = ipaddress.ip_interface(f"{address.ip}/{near[0].prefixlen}")
    if options.queues is not None and not 1 <= options.queues <= min(channels(device)[1], QUEUES_MAX):
        raise NicError(f"{device} has at most {channels(device)[1]} queues; write --queues with 1 to {min(channels(device)[1], QUEUES_MAX)}.")
    ifindex = socket.if_nametoindex(device)
    stale = stale_program(ifindex, device, options.force)
    older = read_record(options.state_dir, device)
    with Steps(options.dry_run) as steps:
        fresh = object_path + ".new"
        steps.do(f"make the directory {options.state_dir}", lambda: make_directory(options.state_dir))
        steps.do(f"compile the XDP program into {object_path}", lambda: compile_program(addresses, ports, options.vlan, fresh), lambda: _forget(fresh))
        steps.do("load it once and try frames on it", lambda: try_program(fresh, addresses, ports, options.vlan))
        if older:
            steps.do(f"take back what an earlier `share {device}` changed", lambda: unshare(device, options))
        elif stale:
            steps.do(f"take the XDP program {stale['name'] or stale['id']} from {device}", lambda: bpf.detach(ifindex))
        if not options.dry_run:
            os.replace(fresh, object_path)
            os.replace(fresh + ".h", object_path + ".h")
            steps.done.append((f"write {object_path}", lambda: _forget(object_path)))
        have = channels(device)[0]
        queues = options.queues or min(have, QUEUES_MAX)
        record = {"device": device, "object": object_path, "addresses": [str(a.ip) for a in addresses], "ports": list(ports) if ports else None,
                  "vlan": options.vlan, "queues": queues, "undo": {}}
        if queues != have:
            steps.do(f"give {device} {queues} queues instead of {have}: one for each worker", lambda: command("ethtool", "-L", device, "combined", str(queues)),
                     lambda: command("ethtool", "-L", device, "combined", str(have)))
            record["undo"]["queues"] = have
        apart = receive_queues(device)
        if apart > 1:
            steps.do(f"let {device} receive on one queue instead of {apart}: DPDK opens the first alone", lambda: command("ethtool", "-L", device, "rx", "1"),
                     lambda: command("ethtool", "-L", device, "rx", str(apart)))
            record["undo"]["receive_queues"] = apart
        if options.vlan and "rx-vlan-offload: on" in command("ethtool", "-k", device, check=False):
            steps.do(f"turn off {device}'s VLAN offload, which would take the tag away before the program sees it",
                     lambda: command("ethtool", "-K", device, "rxvlan", "off"), lambda: command("ethtool", "-K", device, "rxvlan", "on"))
            record["undo"]["rxvlan"] = "on"
        if ports:
            before = reserved_ports()
            after = ",".join(part for part in (ports_without(before, *ports), f"{ports[0]}-{ports[1]}") if part)
            if after != before:
                steps.do(f"reserve the ports {ports[0]}-{ports[1]}, so that the kernel opens no connection from them", lambda: write_reserved_ports(after),
                         lambda: write_reserved_ports(before))
                record["undo"]["reserved_ports"] = list(ports)
        for address in [] if ports else addresses:
            if address.version == 6:
                mac = solicited_node_mac(address.ip)
                steps.do(f"let {device} receive {mac}, to which neighbours ask for {address.ip}",
                         lambda mac=mac: command("ip", "maddr", "add", mac, "dev", device), lambda mac=mac: command("ip", "maddr", "del", mac, "dev", device))
                record["undo"].setdefault("multicast", []).append(mac)
        steps.do(f"write {record_path}, for unshare and for `bypost check`", lambda: _write_record(record_path, record), lambda: _forget(record_path))
    routers = gateways(device)
    routers = [routers[version] for version in (4, 6) if version in routers and version in [address.version for address in addresses]]
    record["stanza"] = stanza(device, object_path, addresses, queues, options.vlan, ports, routers)
    record["steps"] = steps.told
    return record


def _write_record(path, record):
    part = path + ".part"
    try:
        with open(part, "w") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
        os.chmod(part, 0o644)  # `bypost check` may be anybody's
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _forget(path):
    for name in (path, path + ".h"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def unshare(device, options):
    """Takes back all that `share` did. What is already gone is no error. Returns the steps."""
    record = read_record(options.state_dir, device)
    try:
        ifindex = socket.if_nametoindex(device)
    except OSError:
        ifindex = 0
    now = stale_program(ifindex, device, options.force) if ifindex else None
    if record is None and (now is None or now["name"] != PROGRAM):
        raise NicError(f"{device} is not shared; `nic list` shows what is.")
    undo = (record or {}).get("undo", {})
    steps = Steps(options.dry_run)
    if now is not None:
        steps.do(f"take the XDP program {now['name'] or now['id']} from {device}", lambda: bpf.detach(ifindex))
    if ifindex:
        for mac in undo.get("multicast", []):
            steps.do(f"let {device} forget {mac}", lambda mac=mac: command("ip", "maddr", "del", mac, "dev", device, check=False))
        if "rxvlan" in undo:
            steps.do(f"turn on {device}'s VLAN offload again", lambda: command("ethtool", "-K", device, "rxvlan", "on", check=False))
        if "receive_queues" in undo:
            steps.do(f"let {device} receive on {undo['receive_queues']} queues again",
                     lambda: command("ethtool", "-L", device, "rx", str(undo["receive_queues"]), check=False))
        if "queues" in undo:
            steps.do(f"give {device} {undo['queues']} queues again", lambda: command("ethtool", "-L", device, "combined", str(undo["queues"]), check=False))
    if "reserved_ports" in undo:
        steps.do("give the reserved ports back to the kernel", lambda: write_reserved_ports(ports_without(reserved_ports(), *undo["reserved_ports"])))
    for path in paths(options.state_dir, device):
        if os.path.exists(path):
            steps.do(f"remove {path}", lambda path=path: _forget(path))
    return steps.told


def status(device):
    """What is attached and what it counted, or None."""
    try:
        now = bpf.attached(socket.if_nametoindex(device))
    except (OSError, bpf.BpfError):
        return None
    if now is None:
        return None
    result = {"program": now["name"], "id": now["id"], "bypost": now["name"] == PROGRAM, "processes": bpf.holders(now["id"])}
    try:
        result["counts"] = bpf.program_counts(now)
    except OSError:
        result["counts"] = None
    return result
