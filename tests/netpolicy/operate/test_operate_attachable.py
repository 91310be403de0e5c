"""Names and places: ids that a gate takes, homes that never collide, and which attachment a person means."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.gate.protocol import DnsState, Hello, State
from netpolicy.operate import attachable, homes, notes, selecting
from netpolicy.operate.attachable import Candidate
from netpolicy.operate.homes import DEFAULT_SOCKET, DEFAULT_STATE, Home
from netpolicy.operate.notes import Note
from netpolicy.operate.selecting import Held

INTERFACES = st.text(st.characters(codec="ascii", exclude_characters="/ \t\n\r\v\f\0"), min_size=1, max_size=15)


def candidate(interface: str) -> Candidate:
    own = Attachment(
        attachable.identifier(interface), interface, interface, (ip_network("10.0.0.0/29"),), (ip_address("10.0.0.1"),)
    )
    return Candidate(own)


@pytest.mark.parametrize(
    ("interface", "identifier"),
    [("br-0123456789ab", "br0123456789ab"), ("docker0", "docker0"), ("Bridge.7", "bridge7")],
)
def test_ids_say_the_interface(interface: str, identifier: str) -> None:
    assert attachable.identifier(interface) == identifier


@settings(max_examples=200)
@given(st.lists(INTERFACES, unique=True, max_size=8))
def test_every_interface_gets_an_id_of_its_own_and_keeps_it(interfaces: list[str]) -> None:
    taken: dict[str, str] = {}
    for interface in interfaces:
        made = attachable.named(candidate(interface), taken).attachment
        assert made.id not in taken
        assert 1 <= len(made.id) <= 16
        assert made.id.isascii()
        assert made.id.isalnum()
        assert made.id == made.id.lower()
        taken[made.id] = interface
    for held, interface in taken.items():
        assert attachable.named(candidate(interface), taken).attachment.id == held


def test_homes_follow_the_socket_and_share_nothing(tmp_path: Path) -> None:
    usual = homes.home(None, None, {})
    assert usual == Home(DEFAULT_SOCKET, DEFAULT_STATE, "netpolicy-attach")
    assert homes.home(None, None, {"NETPOLICY_GATE": ""}) == usual
    other = homes.home(None, None, {"NETPOLICY_GATE": str(tmp_path / "a.sock")})
    assert homes.home(tmp_path / "a.sock", None, {"NETPOLICY_GATE": "/elsewhere"}) == other
    third = homes.home(tmp_path / "b.sock", None, {})
    assert len({home.table for home in (usual, other, third)}) == 3
    assert len({home.state for home in (usual, other, third)}) == 3
    assert homes.home(tmp_path / "b.sock", tmp_path, {}).state == tmp_path
    inner = homes.of_namespace(usual, 4026531840, "/proc/7/ns/net")
    assert inner.socket == Path("/run/netpolicy/gate-ns-4026531840.sock")
    assert inner.state == DEFAULT_STATE / "ns-4026531840"


def test_notes_are_found_by_what_is_in_force(tmp_path: Path) -> None:
    home = Home(tmp_path / "s", tmp_path, "t")
    assert notes.find(home, "a") is None
    written = [Note(f"r{number}", (f"{number}.example",), ()) for number in range(6)]
    for note in written:
        notes.keep(home, "a", note)
    assert notes.find(home, "a", "r4") == written[4]
    assert notes.find(home, "a", "r0") == written[5], "too old: the latest"
    assert notes.find(home, "a") == written[5]
    notes.keep(home, "a", replace(written[4], blocked=("new.example",)))
    found = notes.find(home, "a")
    assert found is not None
    assert found.blocked == ("new.example",)
    home.note("a").write_text("[1]")
    assert notes.find(home, "a") is None
    notes.drop(home, "a")
    notes.drop(home, "a")


def held(identifier: str, name: str, interface: str, network: str | None = None) -> Held:
    attachment = Attachment(identifier, name, interface, (), ())
    state = State(attachment, "locked", None, None, 0, 0, 0, (), (), 0, DnsState(None, False), None, None)
    home = Home(Path("/s"), Path("/d"), "t")
    note = None if network is None else Note("r", (), (), network)
    return Held(home, Hello("", 1, 1, None, ()), state, note)


def test_what_a_person_means() -> None:
    shop, work = held("brshop", "shop", "br-shop", "shop_default"), held("work", "work", "br-work")
    confusing = held("w2", "br-work", "br-w2")
    both = [shop, work]
    for text in ("brshop", "shop", "br-shop", "shop_default"):
        assert selecting.one(both, text) is shop
    assert selecting.one([shop], None) is shop
    assert selecting.one([*both, confusing], "br-work") is confusing, "a name is nearer than an interface"
    for wanted, code in ((None, "which-attachment"), ("nothing", "not-attached")):
        with pytest.raises(UserError) as raised:
            selecting.one(both, wanted)
        assert raised.value.code == code
    with pytest.raises(UserError) as raised:
        selecting.one([shop, held("x", "shop", "br-x")], "shop")
    assert raised.value.code == "which-attachment"
    with pytest.raises(UserError, match="nothing is attached"):
        selecting.one([], None)
