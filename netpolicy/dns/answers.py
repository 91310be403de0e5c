"""What is taken of an upstream's answer: the chain from the asked name, and the addresses at its end that may be used. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from math import inf

from netpolicy.dns import lifetimes, wire
from netpolicy.dns.view import Allowed, NameView
from netpolicy.dns.wire import Record, Response
from netpolicy.flow import Address

#: CNAME records followed in one answer; what is longer counts as broken.
_LONGEST_CHAIN = 16
#: Addresses used of one answer, so that a name cannot fill the kernel's sets.
_MOST_ADDRESSES = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about a name and type: an upstream's answer, filtered."""

    rcode: int
    chain: tuple[Record, ...]
    """The CNAME records that lead from the asked name to the owner of the addresses."""
    addresses: tuple[Address, ...]
    """Those that may be used: the kernel is told of them."""
    given: tuple[Address, ...]
    """Those in the reply: the same, or all of them where the policy is only observed."""
    stripped: tuple[str, ...]
    """For each address that was taken out, why."""
    ttl: int
    """Seconds that it might be kept when it came; see `lifetimes`."""
    until: float
    """Monotonic time at which it is forgotten."""


def follow(name: bytes, kind: int, response: Response) -> tuple[list[Record], list[Record]]:
    """The CNAME chain from the asked name through a response, and the records at its end. Whatever else is in it is ignored."""
    by_owner: dict[tuple[bytes, int], list[Record]] = {}
    for record in response.answers:
        by_owner.setdefault((record.name, record.type), []).append(record)
    chain: list[Record] = []
    owner = name
    while (owner, kind) not in by_owner and (owner, wire.CNAME) in by_owner and len(chain) < _LONGEST_CHAIN:
        link = by_owner[owner, wire.CNAME][0]
        chain.append(link)
        owner = link.data
    return chain, by_owner.get((owner, kind), [])


def filtered(
    chain: Sequence[Record],
    found: Sequence[Record],
    response: Response | None,
    view: NameView,
    allowed: Allowed,
    now: float,
    longest: float = inf,
) -> Answer:
    """An answer of these records, without the addresses that the view refuses; kept no longer than `longest` seconds."""
    addresses = list(dict.fromkeys(ip_address(record.data) for record in found))
    reasons = {address: view.refuses(address, allowed.services) for address in addresses}
    usable = tuple(a for a in addresses if reasons[a] is None)[:_MOST_ADDRESSES]
    given, stripped = usable, tuple(reason for reason in reasons.values() if reason is not None)
    if view.observed:
        given, stripped = tuple(addresses), ()
    ttl = min((record.ttl for record in (*chain, *found)), default=lifetimes.NEGATIVE)
    rcode = wire.NOERROR
    if given:
        ttl = lifetimes.client_ttl(ttl)
    else:
        by_zone = None if response is None else response.negative_ttl
        ttl = min(ttl, lifetimes.NEGATIVE if by_zone is None else by_zone, lifetimes.NEGATIVE)
        if response is not None and response.rcode == wire.NXDOMAIN and not found:
            rcode = wire.NXDOMAIN
    ttl = int(min(ttl, longest))
    return Answer(rcode, tuple(chain), usable, given, stripped, ttl, now + ttl)
