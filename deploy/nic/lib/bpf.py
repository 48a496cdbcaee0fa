"""XDP programs by way of libbpf (ctypes): load a file, try frames on it, see what is attached to a device, take it away."""
import ctypes
import ctypes.util
import errno
import glob
import os
import struct

LIBBPF_NAMES = ("libbpf.so.1", "libbpf.so.0")
BPF_MAP_LOOKUP_ELEM = 1
BPF_PROG_GET_FD_BY_ID = 13
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
PROGRAM_NAME_BYTES = 15
COUNTS = ("passed", "taken", "unserved", "neighbour_kernel", "neighbour_taken")
VERDICTS = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}


class BpfError(Exception):
    """A sentence with the remedy."""


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = [("sz", ctypes.c_size_t), ("data_in", ctypes.c_void_p), ("data_out", ctypes.c_void_p), ("data_size_in", ctypes.c_uint32),
                ("data_size_out", ctypes.c_uint32), ("ctx_in", ctypes.c_void_p), ("ctx_out", ctypes.c_void_p), ("ctx_size_in", ctypes.c_uint32),
                ("ctx_size_out", ctypes.c_uint32), ("retval", ctypes.c_uint32), ("repeat", ctypes.c_int), ("duration", ctypes.c_uint32),
                ("flags", ctypes.c_uint32), ("cpu", ctypes.c_uint32), ("batch_size", ctypes.c_uint32)]


def library():
    for name in LIBBPF_NAMES:
        try:
            lib = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        for function in ("bpf_object__open_file", "bpf_object__find_program_by_name", "bpf_object__find_map_by_name"):
            getattr(lib, function).restype = ctypes.c_void_p
        return lib
    raise BpfError("libbpf is not installed; run `apt-get install libbpf1`, or deploy/setup.")


class Program:
    """One loaded object file. Use in a `with` block: nothing stays in the kernel afterwards unless it was attached."""

    def __init__(self, path, name):
        self.lib = library()
        self.log = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._print = callback(lambda _level, _format, _arguments: 0)  # the kernel's reasons come back as errors, not on stderr
        self.lib.libbpf_set_print(self._print)
        self.object = self.lib.bpf_object__open_file(path.encode(), None)
        if not self.object:
            raise BpfError(f"{path} is no BPF object: {os.strerror(ctypes.get_errno())}; run `nic share` again to make it anew.")
        result = self.lib.bpf_object__load(ctypes.c_void_p(self.object))
        if result != 0:
            self.close()
            raise BpfError(load_remedy(-result))
        program = self.lib.bpf_object__find_program_by_name(ctypes.c_void_p(self.object), name.encode())
        if not program:
            self.close()
            raise BpfError(f"{path} has no program {name}; run `nic share` again to make it anew.")
        self.fd = self.lib.bpf_program__fd(ctypes.c_void_p(program))

    def run(self, frame):
        """What the program says to one frame: "pass", "drop" (bypost's, without a socket) or "redirect"."""
        data = ctypes.create_string_buffer(bytes(frame), max(len(frame), 14))
        out = ctypes.create_string_buffer(4096)
        options = TestRunOptions(sz=ctypes.sizeof(TestRunOptions), data_in=ctypes.addressof(data), data_out=ctypes.addressof(out),
                                 data_size_in=len(frame), data_size_out=len(out), repeat=1)
        result = self.lib.bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        if result != 0:
            raise BpfError(f"the kernel cannot try a frame on the program: {os.strerror(-result)}.")
        return VERDICTS.get(options.retval, str(options.retval))

    def attach(self, ifindex, generic=False):
        """For tests: net_af_xdp attaches for bypost."""
        flags = (1 << 0) | ((1 << 1) if generic else 0)
        result = self.lib.bpf_xdp_attach(ifindex, self.fd, flags, None)
        if result != 0:
            raise BpfError(f"the program could not be attached: {os.strerror(-result)}.")

    def close(self):
        if self.object:
            self.lib.bpf_object__close(ctypes.c_void_p(self.object))
        self.object = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def load_remedy(number):
    if number in (errno.EPERM, errno.EACCES):
        return "the kernel refused the XDP program (EPERM); run as root, or with CAP_BPF and CAP_NET_ADMIN, and not in a locked-down container."
    if number == errno.EINVAL:
        return "the kernel cannot load this XDP program (EINVAL); AF_XDP with a drop for lost sockets needs Linux 5.3 or newer."
    return f"the kernel did not load the XDP program: {os.strerror(number)}."


def _syscall(command, attributes):
    number = BPF_SYSCALL.get(os.uname().machine)
    if number is None:
        raise BpfError(f"programs cannot be looked at on {os.uname().machine}.")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(number, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def attached_id(ifindex):
    """The ID of the XDP program on a device, 0 without one."""
    lib = library()
    identity = ctypes.c_uint32(0)
    result = lib.bpf_xdp_query_id(ifindex, 0, ctypes.byref(identity))
    return identity.value if result == 0 else 0


def program_info(identity):
    """Name and map IDs of a loaded program."""
    fd = _syscall(BPF_PROG_GET_FD_BY_ID, struct.pack("=I", identity))
    try:
        # struct bpf_prog_info: type, id, tag[8], two lengths, two pointers, load time, uid, number of maps, pointer to their IDs, name[16]
        maps = ctypes.create_string_buffer(4 * 16)
        info = ctypes.create_string_buffer(256)
        struct.pack_into("=I", info, 52, 16)
        struct.pack_into("=Q", info, 56, ctypes.addressof(maps))
        _syscall(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 256, ctypes.addressof(info)))
        count = min(struct.unpack_from("=I", info.raw, 52)[0], 16)
        name = info.raw[64:80].split(b"\0")[0].decode(errors="replace")
        return {"id": identity, "name": name, "maps": list(struct.unpack_from(f"={count}I", maps.raw))}
    finally:
        os.close(fd)


def _map_info(fd):
    info = ctypes.create_string_buffer(128)
    _syscall(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 128, ctypes.addressof(info)))
    return info.raw[24:40].split(b"\0")[0].decode(errors="replace")


def possible_cpus():
    try:
        with open("/sys/devices/system/cpu/possible") as file:
            return int(file.read().strip().split("-")[-1].split(",")[-1]) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1


def program_counts(info):
    """The share's counters, summed over the processors; None for another program."""
    for identity in info["maps"]:
        fd = _syscall(BPF_MAP_GET_FD_BY_ID, struct.pack("=I", identity))
        try:
            if _map_info(fd) != "share_counts":
                continue
            counts = {}
            cpus = possible_cpus()
            for index, name in enumerate(COUNTS):
                key = ctypes.create_string_buffer(struct.pack("=I", index), 4)
                values = ctypes.create_string_buffer(8 * cpus)
                _syscall(BPF_MAP_LOOKUP_ELEM, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(values), 0))
                counts[name] = sum(struct.unpack(f"={cpus}Q", values.raw))
            return counts
        finally:
            os.close(fd)
    return None


def attached(ifindex):
    """{"id", "name", "maps"} of what is attached to a device, or None."""
    try:
        identity = attached_id(ifindex)
    except BpfError:
        return None
    if identity == 0:
        return None
    try:
        return program_info(identity)
    except OSError:
        return {"id": identity, "name": "", "maps": []}


def holders(identity, proc="/proc"):
    """Process IDs that hold the program open: a dataplane that runs with it."""
    wanted = f"prog_id:\t{identity}\n"
    found = set()
    for path in glob.glob(os.path.join(proc, "[0-9]*/fdinfo/*")):
        try:
            with open(path) as file:
                if wanted in file.read():
                    found.add(int(path.split("/")[-3]))
        except (OSError, ValueError):
            continue
    return sorted(found)


def detach(ifindex):
    result = library().bpf_xdp_detach(ifindex, 0, None)
    if result != 0:
        raise BpfError(f"the XDP program could not be taken away: {os.strerror(-result)}.")
