"""The output hook: the namespace's own processes are the workload. The verdict is taken where packets arrive."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from knocking import (
    CLOCK,
    Guarded,
    Knock,
    carries,
    learned,
    listener,
    open_server,
    passes,
    route_to,
    rules,
    wait_until,
)

from netpolicy.attachment import Attachment, Refusal
from netpolicy.errors import UserError
from netpolicy.kernel import conntrack, netns
from netpolicy.kernel.netlink import Netlink
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab

pytestmark = pytest.mark.kernel

REFUSED = Knock("ECONNREFUSED", arrived=False)


@pytest.fixture
def inside(lab: Lab) -> Iterator[Guarded]:
    """A namespace with an enforcer of its own inside, not attached yet. The lab's host forwards everything it sends."""
    box = lab.add_workload()
    attachment = Attachment("own", "a/pod", "", (), box.gateways, "output")
    one = Guarded(lab, box, NftablesEnforcer("netpolicy", box.name), attachment)
    one.enforcer.install(None)
    with lab.nat():
        yield one
    one.close()


@pytest.mark.requirement("F1")
def test_locked_enforced_locked_gone(inside: Guarded, version: int) -> None:
    address, other, named = (inside.fresh(version) for _ in range(3))
    assert inside.tcp(other, 443).passed, "control: without us everything passes"
    inside.enforcer.attach(inside.attachment, None)
    assert inside.enforcer.attachments() == ["own"]
    assert inside.enforcer.in_force("own") is None
    assert inside.tcp(address, 443) == REFUSED
    ruleset = rules({address: "443/tcp 443/udp"}, {"a.example": "443/tcp"})
    inside.apply(ruleset, 5300)
    inside.learn(learned("a.example", named, "443/tcp"))
    assert inside.enforcer.in_force("own") == ruleset.id
    assert inside.tcp(address, 443).passed
    assert inside.udp(address, 443).passed
    assert inside.tcp(named, 443).passed
    assert inside.tcp(address, 80) == REFUSED
    assert inside.tcp(other, 443) == REFUSED
    assert inside.udp(other, 443).refused
    assert inside.ping(other).refused
    inside.enforcer.attach(inside.attachment, 5300)
    assert inside.tcp(address, 443) == REFUSED
    inside.enforcer.detach("own")
    assert inside.enforcer.attachments() == []
    assert inside.tcp(other, 443).passed, "nothing is left"


@pytest.mark.requirement("F1")
def test_a_refusal_is_fast_for_every_protocol(inside: Guarded, version: int) -> None:
    inside.apply(rules())
    begin = CLOCK.monotonic()
    assert inside.tcp(inside.fresh(version), 443) == REFUSED
    assert inside.udp(inside.fresh(version), 443).refused
    assert inside.ping(inside.fresh(version)).refused
    assert CLOCK.monotonic() - begin < 1


@pytest.mark.requirement("F3")
def test_loopback_and_the_link_are_free_also_when_locked(inside: Guarded, version: int) -> None:
    address = inside.fresh(version)
    loopback, own = ("127.0.0.1", inside.box.v4) if version == 4 else ("::1", inside.box.v6)
    for locked in (True, False):
        if locked:
            inside.enforcer.attach(inside.attachment, None)
        else:
            inside.apply(rules({address: "443/tcp"}), 5300)
        for mine in (loopback, own):
            with listener(inside.box.name, mine, 9000):
                assert inside.tcp(mine, 9000).outcome == "answered"
    inside.box.run(["ip", "neigh", "flush", "all"])
    assert inside.tcp(address, 443).passed, "neighbours are found again"


@pytest.mark.requirement("F13")
def test_the_host_is_its_rules(inside: Guarded, version: int) -> None:
    gateway = str(inside.attachment.gateways[0 if version == 4 else 1])
    everything = {"0.0.0.0/0": "1-65535/tcp", "::/0": "1-65535/tcp"}
    with listener(inside.lab.host.name, gateway, 3000), listener(inside.lab.host.name, gateway, 3001):
        assert inside.tcp(gateway, 3001).outcome == "answered", "control: it listens"
        inside.apply(rules(everything, host="3000/tcp"))
        assert inside.tcp(gateway, 3000).outcome == "answered"
        assert inside.tcp(gateway, 3001) == REFUSED
        for mode in ("observe", "off"):
            inside.apply(replace(rules(host="3000/tcp"), mode=mode))
            assert inside.tcp(gateway, 3001) == REFUSED, mode
            assert inside.tcp(inside.fresh(version), 443).passed
        free = ip_network(f"{gateway}/{24 if version == 4 else 64}", strict=False)
        inside.attachment = replace(inside.attachment, gateways=(), networks=(free,))
        inside.apply(rules())
        assert inside.tcp(gateway, 3001).outcome == "answered", "a free network"


@contextlib.contextmanager
def dns_gate(namespace: str, port: int) -> Iterator[list[str]]:
    """Answers every query to the loopback addresses with its own bytes; says where each came from."""
    asked: list[str] = []
    with contextlib.ExitStack() as stack:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            server = stack.enter_context(netns.socket_in(namespace, family, socket.SOCK_DGRAM))
            server.bind((address, port))

            def serve(server: socket.socket = server, address: str = address) -> None:
                with contextlib.suppress(OSError):
                    while data := server.recvfrom(4096):
                        if not data[0]:
                            return
                        asked.append(address)
                        server.sendto(data[0], data[1])

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda s=server: s.sendto(b"", s.getsockname()))
        yield asked


@pytest.mark.requirement("F3")
def test_queries_to_anybody_reach_the_gate(inside: Guarded, version: int) -> None:
    targets = [inside.fresh(version), str(inside.attachment.gateways[0 if version == 4 else 1])]
    targets += ["127.0.0.53", "127.0.0.11"] if version == 4 else ["::1"]
    everything = {"0.0.0.0/0": "1-65535/udp", "::/0": "1-65535/udp"}
    for mode in ("enforce", "observe"):
        inside.apply(replace(rules(everything), mode=mode), 5300)
        with dns_gate(inside.box.name, 5300) as asked:
            for target in targets:
                assert inside.udp(target, 53) == Knock("answered", arrived=False), target
            assert len(asked) == len(targets)
    inside.apply(rules(everything))
    assert inside.udp(targets[0], 53).arrived, "control: without a gate it arrives"


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_connections_older_than_the_lock(inside: Guarded, version: int, kind: int) -> None:
    allowed, denied = inside.fresh(version), inside.fresh(version)
    flows = {address: inside.connection(address, 443, kind) for address in (allowed, denied)}
    inside.enforcer.attach(inside.attachment, None)
    assert not carries(flows[allowed]), "locked"
    inside.apply(rules({allowed: "443/tcp 443/udp"}))
    assert not carries(flows[denied])
    assert inside.tcp(allowed, 443).passed


@pytest.mark.requirement("F11")
def test_what_a_new_policy_allows_goes_on(inside: Guarded, version: int) -> None:
    kept, gone, ranged = (inside.fresh(version) for _ in range(3))
    ranges = dict.fromkeys((kept, gone), "443/tcp")
    inside.apply(rules(ranges, {"a.example": "443/tcp"}), 5300)
    inside.learn(learned("a.example", ranged, "443/tcp"))
    live = {address: inside.connection(address, 443) for address in (kept, gone, ranged)}
    inside.apply(rules({kept: "443/tcp"}, {"a.example": "443/tcp"}), 5300)
    assert {address: carries(sock) for address, sock in live.items()} == {kept: True, gone: False, ranged: True}
    inside.apply(rules({kept: "443/tcp"}), 5300)
    assert carries(live[kept])
    assert not carries(live[ranged])


@pytest.mark.requirement("F2")
def test_what_comes_in_is_not_judged(inside: Guarded, version: int) -> None:
    route_to(replace(inside, attachment=inside.box.attachment()))
    mine = inside.box.v4 if version == 4 else inside.box.v6
    inside.apply(rules(), 5300)
    with open_server(inside, mine, 9000, inside.box.name, inside.lab.inet.name) as (client, server):
        assert passes(client, server)
        assert passes(server, client)
        inside.apply(rules({"192.0.2.0/24": "444/tcp"}), 5300)
        assert passes(server, client), "nor cut by a new policy"
    assert inside.tcp(inside.fresh(version), 443) == REFUSED


@pytest.mark.requirement("F1")
def test_the_far_end_does_not_revive_a_connection_that_was_cut(inside: Guarded, version: int) -> None:
    """Its segments would look like a connection that comes in, and answers to that are free."""
    far = "198.51.100.2" if version == 4 else "2001:db8:0:1::2"
    inside.apply(rules({far: "9000/tcp"}))
    with open_server(inside, far, 9000) as (client, server):
        inside.apply(rules())
        assert not tracked(inside, far)
        assert not passes(server, client)
        assert not tracked(inside, far)
        assert not passes(client, server)


@pytest.mark.requirement("F1")
def test_nor_one_of_datagrams(inside: Guarded, version: int) -> None:
    far = "198.51.100.2" if version == 4 else "2001:db8:0:1::2"
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    ruleset = rules({far: "9000/udp"})
    inside.apply(ruleset)
    with (
        inside.lab.host.socket(family, socket.SOCK_DGRAM) as server,
        inside.box.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((far, 9000))
        client.connect((far, 9000))
        client.send(b"first")
        server.settimeout(5)
        server.connect(server.recvfrom(100)[1])
        assert passes(server, client)
        inside.apply(rules())
        assert not passes(server, client), "what it sends does not come in"
        assert not passes(client, server)
        inside.apply(ruleset)
        # The first attempt may still hear of the refusal before.
        wait_until(lambda: passes(client, server), "what may be opened again is")
        assert passes(server, client)


def tracked(one: Guarded, address: str) -> bool:
    link, packed = Netlink(one.box.name), ip_address(address).packed
    try:
        return bool(conntrack.entries(link, lambda entry: packed in (*entry.original[:2], *entry.reply[:2])))
    finally:
        link.close()


@pytest.mark.requirement("F1")
def test_path_mtu_is_found(inside: Guarded, version: int) -> None:
    """The error that says how much fits comes in, and the sender hears of it."""
    address = inside.fresh(version)
    inside.apply(rules({address: "443/udp"}))
    inside.lab.host.run(["ip", "link", "set", "up0", "mtu", "1400"])
    level, option, error = (socket.IPPROTO_IP, 10, 14) if version == 4 else (socket.IPPROTO_IPV6, 23, 24)
    with inside.box.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, option, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: the sender never fragments
        sock.connect((address, 443))
        sock.send(bytes(1440))
        wait_until(lambda: sock.getsockopt(level, error) == 1400, "the path's size is known")


def test_refusals_of_a_namespace(inside: Guarded, version: int) -> None:
    address = inside.fresh(version)
    inside.apply(rules())
    assert inside.tcp(address, 443) == REFUSED
    assert Refusal(ip_address(address), 6, 443, 1) in inside.enforcer.refusals("own")
    inside.apply(rules(mode="observe"))
    assert inside.tcp(address, 443).passed
    assert Refusal(ip_address(address), 6, 443, 2) in inside.enforcer.refusals("own")


def test_a_namespace_has_one_output_attachment(inside: Guarded) -> None:
    inside.apply(rules())
    with pytest.raises(UserError) as refused:
        inside.enforcer.attach(replace(inside.attachment, id="other"), None)
    assert refused.value.code == "interface-taken"
    assert "own" in refused.value.message
    with pytest.raises(UserError) as refused:
        inside.enforcer.attach(replace(inside.attachment, interface="eth0"), None)
    assert refused.value.code == "bad-attachment"


@pytest.mark.requirement("F11")
def test_a_second_process_takes_over_a_namespace(inside: Guarded, version: int) -> None:
    address, named = inside.fresh(version), inside.fresh(version)
    ruleset = rules({address: "443/tcp"}, {"a.example": "443/tcp"})
    inside.apply(ruleset, 5300)
    inside.learn(learned("a.example", named, "443/tcp"))
    live = [inside.connection(address, 443), inside.connection(named, 443)]
    inside.enforcer.close()
    assert inside.tcp(inside.fresh(version), 443) == REFUSED, "with nobody there the rules stay"
    inside.enforcer = NftablesEnforcer("netpolicy", inside.box.name)
    inside.enforcer.install(None)
    inside.apply(ruleset, 5300)
    assert all(carries(sock) for sock in live)
    assert inside.tcp(named, 443).passed


def test_an_interface_and_a_namespace_in_one_table(lab: Lab, version: int) -> None:
    """The lab's host as workload, and a workload behind it."""
    box = lab.add_workload("csp-both")
    one = Guarded(lab, box, NftablesEnforcer("netpolicy", lab.host.name), box.attachment("box"))
    own = Attachment("own", "the/host", "", (), (), "output")
    mine, theirs = one.fresh(version), one.fresh(version)
    one.enforcer.install("csp-")
    one.enforcer.apply(own, rules({mine: "443/tcp"}), None)
    one.apply(rules({theirs: "443/tcp"}))
    assert one.tcp(theirs, 443).passed
    assert one.tcp(mine, 443) == REFUSED
    assert one.tcp(mine, 443, node=lab.host).passed
    assert one.tcp(theirs, 443, node=lab.host) == REFUSED
    one.enforcer.detach("own")
    assert one.tcp(theirs, 443, node=lab.host).passed
    assert one.tcp(mine, 443) == REFUSED
    one.close()
