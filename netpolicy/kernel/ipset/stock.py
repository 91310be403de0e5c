"""The sets of one enforcer: making, filling and forgetting them. None of it is a transaction, so no rule looks in before it is done."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from netpolicy.attachment import Attachment
from netpolicy.kernel.conntrack import Entry as Connection
from netpolicy.kernel.ipset import drift, learned, messages
from netpolicy.kernel.ipset.messages import Header, Sets, Type
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.ranges import RangeSet
from netpolicy.kernel.netlink import KernelError
from netpolicy.kernel.nftables import learning
from netpolicy.kernel.nftables.learning import Alive, Entry, Slot
from netpolicy.ruleset import Ruleset

_REFUSALS: Final = 4096
#: So many sets are asked for one by one, more with all others.
_FEW: Final = 16
_BARRED: Final = 16384
_SECONDS: Final = 600
_EVERYTHING: Final = {4: (bytes(4), b"\x80" + bytes(3)), 6: (bytes(16), b"\x80" + bytes(15))}
#: Rules look into the set: it is left for the next time.
_IN_USE: Final = frozenset({4100, 4108})
_THERE: Final = frozenset({17, 4103})
_FULL: Final = 4352


class Stock:
    """Our sets in one namespace."""

    def __init__(self, names: Names, sets: Sets, versions: Sequence[int]) -> None:
        self.names = names
        self.sets = sets
        self._versions = versions
        self._sizes: dict[str, int] = {}
        """How many elements the sets of ranges have."""

    def changed(self) -> list[str]:
        """What others changed in sets whose number of elements we know, a sentence each."""
        few = len(self._sizes) <= _FEW
        return list(drift.in_sets(self._sizes, self.sets.some(self._sizes) if few else self.sets.headers()))

    def make_notes(self, attachment: Attachment, headers: Mapping[str, Header]) -> None:
        """The sets that count and note what is refused; what exists stays, a count that was emptied counts again."""
        for version in self._versions:
            counts = self.names.counts(version, attachment.id)
            if counts not in headers:
                self.sets.send([messages.create(counts, Type.NET, version, limit=2, counters=True)])
            if counts not in headers or headers[counts].elements != 2:
                halves = [messages.element(half, length=1) for half in _EVERYTHING[version]]
                self.sets.send(list(messages.add(counts, halves)))
            refusals = self.names.refusals(version, attachment.id)
            if refusals not in headers:
                self.sets.send(
                    [messages.create(refusals, Type.IP_PORT, version, limit=_REFUSALS, seconds=_SECONDS, counters=True)]
                )
            barred = self.names.barred(version, attachment.id)
            if attachment.hook == "output" and barred not in headers:
                self.sets.send([messages.create(barred, Type.IP_PORT, version, limit=_BARRED, seconds=_SECONDS)])

    def bar(self, attachment: Attachment, doomed: Sequence[Connection]) -> None:
        """Keep the far ends of connections of a namespace out, which are about to be cut; the oldest are forgotten."""
        if attachment.hook != "output":
            return
        for version in self._versions:
            ends = {
                (entry.reply.source, entry.reply.protocol, entry.reply.source_port)
                for entry in doomed
                if len(entry.reply.source) == (4 if version == 4 else 16) and entry.reply.port
            }
            some = itertools.islice(ends, _BARRED // 2)
            packed = [messages.element(source, service=(protocol, port)) for source, protocol, port in some]
            name = self.names.barred(version, attachment.id)
            adding = list(messages.add(name, packed))
            try:
                self.sets.send(adding)
            except KernelError as error:
                if error.number != _FULL:
                    raise
                self.sets.send([messages.flush(name), *adding])

    def make_ranges(self, sets: Iterable[RangeSet], headers: Mapping[str, Header]) -> None:
        """The sets of ranges that are not there, or do not have as many elements as they should."""
        for name, wanted in {one.name(self.names): one for one in sets}.items():
            size = len(wanted.elements)
            if name not in headers or headers[name].elements != size:
                if self.names.filling in headers:
                    self.forget([self.names.filling])
                self.sets.send(list(wanted.fill(self.names.filling)))
                if name in headers:
                    self.sets.send([messages.swap(self.names.filling, name), messages.destroy(self.names.filling)])
                else:
                    self.sets.send([messages.rename(self.names.filling, name)])
            self._sizes[name] = size

    def make_learned(
        self, attachment_id: str, ruleset: Ruleset, headers: Mapping[str, Header], entries: Mapping[Entry, Alive]
    ) -> dict[Slot, str]:
        """New sets of learned addresses, beside those that rules look into, with these entries."""
        turns = dict.fromkeys(self._versions, 0)
        held = {name: known for name in headers if (known := self.names.slot(name, attachment_id))}
        for name, (slot, turn) in held.items():
            if headers[name].references:
                turns[slot.version] = 1 - turn
        slots = [slot for slot in learning.slots(ruleset) if slot.version in turns]
        found = {slot: self.names.learned(slot, attachment_id, turns[slot.version]) for slot in slots}
        left = [name for name, (slot, turn) in held.items() if turns.get(slot.version) == turn]
        self.sets.send([messages.destroy(name) for name in left])
        self.sets.send([learned.make(slot, name) for slot, name in found.items()])
        self.sets.send(list(learned.refreshed(entries, found)))
        return found

    def entries(self, attachment_id: str, names: Iterable[str]) -> dict[Entry, Alive]:
        """What the attachment has learned, out of its sets among these."""
        found: dict[Entry, Alive] = {}
        for name in names:
            slot = self.names.slot(name, attachment_id)
            if slot is not None:
                found.update(learned.read(slot[0], self.sets.elements(name)))
        return found

    def mark_uncut(self, attachment_id: str) -> None:
        """Connections are to be cut once the rules are written."""
        name = self.names.uncut(attachment_id)
        self.sets.send([messages.create(name, Type.IP, 4, limit=1)], ignore=_THERE)

    def forget_learned(self, attachment_id: str, names: Iterable[str], kept: Iterable[str] = ()) -> None:
        """Remove those of its learned sets among these that are not kept."""
        known = set(kept)
        self.forget(name for name in names if self.names.slot(name, attachment_id) and name not in known)

    def forget_ranges(self, names: Iterable[str]) -> None:
        """Remove those sets of ranges among these that no rule looks into any more."""
        self.forget(name for name in names if self.names.is_ranges(name))

    def forget_all(self, attachment_id: str | None = None) -> None:
        """Remove all sets, or those of one attachment alone."""
        headers = self.sets.headers()
        if attachment_id is None:
            self.forget(name for name in headers if self.names.is_set(name))
        else:
            self.forget(name for name in headers if self.names.is_of(name, attachment_id))

    def forget(self, sets: Iterable[str]) -> None:
        """Remove sets, but those that are in use."""
        for name in sets:
            try:
                self.sets.send([messages.destroy(name)])
            except KernelError as error:
                if error.number in _IN_USE:
                    continue
                if error.number != errno.ENOENT:
                    raise
            self._sizes.pop(name, None)
