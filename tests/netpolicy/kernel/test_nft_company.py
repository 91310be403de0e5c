"""Beside what else filters on a host: Docker's chains, filtered bridges, somebody's own firewall."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from knocking import Guarded, bridged, learned, listener, neighbour_of, nft, rules

from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.kernel.nftables import NftablesEnforcer

pytestmark = pytest.mark.kernel

EVERYTHING = {"0.0.0.0/0": "1-65535/tcp", "::/0": "1-65535/tcp"}


def docker_like(one: Guarded) -> None:
    """What Docker 20.10 writes for a bridge network without masquerading, beside its own default network."""
    host, bridge = one.lab.host, one.attachment.interface
    for program, own in (("iptables", "172.17.0.0/16"), ("ip6tables", "fd17::/64")):
        for words in (
            "-P FORWARD DROP",
            "-N DOCKER",
            "-N DOCKER-USER",
            "-N DOCKER-ISOLATION-STAGE-1",
            "-A DOCKER-USER -j RETURN",
            "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
            f"-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A FORWARD -o {bridge} -j DOCKER",
            f"-A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT",
            f"-A FORWARD -i {bridge} -o {bridge} -j ACCEPT",
            "-t nat -N DOCKER",
            "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            f"-t nat -A POSTROUTING -s {own} ! -o docker0 -j MASQUERADE",
        ):
            host.run([program, *words.split()])


@pytest.mark.requirement("F1")
def test_beside_docker(guard: Callable[..., Guarded], version: int) -> None:
    one = bridged(guard)
    docker_like(one)
    before = one.lab.host.run(["iptables-save"]).text.splitlines()
    address, named = one.fresh(version), one.fresh(version)
    one.enforcer.attach(one.attachment, None)
    assert one.tcp(address, 443).refused
    one.apply(rules({address: "443/tcp"}, {"a.example": "443/tcp"}))
    one.learn(learned("a.example", named, "443/tcp"))
    assert one.tcp(address, 443).passed
    assert one.tcp(named, 443).passed
    assert one.tcp(address, 80).refused
    assert one.tcp(one.fresh(version), 443).refused
    sources = {packet.source for packet in one.lab.receiver.arrived(address)}
    assert sources == {"198.51.100.2" if version == 4 else "2001:db8:0:1::2"}
    after = one.lab.host.run(["iptables-save"]).text.splitlines()
    assert [line for line in after if line.startswith("-")] == [line for line in before if line.startswith("-")]


def test_the_source_translation_of_somebody_else_does_not_win(guarded: Guarded, version: int) -> None:
    family, theirs, ours = (
        ("ip", "198.51.100.99", "198.51.100.2") if version == 4 else ("ip6", "2001:db8:0:1::99", "2001:db8:0:1::2")
    )
    lines = (
        "add table inet theirs",
        "add chain inet theirs leave { type nat hook postrouting priority 100; }",
        f'add rule inet theirs leave oifname "up0" snat {family} to {theirs}',
    )
    nft(guarded.lab.host.name, stdin="\n".join(lines) + "\n")
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    assert {packet.source for packet in guarded.lab.receiver.arrived(address)} == {ours}


@pytest.mark.requirement("F1")
def test_an_accept_of_somebody_else_does_not_open(guarded: Guarded, version: int) -> None:
    for n, priority in enumerate((-300, 0, 300)):
        nft(
            guarded.lab.host.name,
            stdin="".join(
                f"add table inet open{n}\n"
                f"add chain inet open{n} {hook} {{ type filter hook {hook} priority {priority}; }}\n"
                f"add rule inet open{n} {hook} accept\n"
                for hook in ("forward", "input")
            ),
        )
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(guarded.fresh(version), 443).refused


@pytest.mark.requirement("F1")
def test_a_flush_of_the_iptables_rules_opens_nothing(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    for words in ("-P FORWARD ACCEPT", "-F", "-t nat -F"):
        guarded.lab.host.run(["iptables", *words.split()])
        guarded.lab.host.run(["ip6tables", *words.split()])
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(guarded.fresh(version), 443).refused


@pytest.mark.requirement("F3")
@pytest.mark.parametrize("bridge_filter", [0, 1])
def test_the_own_network_on_a_filtered_bridge(guard: Callable[..., Guarded], version: int, bridge_filter: int) -> None:
    """With br_netfilter the kernel shows bridged packets to the forward hook; the own network passes all the same."""
    one = bridged(guard)
    netns.set_sysctl(one.lab.host.name, "net.bridge.bridge-nf-call-iptables", bridge_filter)
    netns.set_sysctl(one.lab.host.name, "net.bridge.bridge-nf-call-ip6tables", bridge_filter)
    inside = str(one.attachment.networks[0 if version == 4 else 1][3])
    with neighbour_of(one, 3) as other, listener(other, inside, 9000):
        open_while_locked = one.tcp(inside, 9000).outcome == "answered"
        assert open_while_locked is not bool(bridge_filter), "control: if it is on the hook sees bridged packets"
        one.enforcer.attach(one.attachment, None)
        one.apply(rules())
        assert one.tcp(inside, 9000).outcome == "answered"
        assert one.tcp(one.fresh(version), 443).refused
    address = one.fresh(version)
    one.apply(rules({address: "443/tcp"}))
    assert one.tcp(address, 443).passed


@pytest.mark.requirement("F1")
def test_two_bridges_on_one_host(guard: Callable[..., Guarded], version: int) -> None:
    one, two = bridged(guard), bridged(guard)
    for each in (one, two):
        each.enforcer.attach(each.attachment, None)
        each.apply(rules(EVERYTHING))
    target = two.box.v4 if version == 4 else two.box.v6
    with listener(two.box.name, target, 9000):
        assert one.tcp(target, 9000).outcome == "ECONNREFUSED"
        assert one.tcp(target, 9000, node=one.lab.host).outcome == "answered", "control: it listens"
    gateway = str(two.attachment.gateways[0 if version == 4 else 1])
    with listener(one.lab.host.name, gateway, 3000):
        assert one.tcp(gateway, 3000).outcome == "ECONNREFUSED", "the host's address on the other bridge"


@pytest.mark.requirement("F1")
def test_a_flush_of_all_rules_passes_ours_by(guarded: Guarded, version: int) -> None:
    """What restarting Debian's nftables.service does."""
    address = guarded.fresh(version)
    guarded.apply(rules({address: "443/tcp"}))
    nft(guarded.lab.host.name, "add", "table", "inet", "theirs")
    nft(guarded.lab.host.name, "flush", "ruleset")
    assert "theirs" not in nft(guarded.lab.host.name, "list", "tables"), "control: it did flush"
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(guarded.fresh(version), 443).refused


def test_two_gates_on_one_table_are_told_apart(guarded: Guarded) -> None:
    address = guarded.fresh(4)
    guarded.apply(rules({address: "443/tcp"}))
    other = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    with pytest.raises(UserError) as refused:
        other.install("csp-")
    assert refused.value.code == "table-owned"
    assert other.attachments() == [guarded.attachment.id], "looking is free"
    assert guarded.tcp(address, 443).passed
    guarded.enforcer.close()
    other.install("csp-")
    guarded.enforcer = other
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(address, 80).refused


def test_a_table_made_without_an_owner_is_taken_as_it_is(guard: Callable[..., Guarded]) -> None:
    one = guard(install=False)
    nft(one.lab.host.name, "add", "table", "inet", "netpolicy")
    one.enforcer.install("csp-")
    one.enforcer.attach(one.attachment, None)
    assert one.tcp(one.fresh(4), 443).refused
