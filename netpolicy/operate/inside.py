"""The probe program in another network namespace: ``NAMESPACE RESOLVERS PROBE...`` (`netpolicy.probe.command` starts it).

A process of its own: whoever enters a namespace does not come back. Names are asked of RESOLVERS (addresses separated by
commas), whatever this machine's own configuration says, and not behind the namespace's back by way of a resolver's socket.
"""

from __future__ import annotations

import sys

from netpolicy.kernel import netns
from netpolicy.probe.attempt import leave
from netpolicy.run import mounts, syscalls


def main() -> None:
    """Move, then probe; does not return."""
    namespace, resolvers = sys.argv[1:3]
    netns.enter(namespace)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounts.isolate()
    if resolvers:
        mounts.use_resolver(
            "".join(f"nameserver {address}\n" for address in resolvers.split(",")) + "options timeout:2\n"
        )
    sys.argv[1:3] = []
    leave()
