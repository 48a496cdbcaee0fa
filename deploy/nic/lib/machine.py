"""What the machine says: sysfs, procfs and commands. Both file trees are parameters, and so are the commands' answers, so that tests need no NIC."""
import json
import os
import re

from say import NicError, command

PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Machine:
    """`facts`: a file of JSON {"commands": {"ethtool -i eth1": "..."}, "environment": {...}, "release": "6.1.0", "pmds": [...]} that answers
    instead of this machine."""

    def __init__(self, sysfs="/sys", proc="/proc", facts=None):
        self.sysfs = sysfs
        self.proc = proc
        self.facts = None
        if facts is not None:
            with open(facts) as file:
                self.facts = json.load(file)

    # -- files --

    def sys(self, *parts):
        return os.path.join(self.sysfs, *parts)

    def read(self, *parts):
        """The file's text without its last newline, "" when it cannot be read."""
        try:
            with open(self.sys(*parts)) as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def read_proc(self, *parts):
        try:
            with open(os.path.join(self.proc, *parts)) as file:
                return file.read()
        except OSError:
            return ""

    def number(self, *parts, default=None):
        try:
            return int(self.read(*parts), 0)
        except ValueError:
            return default

    def names(self, *parts):
        try:
            return sorted(os.listdir(self.sys(*parts)))
        except OSError:
            return []

    def link(self, *parts):
        """The last part of what a symbolic link points to, None without one."""
        try:
            return os.path.basename(os.readlink(self.sys(*parts)))
        except OSError:
            return None

    def write(self, text, *parts):
        path = self.sys(*parts)
        try:
            with open(path, "w") as file:
                file.write(text)
        except OSError as error:
            raise NicError(f"the kernel refused `{text.strip()}` for {path}: {error.strerror}.") from None

    # -- answers --

    def ask(self, *arguments):
        """What a command prints, "" when it fails."""
        if self.facts is not None:
            return self.facts.get("commands", {}).get(" ".join(arguments), "")
        return command(*arguments, check=False)

    def release(self):
        text = self.facts.get("release", "6.1.0") if self.facts is not None else os.uname().release
        match = re.match(r"(\d+)\.(\d+)", text)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def ssh_address(self):
        """The address of this machine that the ssh session of this terminal came to, or None. sudo hides the variable, so ancestors are asked too."""
        if self.facts is not None:
            return self._ssh_of(self.facts.get("environment", {}))
        found = self._ssh_of(os.environ)
        pid = os.getpid()
        for _ in range(32):
            if found or pid <= 1:
                break
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    pairs = [entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry]
                found = self._ssh_of({name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs})
                with open(f"/proc/{pid}/stat") as file:
                    pid = int(file.read().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                break
        return found

    @staticmethod
    def _ssh_of(environment):
        fields = environment.get("SSH_CONNECTION", "").split()
        return fields[2].split("%")[0] if len(fields) == 4 else None
