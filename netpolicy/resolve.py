"""Names to addresses, all at once and in a limited time, with where each answer came from.

A name that does not resolve is part of the result, never an error: what uses it stays closed and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy.dns import wire
from netpolicy.dns.answers import follow
from netpolicy.dns.upstreams import UpstreamError, Upstreams
from netpolicy.flow import Address

#: Questions under way at once; each has a socket.
_AT_ONCE = 64
_TYPES = (wire.A, wire.AAAA)


@dataclass(frozen=True, slots=True)
class Resolved:
    """An upstream's answer for one name and type, unfiltered."""

    name: str
    """As it was asked for."""
    type: int
    """1 for A, 28 for AAAA."""
    addresses: tuple[Address, ...]
    """Never empty."""
    aliases: tuple[str, ...]
    """The names that CNAME records led through, in order; the last one owns the addresses."""
    ttl: int
    """Seconds: the shortest of the chain."""
    server: str
    """Who said so, ``address:port``."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The outcome for a set of names."""

    answers: tuple[Resolved, ...]
    """Sorted by name and type."""
    unresolved: dict[str, str]
    """Each name without any address, and why."""


async def resolve(names: Iterable[str], upstreams: Upstreams, *, seconds: float = 3.0, ipv6: bool = True) -> Resolution:
    """Ask for the A records of all names in parallel, and with `ipv6` for the AAAA records.

    Args:
        names: Lower-case ASCII names without a trailing dot.
        upstreams: Who is asked.
        seconds: For all of them together; what is not there by then is unresolved.
    """
    wanted = sorted(set(names))
    if not wanted:
        return Resolution((), {})
    kinds = _TYPES if ipv6 else _TYPES[:1]
    places = asyncio.Semaphore(_AT_ONCE)
    tasks = {
        asyncio.create_task(_one(name, kind, upstreams, places, seconds)): (name, kind)
        for name in wanted
        for kind in kinds
    }
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    outcomes = {tasks[task]: task.result() for task in done}
    answers = [outcome for outcome in outcomes.values() if isinstance(outcome, Resolved)]
    found = {answer.name for answer in answers}
    slow = f"no answer within {seconds:g} s"
    # The first reason of the types will do; "no such name" holds for both.
    unresolved = {
        name: next((str(outcomes[name, kind]) for kind in kinds if (name, kind) in outcomes), slow)
        for name in wanted
        if name not in found
    }
    return Resolution(tuple(sorted(answers, key=lambda answer: (answer.name, answer.type))), unresolved)


async def _one(name: str, kind: int, upstreams: Upstreams, places: asyncio.Semaphore, seconds: float) -> Resolved | str:
    """An answer, or why there is none."""
    async with places:
        try:
            asked = wire.name_to_wire(name)
            exchange = await upstreams.ask(asked, kind, seconds=seconds)
        except UpstreamError as error:
            return error.text
        except wire.WireError as error:
            return str(error)
    chain, found = follow(asked, kind, exchange.response)
    if not found:
        return "no such name" if exchange.response.rcode == wire.NXDOMAIN else "it has no address"
    return Resolved(
        name=name,
        type=kind,
        addresses=tuple(sorted({ip_address(record.data) for record in found}, key=int)),
        aliases=tuple(wire.name_to_text(record.data) for record in chain),
        ttl=min(record.ttl for record in (*chain, *found)),
        server=str(exchange.server),
    )
