"""A bridge with a port that leads out of the machine beside the firewall."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from netpolicy.attachment import Attachment
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab
from netpolicy.operate import wires

pytestmark = pytest.mark.kernel


def test_wires_out_of_the_machine_are_told(lab: Lab) -> None:
    own = Attachment("brwork", "br-work", "br-work", (ip_network("10.0.0.0/24"),), (ip_address("10.0.0.1"),))
    here = lab.host.name

    def told() -> tuple[str, ...]:
        return netns.call(here, wires.doubts, own)

    with Links(here) as links:
        links.bridge("br-work")
        links.veth("box", "inside")
        links.enslave("box", "br-work")
        assert told() == ()
        lab.host.run(["ip", "link", "add", "far", "type", "vxlan", "id", "7", "remote", "192.0.2.1", "dstport", "4789"])
        links.enslave("far", "br-work")
        (said,) = told()
        assert said.startswith("br-work: its port far (vxlan) leads out of this machine beside the firewall")
        assert "'ip link set far nomaster'" in said
        assert "port eth1 (hardware)" in wires.told("br-work", "eth1", None)
        links.delete("br-work")
        assert told() == ()
