"""An internet in namespaces, to try a firewall on: hermetic, started in a fraction of a second, gone without a trace.

    with Lab() as lab:
        site = lab.site("allowed.example")          # a name with an IPv4 and an IPv6 address of its own
        box = lab.add_workload()                    # a namespace behind a veth pair on lab.host
        ...                                         # a gate on lab.host, or anything else that is to be judged
        assert lab.receiver.arrived(site.v4)        # the verdict is taken where packets arrive, not where they leave

What enters here: the topology (`lab`, `node`), the servers of the far side (`nameservers`, `web`, `sinks`, `authority`) and what they saw
(`receiver`). Needs root (or all capabilities in a user namespace) and the `nft` program. docs/lab.md is the guide.
"""

from netpolicy.lab.lab import Lab, Site, Workload
from netpolicy.lab.node import Node
from netpolicy.lab.receiver import Packet, Receiver
from netpolicy.lab.web import Request, Response
from netpolicy.lab.zone import Record

__all__ = ["Lab", "Node", "Packet", "Receiver", "Record", "Request", "Response", "Site", "Workload"]
