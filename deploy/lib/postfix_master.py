"""The master.cf of a Postfix of one's own, in a namespace and a folder of its own: nothing is in a chroot."""

INTERNAL = """cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
PICKUP = "pickup unix n - n 60 1 pickup"


def master_cf(*services):
    """These services (lines of master.cf), and those that Postfix cannot do without."""
    return "\n".join(services) + "\n" + INTERNAL
