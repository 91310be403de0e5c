"""What others did to our table since we wrote it: heard as it happens (`drift`), read back where something was missed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import KernelError, Message
from netpolicy.kernel.nftables.drift import Change, Watch, sentences
from netpolicy.kernel.nftables.messages import Op
from netpolicy.kernel.nftables.reading import Reader, rules_of

_FILLING = re.compile("set [nrw][46]_")
_BUSY = frozenset({errno.EINTR, errno.ENOENT})
#: Where a message keeps the name of the chain or set it is about.
_CHAINS = {Op.NEWCHAIN: 3, Op.DELCHAIN: 3, Op.NEWRULE: 2, Op.DELRULE: 2}
_SETS = {Op.NEWSET: 2, Op.DELSET: 2, Op.NEWSETELEM: 2, Op.DELSETELEM: 2}


@dataclass
class Tampering:
    """Keeps what is known of it until everything is written anew."""

    watch: Watch
    reader: Reader
    _changes: list[Change] = field(default_factory=list)
    _found: list[str] = field(default_factory=list)
    _written: dict[str, bytes] | None = None
    """What was read back after we wrote, by what a person calls it."""
    _chains: set[str] = field(default_factory=set)
    """Chains that we wrote since then."""
    _sets: set[str] = field(default_factory=set)
    _stale: bool = False
    """Whether rules are among what we wrote since then, and not only sets that no rule looks into yet."""
    _missed: bool = False

    def hear(self) -> tuple[list[Change], bool]:
        """Take in what was announced; returns what is new, and whether announcements were missed."""
        new = self.watch.changes()
        self._changes += new
        missed, self.watch.doubt = self.watch.doubt, False
        if missed and self._written is not None and not self._stale:
            self._compare()
        elif missed:
            self._missed = True
        return new, missed

    def wrote(self, messages: Iterable[Message], *, rules: bool) -> None:
        """We are about to send these: what was read back before of what they are about holds no more.

        Args:
            messages: A transaction.
            rules: Whether it changes rules, and not only sets that none looks into, or that will hold what they held.
        """
        self._stale = self._stale or rules
        for message in messages:
            op = Op(message.kind & 0xFF)
            if op in _CHAINS:
                self._chains.add(a.string(a.table(message.payload)[_CHAINS[op]]))
            elif op in _SETS:
                self._sets.add(a.string(a.table(message.payload)[_SETS[op]]))

    def mended(self) -> None:
        """The shared rules were written anew, and attachments will be: what was heard so far is history."""
        self._changes.clear()
        self._found.clear()
        self._missed = False
        self._forget()

    def told(self) -> list[str]:
        """A sentence each for what is known; looks at the rules themselves where announcements were lost."""
        if self._missed:
            self._missed = False
            self._found.append(
                "so many rules were changed in so short a time that ours may be among them, by a process that is not known"
            )
        elif not self._changes and not self._found and self.watch.listening:
            self._read_anew()
        return [*sentences(self._changes), *self._found]

    def _forget(self) -> None:
        self._written, self._stale = None, False
        self._chains.clear()
        self._sets.clear()

    def _read_anew(self) -> None:
        """Write down what we wrote, as the kernel says it: with many attachments all of it takes a tenth of a second."""
        known = self._written
        if known is None:
            self._forget()
            self._written = self._read_back()
            return
        if not self._chains and not self._sets:
            return
        try:
            fresh = dict(self._digests())
        except KernelError as error:
            if error.number in _BUSY:
                return
            raise
        chains, sets = (f"chain {name}" for name in self._chains), (f"set {name}" for name in self._sets)
        for name in (*chains, *map(rules_of, self._chains), *sets):
            known.pop(name, None)
        self._forget()
        self._written = known | fresh

    def _digests(self) -> Iterator[tuple[str, bytes]]:
        for name in self._chains:
            yield from self.reader.chain_digests(name).items()
        for name in self._sets:
            yield from self.reader.set_digests(name).items()

    def _compare(self) -> None:
        before, now = self._written or {}, self._read_back() or {}
        # A set of ours that was not there before is one that we are making.
        names = sorted({*before, *(name for name in now if not _FILLING.match(name))})
        changed = [name for name in names if before.get(name) != now.get(name)]
        self._found += [
            f"{name} {'are not as we wrote them' if name.startswith('the rules') else 'is not as we wrote it'}"
            for name in changed
        ]

    def _read_back(self) -> dict[str, bytes] | None:
        try:
            return self.reader.digests()
        except KernelError as error:
            if error.number in _BUSY:
                return None
            raise


def touched_sets(changes: list[Change]) -> set[str] | None:
    """The sets whose content others changed; None: it may be any."""
    if any(change.op is Op.NEWTABLE for change in changes):
        return None
    return {change.name for change in changes if change.op in (Op.NEWSET, Op.NEWSETELEM)}
