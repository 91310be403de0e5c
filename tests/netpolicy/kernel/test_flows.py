"""Which connections a policy would open again, without a kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from netpolicy.flow import Origin
from netpolicy.kernel.conntrack import Tuple
from netpolicy.kernel.flows import Memory, _Judge
from netpolicy.ruleset import NameRule, RangeRule, Ruleset
from netpolicy.services import Service

HERE = Origin("test", "key", "text")
SSH, DATABASE = Service(6, 22, 22), Service(6, 5432, 5432)


def test_without_its_range_a_private_address_of_a_name_is_not_kept() -> None:
    private, public = ip_address("10.1.2.3"), ip_address("192.0.2.1")
    memory = Memory()
    for address in (private, public):
        memory.note(address, "name.example", 300.0)
    names = (NameRule("name.example", (SSH,), HERE),)
    before = Ruleset("before", names=names, ranges=(RangeRule(ip_network("10.1.2.0/24"), (DATABASE,), HERE),))
    after = Ruleset("after", names=names)
    for ruleset, expected in ((before, (True, True)), (after, (False, True))):
        judge = _Judge(ruleset, memory)
        found = tuple(judge.allows(Tuple(b"\x0a\0\0\2", a.packed, 6, 40000, 22)) for a in (private, public))
        assert found == expected
