"""The `Enforcer` over ipset and iptables: which steps are taken when.

What they write is in `layout`, `chains`, `ranges` and `learned`; `inside` takes the single steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy.attachment import Attachment, Refusal
from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.flow import PORTED, Address
from netpolicy.kernel import flows
from netpolicy.kernel.ipset import chains
from netpolicy.kernel.ipset import learned as elements
from netpolicy.kernel.ipset.chains import Enforced
from netpolicy.kernel.ipset.inside import Inside
from netpolicy.kernel.ipset.ranges import Looks
from netpolicy.kernel.ipset.script import OPENING, SHUTTING
from netpolicy.kernel.netlink import KernelError, refuse
from netpolicy.kernel.netns import Namespace
from netpolicy.kernel.nftables import learning
from netpolicy.kernel.nftables.learning import Alive, Entry
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.services import subtract


@dataclass(frozen=True, slots=True)
class Count:
    """What was refused."""

    packets: int
    bytes: int


class IpsetEnforcer:
    """Enforces rulesets by ipset's sets and rules in chains of iptables; see `netpolicy.attachment.Enforcer` for the contract.

    Needs CAP_NET_ADMIN and CAP_NET_RAW in the namespace, and the programs of iptables. Usable from any thread; calls wait
    for each other. The families are written one after the other: a kill in between leaves the old rules in one of them.

    Args:
        name: What chains and sets are named after. Enforcers with different names do not disturb each other.
        netns: The namespace to work in (a name, path or descriptor); None is our own.
        clock: For the lifetimes of what was learned, and the ends of rules.
    """

    backend = "ipset"

    def __init__(self, name: str = "netpolicy", netns: Namespace = None, *, clock: Clock | None = None) -> None:
        self._in = Inside(name, netns, clock or SystemClock())
        self._lock = threading.RLock()

    def close(self) -> None:
        """Release the sockets; the kernel's state stays."""
        self._in.close()

    def install(self, prefix: str | None) -> None:
        """Make the shared chains and jump to them first of all, and lock all interfaces whose name begins with `prefix`.

        Where they exist they are put in order in place, and attachments stay in force.
        """
        with self._doing("install the firewall"):
            if prefix is not None:
                chains.check_prefix(prefix)
            self._in.install(prefix)

    def uninstall(self) -> None:
        """Remove our chains, the jumps to them and our sets, and with them every attachment's rules."""
        with self._doing("remove the firewall"):
            self._in.uninstall()

    def attach(self, attachment: Attachment, dns_port: int | None) -> None:
        """Lock it: nothing passes, not even DNS, and the connections it has are cut."""
        with self._doing(what := f"lock {attachment.name}"):
            inside = self._in
            pictures, scripts = inside.placed(attachment)
            headers = inside.sets.headers()
            inside.stock.make_notes(attachment, headers)
            for version, script in scripts.items():
                inside.writer(attachment, version).lock(script)
            inside.write(attachment, scripts, SHUTTING)
            inside.applied.pop(attachment.id, None)
            if inside.disturbed(attachment.id):
                inside.stock.forget_learned(attachment.id, headers)
            inside.stock.forget_ranges({name for p in pictures.values() for name in p.sets(attachment.id)})
        with _refusing(what):
            flows.cut_all(inside.tracking, attachment, inside.own(attachment), inside.stock.bar)
        with self._doing(what):
            inside.cut(attachment.id)

    def apply(self, attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
        """Put a ruleset in force in place; what it still allows goes on undisturbed, what it no longer allows is cut.

        It needs no `attach` before it: a gate that starts again applies at once, so live connections survive.
        """
        with self._doing(what := f"apply the policy to {attachment.name}"):
            inside = self._in
            now = inside.clock.now()
            current = ruleset.at(now)
            pictures, scripts = inside.placed(attachment)
            mark = chains.mark(ruleset, dns_port)
            headers = inside.sets.headers()
            marks = {chains.mark_in(picture.first_rule(attachment.id)) for picture in pictures.values()}
            uncut = inside.disturbed(attachment.id) or inside.names.uncut(attachment.id) in headers
            same = current is ruleset and marks == {mark} and not uncut
            if not same:
                inside.stock.mark_uncut(attachment.id)
            inside.stock.make_notes(attachment, headers)
            looks = {version: Looks.of(current, version) for version in scripts}
            inside.stock.make_ranges((one for found in looks.values() for one in found.sets()), headers)
            known = inside.known(attachment.id, inside.stock.entries(attachment.id, headers))
            opened = learning.opened(current, known, now)
            sets = inside.stock.make_learned(attachment.id, current, headers, opened)
            for version, script in scripts.items():
                here = {slot: name for slot, name in sets.items() if slot.version == version}
                new = Enforced(current, mark, dns_port, looks[version], here)
                inside.writer(attachment, version).enforce(script, new)
            inside.write(attachment, scripts, OPENING)
            memory = inside.remember(attachment.id, current, known, sets)
            inside.stock.forget_learned(attachment.id, headers, sets.values())
            inside.stock.forget_ranges({name for p in pictures.values() for name in p.sets(attachment.id)})
        if not same:
            with _refusing(what):
                own = inside.own(attachment)
                flows.cut_withdrawn(inside.tracking, attachment, current, dns_port, memory, own, inside.stock.bar)
            with self._doing(what):
                inside.cut(attachment.id)

    def learn(self, attachment_id: str, learned: Sequence[Learned]) -> None:
        """Insert or refresh learned addresses; acknowledged by the kernel on return.

        Only what the ruleset in force allows is inserted: an answer that comes in after its name was withdrawn opens nothing.
        """
        with self._doing(f"learn addresses for {attachment_id}"):
            applied = self._in.applied.get(attachment_id)
            if applied is None:
                raise UserError("not-applied", f"no policy was applied to {attachment_id}", exit_status=Exit.CONFLICT)
            if applied.ruleset.mode == "off":
                return
            moment, now = self._in.clock.monotonic(), self._in.clock.now()
            ruleset = applied.ruleset = applied.ruleset.at(now)
            found: dict[Entry, Alive] = {}
            for one in learned:
                opened = learning.opened(ruleset, {one.address: {one.name: one.seconds}}, now)
                asked = {e: a for e, a in opened.items() if subtract((e.service,), one.services) != (e.service,)}
                if not asked:
                    continue
                applied.memory.note(one.address, one.name, moment + one.seconds)
                names = applied.memory.now(one.address, moment)
                for entry, alive in asked.items():
                    seconds = max(alive.seconds, found[entry].seconds if entry in found else 0.0)
                    found[entry] = Alive(seconds, names)
            self._in.sets.send(list(elements.refreshed(found, applied.sets)))

    def learned(self, attachment_id: str) -> list[tuple[Address, int, int, int, float]]:
        """The learned elements in force: (address, protocol, first port, last port, seconds left), sorted."""
        with self._doing(f"list what {attachment_id} has learned"):
            found = self._in.stock.entries(attachment_id, self._in.sets.headers()).items()
            rows = [(e.address, e.service.protocol, e.service.first, e.service.last, a.seconds) for e, a in found]
            return sorted(rows, key=lambda row: (row[0].version, *row[:4]))

    def detach(self, attachment_id: str) -> None:
        """Remove the attachment's rules. An interface with the locked prefix falls back to refusing everything.

        A namespace that was attached by its output is open then.
        """
        with self._doing(f"detach {attachment_id}"):
            self._in.detach(attachment_id)

    def attachments(self) -> list[str]:
        """The ids the kernel holds rules for, sorted."""
        with self._doing("list attachments"):
            return sorted(self._in.places())

    def refused(self, attachment_id: str | None = None) -> dict[str, Count]:
        """What each attachment's workload (or the one's) was refused since it was attached, by id."""
        with self._doing("read counters"):
            found = {}
            for held in self._in.places(lately=True):
                if attachment_id not in (None, held):
                    continue
                names = [self._in.names.counts(version, held) for version in self._in.rules.versions]
                rows = [one for name in names for one in self._in.sets.elements(name)]
                found[held] = Count(sum(one.packets for one in rows), sum(one.bytes for one in rows))
            return found

    def refusals(self, attachment_id: str) -> list[Refusal]:
        """The destinations that were refused in the last ten minutes, the most packets first."""
        with self._doing(f"list what {attachment_id} was refused"):
            found: dict[tuple[Address, int, int], int] = {}
            for version in self._in.rules.versions:
                for one in self._in.sets.elements(self._in.names.refusals(version, attachment_id)):
                    # Of messages of ICMP ipset takes type and code for a port.
                    key = ip_address(one.address), one.protocol, one.port if one.protocol in PORTED else 0
                    found[key] = found.get(key, 0) + one.packets
            rows = [Refusal(*key, packets) for key, packets in found.items()]
            return sorted(rows, key=lambda one: (-one.packets, one.address.packed, one.protocol, one.port))

    def in_force(self, attachment_id: str) -> str | None:
        """The id of the ruleset whose rules the kernel holds; None where it is locked, not attached, or differs by family."""
        with self._doing(f"read the policy of {attachment_id}"):
            rules = {picture.first_rule(attachment_id) for picture in self._in.rules.read().values()}
            found = {chains.ruleset_in(rule) for rule in rules}
            return found.pop() if len(found) == 1 else None

    def drifted(self) -> list[str]:
        """What other programs changed in our rules and sets since we wrote them, a sentence each.

        Over nf_tables the kernel's count of changes tells whether there is anything to compare; the older sort is compared once
        a second.
        """
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
