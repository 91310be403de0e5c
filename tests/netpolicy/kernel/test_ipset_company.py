"""Beside what else writes rules on a host: whatever it does to its chains or to packets' marks, nothing is opened by it."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import pytest
from knocking import Guarded, bridged, carries, learned, rules
from test_nft_company import docker_like

from netpolicy.errors import UserError
from netpolicy.kernel.ipset import IpsetEnforcer

pytestmark = pytest.mark.kernel


def iptables(one: Guarded, sort: str, words: str) -> None:
    """The same in both families."""
    for program in (f"iptables-{sort}", f"ip6tables-{sort}"):
        one.lab.host.run([program, *words.split()])


def saved(one: Guarded, sort: str) -> list[str]:
    """Both families' rules that are not ours."""
    lines = [
        line
        for program in (f"iptables-{sort}-save", f"ip6tables-{sort}-save")
        for line in one.lab.host.run([program]).text.splitlines()
    ]
    return [line for line in lines if line.startswith("-A") and " np-" not in line]


def sent_in_vain(one: Guarded, address: str, allowed: str | None) -> bool:
    """Whether nothing of what is sent there arrives, while what is sent after it does (where anything is allowed)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    nonce = secrets.token_bytes(12)
    with one.box.socket(family, socket.SOCK_STREAM) as tcp, one.box.socket(family, socket.SOCK_DGRAM) as udp:
        tcp.setblocking(False)
        tcp.connect_ex((address, 443))
        udp.sendto(nonce, (address, 443))
        assert allowed is None or one.tcp(allowed, 443).passed
        return not (one.lab.receiver.arrived(address) or one.lab.receiver.saw(nonce))


@pytest.mark.requirement("F1")
def test_beside_docker(walling: Callable[..., Guarded], sort: str, version: int) -> None:
    one = bridged(walling)
    if sort == "nft":  # what the helper writes with
        docker_like(one)
    before = saved(one, sort)
    address, named = one.fresh(version), one.fresh(version)
    one.enforcer.attach(one.attachment, None)
    assert one.tcp(address, 443).refused
    one.apply(rules({address: "443/tcp"}, {"a.example": "443/tcp"}))
    one.learn(learned("a.example", named, "443/tcp"))
    assert one.tcp(address, 443).passed
    assert one.tcp(named, 443).passed
    assert one.tcp(address, 80).refused
    sources = {packet.source for packet in one.lab.receiver.arrived(address)}
    assert sources == {"198.51.100.2" if version == 4 else "2001:db8:0:1::2"}
    assert saved(one, sort) == before
    one.enforcer.uninstall()
    assert saved(one, sort) == before
    assert not one.lab.host.run(["ipset", "list", "-n"]).text


@pytest.mark.requirement("F1")
def test_accepted_by_somebody_before_us(walled: Guarded, sort: str, version: int) -> None:
    """What Docker does when it starts again: its rules come first, and one of them accepts."""
    address, denied = walled.fresh(version), walled.fresh(version)
    walled.apply(rules({address: "443/tcp"}))
    for words in ("-I FORWARD 1 -j ACCEPT", "-I INPUT 1 -j ACCEPT"):
        iptables(walled, sort, words)
    assert walled.tcp(address, 443).passed
    assert sent_in_vain(walled, denied, address)
    assert sum("before ours" in what for what in walled.enforcer.drifted()) == 4
    walled.enforcer.install("csp-")
    assert walled.enforcer.drifted() == []
    assert walled.tcp(denied, 443).refused
    assert walled.tcp(address, 443).passed
    for words in ("-t mangle -I FORWARD 1 -j ACCEPT", "-t security -I FORWARD 1 -j ACCEPT"):
        iptables(walled, sort, words)
        assert walled.tcp(denied, 443).refused


@pytest.mark.requirement("F1")
def test_marks_that_somebody_else_sets(walled: Guarded, sort: str) -> None:
    address, denied = walled.fresh(4), walled.fresh(4)
    walled.apply(rules({address: "443/tcp"}))
    iptables(walled, sort, "-t mangle -A PREROUTING -j MARK --set-mark 0xffffffff")
    assert walled.tcp(address, 443).passed
    assert walled.tcp(denied, 443).refused
    iptables(walled, sort, "-t mangle -A FORWARD -j MARK --set-mark 0")
    assert walled.tcp(address, 443).refused, "a mark that is taken away shuts"
    assert walled.tcp(denied, 443).refused


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("table", ["raw", "mangle", "filter", "security", "nat"])
def test_a_flush_of_one_table_opens_nothing(walled: Guarded, sort: str, table: str) -> None:
    address, denied = walled.fresh(4), walled.fresh(4)
    ruleset = rules({address: "443/tcp"})
    walled.apply(ruleset)
    assert walled.tcp(address, 443).passed
    iptables(walled, sort, "-P FORWARD ACCEPT")
    iptables(walled, sort, f"-t {table} -F")
    assert sent_in_vain(walled, denied, None if table in ("mangle", "nat") else address)
    assert any(f"table {table}" in what for what in walled.enforcer.drifted())
    walled.enforcer.install("csp-")
    walled.apply(ruleset)
    assert walled.enforcer.drifted() == []
    assert walled.tcp(address, 443).passed
    assert walled.tcp(denied, 443).refused


@pytest.mark.requirement("F1")
def test_what_was_changed_is_told_until_it_is_mended(walling: Callable[..., Guarded], sort: str) -> None:
    one, two = walling(), walling()
    address, opened = one.fresh(4), one.fresh(4)
    ruleset = rules({address: "443/tcp"})
    for each in (one, two):
        each.enforcer.attach(each.attachment, None)
        each.apply(ruleset)
    chain = f"np-{one.attachment.id}-out"
    one.lab.host.run([f"iptables-{sort}", *f"-t mangle -I {chain} 1 -d {opened} -g np-ok".split()])
    live = one.connection(opened, 443)
    told = [f"iptables: chain {chain} of table mangle was changed"]
    two.apply(rules({address: "80/tcp"}))
    assert one.enforcer.drifted() == told, "to write something else does not make it ours"
    one.enforcer.install("csp-")
    assert one.enforcer.drifted() == told
    one.apply(ruleset)
    assert one.enforcer.drifted() == []
    assert not carries(live), "what slipped through is cut"
    assert one.tcp(opened, 443).refused
    one.lab.host.run([f"iptables-{sort}", *f"-t mangle -D np-fwd -i {one.attachment.interface} -g {chain}".split()])
    assert one.tcp(address, 443).refused, "control: it is a locked interface now"
    two.apply(ruleset)
    assert one.tcp(address, 443).passed
    assert two.tcp(address, 443).passed
    one.lab.host.run([f"iptables-{sort}", *["-t", "mangle", "-N", "np-stray"]])
    one.enforcer.install("csp-")
    for each in (one, two):
        each.apply(ruleset)
    assert one.enforcer.drifted() == []


def test_two_gates_are_told_apart(walled: Guarded) -> None:
    address = walled.fresh(4)
    walled.apply(rules({address: "443/tcp"}))
    other = IpsetEnforcer("netpolicy", walled.lab.host.name)
    with pytest.raises(UserError) as refused:
        other.install("csp-")
    assert refused.value.code == "table-owned"
    assert other.attachments() == [walled.attachment.id], "looking is free"
    walled.enforcer.close()
    other.install("csp-")
    walled.enforcer = other
    assert walled.tcp(address, 443).passed
    assert walled.tcp(address, 80).refused


def test_two_names_side_by_side(walling: Callable[..., Guarded], version: int) -> None:
    one, two = walling(), walling("other-wire")
    two.enforcer = IpsetEnforcer("second", one.lab.host.name)
    two.enforcer.install("other-")
    address = one.fresh(version)
    for each, port in ((one, 443), (two, 80)):
        each.enforcer.attach(each.attachment, None)
        each.apply(rules({address: f"{port}/tcp"}))
    assert [each.tcp(address, port).passed for each in (one, two) for port in (443, 80)] == [True, False, False, True]
    two.enforcer.uninstall()
    two.close()
    assert one.tcp(address, 443).passed
    assert one.tcp(address, 80).refused
