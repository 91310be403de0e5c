"""Somebody who makes packets by hand wants out: no trick brings a nonce to a target that the policy does not allow.

Each trick is aimed at three targets: one that nothing opens, a port that is denied in a network that is open for everything, and
port 53 in that network. The controls: the same tricks do arrive at an open port, those that a router lets through at all.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crafting
import plainuser
import pytest
from bed import DNS_PORT, Bed
from tricks import Aim, tricks
from universe import FAR, OPEN, ORIGIN, POOLS

from netpolicy.ruleset import HostRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service

pytestmark = pytest.mark.kernel

#: Those that say enough for a policy to judge them; the others are refused or lost wherever they go.
HONEST = {"plain_udp", "in_fragments", "a_whole_packet_as_a_fragment"}


def open_but(place: Bed, *denied: Service) -> Ruleset:
    """The pool is open for everything, but for some services; the host for one port."""
    pool = POOLS[place.version]
    return Ruleset(
        "attacked",
        ranges=(RangeRule(pool, EVERY, ORIGIN),),
        denied_ranges=(RangeRule(pool, denied, ORIGIN),) if denied else (),
        host=(HostRule(OPEN, ORIGIN),),
    )


def arrived(place: Bed, target: str, port: int, only: Iterable[str] = ()) -> set[str]:
    """Try all tricks; the names of those whose nonce was seen at the internet."""
    known = {name: trick for name, trick in tricks(place.version).items() if not only or name in only}
    nonces: dict[bytes, str] = {}
    for name, trick in known.items():
        nonce = secrets.token_bytes(crafting.NONCE_BYTES)
        nonces[nonce] = name
        aim = Aim(place.source[place.version], target, port, place.number(), nonce)
        for packet in trick(aim):
            place.emit(packet, target)
    place.send([])  # its control arrives behind them
    seen = [packet.data for packet in place.lab.receiver.packets()]
    return {name for nonce, name in nonces.items() if any(nonce in data for data in seen)}


@pytest.mark.requirement("F1")
def test_no_trick_reaches_what_nothing_opens(place: Bed) -> None:
    place.enforcer.apply(place.attachment, open_but(place), DNS_PORT)
    assert not arrived(place, str(FAR[place.version]), 443)


@pytest.mark.requirement("F1")
def test_no_trick_reaches_a_denied_port_of_an_open_network(place: Bed) -> None:
    place.enforcer.apply(place.attachment, open_but(place, Service(6, 443, 443), Service(17, 443, 443)), DNS_PORT)
    target = str(POOLS[place.version][1])
    reached = arrived(place, target, 443)
    # What carries no port is not what the rule denies.
    assert reached <= {"an_echo_reply", "an_unusual_query", "an_error_about_nothing"}
    assert arrived(place, target, 444, HONEST) >= HONEST, "control: the neighbouring port is open"


@pytest.mark.requirement("F1")
def test_no_trick_carries_a_query_past_the_gate(place: Bed) -> None:
    place.enforcer.apply(place.attachment, open_but(place), DNS_PORT)
    target = str(POOLS[place.version][1])
    reached = arrived(place, target, 53)
    assert reached <= {"an_echo_reply", "an_unusual_query", "an_error_about_nothing"}


@pytest.mark.requirement("F1")
def test_no_trick_leaves_a_locked_attachment(place: Bed) -> None:
    place.enforcer.attach(place.attachment, None)
    for target in (str(POOLS[place.version][1]), str(FAR[place.version])):
        nonce = secrets.token_bytes(crafting.NONCE_BYTES)
        for trick in tricks(place.version).values():
            for packet in trick(Aim(place.source[place.version], target, 443, place.number(), nonce)):
                place.emit(packet, target)
        place.enforcer.apply(place.attachment, open_but(place), DNS_PORT)
        place.send([])
        assert not [packet for packet in place.lab.receiver.packets() if nonce in packet.data]
        place.enforcer.attach(place.attachment, None)


@pytest.mark.requirement("F1")
def test_a_connection_opened_while_observed_is_cut_when_the_policy_is_enforced(place: Bed) -> None:
    """Also where the far end has answered, so that it counts as established."""
    target = FAR[place.version]
    place.enforcer.apply(place.attachment, Ruleset("watched", "observe", host=(HostRule(OPEN, ORIGIN),)), DNS_PORT)
    number = place.number()

    def datagram() -> set[str]:
        nonce = secrets.token_bytes(crafting.NONCE_BYTES)
        aim = Aim(place.source[place.version], str(target), 443, number, nonce)
        place.emit(aim.ip(aim.body(17), 17), str(target))
        place.send([])
        return {packet.source for packet in place.lab.receiver.packets() if nonce in packet.data}

    (source,) = datagram()
    place.answer(str(target), source, 443, number)
    assert datagram(), "control: while it is observed it goes on"
    place.enforcer.apply(place.attachment, Ruleset("now", host=(HostRule(OPEN, ORIGIN),)), DNS_PORT)
    assert not datagram()
    if place.hook == "forward":
        # Inside the namespace, what comes in is nobody's to judge, and it would be answered.
        place.answer(str(target), source, 443, number)
        assert not datagram(), "an answer that comes late does not open it again"


@pytest.mark.requirement("F1")
def test_more_refused_destinations_than_the_kernel_notes_are_refused_all_the_same(place: Bed) -> None:
    """The note of what was refused is bounded; where it is full, the refusal stands."""
    place.enforcer.apply(place.attachment, open_but(place), DNS_PORT)
    first, nonce = int(FAR[place.version]), secrets.token_hex(8).encode()
    family = socket.AF_INET if place.version == 4 else socket.AF_INET6
    with place.box.socket(family, socket.SOCK_DGRAM) as sock:
        for n in range(6000):
            with contextlib.suppress(OSError):  # at the output hook, the call itself is refused
                sock.sendto(nonce, (str(type(FAR[place.version])(first + n % 100)), 1000 + n // 100))
    place.send([])
    assert not place.lab.receiver.saw(nonce)
    assert len(place.enforcer.refusals(place.attachment.id)) > 1000, "control: they were refused, and noted"


def leaving(place: Bed) -> set[str]:
    """The ways by which an ordinary user brings a word out: to the internet, and from a namespace of its own onto the wire."""
    words = {way.__name__: secrets.token_hex(8) for way in plainuser.WAYS}
    near = next(str(gateway) for gateway in place.attachment.gateways if gateway.version == place.version)
    with place.lab.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
        wire.bind((place.box.interface, 3))
        wire.setblocking(False)
        script = Path(plainuser.__file__).read_text().encode()
        program = [sys.executable, "-I", "-S", "-", str(FAR[place.version]), near]
        place.box.run([*program, *(f"{way}={word}" for way, word in words.items())], stdin=script, user=65534)
        place.send([])
        seen = [packet.data for packet in place.lab.receiver.packets()]
        if place.hook == "output":
            with contextlib.suppress(BlockingIOError):
                while True:
                    seen.append(wire.recv(65535))
    return {way for way, word in words.items() if any(word.encode() in data for data in seen)}


@pytest.mark.requirement("F1")
def test_an_ordinary_user_gets_nothing_out(place: Bed) -> None:
    host = (HostRule(OPEN, ORIGIN),)
    place.enforcer.apply(place.attachment, Ruleset("off", "off", host=host), DNS_PORT)
    assert leaving(place) >= {"udp", "ping"}, "control: with the policy off these get out"
    place.enforcer.apply(place.attachment, Ruleset("nothing", host=host), DNS_PORT)
    assert not leaving(place)


@pytest.mark.requirement("F1")
def test_nothing_slips_through_while_policies_change(place: Bed) -> None:
    """Every datagram is a new connection, so each meets the rules; what all policies deny never arrives, while they take turns."""
    own, pool, host = str(FAR[place.version]), POOLS[place.version], (HostRule(OPEN, ORIGIN),)
    near = RangeRule(pool, (Service(17, 1, 65535),), ORIGIN)
    far = RangeRule(type(pool)(own), (Service(17, 500, 65535),), ORIGIN)
    policies = (
        Ruleset("near", ranges=(near,), host=host),
        Ruleset("far", ranges=(far,), host=host),
        Ruleset("both, less some", ranges=(near, far), denied_ranges=(RangeRule(pool, EVERY, ORIGIN),), host=host),
        Ruleset("nothing", host=host),
    )
    denied, allowed = secrets.token_hex(8).encode(), secrets.token_hex(8).encode()
    done = threading.Event()

    def knock() -> int:
        sent, family = 0, socket.AF_INET if place.version == 4 else socket.AF_INET6
        while not done.is_set():
            for port, word in ((443, denied), (8000, allowed)):
                with place.box.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
                    sock.sendto(word, (own, port))
            sent += 1
        return sent

    with ThreadPoolExecutor(1) as other:
        knocking = other.submit(knock)
        try:
            for _ in range(3):
                for rules in policies:
                    place.enforcer.apply(place.attachment, rules, DNS_PORT)
        finally:
            done.set()
        assert knocking.result() > 10, "control: it was tried all the while"
    place.send([])
    assert place.lab.receiver.saw(allowed), "control: what one of them opens arrives while that is in force"
    assert not place.lab.receiver.saw(denied)
