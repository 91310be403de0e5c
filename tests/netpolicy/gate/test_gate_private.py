"""A private address is open to a name on the word of a range, and no longer than that range is there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from gatekit import dig, rules
from gateworld import World

from netpolicy.flow import Origin
from netpolicy.lab import Record
from netpolicy.ruleset import RangeRule
from netpolicy.services import Service

pytestmark = [pytest.mark.kernel]

WORD = RangeRule(ip_network("10.77.1.0/24"), (Service(6, 5432, 5432),), Origin("test", "allow[0]", "10.77.1.0/24:5432"))


def test_it_closes_with_the_range(either: World) -> None:
    either.lab.dns.zone.set("inside.example", Record(a=("10.77.1.3",), ttl=300))
    named = rules("inside.example")
    either.put(replace(named, ranges=(WORD,)))
    assert dig(either.box, "inside.example", server=either.gateway(0)).answers == ("10.77.1.3",)
    assert either.reaches("10.77.1.3")
    either.put(named)
    assert not either.reaches("10.77.1.3")
    assert dig(either.box, "inside.example", server=either.gateway(0)).answers == ()


def test_a_range_that_ends_in_the_far_future_is_opened(either: World) -> None:
    site = either.lab.site()
    far = RangeRule(ip_network(f"{site.v4}/32"), (Service(6, 443, 443),), WORD.origin, until=221_845_392_000.0)
    either.put(replace(rules(), ranges=(far,)))
    assert either.reaches(site.v4)
