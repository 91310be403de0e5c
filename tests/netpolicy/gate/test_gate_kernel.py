"""The daemon on a real kernel: a workload behind it, an internet before it, dig as the client.

Verdicts are taken at the internet: which queries and which packets arrived there.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from gatekit import Daemon, dig, rules
from gateworld import World

from netpolicy.attachment import Attachment
from netpolicy.flow import Flow
from netpolicy.gate.client import GateClient
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab, Record, Workload
from netpolicy.lab.addresses import OTHER_RESOLVERS, RESOLVERS

pytestmark = [pytest.mark.kernel]
FAMILIES = [pytest.param(0, id="v4"), pytest.param(1, id="v6")]


@pytest.mark.requirement("F1")
@pytest.mark.requirement("F6")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("where", ["gateway", "another resolver"])
def test_allowed_names_are_answered_and_denied_ones_are_not(world: World, family: int, tcp: bool, where: str) -> None:
    """Whatever server the workload names, the gate answers, and only allowed names leave it."""
    good, bad = world.lab.site(), world.lab.site()
    world.apply(good, resolve_seconds=0)
    server = world.gateway(family) if where == "gateway" else OTHER_RESOLVERS[family]
    for kind, address in (("A", good.v4), ("AAAA", good.v6)):
        reply = dig(world.box, good.name, kind, server=server, tcp=tcp)
        assert (reply.status, reply.answers, reply.ttl) == ("NOERROR", (address,), 60)
    denied = dig(world.box, bad.name, server=server, tcp=tcp)
    assert (denied.status, denied.answers) == ("NXDOMAIN", ())
    assert denied.ede.startswith(f"15 (Blocked): ({bad.name} is not allowed by test.json; to allow it add it to")
    assert world.lab.dns.queries(bad.name) == []
    assert {query.server for query in world.lab.dns.queries(good.name)} <= set(RESOLVERS)
    assert len(world.lab.dns.queries(good.name)) == 2


@pytest.mark.requirement("F1")
def test_what_a_name_resolved_to_is_open_and_nothing_else(world: World) -> None:
    good, bad = world.lab.site(), world.lab.site()
    world.apply(f"{good.name}:443", resolve_seconds=0)
    for address in (*good.addresses, *bad.addresses):
        assert not world.reaches(address)
    for kind in ("A", "AAAA"):
        dig(world.box, good.name, kind, server=world.gateway(0))
    for address in good.addresses:
        assert world.reaches(address)
        assert not world.reaches(address, 8443)
    for address in bad.addresses:
        assert not world.reaches(address)


def test_names_are_resolved_before_anybody_asks(world: World) -> None:
    good = world.lab.site()
    state = world.apply(good, "gone.example")
    assert (state.learned, state.unresolved) == (2, ("gone.example",))
    for address in good.addresses:
        assert world.reaches(address)
    before = len(world.lab.dns.queries(good.name))
    assert dig(world.box, good.name, server=world.gateway(0)).answers == (good.v4,)
    assert len(world.lab.dns.queries(good.name)) == before, "the answer was known already"


def test_each_answer_is_open_at_the_moment_it_arrives(world: World) -> None:
    """A new address with every answer, each one connected to at once: no connection may come too early."""
    addresses = tuple(world.lab.fresh_v4() for _ in range(120))
    world.lab.dns.zone.set("rotating.example", Record(a=addresses, ttl=0, rotate=True))
    world.apply("rotating.example:443", resolve_seconds=0)
    outcomes = world.box.call(_ask_and_connect, world.gateway(0), "rotating.example", len(addresses))
    assert outcomes == [(address, "connected") for address in addresses]


def _ask_and_connect(server: str, name: str, times: int) -> list[tuple[str, str]]:
    """In the workload's namespace: ask, and connect to what the answer holds without a pause."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    found: list[tuple[str, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((server, 53))
        for _ in range(times):
            asking.send(question)
            address = socket.inet_ntoa(asking.recv(4096)[-4:])
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connecting:
                connecting.settimeout(5)
                try:
                    connecting.connect((address, 443))
                    found.append((address, "connected"))
                except OSError as error:
                    found.append((address, str(error)))
    return found


def test_addresses_that_are_not_public_are_stripped(world: World) -> None:
    public = world.lab.fresh_v4()
    world.lab.dns.zone.set("rebind.example", Record(a=("10.0.0.5", public, "169.254.169.254"), aaaa=("fd00::1",)))
    state = world.apply("rebind.example", resolve_seconds=0)
    reply = dig(world.box, "rebind.example", server=world.gateway(0))
    assert reply.answers == (public,)
    assert reply.ede.startswith("15 (Blocked): (taken out of the answer: ")
    assert "10.0.0.5 is private (10.0.0.0/8)" in reply.ede
    assert dig(world.box, "rebind.example", "AAAA", server=world.gateway(0)).answers == ()
    shown = world.client.show(world.attachment.id)
    assert [str(entry.address) for entry in shown.learned] == [public]
    assert (state.dns.stripped, shown.state.dns.stripped) == (0, 3)
    assert not world.reaches("10.0.0.5")


def test_an_alias_is_allowed_by_the_asked_name_only(world: World) -> None:
    edge = world.lab.site("edge.example", ttl=300)
    world.lab.dns.zone.set("www.example", Record(cname="edge.example", ttl=45))
    world.apply("www.example", resolve_seconds=0)
    reply = dig(world.box, "www.example", server=world.gateway(0))
    assert (reply.answers, reply.ttl) == ((edge.v4, "edge.example."), 45)
    assert world.reaches(edge.v4)
    assert dig(world.box, "edge.example", server=world.gateway(0)).status == "NXDOMAIN"


@pytest.mark.parametrize(("ttl", "client", "least", "most"), [(0, 0, 80, 90), (86400, 3600, 3650, 3660)])
def test_lifetimes_are_clamped_in_answer_and_kernel(world: World, ttl: int, client: int, least: int, most: int) -> None:
    site = world.lab.site(ttl=ttl)
    world.apply(site, resolve_seconds=0)
    assert dig(world.box, site.name, server=world.gateway(0)).ttl == client
    [entry] = world.client.show(world.attachment.id).learned
    assert least <= entry.seconds <= most


def test_a_big_answer_goes_over_tcp_on_both_sides(world: World) -> None:
    addresses = tuple(world.lab.fresh_v4() for _ in range(60))
    world.lab.dns.zone.set("big.example", Record(a=addresses, truncate=True))
    world.apply("big.example", resolve_seconds=0)
    cut = dig(world.box, "big.example", server=world.gateway(0), more=["+ignore", "+noedns"])
    assert (cut.answers, "tc" in cut.flags.split()) == ((), True)
    assert len(dig(world.box, "big.example", server=world.gateway(0)).answers) == 60
    assert {query.transport for query in world.lab.dns.queries("big.example")} == {"udp", "tcp"}


def test_a_silent_upstream_is_followed_by_the_next_and_silence_of_all_is_closed(world: World) -> None:
    one, two = world.lab.site(), world.lab.site()
    # Port 54 of the lab's resolver echoes garbage, which is no answer.
    world.apply(one, two, upstreams=[f"{RESOLVERS[0]}:54", RESOLVERS[1]], resolve_seconds=0)
    assert dig(world.box, one.name, server=world.gateway(0)).answers == (one.v4,)
    world.lab.dns.silent = True
    # The first server counts as silent by now, so that both time out within dig's patience.
    dead = dig(world.box, two.name, server=world.gateway(0), more=["+time=6"])
    assert (dead.status, dead.answers) == ("SERVFAIL", ())
    assert dead.ede.startswith("22 (No Reachable Authority)")
    assert not world.reaches(two.v4)
    assert world.reaches(one.v4), "what was learned stays open"
    world.lab.dns.silent = False
    assert dig(world.box, two.name, server=world.gateway(0)).answers == (two.v4,)


def test_malformed_queries_do_no_harm(world: World) -> None:
    site = world.lab.site()
    world.apply(site, resolve_seconds=0)
    with world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(5)
        own.connect((world.gateway(0), 53))
        for data in (
            b"",
            b"\0",
            b"\xff" * 12,
            bytes(12),
            bytes(600),
            os.urandom(512),
            b"\0\7\1\0\0\1" + bytes(6) + b"\xc0\x0c",
        ):
            own.send(data)
    with world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
        own.settimeout(5)
        own.connect((world.gateway(0), 53))
        own.sendall(b"\0\5hello\xff\xff" + os.urandom(100))
    assert dig(world.box, site.name, server=world.gateway(0)).answers == (site.v4,)
    assert world.daemon.process.poll() is None


@pytest.mark.requirement("F1")
def test_a_withdrawn_name_is_closed_and_a_kept_one_is_not(world: World) -> None:
    kept, dropped = world.lab.site(), world.lab.site()
    world.apply(kept, dropped)
    assert world.reaches(kept.v4)
    assert world.reaches(dropped.v4)
    world.apply(kept)
    assert world.reaches(kept.v4)
    assert not world.reaches(dropped.v4)
    assert dig(world.box, dropped.name, server=world.gateway(0)).status == "NXDOMAIN"


@pytest.mark.requirement("F7")
def test_a_policy_that_is_off_lets_everything_out(world: World) -> None:
    site = world.lab.site()
    world.lab.dns.zone.change(site.name, others=(("TXT", '"hello"'),))
    assert not world.reaches(site.v4)
    state = world.client.apply(world.attachment.id, rules(enabled=False))
    assert state.phase == "off"
    for server in (world.gateway(0), OTHER_RESOLVERS[1]):
        assert dig(world.box, site.name, server=server).answers == (site.v4,)
        assert dig(world.box, site.name, "TXT", server=server).answers == ('"hello"',)
    assert world.reaches(site.v4)


@pytest.mark.requirement("F11")
def test_killed_and_restarted(world: World) -> None:
    """Denied stays denied without the daemon; with it again everything is as before, and connections have gone on."""
    good, later, bad = world.lab.site(), world.lab.site(), world.lab.site()
    before = world.apply(good, later)
    with world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as living:
        living.settimeout(5)
        living.connect((good.v4, 443))
        world.daemon.kill()
        assert world.reaches(good.v4)
        assert not world.reaches(bad.v4)
        assert dig(world.box, good.name, server=world.gateway(0)).status == "none"
        assert dig(world.box, bad.name, server=OTHER_RESOLVERS[0]).status == "none"
        assert world.lab.dns.queries(bad.name) == []
        world.restart()
        after = world.state()
        assert (after.phase, after.ruleset, after.dns.port) == ("enforced", before.ruleset, before.dns.port)
        assert after.verification is None
        for site in (good, later):
            assert dig(world.box, site.name, server=world.gateway(0)).answers == (site.v4,)
            assert world.reaches(site.v4)
        assert not world.reaches(bad.v4)
        assert dig(world.box, bad.name, server=world.gateway(0)).status == "NXDOMAIN"
        living.sendall(b"still here")
        assert living.recv(4096)
    # What was learned before the restart is known to belong to its names: withdrawing one closes it.
    world.apply(good)
    assert not world.reaches(later.v4)
    assert world.reaches(good.v4)


@pytest.mark.requirement("F11")
def test_stopped_with_sigterm_it_ends_well_and_stays_closed(world: World) -> None:
    good, bad = world.lab.site(), world.lab.site()
    world.apply(good)
    world.client.close()
    os.killpg(world.daemon.process.pid, signal.SIGTERM)
    assert world.daemon.process.wait(10) == 0
    assert not world.daemon.socket.exists()
    assert world.reaches(good.v4)
    assert not world.reaches(bad.v4)


@pytest.mark.requirement("F11")
def test_a_damaged_state_file_locks(world: World) -> None:
    good = world.lab.site()
    world.apply(good)
    assert world.reaches(good.v4)
    world.daemon.kill()
    (world.daemon.state / "attachments.json").write_text('{"format": 1, "attachments": [')
    world.restart()
    status = world.client.status()
    assert status.attachments == ()
    assert any("is damaged" in problem for problem in status.problems)
    assert not world.reaches(good.v4)
    world.client.attach(world.attachment)
    assert not world.reaches(good.v4)
    world.apply(good)
    assert world.reaches(good.v4)


def test_an_interface_may_come_later_go_and_come_again(world: World) -> None:
    site = world.lab.site()
    name = f"csp-{secrets.token_hex(4)}"
    # Made once to learn what its addresses will be, and taken away again.
    box = world.lab.add_workload(name)
    attachment = box.attachment()
    netns.call(world.lab.host.name, _remove, name)
    state = world.client.attach(attachment)
    assert (state.dns.listening, state.warnings) == (False, (f"the DNS gate waits for {name}",))
    world.client.apply(attachment.id, rules(site.name))
    for _ in range(2):
        _wire(world.lab, box, attachment)
        _listening(world.client, attachment.id)
        for family in (0, 1):
            assert dig(box, site.name, server=str(box.gateways[family])).answers == (site.v4,)
        assert box.reach(f"{site.v4}:443").outcome == "reached"
        netns.call(world.lab.host.name, _remove, name)


def _remove(name: str) -> None:
    with Links() as links:
        links.delete(name)


def _wire(lab: Lab, box: Workload, attachment: Attachment) -> None:
    """Plug the workload in again; the host's IPv6 address is tentative for a while, as Docker's are."""
    netns.set_sysctl(lab.host.name, "net.ipv6.conf.default.accept_dad", 1)
    with Links(lab.host.name) as links:
        links.veth(attachment.interface, "eth0", peer_namespace=box.name)
        links.up(attachment.interface)
    for address in box.ends["host"]:
        lab.host.run(["ip", "address", "add", address, "dev", attachment.interface])
    with Links(box.name) as links:
        for address in box.ends["workload"]:
            links.address("eth0", address)
        links.up("eth0")
        for everything, gateway in zip(("0.0.0.0/0", "::/0"), box.gateways, strict=True):
            links.route(everything, via=str(gateway))


def _listening(client: GateClient, attachment_id: str) -> None:
    for _ in range(2000):
        if client.status(attachment_id).attachments[0].dns.listening:
            return
    raise AssertionError("it does not listen")


def test_the_listeners_are_reached_from_their_own_interface_only(world: World) -> None:
    """Also by the sockets themselves, whatever the rules say: the other workload's interface is none of ours, and unfiltered."""
    site = world.lab.site()
    port = world.apply(site, resolve_seconds=0).dns.port
    other = world.lab.add_workload()
    for family in (0, 1):
        gateway = world.gateway(family)
        version = socket.AF_INET6 if family else socket.AF_INET
        with world.lab.host.socket(version, socket.SOCK_STREAM) as free:
            free.bind((gateway, 0))
            free.listen()
            assert _connects(other, gateway, free.getsockname()[1]), "the positive control"
        assert not _connects(other, gateway, port)
        assert _connects(world.box, gateway, port), "the positive control"
        for tcp in (False, True):
            more = ["-p", str(port), "+time=1"]
            assert dig(other, site.name, server=gateway, more=more, tcp=tcp).status == "none"
            assert dig(world.box, site.name, server=gateway, more=more, tcp=tcp).status == "NOERROR"


def _connects(box: Workload, address: str, port: int | None) -> bool:
    assert port is not None
    with box.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as own:
        own.settimeout(5)
        return own.connect_ex((address, port)) == 0


def test_net_admin_is_all_it_needs(lab: Lab) -> None:
    keep = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"]
    daemon = Daemon(lab, wrap=keep)
    site, bad = lab.site(), lab.site()
    box = lab.add_workload(f"csp-{secrets.token_hex(4)}")
    with daemon.client() as client:
        pid = client.hello().pid
        assert "CapEff:\t0000000000001000\n" in Path(f"/proc/{pid}/status").read_text()
        client.attach(box.attachment("a1"))
        port = client.apply("a1", rules(site.name)).dns.port
        other = lab.add_workload()
        for gateway in map(str, box.gateways):
            assert dig(box, site.name, server=gateway).answers == (site.v4,)
            assert not _connects(other, gateway, port), "bound to its interface without CAP_NET_RAW"
        assert dig(box, bad.name, server=str(box.gateways[0])).status == "NXDOMAIN"
        assert box.reach(f"{site.v4}:443").outcome == "reached"


def test_two_gates_in_two_namespaces_do_not_meet(world: World) -> None:
    with Lab() as other:
        second = World(other)
        mine, theirs = world.lab.site(), other.site()
        world.apply(mine)
        second.apply(theirs)
        assert world.reaches(mine.v4)
        assert second.reaches(theirs.v4)
        assert dig(world.box, theirs.name, server=world.gateway(0)).status == "NXDOMAIN"
        assert dig(second.box, mine.name, server=second.gateway(1)).status == "NXDOMAIN"
        second.daemon.kill()
        assert dig(world.box, mine.name, server=world.gateway(0)).answers == (mine.v4,)
        second.client.close()


def test_a_second_gate_for_the_same_table_or_state_is_refused(world: World) -> None:
    """It would take the first one's attachments for strangers, and lock them."""
    good = world.lab.site()
    world.apply(good)
    with pytest.raises(AssertionError, match="another gate keeps the table netpolicy in this network namespace"):
        Daemon(world.lab, name="other")
    with pytest.raises(AssertionError, match="another gate uses the state directory"):
        Daemon(world.lab, "--table", "another")
    assert world.reaches(good.v4)


def test_check_says_what_packets_meet(world: World) -> None:
    good, bad = world.lab.site(), world.lab.site()
    world.apply(f"{good.name}:443")
    shown = world.client.show(world.attachment.id)
    assert {str(entry.address) for entry in shown.learned} == set(good.addresses)
    for address in (good.v4, bad.v4):
        for port in (443, 80):
            flow = Flow(6, port, address=ip_address(address))
            assert world.client.check(world.attachment.id, flow).allowed == world.reaches(address, port)


def test_refusals_are_counted(world: World) -> None:
    bad = world.lab.site()
    world.apply()
    before = world.state().refused
    assert not world.reaches(bad.v4)
    assert world.state().refused > before
    for _ in range(2):
        dig(world.box, bad.name, server=world.gateway(0))
    assert world.state().dns.denied == 2
    assert world.client.show(world.attachment.id).denied == {bad.name: 2}
