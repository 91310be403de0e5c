"""Instances: made, listed, used and removed. One firewalled container with a workspace of its own, for now.

`up` runs the `phases` under an `undo`; `assess` says, from what can be seen, in which phase an instance is; nothing here
keeps state but Docker's labels, the gate and the journal.
"""

from sidecars.instance.down import Removed, down, unsaved
from sidecars.instance.exec import LOGIN, container_of, exec_stream
from sidecars.instance.listing import list_instances
from sidecars.instance.model import FirewallInfo, InstanceInfo, InstanceSpec, Phase
from sidecars.instance.up import up

__all__ = [
    "LOGIN",
    "FirewallInfo",
    "InstanceInfo",
    "InstanceSpec",
    "Phase",
    "Removed",
    "container_of",
    "down",
    "exec_stream",
    "list_instances",
    "unsaved",
    "up",
]
