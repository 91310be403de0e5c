"""What others did to our table since we wrote it: heard as it happens (`drift`), read back where something was missed."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from netpolicy.kernel.netlink import KernelError
from netpolicy.kernel.nftables.drift import Change, Watch, sentences
from netpolicy.kernel.nftables.messages import Op
from netpolicy.kernel.nftables.reading import Reader

_FILLING = re.compile("set [nrw][46]_")
_BUSY = frozenset({errno.EINTR, errno.ENOENT})


@dataclass
class Tampering:
    """Keeps what is known of it until everything is written anew."""

    watch: Watch
    reader: Reader
    _changes: list[Change] = field(default_factory=list)
    _found: list[str] = field(default_factory=list)
    _written: Mapping[str, bytes] | None = None
    _missed: bool = False

    def hear(self) -> tuple[list[Change], bool]:
        """Take in what was announced; returns what is new, and whether announcements were missed."""
        new = self.watch.changes()
        self._changes += new
        missed, self.watch.doubt = self.watch.doubt, False
        if missed and self._written is not None:
            self._compare()
        elif missed:
            self._missed = True
        return new, missed

    def wrote(self) -> None:
        """We are about to change rules or sets: what was read back before holds no more."""
        self._written = None

    def mended(self) -> None:
        """The shared rules were written anew, and attachments will be: what was heard so far is history."""
        self._changes.clear()
        self._found.clear()
        self._missed = False
        self._written = None

    def told(self) -> list[str]:
        """A sentence each for what is known; looks at the rules themselves where announcements were lost."""
        if self._missed:
            self._missed = False
            self._found.append(
                "so many rules were changed in so short a time that ours may be among them, by a process that is not known"
            )
        elif self._written is None and not self._changes and not self._found and self.watch.listening:
            self._written = self._read_back()
        return [*sentences(self._changes), *self._found]

    def _compare(self) -> None:
        before, now = self._written or {}, self._read_back() or {}
        # A set of ours that was not there before is one that we are making.
        names = sorted({*before, *(name for name in now if not _FILLING.match(name))})
        changed = [name for name in names if before.get(name) != now.get(name)]
        self._found += [
            f"{name} {'are not as we wrote them' if name.startswith('the rules') else 'is not as we wrote it'}"
            for name in changed
        ]

    def _read_back(self) -> Mapping[str, bytes] | None:
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
