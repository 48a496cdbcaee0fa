"""Frames for test_af_xdp, and what the sharing program must say to each: RULES is (name, addresses, ports, vlan, [(what, frame, verdict)])."""
import ipaddress
import struct

OURS, NEAR, FAR = (ipaddress.ip_address(f"192.0.2.{last}") for last in (10, 9, 1))
OURS6, NEAR6, FAR6 = (ipaddress.ip_address(f"2001:db8::{last}") for last in ("10", "9", "1"))
MULTICAST6 = ipaddress.ip_address("ff02::1:ff00:10")
MAC_FAR, MAC_OURS, MAC_ALL = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02", b"\xff" * 6
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
BYPOST, KERNEL = "drop", "pass"


def ethernet(protocol, payload, to=MAC_OURS, vlan=None):
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return to + MAC_FAR + tag + struct.pack("!H", protocol) + payload


def ports(source, target, rest=b"\0" * 16):
    return struct.pack("!HH", source, target) + rest


def ip4(source, target, protocol, payload, fragment=0x4000, identity=7, options=b""):
    length = 20 + len(options)
    return struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), identity, fragment, 64, protocol, 0) + source.packed + target.packed + \
        options + payload


def ip6(source, target, protocol, payload, hops=64):
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + source.packed + target.packed + payload


def four(*arguments, vlan=None, **more):
    return ethernet(0x0800, ip4(*arguments, **more), vlan=vlan)


def six(*arguments, to=MAC_OURS, **more):
    return ethernet(0x86DD, ip6(*arguments, **more), to=to)


def arp(operation, sender, target, to=MAC_OURS, vlan=None):
    return ethernet(0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + MAC_FAR + sender.packed + MAC_OURS + target.packed, to, vlan)


def icmp4(kind, quoted):
    return struct.pack("!BBHI", kind, 0, 0, 0) + quoted


def icmp6(kind, quoted, code=0):
    return struct.pack("!BBHI", kind, code, 0, 0) + quoted


def fragment6(next_header, offset, more, identity=9):
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, identity)


NONE = ipaddress.ip_address("0.0.0.0")
OWN_RULES = [
    ("TCP to our address", four(FAR, OURS, TCP, ports(25, 40000)), BYPOST),
    ("TCP to the kernel's", four(FAR, NEAR, TCP, ports(25, 40000)), KERNEL),
    ("from our address, to another", four(OURS, NEAR, TCP, ports(25, 40000)), KERNEL),
    ("ping to our address", four(FAR, OURS, ICMP, icmp4(8, b"")), BYPOST),
    ("a later fragment to our address", four(FAR, OURS, TCP, b"x" * 40, fragment=0x00B9), BYPOST),
    ("IPv4 with options", four(FAR, OURS, TCP, ports(25, 40000), options=b"\1" * 8), BYPOST),
    ("ARP request for our address", arp(1, FAR, OURS, MAC_ALL), BYPOST),
    ("ARP reply to our address", arp(2, FAR, OURS), BYPOST),
    ("ARP claim of our address by another (RFC 5227)", arp(1, OURS, OURS, MAC_ALL), BYPOST),
    ("ARP request for the kernel's", arp(1, FAR, NEAR, MAC_ALL), KERNEL),
    ("ARP reply to the kernel's", arp(2, FAR, NEAR), KERNEL),
    ("ARP announcement of a neighbour", arp(1, FAR, FAR, MAC_ALL), KERNEL),
    ("half an ARP frame", arp(1, FAR, OURS, MAC_ALL)[:30], KERNEL),
    ("half an IPv4 header", four(FAR, OURS, TCP, b"")[:30], KERNEL),
    ("another VLAN", four(FAR, OURS, TCP, ports(25, 40000), vlan=12), KERNEL),
    ("a priority tag, which is no VLAN (802.1Q)", four(FAR, OURS, TCP, ports(25, 40000), vlan=0), BYPOST),
    ("another protocol", ethernet(0x88CC, b"x" * 40), KERNEL),
]
OWN6_RULES = [
    ("TCP to our address", six(FAR6, OURS6, TCP, ports(25, 40000)), BYPOST),
    ("TCP to the kernel's", six(FAR6, NEAR6, TCP, ports(25, 40000)), KERNEL),
    ("solicitation for our address (RFC 4861 4.3)", six(FAR6, MULTICAST6, ICMP6, icmp6(135, OURS6.packed), hops=255), BYPOST),
    ("solicitation for the kernel's", six(FAR6, MULTICAST6, ICMP6, icmp6(135, NEAR6.packed), hops=255), KERNEL),
    ("advertisement to our address (RFC 4861 4.4)", six(FAR6, OURS6, ICMP6, icmp6(136, FAR6.packed), hops=255), BYPOST),
    ("advertisement to all of our address: a conflict", six(FAR6, ipaddress.ip_address("ff02::1"), ICMP6, icmp6(136, OURS6.packed), hops=255), BYPOST),
    ("router advertisement", six(FAR6, ipaddress.ip_address("ff02::1"), ICMP6, icmp6(134, b"x" * 24), hops=255), KERNEL),
    ("a fragment to our address", six(FAR6, OURS6, 44, fragment6(TCP, 100, 0) + b"x" * 40), BYPOST),
]
VLAN_RULES = [
    ("TCP in the VLAN", four(FAR, OURS, TCP, ports(25, 40000), vlan=12), BYPOST),
    ("TCP in the VLAN with a priority", four(FAR, OURS, TCP, ports(25, 40000), vlan=0x600C), BYPOST),
    ("ARP in the VLAN", arp(1, FAR, OURS, MAC_ALL, vlan=12), BYPOST),
    ("TCP untagged", four(FAR, OURS, TCP, ports(25, 40000)), KERNEL),
    ("TCP in another VLAN", four(FAR, OURS, TCP, ports(25, 40000), vlan=13), KERNEL),
]
QUOTED = ip4(OURS, FAR, TCP, ports(40000, 25, b"\0" * 4))
PORT_RULES = [
    ("TCP to the first port", four(FAR, OURS, TCP, ports(25, 40000)), BYPOST),
    ("TCP to the last port", four(FAR, OURS, TCP, ports(25, 49999)), BYPOST),
    ("TCP below the range", four(FAR, OURS, TCP, ports(25, 39999)), KERNEL),
    ("TCP above the range", four(FAR, OURS, TCP, ports(25, 50000)), KERNEL),
    ("TCP from a port of the range", four(FAR, OURS, TCP, ports(40000, 22)), KERNEL),
    ("TCP to another address", four(FAR, NEAR, TCP, ports(25, 40000)), KERNEL),
    ("UDP to the range", four(FAR, OURS, UDP, ports(53, 40000)), KERNEL),
    ("IPv4 options before the ports", four(FAR, OURS, TCP, ports(25, 40000), options=b"\1" * 40), BYPOST),
    ("cut before the ports", four(FAR, OURS, TCP, b"\0\0\0"), KERNEL),
    ("ping", four(FAR, OURS, ICMP, icmp4(8, b"x" * 40)), KERNEL),
    ("fragmentation needed for our segment (RFC 1191)", four(FAR, OURS, ICMP, icmp4(3, QUOTED)), BYPOST),
    ("time exceeded for our segment", four(FAR, OURS, ICMP, icmp4(11, QUOTED)), BYPOST),
    ("an error for the kernel's segment", four(FAR, OURS, ICMP, icmp4(3, ip4(OURS, FAR, TCP, ports(39999, 25)))), KERNEL),
    ("an error for the kernel's datagram", four(FAR, OURS, ICMP, icmp4(3, ip4(OURS, FAR, UDP, ports(40000, 53)))), KERNEL),
    ("an error for another's segment", four(FAR, OURS, ICMP, icmp4(3, ip4(NEAR, FAR, TCP, ports(40000, 25)))), KERNEL),
    ("an error that quotes no ports", four(FAR, OURS, ICMP, icmp4(3, QUOTED[:20])), KERNEL),
    ("a later fragment of a datagram not seen", four(FAR, OURS, TCP, b"x" * 40, fragment=0x0003, identity=1), KERNEL),
    ("the first fragment, to our port", four(FAR, OURS, TCP, ports(25, 40000), fragment=0x2000, identity=2), BYPOST),
    ("its later fragment", four(FAR, OURS, TCP, b"x" * 40, fragment=0x0003, identity=2), BYPOST),
    ("a later fragment with another identity", four(FAR, OURS, TCP, b"x" * 40, fragment=0x0003, identity=3), KERNEL),
    ("the first fragment of the kernel's, identity used again", four(FAR, OURS, TCP, ports(25, 22), fragment=0x2000, identity=2), KERNEL),
    ("its later fragment", four(FAR, OURS, TCP, b"x" * 40, fragment=0x0003, identity=2), KERNEL),
    ("ARP request for the address", arp(1, FAR, OURS, MAC_ALL), KERNEL),
    # No socket is there, so the program gives a neighbour's second answer to the kernel as well.
    ("ARP reply", arp(2, FAR, OURS), KERNEL),
    ("ARP reply again", arp(2, FAR, OURS), KERNEL),
]
QUOTED6 = ip6(OURS6, FAR6, TCP, ports(40000, 25))
HOP_BY_HOP = struct.pack("!BB6x", TCP, 0)
PORT6_RULES = [
    ("TCP to a port of the range", six(FAR6, OURS6, TCP, ports(25, 40000)), BYPOST),
    ("TCP to ssh", six(FAR6, OURS6, TCP, ports(25, 22)), KERNEL),
    ("behind a hop-by-hop header (RFC 8200 4.3)", six(FAR6, OURS6, 0, HOP_BY_HOP + ports(25, 40000)), BYPOST),
    ("behind a hop-by-hop header, ssh", six(FAR6, OURS6, 0, HOP_BY_HOP + ports(25, 22)), KERNEL),
    ("packet too big for our segment (RFC 8201)", six(FAR6, OURS6, ICMP6, icmp6(2, QUOTED6)), BYPOST),
    ("packet too big for the kernel's", six(FAR6, OURS6, ICMP6, icmp6(2, ip6(OURS6, FAR6, TCP, ports(22, 25)))), KERNEL),
    ("the first fragment, to our port (RFC 8200 4.5)", six(FAR6, OURS6, 44, fragment6(TCP, 0, 1) + ports(25, 40000)), BYPOST),
    ("its later fragment", six(FAR6, OURS6, 44, fragment6(TCP, 5, 0) + b"x" * 40), BYPOST),
    ("a later fragment of another", six(FAR6, OURS6, 44, fragment6(TCP, 5, 0, identity=10) + b"x" * 40), KERNEL),
    ("solicitation for the address", six(FAR6, MULTICAST6, ICMP6, icmp6(135, OURS6.packed), hops=255), KERNEL),
    ("echo request", six(FAR6, OURS6, ICMP6, icmp6(128, b"x" * 20)), KERNEL),
]

RULES = [
    ("own IPv4 address", [f"{OURS}/24"], None, 0, OWN_RULES),
    ("own IPv6 address", [f"{OURS6}/64"], None, 0, OWN6_RULES),
    ("own address in a VLAN", [f"{OURS}/24"], None, 12, VLAN_RULES),
    ("shared IPv4 address with a range of ports", [f"{OURS}/24"], (40000, 49999), 0, PORT_RULES),
    ("shared IPv6 address with a range of ports", [f"{OURS6}/64"], (40000, 49999), 0, PORT6_RULES),
]
