"""The steps of an `NftablesEnforcer`, and what it keeps in mind between them. Its callers hold its lock."""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from netpolicy.attachment import Attachment
from netpolicy.clock import Clock
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import flows, netns
from netpolicy.kernel.conntrack import Entry as Connection
from netpolicy.kernel.netlink import KernelError, Message, Netlink
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import barring, chains, layout, learning, noting, output
from netpolicy.kernel.nftables.chains import Writer
from netpolicy.kernel.nftables.drift import Watch
from netpolicy.kernel.nftables.expressions import interface_key
from netpolicy.kernel.nftables.forward import Forward, dispatch_element
from netpolicy.kernel.nftables.layout import MAPS
from netpolicy.kernel.nftables.learning import Alive, Entry
from netpolicy.kernel.nftables.messages import Table, element
from netpolicy.kernel.nftables.output import Output
from netpolicy.kernel.nftables.rangesets import RangeSets, names_of
from netpolicy.kernel.nftables.reading import Reader
from netpolicy.kernel.nftables.tampering import Tampering, touched_sets
from netpolicy.kernel.own import OwnAddresses
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.services import subtract

#: Of a transaction of more bytes the kernel announces nothing to us: that would take it as long as the transaction itself.
_LOUD: Final = 1 << 15
#: The prefix of an empty chain that is there while connections of a policy that was put in force are still to be cut, so that
#: who starts after a kill in between cuts them.
UNCUT: Final = "cut_"
_PREFIXES: Final = tuple(dict.fromkeys((*Forward.PREFIXES, *Output.PREFIXES, UNCUT)))


@dataclass
class Applied:
    """What this process knows of an attachment beyond what the kernel holds."""

    ruleset: Ruleset
    """In force, without what had ended."""
    memory: flows.Memory = field(default_factory=flows.Memory)


@dataclass(frozen=True, slots=True)
class Before:
    """What the kernel held of an attachment before a policy is applied."""

    known: bool = False
    """Whether it has any rules, so that something may lead to them."""
    mark: str = ""
    """Empty also where connections are still to be cut."""
    ranges: frozenset[str] = frozenset()
    """The range sets its rules look into."""
    slots: frozenset[learning.Slot] = frozenset()
    learned: Mapping[Entry, Alive] = field(default_factory=dict)


class Inside:
    """One table of one namespace."""

    def __init__(self, table: Table, namespace: Namespace, clock: Clock, *, owned: bool) -> None:
        self.table = table
        self.clock = clock
        self.applied: dict[str, Applied] = {}
        self._namespace = None if namespace is None else netns.open_namespace(namespace)
        self._link = Netlink(self._namespace)
        # Of its own: listing connections takes long on a busy host, learning must not wait.
        self.tracking = Netlink(self._namespace)
        self.read = Reader(self._link, table)
        self._watch = Watch(table.name, self._link, self._namespace)
        self._tampering = Tampering(self._watch, self.read)
        self._owned = owned
        self._places: dict[str, Attachment] = {}
        self._held: dict[str, Before] = {}
        self.ranges = RangeSets(table, self.read, clock, self._fill)
        self._disturbances = 0
        self._written_after: dict[str, int] = {}

    def close(self) -> None:
        """Release the sockets."""
        self._link.close()
        self.tracking.close()
        self._watch.close()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    # What others do

    def listen(self) -> None:
        """Hear what others change from now on, and take in what they changed before we write again."""
        self._watch.start()
        self._hear()

    def drifted(self) -> list[str]:
        """See the enforcer's."""
        self._hear()
        return self._tampering.told()

    def disturbed(self, attachment_id: str) -> bool:
        """Whether others changed anything since the attachment was written."""
        return self._written_after.get(attachment_id, 0) != self._disturbances

    def written(self, attachment: Attachment) -> None:
        """All of the attachment is in the kernel as we want it."""
        self._places[attachment.id] = attachment
        self._written_after[attachment.id] = self._disturbances

    def locked(self, attachment_id: str) -> None:
        """An attachment that was unknown is locked: until others change something, the kernel need not be asked what it holds."""
        self._held[attachment_id] = Before(known=True)

    def enforced(self, attachment_id: str, ruleset: Ruleset) -> Before:
        """The same of one with a ruleset whose connections are still to be cut."""
        slots = frozenset(learning.slots(ruleset))
        held = self._held[attachment_id] = Before(known=True, ranges=frozenset(names_of(ruleset)), slots=slots)
        return held

    def settled(self, attachment_id: str, held: Before, mark: str) -> None:
        """Nothing is left to be cut, unless it was changed again meanwhile."""
        if self._held.get(attachment_id) is held:
            self._held[attachment_id] = replace(held, mark=mark)

    def _hear(self) -> None:
        changes, missed = self._tampering.hear()
        if changes or missed:
            self._disturbances += 1
            self.ranges.distrust(None if missed else touched_sets(changes))

    # The whole table

    def install(self, prefix: str | None) -> None:
        """Try what this kernel has, the best first: by trying, never by its version."""
        self.listen()
        strays = list(self._strays()) if self._disturbances else []
        for owned, can_look_back in ((True, True), (False, True), (True, False), (False, False)):
            if owned and not self._owned:
                continue
            try:
                messages = layout.install(self.table, prefix, owned=owned, can_look_back=can_look_back)
                self.commit([*messages, *strays])
            except KernelError as error:
                if error.number == errno.EPERM and self.read.owner() not in (0, self._link.number):
                    raise UserError(
                        "table-owned",
                        f"the table {self.table.name} belongs to another process that is running",
                        hint="There is one gate for each host. Stop the other one, or use another table.",
                        exit_status=Exit.CONFLICT,
                    ) from error
                if error.number not in (errno.ENOENT, errno.EOPNOTSUPP) or not (owned or can_look_back):
                    raise
            else:
                break
        self._tampering.mended()

    def uninstall(self) -> None:
        """Remove the table."""
        self.applied.clear()
        self._places.clear()
        self._held.clear()
        self.ranges.distrust(None)
        self._watch.close()
        self._tampering.mended()
        self._link.transaction([self.table.add(), self.table.delete()])  # so that it is there to be deleted

    def _strays(self) -> Iterator[Message]:
        """Take away what others put in (chains that none of us knows, and ways into our chains), and put back ways that are gone."""
        present = set(self.read.chains())
        for name, prefix in MAPS.items():
            held = self.read.dispatched(name)
            wanted = {p.interface: prefix + p.id for p in self._places.values() if p.hook == "forward"}
            for interface, chain in held.items():
                known = chain.removeprefix(prefix) in self._places or not chain.startswith(prefix)
                if known and wanted.get(interface) != chain:
                    yield from self.table.delete_elements(name, [element(interface_key(interface))])
            for interface, chain in wanted.items():
                if held.get(interface) != chain and chain in present:
                    yield from self.table.add_elements(name, [dispatch_element(interface, chain)])
        ours = {*layout.BASES, *layout.SHARED, *output.BASES}
        others = sorted(name for name in present if name not in ours and not name.startswith(_PREFIXES))
        yield from (self.table.flush(name) for name in others)
        yield from (self.table.delete_chain(name) for name in others)

    def commit(self, messages: Sequence[Message]) -> None:
        """Send one transaction that changes rules."""
        self._tampering.wrote(messages, rules=True)
        self._send(messages)

    def _fill(self, messages: Sequence[Message]) -> None:
        """Send one transaction that only makes sets: what was read back before still says how the rest was."""
        self._tampering.wrote(messages, rules=False)
        self._send(messages)

    def _send(self, messages: Sequence[Message]) -> None:
        size = sum(len(message.payload) for message in messages)
        with self._watch.deaf() if size > _LOUD else nullcontext():
            self._link.transaction(messages)
        if self._watch.doubt:
            self._hear()

    # One attachment

    def own(self, attachment: Attachment) -> Container[bytes]:
        """The namespace's own addresses, where that matters."""
        return OwnAddresses(self._namespace) if attachment.hook == "output" else frozenset()

    def bar(self, attachment: Attachment, doomed: Sequence[Connection]) -> None:
        """Keep the far ends of connections out that are about to be cut, where they could come in again."""
        if attachment.hook == "output":
            messages = list(barring.bar(self.table, attachment.id, doomed))
            try:
                self.commit(messages)
            except KernelError as error:
                if error.number != errno.ENFILE:
                    raise
                drained = [self.table.drain(barring.set_of(version, attachment.id)) for version in (4, 6)]
                self.commit([*drained, *messages])  # the oldest are forgotten

    def writer(self, attachment: Attachment) -> Writer:
        """What writes the attachment's rules.

        Raises:
            UserError: ``bad-attachment``, or ``interface-taken``.
        """
        chains.check(attachment)
        if attachment.hook == "output":
            holder = next(iter(self.read.comments("output")), None)
            if holder not in (None, "", attachment.id):
                raise UserError(
                    "interface-taken",
                    f"the output of this namespace belongs to attachment {holder}, not to {attachment.id}",
                    exit_status=Exit.CONFLICT,
                )
            return Output(self.table, attachment)
        writer = Forward(self.table, attachment)
        holder = self.read.dispatch_of("outbound", interface_key(attachment.interface))
        if holder not in (None, writer.chain("out_")):
            other = str(holder).removeprefix("out_")
            raise UserError(
                "interface-taken",
                f"interface {attachment.interface} belongs to attachment {other}, not to {attachment.id}",
                exit_status=Exit.CONFLICT,
            )
        return writer

    def before(self, writer: Writer) -> Before:
        """What the kernel holds of it, for which it is asked where we do not know: after a failure, and after what others did."""
        out, identifier = writer.chain("out_"), writer.attachment.id
        held = self._held.pop(identifier, None)
        if held is not None and not self.disturbed(identifier):
            return held
        if not self.known(writer):
            return Before()
        whole = not self.read.has_chain(writer.chain(UNCUT))
        mark = chains.mark_of(next(iter(self.read.comments(out)), "")) if whole else ""
        slots = self.read.slots(identifier)
        used = frozenset(self.read.ranges_in_use(out))
        # A process that has just started takes the kernel's word for what was learned, later ones remember.
        learned = {} if identifier in self.applied else self.read.learned(identifier, slots)
        return Before(True, mark, used, frozenset(slots), learned)

    def known(self, writer: Writer) -> bool:
        """Whether the kernel may hold anything of it; what exactly, it is asked the next time."""
        self._held.pop(writer.attachment.id, None)
        return self.disturbed(writer.attachment.id) or self.read.has_chain(writer.chain("out_"))

    def moved(self, writer: Writer, *, known: bool) -> Iterator[Message]:
        """Take away dispatch from an interface the attachment had before, if it was `known`."""
        attachment = writer.attachment
        if known and (self._places.get(attachment.id) != attachment or self.disturbed(attachment.id)):
            yield from self._undispatched({writer.chain(p) for p in MAPS.values()}, keep=attachment.interface)

    def prepare(self, attachment_id: str, ruleset: Ruleset) -> None:
        """Make the sets that no rule looks into yet, in a transaction before; fill those anew that somebody else may have changed."""
        self.ranges.prepare(ruleset, [slot.add(self.table, attachment_id) for slot in learning.slots(ruleset)])

    def relearned(self, attachment_id: str, ruleset: Ruleset, before: Before) -> Iterator[Message]:
        """Turn the learned elements in force into what the new ruleset makes of them.

        All of them are written anew: a listing of a set that is growing can leave elements out, which would stay.
        """
        needed = learning.slots(ruleset)
        yield from (self.table.drain(slot.name(attachment_id)) for slot in needed if slot in before.slots)
        wanted = learning.opened(ruleset, self._known(attachment_id, before), self.clock.now())
        yield from learning.inserted(self.table, attachment_id, wanted)

    def _known(self, attachment_id: str, before: Before) -> learning.Known:
        """What was learned, by our own memory; a process that has just started takes the kernel's."""
        applied = self.applied.get(attachment_id)
        if applied is not None:
            return applied.memory.alive(self.clock.monotonic())
        return {} if self.disturbed(attachment_id) else learning.known(before.learned)

    def dropped_slots(self, attachment_id: str, ruleset: Ruleset, before: Before) -> Iterator[Message]:
        """Remove learned sets that the new ruleset has no rules for (spans of ports that are gone)."""
        for slot in sorted(before.slots - set(learning.slots(ruleset)), key=str):
            yield self.table.delete_set(slot.name(attachment_id))

    def remember(self, attachment_id: str, ruleset: Ruleset, before: Before) -> flows.Memory:
        """Keep in mind what is in force now; returns what was ever learned."""
        moment = self.clock.monotonic()
        addresses = self._known(attachment_id, before)
        known = self.applied.get(attachment_id)
        applied = self.applied[attachment_id] = Applied(ruleset, known.memory if known else flows.Memory())
        if known is None:
            for address, names in addresses.items():
                for name, seconds in names.items():
                    applied.memory.note(address, name, moment + seconds)
        applied.memory.withdraw(ruleset.knows, moment, flows.kept_families(ruleset))
        return applied.memory

    def learn(self, attachment_id: str, applied: Applied, new: Sequence[Learned]) -> None:
        """Insert what the ruleset in force allows of it."""
        moment, now = self.clock.monotonic(), self.clock.now()
        ruleset = applied.ruleset = applied.ruleset.at(now)
        found: dict[Entry, Alive] = {}
        for one in new:
            opened = learning.opened(ruleset, {one.address: {one.name: one.seconds}}, now)
            asked = {e: a for e, a in opened.items() if subtract((e.service,), one.services) != (e.service,)}
            if not asked:
                continue
            applied.memory.note(one.address, one.name, moment + one.seconds)
            names = applied.memory.now(one.address, moment)
            for entry, alive in asked.items():
                seconds = max(alive.seconds, found[entry].seconds if entry in found else 0.0)
                found[entry] = Alive(seconds, names)
        self._link.transaction(learning.refreshed(self.table, attachment_id, found))

    def cut(self, writer: Writer) -> None:
        """The connections of what was withdrawn are cut."""
        try:
            self.commit([self.table.delete_chain(writer.chain(UNCUT))])
        except KernelError as error:
            if error.number != errno.ENOENT:  # another apply was quicker, or it was detached meanwhile
                raise

    def forget_learned(self, attachment_id: str) -> list[Message]:
        """Empty the sets of learned addresses."""
        return [self.table.drain(slot.name(attachment_id)) for slot in self.read.slots(attachment_id)]

    def detach(self, attachment_id: str) -> None:
        """Remove all of an attachment."""
        used = self.read.ranges_in_use(f"out_{attachment_id}")
        own = [prefix + attachment_id for prefix in _PREFIXES]
        chains_held, sets_held = self.read.chains(), self.read.sets()
        present = [name for name in own if name in chains_held]
        messages = list(self._undispatched(set(own)))
        if next(iter(self.read.comments("output")), None) == attachment_id:
            messages += output.remove(self.table, chains_held)
        messages += [self.table.flush(name) for name in present]
        messages += [self.table.delete_chain(name) for name in present]
        slots = [name for name in sets_held if learning.Slot.parse(name, attachment_id)]
        named = (kind.set_of(version, attachment_id) for kind in (noting, barring) for version in (4, 6))
        noted = [name for name in named if name in sets_held]
        messages += [self.table.delete_set(name) for name in (*slots, *noted)]
        if present:
            messages.append(self.table.delete_counter(chains.counter_of(attachment_id)))
        self._held.pop(attachment_id, None)
        self.commit(messages)
        for memory in (self.applied, self._places, self._written_after):
            memory.pop(attachment_id, None)
        self.ranges.forget(used)

    def _undispatched(self, targets: set[str], keep: str | None = None) -> Iterator[Message]:
        for name in MAPS:
            for interface, chain in self.read.dispatched(name).items():
                if chain in targets and interface != keep:
                    yield from self.table.delete_elements(name, [element(interface_key(interface))])
