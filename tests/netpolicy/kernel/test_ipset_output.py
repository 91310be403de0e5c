"""The output hook with ipset and iptables: the tests of nf_tables' there, with this enforcer, and beside other rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import test_nft_output
from knocking import Guarded, rules

from netpolicy.attachment import Attachment
from netpolicy.kernel.ipset import IpsetEnforcer
from netpolicy.lab import Lab

pytestmark = pytest.mark.kernel
#: Those that make an enforcer of nf_tables themselves.
_OTHERS = ("test_a_second_process_takes_over_a_namespace", "test_an_interface_and_a_namespace_in_one_table")
globals().update(
    {name: test for name, test in vars(test_nft_output).items() if name.startswith("test_") and name not in _OTHERS}
)


@pytest.fixture
def inside(lab: Lab) -> Iterator[Guarded]:
    """A namespace with an enforcer of its own inside, not attached yet. The lab's host forwards everything it sends."""
    box = lab.add_workload()
    attachment = Attachment("own", "a/pod", "", (), box.gateways, "output")
    one = Guarded(lab, box, IpsetEnforcer("netpolicy", box.name), attachment)
    one.enforcer.install(None)
    with lab.nat():
        yield one
    one.close()


@pytest.mark.requirement("F1")
@pytest.mark.parametrize(
    "words", ["-I OUTPUT 1 -j ACCEPT", "-t security -F", "-F"], ids=["accepted", "security", "filter"]
)
def test_whatever_somebody_else_does_to_output(inside: Guarded, version: int, words: str) -> None:
    address, denied = inside.fresh(version), inside.fresh(version)
    ruleset = rules({address: "443/tcp"})
    inside.apply(ruleset)
    assert inside.tcp(address, 443).passed
    program = "iptables" if version == 4 else "ip6tables"
    inside.box.run([program, *words.split()])
    with inside.box.socket(10 if version == 6 else 2, 1) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((denied, 443))
        assert not inside.lab.receiver.arrived(denied)
    assert inside.enforcer.drifted()
    inside.enforcer.install(None)
    inside.apply(ruleset)
    assert inside.enforcer.drifted() == []
    assert inside.tcp(address, 443).passed
    assert inside.tcp(denied, 443).refused
