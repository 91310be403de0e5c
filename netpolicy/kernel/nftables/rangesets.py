"""Which range sets the kernel holds, and which of them can be trusted: what `ranges` describes, made, filled and forgotten."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from netpolicy.clock import Clock
from netpolicy.kernel.netlink import KernelError, Message
from netpolicy.kernel.nftables import ranges
from netpolicy.kernel.nftables.messages import Table
from netpolicy.kernel.nftables.reading import Reader
from netpolicy.ruleset import RangeGroup, Ruleset

#: Bytes of the largest transaction that fills new sets.
_MOST: Final = 1 << 20


@dataclass
class RangeSets:
    """The range sets of one table."""

    table: Table
    read: Reader
    clock: Clock
    commit: Callable[[Sequence[Message]], None]
    """Sends one transaction."""
    _filled: set[str] = field(default_factory=set)
    """Those that hold what their names say, for we filled them and nobody else touched them."""

    def distrust(self, touched: set[str] | None) -> None:
        """Others changed what is in these sets; None: perhaps in any."""
        self._filled = set() if touched is None else self._filled - touched

    def prepare(self, ruleset: Ruleset, first: Sequence[Message]) -> None:
        """Make the sets a ruleset needs, after some other messages; fill those anew that somebody else may have changed."""
        messages = list(first)
        missing = {name: group for group in _groups(ruleset) if (name := ranges.name_of(group)) not in self._filled}
        fresh = {name: group for name, group in missing.items() if not self.read.has_set(name)}
        for name in missing.keys() - fresh.keys():
            messages += [self.table.drain(name), *ranges.fill(missing[name], self.table, self.clock.now())]
        messages += [ranges.make(group, self.table) for group in fresh.values()]
        for one in (one for group in fresh.values() for one in ranges.fill(group, self.table, self.clock.now())):
            # Nothing looks into a new set, so it may take several transactions: all at once a large one takes memory.
            if sum(len(message.payload) for message in messages) > _MOST:
                self.commit(messages)
                messages = []
            messages.append(one)
        self.commit(messages)
        self._filled |= missing.keys()

    def forget(self, candidates: Iterable[str]) -> None:
        """Remove those that no rule looks into any more."""
        known = {name for name in candidates if ranges.is_range_set(name)}
        if not known:
            return
        unused = known - self.read.ranges_in_use()
        self._filled -= unused
        try:
            self.commit([self.table.delete_set(name) for name in sorted(unused)])
        except KernelError as error:
            if error.number not in (errno.EBUSY, errno.ENOENT):  # somebody else looks into it, or was quicker
                raise


def names_of(ruleset: Ruleset) -> set[str]:
    """The names of the sets that its rules look into."""
    return {ranges.name_of(group) for group in _groups(ruleset)}


def _groups(ruleset: Ruleset) -> tuple[RangeGroup, ...]:
    return (*ruleset.denied_groups, *ruleset.groups)
