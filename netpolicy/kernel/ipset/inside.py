"""The steps of an `IpsetEnforcer`, and what it keeps in mind between them. Its callers hold its lock."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from netpolicy.attachment import Attachment
from netpolicy.clock import Clock
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import flows, netns
from netpolicy.kernel.ipset import chains
from netpolicy.kernel.ipset.chains import Writer
from netpolicy.kernel.ipset.layout import JUMPS, OWN_CHAINS, Place
from netpolicy.kernel.ipset.messages import Sets
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.owner import Owner
from netpolicy.kernel.ipset.reading import Picture
from netpolicy.kernel.ipset.rules import Pictures, Rules
from netpolicy.kernel.ipset.script import SHUTTING, Script
from netpolicy.kernel.ipset.stock import Stock
from netpolicy.kernel.netlink import Netlink
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import learning
from netpolicy.kernel.nftables.learning import Alive, Entry, Slot
from netpolicy.kernel.own import OwnAddresses
from netpolicy.ruleset import Ruleset

_KINDS: Final = {kind for tables in OWN_CHAINS.values() for kinds in tables.values() for kind in kinds}


@dataclass
class Applied:
    """What this process knows of an attachment beyond what the kernel holds."""

    ruleset: Ruleset
    """In force, without what had ended."""
    memory: flows.Memory = field(default_factory=flows.Memory)
    sets: dict[Slot, str] = field(default_factory=dict)
    """Where learned addresses go."""


class Inside:
    """What one enforcer has in one namespace."""

    def __init__(self, name: str, namespace: Namespace, clock: Clock) -> None:
        self.names = Names.of(name)
        self.clock = clock
        self.applied: dict[str, Applied] = {}
        self._namespace = None if namespace is None else netns.open_namespace(namespace)
        self._owner = Owner(name, self._namespace)
        self._link = Netlink(self._namespace)
        # Of its own: listing connections takes long on a busy host, learning must not wait.
        self.tracking = Netlink(self._namespace)
        self.sets = Sets(self._link)
        self.rules = Rules(self.names, self._namespace, self._link, clock)
        self._disturbed: set[str] = set()

    def close(self) -> None:
        """Release the sockets."""
        self._owner.release()
        self._link.close()
        self.tracking.close()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    @cached_property
    def stock(self) -> Stock:
        """Our sets."""
        return Stock(self.names, self.sets, self.rules.versions)

    # What others do

    def drifted(self) -> list[str]:
        """See the enforcer's."""
        return [*self.rules.look(), *self.stock.changed()]

    def disturbed(self, attachment_id: str) -> bool:
        """Whether others changed anything since the attachment was written."""
        return attachment_id in self._disturbed

    def _notice(self) -> None:
        """Keep in mind, for when it is written over, that others changed something."""
        if self.rules.changed() or self.stock.changed():
            self._disturbed |= self.rules.places.keys()

    # All of it

    def places(self, *, lately: bool = False) -> dict[str, Place]:
        """The attachments there are, by id; or those there were when we looked last."""
        pictures = self.rules.read() if not (lately and self.rules.seen) else self.rules.seen
        return {key: place for picture in pictures.values() for key, place in picture.places.items()}

    def install(self, prefix: str | None) -> None:
        """Put the shared rules in order: with a look at the way back to senders, where the kernel can."""
        self._owner.claim()
        self.sets.check()
        for looks_back in (True, False):
            pictures = self.rules.read()
            self._notice()
            scripts = self.rules.scripts(prefix, looks_back)
            for version, script in scripts.items():
                self._first(script, pictures[version])
                self._tidy(script, pictures[version])
            try:
                self.rules.write(scripts, ("raw", "security", "filter", "mangle", "nat"))
            except UserError as error:
                if prefix is None or not looks_back or "rpfilter" not in error.message:
                    raise
            else:
                break
        self.stock.forget_ranges(name for name, header in self.sets.headers().items() if not header.references)

    def _first(self, script: Script, picture: Picture) -> None:
        for table, builtin, kind in JUMPS:
            times, first = picture.jumps[table, builtin]
            if not (first and times == 1):
                script.first(table, builtin, self.names.shared(kind), times)

    def _tidy(self, script: Script, picture: Picture) -> None:
        """Remove chains that no attachment has: what a kill left, or somebody made."""
        known = {self.names.own(key, kind) for key in (*picture.places, *self.rules.places) for kind in _KINDS}
        for table, chain in picture.chains:
            if chain not in known and (table, chain) not in script.chains:
                script.remove(table, chain)

    def uninstall(self) -> None:
        """Take away all that is ours."""
        self.applied.clear()
        scripts = {}
        for version, picture in self.rules.read().items():
            script = scripts[version] = Script(version)
            for table, builtin, kind in JUMPS:
                script.without(table, builtin, self.names.shared(kind), picture.jumps[table, builtin][0])
            for table, chain in picture.chains:
                script.remove(table, chain)
        self.rules.write(scripts, SHUTTING)
        self.rules.forget()
        self.stock.forget_all()
        self._owner.release()

    # One attachment

    def own(self, attachment: Attachment) -> Container[bytes]:
        """The namespace's own addresses, where that matters."""
        return OwnAddresses(self._namespace) if attachment.hook == "output" else frozenset()

    def placed(self, attachment: Attachment) -> tuple[Pictures, dict[int, Script]]:
        """What there is, and the shared rules with the attachment in them.

        Raises:
            UserError: ``bad-attachment``, ``interface-taken``, or ``not-installed``.
        """
        chains.check(attachment)
        pictures = self.rules.read()
        self._notice()
        for picture in pictures.values():
            self._check(attachment, picture)
        first = next(iter(pictures.values()))
        place = Place(attachment.id, attachment.interface)
        scripts = self.rules.scripts(first.prefix, first.looks_back, {place.id: place})
        for version, picture in pictures.items():
            before = picture.places.get(place.id)
            if before is not None and before.hook != place.hook:
                self._remove(scripts[version], picture, before)
        return pictures, scripts

    def _check(self, attachment: Attachment, picture: Picture) -> None:
        if ("mangle", self.names.shared("fwd")) not in picture.chains:
            raise UserError("not-installed", "the shared rules are not there: install comes first")
        for place in (*picture.places.values(), *self.rules.places.values()):
            if place.id != attachment.id and place.interface == attachment.interface:
                what = f"interface {place.interface}" if place.interface else "the output of this namespace"
                raise UserError(
                    "interface-taken",
                    f"{what} belongs to attachment {place.id}, not to {attachment.id}",
                    exit_status=Exit.CONFLICT,
                )

    def writer(self, attachment: Attachment, version: int) -> Writer:
        """What writes its rules."""
        return Writer(self.names, attachment, version)

    def write(self, attachment: Attachment, scripts: Mapping[int, Script], order: Iterable[str]) -> None:
        """Write its rules, with the shared ones."""
        self.rules.write(scripts, tuple(order))
        self.rules.places[attachment.id] = Place(attachment.id, attachment.interface)

    def cut(self, attachment_id: str) -> None:
        """Its rules are written, and what is to be cut is cut."""
        self.stock.forget([self.names.uncut(attachment_id)])
        self._disturbed.discard(attachment_id)

    def detach(self, attachment_id: str) -> None:
        """Remove all of an attachment."""
        pictures = self.rules.read()
        first = next(iter(pictures.values()))
        scripts = self.rules.scripts(first.prefix, first.looks_back, {attachment_id: None})
        found = False
        for version, picture in pictures.items():
            for place in (picture.places.get(attachment_id), self.rules.places.get(attachment_id)):
                if place is not None:
                    found = True
                    self._remove(scripts[version], picture, place)
        if found:
            self.rules.write(scripts, SHUTTING)
        for memory in (self.applied, self.rules.places):
            memory.pop(attachment_id, None)
        self._disturbed.discard(attachment_id)
        self.stock.forget_all(attachment_id)
        self.stock.forget_ranges({name for picture in pictures.values() for name in picture.sets(attachment_id)})

    def _remove(self, script: Script, picture: Picture, place: Place) -> None:
        for table, kinds in OWN_CHAINS[place.hook].items():
            for kind in kinds:
                if (table, self.names.own(place.id, kind)) in picture.chains:
                    script.remove(table, self.names.own(place.id, kind))

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
        applied.memory.withdraw(ruleset.knows, moment, flows.kept_families(ruleset))
        return applied.memory
