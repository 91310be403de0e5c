"""The language's words for ports and protocols: ``443``, ``8000-8010/udp``, ``*``, ``icmp``; read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from netpolicy.flow import PROTOCOLS
from netpolicy.policy.problems import Refused, nearest, shown
from netpolicy.services import Service, merged

TCP, UDP = PROTOCOLS["tcp"], PROTOCOLS["udp"]
#: Both numbers of the one word ``icmp``: a name may have addresses of either family.
ICMP = (Service(PROTOCOLS["icmp"]), Service(PROTOCOLS["icmpv6"]))

LAST = 65535

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)


def services(ports: str | None, protocol: str | None) -> tuple[Service, ...]:
    """What ``:ports/protocol`` means; either part may be absent, not both.

    Raises:
        Refused: with a sentence that says what would be right.
    """
    word = None if protocol is None else protocol.lower()
    if word in ("icmp", "icmpv6"):
        if ports is not None:
            raise Refused("icmp has no ports; write /icmp alone")
        return ICMP
    if word is not None and word not in PROTOCOLS:
        raise Refused(f"{shown(protocol)} is not a protocol; {nearest(word, (set(PROTOCOLS) - {'icmpv6'}))}")
    if ports is None:
        raise Refused(f"say which ports: :443/{word}, or :*/{word} for every port")
    if ports == "*":
        wanted = (TCP, UDP) if word is None else (PROTOCOLS[word],)
        return tuple(Service(number, 1, LAST) for number in wanted)
    first, last = _numbers(ports)
    return (Service(TCP if word is None else PROTOCOLS[word], first, last),)


def parse(text: str) -> tuple[Service, ...]:
    """An entry of ``ports``: ``443``, ``443/tcp``, ``8000-8010/udp``, ``*``, ``*/udp`` or ``icmp``. Raises Refused."""
    if text.lower() in ("icmp", "icmpv6"):
        return ICMP
    ports, slash, protocol = text.partition("/")
    return services(ports, protocol if slash else None)


def written(wanted: Iterable[Service]) -> list[str]:
    """The entries of ``ports`` that mean these services; `parse` reads each back."""
    left = list(merged(wanted))
    words = []
    if any(s in left for s in ICMP):
        words.append("icmp")
        left = [s for s in left if s not in ICMP]
    everything = [Service(TCP, 1, LAST), Service(UDP, 1, LAST)]
    if all(s in left for s in everything):
        words.append("*")
        left = [s for s in left if s not in everything]
    return words + [str(service) for service in left]


def no_such(port: int) -> str:
    """The sentence for a port that is out of range."""
    return f"port {port} does not exist; ports go from 1 to {LAST}"


def _numbers(text: str) -> tuple[int, int]:
    match = _RANGE.match(text)
    if match is None:
        if "," in text:
            raise Refused('several ports are written {"host": ..., "ports": [80, 443]}')
        raise Refused(f"{shown(text)} is not a port; write a number from 1 to 65535, a range such as 8000-8010, or *")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    for number in (first, last):
        if not 1 <= number <= LAST:
            raise Refused(no_such(number))
    if last < first:
        raise Refused(f"the range {first}-{last} is backwards; write {last}-{first}")
    return first, last
