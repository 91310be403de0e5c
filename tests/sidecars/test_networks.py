from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpolicy.errors import Exit, UserError
from sidecars import networks
from sidecars.engine import Engine, NetworkInfo, NetworkSpec, Subnet
from sidecars.networks import Pool

SMALL = Pool(IPv4Network("10.9.0.0/26"), IPv6Network("fd00:9::/62"))


class FakeNetworks:
    """An engine's networks, with Docker's rules about what may not be twice."""

    def __init__(self) -> None:
        self.made: list[NetworkInfo] = []
        self.hidden: list[NetworkInfo] = []
        self.numbers = count()
        self.refuse_ipv6 = False

    def list(self, labels: dict[str, str] | None = None) -> list[NetworkInfo]:
        return [n for n in self.made if (labels or {}).items() <= dict(n.labels).items()]

    def get(self, name: str) -> NetworkInfo | None:
        return next((n for n in self.made if name in (n.id, n.name)), None)

    def create(self, spec: NetworkSpec) -> str:
        if spec.ipv6 and self.refuse_ipv6:
            raise UserError("engine-refused", "could not enable IPv6 forwarding")
        known = [*self.made, *self.hidden]
        ranges = [ip_network(s.range) for n in known for s in n.subnets]
        if any(
            ip_network(s.range).overlaps(r)
            for s in spec.subnets
            for r in ranges
            if (":" in s.range) == (r.version == 6)
        ):
            raise UserError("subnet-taken", "pool overlaps")
        if any(n.interface == spec.options["com.docker.network.bridge.name"] for n in known):
            raise UserError("interface-taken", "same bridge name")
        info = NetworkInfo(f"id{next(self.numbers)}", spec.name, "bridge", spec.labels, spec.options, spec.subnets, {})
        self.made.append(info)
        return info.id


class FakeEngine:
    local = False

    def __init__(self) -> None:
        self.networks = FakeNetworks()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def reserve(engine: FakeEngine, instance: str, **options: Any) -> networks.InstanceNetwork:
    return networks.reserve(cast(Engine, engine), "shop", instance, {"cspace.instance": instance}, **options)


def test_the_default_pool_has_room_for_thousands() -> None:
    assert Pool().size == 4096
    assert [str(n) for n in Pool().slot(0)] == ["10.213.0.0/28", "fd5c:ace0::/64"]
    assert [str(n) for n in Pool().slot(4095)] == ["10.213.255.240/28", "fd5c:ace0:0:fff::/64"]


def test_a_configured_family_replaces_the_default_of_that_family() -> None:
    assert Pool.of([IPv4Network("10.9.0.0/24")]) == Pool(IPv4Network("10.9.0.0/24"), Pool().v6)
    assert Pool.of([IPv4Network("10.9.0.0/24")]).size == 16


@given(
    st.integers(0, 3),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
                lambda t: ip_network((f"10.9.0.{t[0]}", t[1]), strict=False)
            ),
            st.tuples(st.integers(0, 7), st.integers(60, 128)).map(
                lambda t: ip_network((f"fd00:9:0:{t[0]}::", t[1]), strict=False)
            ),
        ),
        max_size=6,
    ),
)
def test_free_places_are_exactly_those_that_overlap_nothing(first: int, taken: list[Any]) -> None:
    found = list(SMALL.free(first, taken))
    expected = [
        number
        for number in range(SMALL.size)
        if not any(own.overlaps(other) for own in SMALL.slot(number) for other in taken if own.version == other.version)
    ]
    assert sorted(found) == expected
    assert len(set(found)) == len(found)


def test_a_reserved_network_is_small_unmasqueraded_and_dual_stack(engine: FakeEngine) -> None:
    made = reserve(engine, "mercury", pool=SMALL)
    info = engine.networks.made[0]
    assert info.options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert made.interface.startswith("csp-")
    assert len(made.interface) == 12
    assert [n.prefixlen for n in made.subnets] == [28, 64]
    assert [str(a) for a in made.gateways] == [str(n[1]) for n in made.subnets]
    attachment = made.attachment("shop", "mercury")
    assert attachment.interface == "csp-" + attachment.id
    assert attachment.networks == made.subnets


def test_a_name_gets_its_old_addresses_again(engine: FakeEngine) -> None:
    assert reserve(engine, "mercury").subnets == reserve(FakeEngine(), "mercury").subnets


@pytest.mark.requirement("I2")
def test_the_second_who_wants_a_name_is_refused(engine: FakeEngine) -> None:
    reserve(engine, "mercury")
    with pytest.raises(UserError) as caught:
        reserve(engine, "mercury")
    assert (caught.value.code, caught.value.exit_status) == ("name-taken", Exit.CONFLICT)


def test_instances_fill_the_pool_without_overlap_until_it_is_exhausted(engine: FakeEngine) -> None:
    for number in range(SMALL.size):
        reserve(engine, f"i{number}", pool=SMALL)
    with pytest.raises(UserError) as caught:
        reserve(engine, "more", pool=SMALL)
    assert caught.value.code == "subnets-exhausted"
    assert "4 places" in caught.value.message


def test_a_subnet_that_was_taken_meanwhile_is_passed_over(engine: FakeEngine) -> None:
    engine.networks.hidden = [
        NetworkInfo("x", "x", "bridge", {}, {}, tuple(Subnet(str(s)) for s in SMALL.slot(number)), {})
        for number in (0, 1, 3)
    ]
    assert reserve(engine, "mercury", pool=SMALL).subnets == SMALL.slot(2)


def test_a_host_without_ipv6_gets_a_network_without_it(engine: FakeEngine) -> None:
    engine.networks.refuse_ipv6 = True
    made = reserve(engine, "mercury")
    assert [n.version for n in made.subnets] == [4]
    assert len(made.gateways) == 1


def test_the_engines_own_mtu_is_handed_on(engine: FakeEngine) -> None:
    engine.networks.made.append(
        NetworkInfo("b", "bridge", "bridge", {}, {"com.docker.network.driver.mtu": "1400"}, (), {})
    )
    reserve(engine, "mercury")
    assert engine.networks.made[1].options["com.docker.network.driver.mtu"] == "1400"


def test_host_routes_are_read_in_both_families(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "tun0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    (tmp_path / "ipv6_route").write_text(
        "fd5cace0000000010000000000000000 40 00000000000000000000000000000000 00 0 00000400 1 0 1 eth0\n"
        "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 0 00000100 1 0 1 eth0\n"
        "00000000000000000000000000000000 00 00000000000000000000000000000000 00 0 00000400 1 0 1 eth0\n"
    )
    assert [str(n) for n in networks.host_routes(tmp_path)] == ["10.213.0.0/16", "192.0.2.0/24", "fd5c:ace0:0:1::/64"]
    assert networks.host_routes(tmp_path / "missing") == []


def test_routes_of_the_host_are_avoided_but_for_those_around_the_whole_pool(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.local = True
    routes = [IPv4Network("10.0.0.0/8"), IPv4Network("10.9.0.0/27"), IPv6Network("fd00:9:0:3::/64")]
    monkeypatch.setattr(networks, "host_routes", lambda: routes)
    assert reserve(engine, "mercury", pool=SMALL).subnets == SMALL.slot(2)
