"""The steps of an `IpsetEnforcer`, and what it keeps in mind between them. Its callers hold its lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from netpolicy.attachment import Attachment
from netpolicy.clock import Clock
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import attributes as a
from netpolicy.kernel import flows, netns
from netpolicy.kernel.conntrack import Entry as Connection
from netpolicy.kernel.ipset import chains, drift, learned, messages, programs
from netpolicy.kernel.ipset.chains import OWN_CHAINS, Writer
from netpolicy.kernel.ipset.layout import JUMPS, Layout, Place
from netpolicy.kernel.ipset.messages import Header, Sets, Type
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.owner import Owner
from netpolicy.kernel.ipset.programs import Programs
from netpolicy.kernel.ipset.ranges import RangeSet
from netpolicy.kernel.ipset.reading import Picture
from netpolicy.kernel.ipset.script import Script
from netpolicy.kernel.netlink import SUBSYSTEM_NFTABLES, Message, Netlink
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import learning
from netpolicy.kernel.nftables.learning import Alive, Entry, Slot
from netpolicy.kernel.own import OwnAddresses
from netpolicy.ruleset import Ruleset

_GENERATION: Final = SUBSYSTEM_NFTABLES << 8 | 16  # NFT_MSG_GETGEN
_REFUSALS: Final = 4096
_REFUSAL_SECONDS: Final = 600
_BARRED: Final = 16384
_EVERYTHING: Final = {4: (bytes(4), b"\x80" + bytes(3)), 6: (bytes(16), b"\x80" + bytes(15))}
#: How often the older sort of iptables, which does not count its changes, is read for changes: in seconds.
_SELDOM: Final = 0.9
#: A set that is gone already, or in use: it is left for the next time.
_IN_USE: Final = frozenset({2, 4100, 4108})
_THERE: Final = frozenset({17, 4103})
_FULL: Final = frozenset({4352})


@dataclass
class Applied:
    """What this process knows of an attachment beyond what the kernel holds."""

    ruleset: Ruleset
    """In force, without what had ended."""
    memory: flows.Memory = field(default_factory=flows.Memory)
    sets: dict[Slot, str] = field(default_factory=dict)
    """Where learned addresses go."""


@dataclass
class Written:
    """What there was when we had written last."""

    pictures: Mapping[int, Picture]
    sizes: dict[str, int]
    """Elements of the sets that only we change."""
    generation: int | None
    """The kernel's count of changes to nf_tables; None where the rules are not in there."""


class Inside:
    """The rules of one name in one namespace."""

    def __init__(self, name: str, namespace: Namespace, clock: Clock) -> None:
        self.names = Names.of(name)
        self.clock = clock
        self.applied: dict[str, Applied] = {}
        self.namespace = None if namespace is None else netns.open_namespace(namespace)
        self.owner = Owner(name, self.namespace)
        self._link = Netlink(self.namespace)
        # Of its own: listing connections takes long on a busy host, learning must not wait.
        self.tracking = Netlink(self.namespace)
        self.sets = Sets(self._link)
        self._written: Written | None = None
        self._seen: Mapping[int, Picture] = {}
        """What there was when we looked last."""
        self._disturbed: set[str] = set()
        self._sent: dict[int, dict[tuple[str, str], tuple[list[str], tuple[str, ...]]]] = {}
        """By family, table and chain: the rules we wrote last, and how they read back."""
        self._compared: tuple[float, int, tuple[str, ...]] = (0.0, -1, ())
        """When the rules were compared last, at which count of changes, and what was found."""

    def close(self) -> None:
        """Release the sockets."""
        self.owner.release()
        self._link.close()
        self.tracking.close()
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None

    @cached_property
    def programs(self) -> Programs:
        """The iptables programs that this host has."""
        return programs.choose(self.namespace, self.names.shared("fwd"))

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """The address families that this kernel has."""
        return programs.families()

    # Reading

    def pictures(self) -> Mapping[int, Picture]:
        """What iptables holds now."""
        written = self._written
        if written is None or written.generation is None or written.generation != self._generation():
            self._seen = self._read()
        return self._seen

    def disturbed(self, attachment_id: str) -> bool:
        """Whether others changed anything since the attachment was written."""
        return attachment_id in self._disturbed

    def _notice(self) -> None:
        """Keep in mind, for when it is written over, that others changed something."""
        written = self._written
        if written is None:
            return
        changed = any(True for v in self.versions for _ in drift.in_rules(v, written.pictures[v], self._seen[v]))
        if changed or any(True for _ in drift.in_sets(written.sizes, self.sets.headers())):
            self._disturbed |= {key for picture in written.pictures.values() for key in picture.places}

    def places(self) -> dict[str, Place]:
        """The attachments, by id: those that we wrote, or else those that somebody did."""
        pictures = self.pictures() if self._written is None else self._written.pictures
        return {key: place for picture in pictures.values() for key, place in picture.places.items()}

    def entries(self, attachment_id: str) -> dict[Entry, Alive]:
        """What the attachment has learned."""
        found: dict[Entry, Alive] = {}
        for name in self.sets.headers():
            slot = self.names.slot(name, attachment_id)
            if slot is not None:
                found.update(learned.read(slot[0], self.sets.elements(name)))
        return found

    def own(self, attachment: Attachment) -> Container[bytes]:
        """The namespace's own addresses, where that matters."""
        return OwnAddresses(self.namespace) if attachment.hook == "output" else frozenset()

    def _read(self) -> dict[int, Picture]:
        return {version: Picture.read(self.names, self.programs.save(version)) for version in self.versions}

    def _generation(self) -> int | None:
        if self.programs.sort != "nft":
            return None
        row = self._link.get(Message(_GENERATION, b"", "ask for the count of changes"))
        return a.number(a.table(row or b"").get(1, b""))

    # Writing

    def write(self, scripts: Mapping[int, Script], order: Sequence[str]) -> None:
        """Carry out scripts, the families one after the other, and keep in mind what there is then.

        Chains that we wrote the same before, and that were as we wrote them when we looked, are left as they are.
        """
        self._written = None
        try:
            for version, script in scripts.items():
                seen = self._seen[version].chains
                for key, (rules, saved) in self._sent.get(version, {}).items():
                    if seen.get(key) == saved:
                        script.leave(*key, rules)
                if text := script.text(order):
                    self.programs.restore(version, text)
        finally:
            generation = self._generation()
            sizes = {name: header.elements for name, header in self.sets.headers().items() if self._only_ours(name)}
            self._seen = self._read()
            self._written = Written(self._seen, sizes, generation)
            self._compared = (0.0, -1, ())
        for version, script in scripts.items():
            sent = self._sent.setdefault(version, {})
            sent |= {key: (rules, self._seen[version].chains.get(key, ())) for key, rules in script.chains.items()}
            self._sent[version] = {key: value for key, value in sent.items() if key in self._seen[version].chains}

    def scripts(
        self, prefix: str | None, pictures: Mapping[int, Picture], change: Mapping[str, Place | None], looks_back: bool
    ) -> dict[int, Script]:
        """The shared rules, with some attachments put in (or, with None, left out)."""
        found = {}
        for version, picture in pictures.items():
            places = {**picture.places, **change}
            here = [place for place in places.values() if place is not None]
            script = found[version] = Script(version)
            Layout(self.names, version, prefix, looks_back, here).write(script)
        return found

    def install(self, prefix: str | None) -> None:
        """Put the shared rules in order: with a look at the way back to senders, where the kernel can."""
        self.owner.claim()
        self.sets.check()
        self._sent.clear()
        self._seen = self._read()
        self._notice()
        for looks_back in (True, False):
            pictures = self._seen = self._read()
            scripts = self.scripts(prefix, pictures, {}, looks_back)
            for version, script in scripts.items():
                picture = pictures[version]
                for table, builtin, kind in JUMPS:
                    times, first = picture.jumps[table, builtin]
                    if not (first and times == 1):
                        script.first(table, builtin, self.names.shared(kind), times)
                known = {self.names.own(key, kind) for key in picture.places for kind in _KINDS}
                for table, chain in picture.chains:
                    if chain.count("-") > 1 and chain not in known:
                        script.remove(table, chain)
            try:
                return self.write(scripts, ("raw", "security", "filter", "mangle", "nat"))
            except UserError as error:
                if prefix is None or not looks_back or "rpfilter" not in error.message:
                    raise
        return None

    def uninstall(self) -> None:
        """Take away all that is ours."""
        self.applied.clear()
        scripts = {}
        self._sent.clear()
        self._seen = self._read()
        for version, picture in self._seen.items():
            script = scripts[version] = Script(version)
            for table, builtin, kind in JUMPS:
                script.without(table, builtin, self.names.shared(kind), picture.jumps[table, builtin][0])
            for table, chain in picture.chains:
                script.remove(table, chain)
        self.write(scripts, ("mangle", "filter", "security", "raw", "nat"))
        self.forget(name for name in self.sets.headers() if self.names.is_set(name))
        self._written = None
        self.owner.release()

    def placed(self, attachment: Attachment) -> tuple[Mapping[int, Picture], dict[int, Script]]:
        """What there is, and the shared rules with the attachment in them.

        Raises:
            UserError: ``bad-attachment``, ``interface-taken``, or ``not-installed``.
        """
        chains.check(attachment)
        pictures = self.pictures()
        self._notice()
        for picture in pictures.values():
            if ("mangle", self.names.shared("fwd")) not in picture.chains:
                raise UserError("not-installed", "the shared rules are not there: install comes first")
            for place in picture.places.values():
                if place.id != attachment.id and place.interface == attachment.interface:
                    what = f"interface {place.interface}" if place.interface else "the output of this namespace"
                    raise UserError(
                        "interface-taken",
                        f"{what} belongs to attachment {place.id}, not to {attachment.id}",
                        exit_status=Exit.CONFLICT,
                    )
        first = next(iter(pictures.values()))
        place = Place(attachment.id, attachment.interface)
        scripts = self.scripts(first.prefix, pictures, {place.id: place}, first.looks_back)
        for version, picture in pictures.items():
            before = picture.places.get(place.id)
            if before is not None and before.hook != place.hook:
                self._remove(scripts[version], picture, before)
        return pictures, scripts

    def writer(self, attachment: Attachment, version: int) -> Writer:
        """What writes its rules."""
        return Writer(self.names, attachment, version)

    def detach(self, attachment_id: str) -> None:
        """Remove all of an attachment."""
        pictures = self.pictures()
        first = next(iter(pictures.values()))
        scripts = self.scripts(first.prefix, pictures, {attachment_id: None}, first.looks_back)
        found = False
        for version, picture in pictures.items():
            place = picture.places.get(attachment_id)
            if place is not None:
                found = True
                self._remove(scripts[version], picture, place)
        if found:
            self.write(scripts, ("mangle", "filter", "security", "raw", "nat"))
        self.applied.pop(attachment_id, None)
        self.forget(name for name in self.sets.headers() if self.names.is_of(name, attachment_id))
        self.forget_ranges()

    def _remove(self, script: Script, picture: Picture, place: Place) -> None:
        for table, kinds in OWN_CHAINS[place.hook].items():
            for kind in kinds:
                if (table, self.names.own(place.id, kind)) in picture.chains:
                    script.remove(table, self.names.own(place.id, kind))

    # Sets

    def make_notes(self, attachment: Attachment, headers: Mapping[str, Header]) -> None:
        """The sets that count and note what is refused; what exists stays, a count that was emptied counts again."""
        attachment_id = attachment.id
        for version in self.versions:
            counts = self.names.counts(version, attachment_id)
            if counts not in headers:
                self.sets.send([messages.create(counts, Type.NET, version, limit=2, counters=True)])
            if counts not in headers or headers[counts].elements != 2:
                halves = [messages.element(half, length=1) for half in _EVERYTHING[version]]
                self.sets.send(list(messages.add(counts, halves)))
            refusals = self.names.refusals(version, attachment_id)
            if refusals not in headers:
                made = messages.create(
                    refusals, Type.IP_PORT, version, limit=_REFUSALS, seconds=_REFUSAL_SECONDS, counters=True
                )
                self.sets.send([made])
            barred = self.names.barred(version, attachment_id)
            if attachment.hook == "output" and barred not in headers:
                made = messages.create(barred, Type.IP_PORT, version, limit=_BARRED, seconds=_REFUSAL_SECONDS)
                self.sets.send([made])

    def bar(self, attachment: Attachment, doomed: Sequence[Connection]) -> None:
        """Keep the far ends of connections of a namespace out, which are about to be cut."""
        if attachment.hook != "output":
            return
        for version in self.versions:
            ends = {
                (entry.reply.source, entry.reply.protocol, entry.reply.source_port)
                for entry in doomed
                if len(entry.reply.source) == (4 if version == 4 else 16) and entry.reply.port
            }
            some = itertools.islice(ends, _BARRED // 2)
            packed = [messages.element(source, service=(protocol, port)) for source, protocol, port in some]
            name = self.names.barred(version, attachment.id)
            self.sets.send(list(messages.add(name, packed)), ignore=_FULL)

    def make_ranges(self, sets: Iterable[RangeSet], headers: Mapping[str, Header]) -> None:
        """The sets of ranges that are not there, or do not have as many elements as they should."""
        for name, wanted in {one.name(self.names): one for one in sets}.items():
            if name in headers and headers[name].elements == len(wanted.elements):
                continue
            if self.names.filling in headers:
                self.forget([self.names.filling])
            self.sets.send(list(wanted.fill(self.names.filling)))
            if name in headers:
                self.sets.send([messages.swap(self.names.filling, name), messages.destroy(self.names.filling)])
            else:
                self.sets.send([messages.rename(self.names.filling, name)])

    def make_learned(
        self, attachment_id: str, ruleset: Ruleset, headers: Mapping[str, Header], entries: Mapping[Entry, Alive]
    ) -> dict[Slot, str]:
        """New sets of learned addresses, beside those that rules look into, with these entries."""
        turns = dict.fromkeys(self.versions, 0)
        for name, header in headers.items():
            known = self.names.slot(name, attachment_id)
            if known is not None and header.references:
                turns[known[0].version] = 1 - known[1]
        slots = [slot for slot in learning.slots(ruleset) if slot.version in turns]
        found = {slot: self.names.learned(slot, attachment_id, turns[slot.version]) for slot in slots}
        left = [
            name
            for name in headers
            if (known := self.names.slot(name, attachment_id)) and known[1] == turns[known[0].version]
        ]
        self.sets.send([messages.destroy(name) for name in left])
        self.sets.send([learned.make(slot, name) for slot, name in found.items()])
        self.sets.send(list(learned.refreshed(entries, found)))
        return found

    def mark_uncut(self, attachment_id: str) -> None:
        """Connections are to be cut once the rules are written."""
        name = self.names.uncut(attachment_id)
        self.sets.send([messages.create(name, Type.IP, 4, limit=1)], ignore=_THERE)

    def cut(self, attachment_id: str) -> None:
        """What is to be cut is cut."""
        self.forget([self.names.uncut(attachment_id)])
        self._disturbed.discard(attachment_id)

    def forget_learned(self, attachment_id: str, kept: Iterable[str]) -> None:
        """Remove the learned sets that no rule looks into any more."""
        known = set(kept)
        self.forget(name for name in self.sets.headers() if self.names.slot(name, attachment_id) and name not in known)

    def forget_ranges(self) -> None:
        """Remove the sets of ranges that no rule looks into any more."""
        headers = self.sets.headers()
        self.forget(name for name, h in headers.items() if self.names.is_ranges(name) and not h.references)

    def forget(self, sets: Iterable[str]) -> None:
        """Remove sets, but those that are in use."""
        for name in sets:
            self.sets.send([messages.destroy(name)], ignore=_IN_USE)
            if self._written is not None:
                self._written.sizes.pop(name, None)

    def _only_ours(self, name: str) -> bool:
        kind = name.rpartition("-")[2]
        return self.names.is_ranges(name) or (self.names.is_set(name) and kind in ("c4", "c6"))

    # What others do

    def drifted(self) -> list[str]:
        """See the enforcer's."""
        written = self._written
        if written is None:
            return []
        sets = drift.in_sets(written.sizes, self.sets.headers())
        return [*self._drifted_rules(written), *sets]

    def _drifted_rules(self, written: Written) -> tuple[str, ...]:
        generation = self._generation()
        then, seen, found = self._compared
        moment = self.clock.monotonic()
        if generation is not None and generation in (written.generation, seen):
            return found
        if generation is None and seen == 0 and moment - then < _SELDOM:
            return found
        now = self._read()
        found = tuple(sentence for v in self.versions for sentence in drift.in_rules(v, written.pictures[v], now[v]))
        self._compared = (moment, generation or 0, found)
        return found

    # One attachment

    def known(self, attachment_id: str, entries: Mapping[Entry, Alive]) -> learning.Known:
        """What was learned, by our own memory; a process that has just started takes the kernel's."""
        applied = self.applied.get(attachment_id)
        return applied.memory.alive(self.clock.monotonic()) if applied is not None else learning.known(entries)

    def remember(
        self, attachment_id: str, ruleset: Ruleset, known: learning.Known, sets: dict[Slot, str]
    ) -> flows.Memory:
        """Keep in mind what is in force now; returns what was ever learned."""
        moment = self.clock.monotonic()
        before = self.applied.get(attachment_id)
        applied = self.applied[attachment_id] = Applied(ruleset, before.memory if before else flows.Memory(), sets)
        if before is None:
            for address, names in known.items():
                for name, seconds in names.items():
                    applied.memory.note(address, name, moment + seconds)
        applied.memory.withdraw(ruleset.knows, moment)
        return applied.memory


_KINDS: Final = {kind for tables in OWN_CHAINS.values() for kinds in tables.values() for kind in kinds}
