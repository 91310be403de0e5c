"""A namespace's own processes as the workload, judged by a gate outside of it. Verdicts are taken at the internet."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from gatekit import Daemon, attachment, compiled, dig, rules

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.gate.client import GateClient
from netpolicy.lab import Lab, Workload
from netpolicy.lab.addresses import OTHER_RESOLVERS

pytestmark = [pytest.mark.kernel]
SERVERS = ["127.0.0.11", "127.0.0.1", "::1", *OTHER_RESOLVERS]


class Own:
    """A namespace with a gate that runs on the lab's host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.box: Workload = lab.add_workload()
        self.daemon = Daemon(lab, "--netns", self.box.name)
        self.client: GateClient = self.daemon.client()
        self.attachment = Attachment("own", "the namespace", "", (), self.box.gateways, hook="output")

    def reaches(self, address: str, port: int = 443) -> bool:
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        outcome = self.box.reach(target).outcome
        arrived = bool(self.lab.receiver.arrived(address, port, 6))
        assert (outcome == "reached") <= arrived
        return outcome == "reached"

    def knocked(self, address: str, port: int = 443) -> bool:
        return bool(self.lab.receiver.arrived(address, port, 6))


@pytest.fixture
def own(lab: Lab) -> Iterator[Own]:
    with lab.nat():
        made = Own(lab)
        yield made
        made.client.close()


def test_before_it_is_attached_nothing_is_judged(own: Own) -> None:
    """The positive control of the others."""
    site = own.lab.site()
    for address in site.addresses:
        assert own.reaches(address)


def test_locked_nothing_leaves(own: Own) -> None:
    site = own.lab.site()
    state = own.client.attach(own.attachment)
    assert (state.phase, state.dns.listening, state.warnings) == ("locked", True, ())
    for address in site.addresses:
        assert not own.reaches(address)
        assert not own.knocked(address)
    assert dig(own.box, site.name, server=OTHER_RESOLVERS[0], more=["+time=1"]).status == "none"
    assert own.lab.dns.queries(site.name) == []


@pytest.mark.requirement("F1")
def test_whatever_server_is_asked_the_gate_answers(own: Own) -> None:
    good, bad = own.lab.site(), own.lab.site()
    own.client.attach(own.attachment)
    own.client.apply("own", rules(good.name), resolve_seconds=0)
    for server in SERVERS:
        for tcp in (False, True):
            for kind, address in (("A", good.v4), ("AAAA", good.v6)):
                assert dig(own.box, good.name, kind, server=server, tcp=tcp).answers == (address,), server
            assert dig(own.box, bad.name, server=server, tcp=tcp).status == "NXDOMAIN"
    assert own.lab.dns.queries(bad.name) == []
    for address in good.addresses:
        assert own.reaches(address)
    for address in bad.addresses:
        assert not own.reaches(address)
        assert not own.knocked(address)


def test_restarted_it_is_as_it_was_and_detached_it_is_open(own: Own) -> None:
    good, bad = own.lab.site(), own.lab.site()
    own.client.attach(own.attachment)
    before = own.client.apply("own", rules(good.name))
    own.daemon.kill()
    assert own.reaches(good.v4)
    assert not own.reaches(bad.v4)
    own.daemon.start()
    with own.daemon.client() as client:
        [state] = client.status().attachments
        assert (state.ruleset, state.dns.port) == (before.ruleset, before.dns.port)
        assert dig(own.box, good.name, server="127.0.0.11").answers == (good.v4,)
        assert own.reaches(good.v4)
        assert not own.knocked(bad.v4)
        client.detach("own")
        assert own.reaches(bad.v4), "no lock stands behind it"


def test_forgotten_by_the_gate_its_rules_stay(own: Own) -> None:
    good, bad = own.lab.site(), own.lab.site()
    own.client.attach(own.attachment)
    own.client.apply("own", rules(good.name))
    own.daemon.kill()
    (own.daemon.state / "attachments.json").unlink()
    own.daemon.start()
    with own.daemon.client() as client:
        assert any("own; they are left as they are" in problem for problem in client.status().problems)
    assert own.reaches(good.v4)
    assert not own.reaches(bad.v4)
    assert not own.knocked(bad.v4)


def test_observed_and_the_host(own: Own) -> None:
    """What stays enforced: the host's ports."""
    bad = own.lab.site()
    own.client.attach(own.attachment)
    state = own.client.apply("own", compiled(mode="observe"))
    assert state.phase == "observed"
    assert dig(own.box, bad.name, server="127.0.0.11").answers == (bad.v4,)
    assert own.reaches(bad.v4)
    with own.lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((str(own.box.gateways[0]), 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert own.box.reach(f"{own.box.gateways[0]}:{port}").outcome == "refused"
        own.client.apply("own", compiled(mode="observe", host_access=[port]))
        assert own.box.reach(f"{own.box.gateways[0]}:{port}").outcome == "reached"


def refused(client: GateClient, wanted: Attachment) -> str:
    with pytest.raises(UserError) as caught:
        client.attach(wanted)
    assert caught.value.code == "bad-attachment"
    return caught.value.message


def test_which_attachments_are_taken(own: Own) -> None:
    gateways = (ip_address("192.0.2.1"),)
    assert "has no interface, not even eth0" in refused(
        own.client, Attachment("x", "x", "eth0", (), gateways, hook="output")
    )
    assert "needs an interface" in refused(own.client, Attachment("x", "x", "", attachment().networks, gateways))
    own.client.attach(own.attachment)
    own.client.attach(own.attachment)
    assert "attached already, as own" in refused(own.client, Attachment("x", "x", "", (), (), hook="output"))


def test_a_gate_inside_would_shut_itself_in(lab: Lab) -> None:
    with Daemon(lab).client() as client:
        assert "run it outside" in refused(client, Attachment("x", "x", "", (), (), hook="output"))
