"""Which addresses the kernel has been told, for which names, and until when. Pure; times are `Clock.monotonic` seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netpolicy.clock import Clock
from netpolicy.dns.view import NameView
from netpolicy.flow import Address
from netpolicy.ruleset import Learned
from netpolicy.services import Service

#: A renewal that would gain less than this is left out, so that repeated questions cost the kernel nothing.
_WORTHWHILE = 1.0


class LearnedTable:
    """The gate's own account of the kernel's learned elements.

    One address may be learned for several names with different lifetimes, while the kernel has one element for each address and
    service: an element's lifetime is the longest that any name asked for, and is never shortened.
    """

    def __init__(self) -> None:
        self._elements: dict[tuple[Address, Service], float] = {}
        self._names: dict[tuple[str, Address], float] = {}
        self._prune_at = 1024

    def due(
        self,
        name: str,
        addresses: Iterable[Address],
        services: Sequence[Service],
        *,
        seconds: float,
        needed: float,
        now: float,
    ) -> list[Learned]:
        """What the kernel must be told before an answer with these addresses may leave; empty if nothing.

        Args:
            name: The name that was asked for.
            addresses: The answer's addresses.
            services: The name's services.
            seconds: Lifetime of what is inserted now.
            needed: Seconds that an element must have left for it to do as it is; at most `seconds`, so that none is shortened.
            now: The time.
        """
        found: list[Learned] = []
        for address in addresses:
            late = [s for s in services if self._elements.get((address, s), now) < now + needed - _WORTHWHILE]
            if late:
                found.append(Learned(name, address, tuple(late), seconds))
        return found

    def record(self, entries: Iterable[Learned], now: float) -> None:
        """The kernel has acknowledged these."""
        for entry in entries:
            until = now + entry.seconds
            for service in entry.services:
                self._elements[entry.address, service] = until
            self._claim(entry.name, entry.address, until)
        if len(self._elements) > self._prune_at:
            self._prune(now)

    def claim(
        self, name: str, addresses: Iterable[Address], services: Sequence[Service], *, seconds: float, now: float
    ) -> None:
        """The name was answered with these addresses too, which the kernel had already."""
        for address in addresses:
            ends = [self._elements.get((address, service), now) for service in services]
            self._claim(name, address, min(now + seconds, *ends))

    def entries(self, view: NameView, clock: Clock) -> list[Learned]:
        """What is in force, by name and address, with the seconds left: at most until the rules for the name end."""
        now, today = clock.monotonic(), clock.now()
        found: list[Learned] = []
        for (name, address), until in sorted(self._names.items(), key=lambda item: (item[0][0], int(item[0][1]))):
            allowed = view.by_text(name) if until > now else None
            if allowed is None or view.refuses(address, allowed.services) is not None:
                continue
            left = until - now if allowed.until is None else min(until - now, allowed.until - today)
            if left > 0:
                found.append(Learned(name, address, allowed.services, left))
        return found

    def carry_over(self, view: NameView, clock: Clock) -> list[Learned]:
        """Begin again under another ruleset: the addresses of names that it still allows, to be told to the kernel anew."""
        kept = self.entries(view, clock)
        self._elements.clear()
        self._names.clear()
        return kept

    def found(self, elements: Iterable[tuple[Address, int, int, int, float]], now: float) -> None:
        """What the kernel holds from before this process: its lifetimes are not to be shortened either.

        Args:
            elements: Rows of `netpolicy.attachment.Enforcer.learned`.
            now: The time.
        """
        for address, protocol, first, last, seconds in elements:
            self._elements.setdefault((address, Service(protocol, first, last)), now + seconds)

    def names(self, now: float) -> set[str]:
        """The names with addresses in force."""
        return {name for (name, _address), until in self._names.items() if until > now}

    def addresses(self, now: float) -> int:
        """How many addresses are in force."""
        return len({address for (_name, address), until in self._names.items() if until > now})

    def _claim(self, name: str, address: Address, until: float) -> None:
        key = (name, address)
        self._names[key] = max(until, self._names.get(key, until))

    def _prune(self, now: float) -> None:
        self._elements = {key: until for key, until in self._elements.items() if until > now}
        self._names = {key: until for key, until in self._names.items() if until > now}
        self._prune_at = max(1024, 2 * len(self._elements))
