"""The `Enforcer` over nf_tables: which messages are sent when.

What they say is in `layout`, `forward`, `output`, `ranges`, `learning` and `noting`; `inside` takes the single steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from netpolicy.attachment import Attachment, Refusal
from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address
from netpolicy.kernel import flows
from netpolicy.kernel.attributes import MalformedError
from netpolicy.kernel.netlink import KernelError, refuse
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import chains
from netpolicy.kernel.nftables.inside import UNCUT, Inside
from netpolicy.kernel.nftables.messages import Table
from netpolicy.kernel.nftables.rangesets import names_of
from netpolicy.kernel.nftables.reading import Count
from netpolicy.ruleset import Learned, Ruleset


class NftablesEnforcer:
    """Enforces rulesets by one table ``inet <table>``; see `netpolicy.attachment.Enforcer` for the contract.

    Needs CAP_NET_ADMIN in the namespace, nothing else. Usable from any thread; calls wait for each other.

    Args:
        table: The table's name. Enforcers with different tables do not disturb each other.
        netns: The namespace to work in (a name, path or descriptor); None is our own.
        clock: For the lifetimes of what was learned, and the ends of rules.
        owned: Whether to keep others from changing the table while we run, where the kernel can (Linux 6.9).
    """

    backend = "nftables"

    def __init__(
        self, table: str = "netpolicy", netns: Namespace = None, *, clock: Clock | None = None, owned: bool = True
    ) -> None:
        self._in = Inside(Table(table), netns, clock or SystemClock(), owned=owned)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Release the sockets; the kernel's state stays."""
        self._in.close()

    def install(self, prefix: str | None) -> None:
        """Create the table with its base chains, and lock all interfaces whose name begins with `prefix`.

        Where the kernel can (Linux 6.9), the table is ours alone until `close`: ``nft flush ruleset`` passes it by, and a
        second enforcer is refused with ``table-owned``.
        Where the table exists the shared rules are put in order in place, and attachments stay in force.
        """
        with self._doing("install the firewall"):
            self._in.install(prefix)
            self._in.ranges.forget(self._in.read.sets())

    def uninstall(self) -> None:
        """Remove our table, and with it every attachment's rules."""
        with self._doing("remove the firewall"):
            self._in.uninstall()

    def attach(self, attachment: Attachment, dns_port: int | None) -> None:
        """Lock it: nothing passes, not even DNS, and the connections it has are cut."""
        with self._doing(what := f"lock {attachment.name}"):
            inside = self._in
            inside.listen()
            writer = inside.writer(attachment)
            known = inside.known(writer)
            forgotten = inside.forget_learned(attachment.id) if inside.disturbed(attachment.id) else ()
            inside.commit([*writer.create(), *inside.moved(writer, known=known), *writer.lock(), *forgotten])
            inside.applied.pop(attachment.id, None)
            inside.written(attachment)
            if not known:
                inside.locked(attachment.id)
        with _refusing(what):
            flows.cut_all(inside.tracking, attachment, inside.own(attachment), inside.bar)

    def apply(self, attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
        """Put a ruleset in force in place; what it still allows goes on undisturbed, what it no longer allows is cut.

        It needs no `attach` before it: a gate that starts again applies at once, so live connections survive.
        """
        with self._doing(what := f"apply the policy to {attachment.name}"):
            inside = self._in
            inside.listen()
            current = ruleset.at(inside.clock.now())
            writer = inside.writer(attachment)
            before = inside.before(writer)
            mark = chains.mark(ruleset, dns_port)
            same = before.mark == mark and current is ruleset and not inside.disturbed(attachment.id)
            inside.prepare(attachment.id, current)
            inside.commit(
                [
                    *writer.create(),
                    *([] if same else [inside.table.add_chain(writer.chain(UNCUT))]),
                    *inside.moved(writer, known=before.known),
                    *inside.relearned(attachment.id, current, before),
                    *writer.enforce(current, mark, dns_port),
                    *inside.dropped_slots(attachment.id, current, before),
                ]
            )
            memory = inside.remember(attachment.id, current, before)
            inside.written(attachment)
            inside.ranges.forget(before.ranges - names_of(current))
            held = inside.enforced(attachment.id, current)
        if not same:
            with _refusing(what):
                own = inside.own(attachment)
                flows.cut_withdrawn(inside.tracking, attachment, current, dns_port, memory, own, inside.bar)
            with self._doing(what):
                inside.cut(writer)
        with self._lock:
            inside.settled(attachment.id, held, mark)

    def learn(self, attachment_id: str, learned: Sequence[Learned]) -> None:
        """Insert or refresh learned addresses; acknowledged by the kernel on return.

        Only what the ruleset in force allows is inserted: an answer that comes in after its name was withdrawn opens nothing.
        """
        with self._doing(f"learn addresses for {attachment_id}"):
            applied = self._in.applied.get(attachment_id)
            if applied is None:
                raise UserError("not-applied", f"no policy was applied to {attachment_id}", exit_status=Exit.CONFLICT)
            if applied.ruleset.mode != "off":
                self._in.learn(attachment_id, applied, learned)

    def learned(self, attachment_id: str) -> list[tuple[Address, int, int, int, float]]:
        """The learned elements in force: (address, protocol, first port, last port, seconds left), sorted."""
        with self._doing(f"list what {attachment_id} has learned"):
            found = self._in.read.learned(attachment_id).items()
            rows = [(e.address, e.service.protocol, e.service.first, e.service.last, a.seconds) for e, a in found]
            return sorted(rows, key=lambda row: (row[0].version, *row[:4]))

    def detach(self, attachment_id: str) -> None:
        """Remove the attachment's rules. An interface with the locked prefix falls back to refusing everything.

        A namespace that was attached by its output is open then.
        """
        with self._doing(f"detach {attachment_id}"):
            self._in.listen()
            self._in.detach(attachment_id)

    def attachments(self) -> list[str]:
        """The ids the kernel holds rules for, sorted."""
        with self._doing("list attachments"):
            return sorted(name.removeprefix("out_") for name in self._in.read.chains() if name.startswith("out_"))

    def refused(self, attachment_id: str | None = None) -> dict[str, Count]:
        """What each attachment's workload (or the one's) was refused since it was attached, by id."""
        with self._doing("read counters"):
            prefix, read = chains.counter_of(""), self._in.read
            found = (read.counters() if attachment_id is None else read.counter(prefix + attachment_id)).items()
            return {name.removeprefix(prefix): count for name, count in found if name.startswith(prefix)}

    def refusals(self, attachment_id: str) -> list[Refusal]:
        """The destinations that were refused in the last ten minutes, the most packets first."""
        with self._doing(f"list what {attachment_id} was refused"):
            found = self._in.read.refusals(attachment_id)
            return sorted(found, key=lambda one: (-one.packets, one.address.packed, one.protocol, one.port))

    def in_force(self, attachment_id: str) -> str | None:
        """The id of the ruleset whose rules the kernel holds; None where the interface is locked or not attached."""
        with self._doing(f"read the policy of {attachment_id}"):
            return chains.ruleset_of(next(iter(self._in.read.comments(f"out_{attachment_id}")), ""))

    def drifted(self) -> list[str]:
        """What other programs changed in our table since we wrote it: what, and who where the kernel says; a sentence each."""
        with self._doing("look for changes"):
            return self._in.drifted()

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        with self._lock, _refusing(what):
            yield


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        refuse(error, f"cannot {what}")
    except MalformedError as error:
        raise UserError("kernel-refused", f"cannot {what}: the kernel's answer cannot be read: {error}") from error
