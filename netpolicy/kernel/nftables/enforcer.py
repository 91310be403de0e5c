"""The `Enforcer` over nf_tables: which messages are sent when. What they say is in `layout`, `chains`, `ranges`, `learning`."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from netpolicy.attachment import Attachment
from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address
from netpolicy.kernel import flows
from netpolicy.kernel.netlink import KernelError, Message, Netlink, refuse
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import chains, layout, learning, ranges
from netpolicy.kernel.nftables.expressions import interface_key
from netpolicy.kernel.nftables.layout import MAPS
from netpolicy.kernel.nftables.learning import Alive, Entry
from netpolicy.kernel.nftables.messages import Table, element
from netpolicy.kernel.nftables.reading import Count, Reader
from netpolicy.ruleset import Learned, Ruleset


@dataclass
class _Applied:
    """What this process knows of an attachment beyond what the kernel holds."""

    ruleset: Ruleset
    memory: flows.Memory = field(default_factory=flows.Memory)


class NftablesEnforcer:
    """Enforces rulesets by one table ``inet <table>``; see `netpolicy.attachment.Enforcer` for the contract.

    Needs CAP_NET_ADMIN in the namespace, nothing else. Usable from any thread; calls wait for each other.

    Args:
        table: The table's name. Enforcers with different tables do not disturb each other.
        netns: The namespace to work in (a name, path or descriptor); None is our own.
        clock: For the lifetimes of what was learned.
    """

    backend = "nftables"

    def __init__(self, table: str = "netpolicy", netns: Namespace = None, *, clock: Clock | None = None) -> None:
        self._table = Table(table)
        self._link = Netlink(netns)
        self._tracking = Netlink(
            netns
        )  # of its own: listing connections takes long on a busy host, learning must not wait
        self._read = Reader(self._link, self._table)
        self._clock = clock or SystemClock()
        self._applied: dict[str, _Applied] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Release the sockets; the kernel's state stays."""
        self._link.close()
        self._tracking.close()

    def install(self, prefix: str | None) -> None:
        """Create the table with its base chains, and lock all interfaces whose name begins with `prefix`.

        Where the kernel can (Linux 6.9), the table is ours alone until `close`: ``nft flush ruleset`` passes it by, and a
        second enforcer is refused with ``table-owned``.
        Where the table exists the shared rules are put in order in place, and attachments stay in force.
        """
        with self._doing("install the firewall"):
            self._install(prefix)
            self._forget_ranges(self._read.sets())

    def uninstall(self) -> None:
        """Remove our table, and with it every attachment's rules."""
        with self._doing("remove the firewall"):
            self._applied.clear()
            self._link.transaction([self._table.add(), self._table.delete()])  # so that it is there to be deleted

    def attach(self, attachment: Attachment, dns_port: int | None) -> None:
        """Lock the interface: nothing passes, not even DNS, and the connections it has are cut."""
        with self._doing(what := f"lock {attachment.name}"):
            writer = self._writer(attachment)
            self._link.transaction([*writer.create(), *self._moved(writer), *writer.lock()])
            self._applied.pop(attachment.id, None)
        with _refusing(what):
            flows.cut_all(self._tracking, attachment)

    def apply(self, attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
        """Put a ruleset in force in place; what it still allows goes on undisturbed, what it no longer allows is cut.

        It needs no `attach` before it: a gate that starts again applies at once, so live connections survive.
        """
        with self._doing(what := f"apply the policy to {attachment.name}"):
            writer = self._writer(attachment)
            mark = writer.mark(ruleset, dns_port)
            before = self._mark_in_force(writer)
            used = self._read.ranges_in_use(writer.chain("out_"))
            self._prepare(attachment.id, ruleset)
            alive = self._read.learned(attachment.id)
            self._link.transaction(
                [
                    *writer.create(),
                    *self._moved(writer),
                    *self._relearn(attachment.id, ruleset, alive),
                    *writer.enforce(ruleset, dns_port),
                    *self._drop_slots(attachment.id, ruleset),
                ]
            )
            memory = self._remember(attachment.id, ruleset, alive)
            self._forget_ranges(used - {ranges.name_of(group.spans) for group in ruleset.groups})
        if before != mark:
            with _refusing(what):
                flows.cut_withdrawn(self._tracking, attachment, ruleset, dns_port, memory)

    def learn(self, attachment_id: str, learned: Sequence[Learned]) -> None:
        """Insert or refresh learned addresses; acknowledged by the kernel on return.

        Only what the ruleset in force allows is inserted: an answer that comes in after its name was withdrawn opens nothing.
        """
        with self._doing(f"learn addresses for {attachment_id}"):
            applied = self._applied.get(attachment_id)
            if applied is None:
                raise UserError("not-applied", f"no policy was applied to {attachment_id}", exit_status=Exit.CONFLICT)
            if applied.ruleset.mode == "off":
                return
            self._link.transaction(learning.refreshed(self._table, attachment_id, self._entries(applied, learned)))

    def learned(self, attachment_id: str) -> list[tuple[Address, int, int, int, float]]:
        """The learned elements in force: (address, protocol, first port, last port, seconds left), sorted."""
        with self._doing(f"list what {attachment_id} has learned"):
            found = self._read.learned(attachment_id).items()
            rows = [(e.address, e.service.protocol, e.service.first, e.service.last, a.seconds) for e, a in found]
            return sorted(rows, key=lambda row: (row[0].version, *row[:4]))

    def detach(self, attachment_id: str) -> None:
        """Remove the attachment's rules. An interface with the locked prefix falls back to refusing everything."""
        with self._doing(f"detach {attachment_id}"):
            used = self._read.ranges_in_use(f"out_{attachment_id}")
            own = [prefix + attachment_id for prefix in MAPS.values()]
            present = [name for name in self._read.chains() if name in own]
            slots = [name for name in self._read.sets() if learning.Slot.parse(name, attachment_id)]
            messages = list(self._undispatch(set(own)))
            messages += [self._table.flush(name) for name in present]
            messages += [self._table.delete_chain(name) for name in present]
            messages += [self._table.delete_set(name) for name in slots]
            if present:
                messages.append(self._table.delete_counter(chains.counter_of(attachment_id)))
            self._link.transaction(messages)
            self._applied.pop(attachment_id, None)
            self._forget_ranges(used)

    def attachments(self) -> list[str]:
        """The ids the kernel holds rules for, sorted."""
        with self._doing("list attachments"):
            return sorted(name.removeprefix("out_") for name in self._read.chains() if name.startswith("out_"))

    def refused(self) -> dict[str, Count]:
        """What each attachment's workload was refused since it was attached, by id."""
        with self._doing("read counters"):
            prefix = chains.counter_of("")
            found = self._read.counters().items()
            return {name.removeprefix(prefix): count for name, count in found if name.startswith(prefix)}

    def in_force(self, attachment_id: str) -> str | None:
        """The id of the ruleset whose rules the kernel holds; None where the interface is locked or not attached."""
        with self._doing(f"read the policy of {attachment_id}"):
            return chains.ruleset_of(next(iter(self._read.comments(f"out_{attachment_id}")), ""))

    # What follows is the steps of the above.

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        with self._lock, _refusing(what):
            yield

    def _install(self, prefix: str | None) -> None:
        """Try what this kernel has, the best first: by trying, never by its version."""
        for owned, can_look_back in ((True, True), (False, True), (True, False), (False, False)):
            try:
                messages = layout.install(self._table, prefix, owned=owned, can_look_back=can_look_back)
                return self._link.transaction(messages)
            except KernelError as error:
                if error.number == errno.EPERM and self._read.owner() not in (0, self._link.number):
                    raise UserError(
                        "table-owned",
                        f"the table {self._table.name} belongs to another process that is running",
                        hint="There is one gate for each host. Stop the other one, or use another table.",
                        exit_status=Exit.CONFLICT,
                    ) from error
                if error.number not in (errno.ENOENT, errno.EOPNOTSUPP) or not (owned or can_look_back):
                    raise
        return None

    def _writer(self, attachment: Attachment) -> chains.Writer:
        chains.check(attachment)
        holder = self._read.dispatched("outbound").get(attachment.interface)
        writer = chains.Writer(self._table, attachment)
        if holder not in (None, writer.chain("out_")):
            other = str(holder).removeprefix("out_")
            raise UserError(
                "interface-taken",
                f"interface {attachment.interface} belongs to attachment {other}, not to {attachment.id}",
                exit_status=Exit.CONFLICT,
            )
        return writer

    def _mark_in_force(self, writer: chains.Writer) -> str:
        return chains.mark_of(next(iter(self._read.comments(writer.chain("out_"))), ""))

    def _moved(self, writer: chains.Writer) -> Iterator[Message]:
        """Take away dispatch from an interface the attachment had before."""
        yield from self._undispatch({writer.chain(p) for p in MAPS.values()}, keep=writer.attachment.interface)

    def _undispatch(self, targets: set[str], keep: str | None = None) -> Iterator[Message]:
        for name in MAPS:
            for interface, chain in self._read.dispatched(name).items():
                if chain in targets and interface != keep:
                    yield from self._table.delete_elements(name, [element(interface_key(interface))])

    def _prepare(self, attachment_id: str, ruleset: Ruleset) -> None:
        """Make the sets that no rule looks into yet, in a transaction before."""
        messages = [slot.add(self._table, attachment_id) for slot in learning.slots(ruleset)]
        for name, spans in {ranges.name_of(group.spans): group.spans for group in ruleset.groups}.items():
            if not self._read.has_set(name):
                messages += ranges.make(spans, self._table)
        self._link.transaction(messages)

    def _relearn(self, attachment_id: str, ruleset: Ruleset, alive: dict[Entry, Alive]) -> Iterator[Message]:
        """Turn the learned elements in force into what the new ruleset makes of them."""
        wanted = learning.kept(ruleset, alive)
        needed = set(learning.slots(ruleset))
        for entry in alive:
            if entry not in wanted and entry.slot in needed:
                yield from self._table.delete_elements(entry.slot.name(attachment_id), [element(entry.key)])
        changed = {e: a for e, a in wanted.items() if e not in alive or alive[e].names != a.names}
        yield from learning.refreshed(self._table, attachment_id, changed)

    def _drop_slots(self, attachment_id: str, ruleset: Ruleset) -> Iterator[Message]:
        """Remove learned sets that the new ruleset has no rules for (spans of ports that are gone)."""
        needed = set(learning.slots(ruleset))
        for name in self._read.sets():
            slot = learning.Slot.parse(name, attachment_id)
            if slot is not None and slot not in needed:
                yield self._table.delete_set(name)

    def _remember(self, attachment_id: str, ruleset: Ruleset, alive: dict[Entry, Alive]) -> flows.Memory:
        known = self._applied.get(attachment_id)
        applied = self._applied[attachment_id] = _Applied(ruleset, known.memory if known else flows.Memory())
        moment = self._clock.monotonic()
        for entry, state in alive.items():
            for name in state.names:
                applied.memory.note(entry.address, name, moment + state.seconds)
        applied.memory.withdraw(ruleset.by_name, moment)
        return applied.memory

    def _entries(self, applied: _Applied, new: Iterable[Learned]) -> dict[Entry, Alive]:
        moment = self._clock.monotonic()
        found: dict[Entry, Alive] = {}
        for one in new:
            allowed = applied.ruleset.services_of(one.name)
            services = [s for s in one.services if s in allowed]
            if not services:
                continue
            applied.memory.note(one.address, one.name, moment + one.seconds)
            names = applied.memory.now(one.address, moment)
            for service in services:
                entry = Entry(one.address, service)
                seconds = max(one.seconds, found[entry].seconds if entry in found else 0.0)
                found[entry] = Alive(seconds, names)
        return found

    def _forget_ranges(self, candidates: Iterable[str]) -> None:
        """Remove range sets that no rule looks into any more."""
        known = {name for name in candidates if ranges.is_range_set(name)}
        if not known:
            return
        unused = known - self._read.ranges_in_use()
        try:
            self._link.transaction([self._table.delete_set(name) for name in sorted(unused)])
        except KernelError as error:
            if error.number not in (errno.EBUSY, errno.ENOENT):  # somebody else looks into it, or was quicker
                raise


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        refuse(error, f"cannot {what}")
