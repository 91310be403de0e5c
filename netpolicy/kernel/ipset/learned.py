"""Learned addresses as elements of ipset's sets. Which of them a ruleset opens is the same for every enforcer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

from netpolicy.kernel.ipset import messages
from netpolicy.kernel.ipset.messages import Element, Type
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables.learning import LIMIT, Alive, Entry, Slot
from netpolicy.services import Service


def make(slot: Slot, name: str) -> Message:
    """The message that makes a slot's set."""
    kind = Type.IP_PORT if slot.service is None else Type.IP
    return messages.create(name, kind, slot.version, limit=LIMIT, seconds=0, comments=True)


def refreshed(entries: Mapping[Entry, Alive], sets: Mapping[Slot, str]) -> Iterator[Message]:
    """Insert entries, or give those that exist a new lifetime and new names; those without a set are left out."""
    by_set: dict[str, list[bytes]] = {}
    for entry, alive in entries.items():
        slot = entry.slot
        if slot in sets:
            service = (entry.service.protocol, entry.service.first) if slot.service is None else None
            packed = messages.element(
                entry.address.packed, service=service, seconds=alive.seconds, comment=_comment(alive.names)
            )
            by_set.setdefault(sets[slot], []).append(packed)
    for name, elements in by_set.items():
        yield from messages.add(name, elements)


def read(slot: Slot, elements: Iterable[Element]) -> dict[Entry, Alive]:
    """The entries in a listing of a slot's set."""
    found: dict[Entry, Alive] = {}
    for one in elements:
        service = slot.service or Service(one.protocol, one.port, one.port)
        found[Entry(ip_address(one.address), service)] = Alive(float(one.seconds), frozenset(one.comment.split()))
    return found


def _comment(names: Iterable[str]) -> str:
    """As many names as there is room for; a gate that starts again does not know the others, and they are closed until asked for."""
    kept, room = [], messages.COMMENT_SIZE
    for name in sorted(names, key=lambda name: (len(name), name)):
        room -= len(name) + 1
        if room < 0:
            break
        kept.append(name)
    return " ".join(sorted(kept))
