"""One attachment's rules: what a `Ruleset` looks like in the kernel, at either hook. Pure: it makes messages and sends none.

Chains (ID is the attachment's id): ``out_ID`` judges what leaves, ``no_ID`` is where it is refused, or, with a policy that is
only observed, let go, ``note_ID`` counts it and notes its destination, ``dns_ID`` redirects DNS queries. `forward` and `output`
write the rest. All are rewritten in place in one transaction.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.kernel.netlink import Message
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables import learning, noting
from netpolicy.kernel.nftables.expressions import Meta
from netpolicy.kernel.nftables.messages import Table
from netpolicy.kernel.nftables.ranges import name_of
from netpolicy.ruleset import Network, RangeGroup, Ruleset
from netpolicy.services import EVERY, Service

Expressions = tuple[bytes, ...]
FAMILIES: Final = (4, 6)


def check(attachment: Attachment) -> None:
    """Refuse what cannot name kernel objects.

    Raises:
        UserError: ``bad-attachment``.
    """
    interface = attachment.interface
    if not re.fullmatch("[a-z0-9]{1,16}", attachment.id):
        problem = f"the id {attachment.id!r} is not 1 to 16 lower-case letters and digits"
    elif attachment.hook == "output" and interface:
        problem = f"at the output hook there is no interface, and {interface!r} is given"
    elif attachment.hook == "forward" and (not 1 <= len(interface.encode()) <= 15 or re.search(r"[/\s]", interface)):
        problem = f"{interface!r} is not an interface name (1 to 15 bytes, no slash, no space)"
    elif len({gateway.version for gateway in attachment.gateways}) < len(attachment.gateways):
        problem = "it has more than one gateway address in a family"
    else:
        return
    raise UserError("bad-attachment", f"cannot attach {attachment.name!r}: {problem}", exit_status=Exit.BAD_INPUT)


def counter_of(attachment_id: str) -> str:
    """The counter of what the workload was refused."""
    return f"refused_{attachment_id}"


def mark(ruleset: Ruleset, dns_port: int | None) -> str:
    """What the first rule's comment says of the ruleset in force."""
    return f"ruleset {ruleset.id} {ruleset.mode} dns {dns_port or 0}"


def mark_of(comment: str) -> str:
    """What `mark` wrote, out of the first rule's comment."""
    return comment.partition(" | ")[0]


def ruleset_of(comment: str) -> str | None:
    """The ruleset's id in the first rule's comment; None in a locked attachment's."""
    words = mark_of(comment).split()
    return words[1] if words[:1] == ["ruleset"] else None


@dataclass(frozen=True)
class Writer(ABC):
    """Writes the chains of one attachment."""

    table: Table
    attachment: Attachment

    PREFIXES: ClassVar[tuple[str, ...]]
    """Of the names of its chains."""
    PASS: ClassVar[str]
    """The shared chain for what is allowed."""
    REFUSE: ClassVar[str]
    """The shared chain for what is not."""

    @property
    def counter(self) -> str:
        """See `counter_of`."""
        return counter_of(self.attachment.id)

    def chain(self, prefix: str) -> str:
        """The full name of one of its chains."""
        return f"{prefix}{self.attachment.id}"

    def create(self) -> list[Message]:
        """Its chains, its counter and the sets that note refusals; what exists stays."""
        chains = [self.table.add_chain(self.chain(prefix)) for prefix in self.PREFIXES]
        return [*chains, self.table.add_counter(self.counter), *noting.add_sets(self.table, self.attachment.id)]

    def lock(self) -> list[Message]:
        """Rules that refuse everything, and dispatch to them."""
        return [*self._flush(), *self._noting(observed=False), *self._locked(), *self._dispatch(locked=True)]

    def enforce(self, ruleset: Ruleset, marked: str, dns_port: int | None) -> list[Message]:
        """Rules for a ruleset, and dispatch to them; `marked` is what the first rule says of it."""
        noting_rules = self._noting(observed=ruleset.mode == "observe")
        rules = self._enforced(ruleset, marked, dns_port)
        return [*self._flush(), *noting_rules, *rules, *self._dispatch(locked=False)]

    @abstractmethod
    def _locked(self) -> Iterator[Message]:
        """The rules of a locked attachment."""

    @abstractmethod
    def _enforced(self, ruleset: Ruleset, marked: str, dns_port: int | None) -> Iterator[Message]:
        """The rules for a ruleset."""

    @abstractmethod
    def _dispatch(self, *, locked: bool) -> Iterator[Message]:
        """What leads packets to its chains."""

    def _judge(self, ruleset: Ruleset) -> Iterator[Message]:
        """The policy itself, for what is nobody's reply and leaves for elsewhere."""
        if ruleset.mode == "off":
            yield self._rule("out_", e.goto(self.PASS), comment="the policy is off")
            return
        if not ruleset.ipv6:
            yield self._rule("out_", *e.family_is(6), e.goto(self.chain("no_")), comment="IPv6 is off")
        for group in ruleset.denied_groups:
            for match in _in_group(group, denied=True):
                yield self._rule("out_", *match, e.goto(self.chain("no_")), comment="denied")
        for slot in learning.slots(ruleset):
            for protocol in learning.single_protocols(ruleset) if slot.service is None else (None,):
                yield self._rule("out_", *_slot_match(slot, protocol, self.attachment.id), e.goto(self.PASS))
        for group in ruleset.groups:
            for match in _in_group(group):
                yield self._rule("out_", *match, e.goto(self.PASS))
        yield self._rule("out_", e.goto(self.chain("no_")))

    def _noting(self, *, observed: bool) -> Iterator[Message]:
        yield self._rule("note_", e.count(self.counter))
        for expressions in noting.rules(self.attachment.id):
            yield self._rule("note_", *expressions)
        yield self._rule("no_", e.jump(self.chain("note_")))
        yield self._rule("no_", e.goto(self.PASS if observed else self.REFUSE), comment="observed" if observed else "")

    def _refuse(self, prefix: str) -> Iterator[Message]:
        """What no policy opens, and none that is only observed lets go."""
        yield self._rule(prefix, e.jump(self.chain("note_")))
        yield self._rule(prefix, e.goto(self.REFUSE))

    def _networks(self, version: int) -> tuple[Network, ...]:
        return tuple(n for n in self.attachment.networks if n.version == version)

    def _rule(self, prefix: str, *expressions: bytes | tuple[bytes, ...], comment: str = "") -> Message:
        return self.table.add_rule(self.chain(prefix), *expressions, comment=comment)

    def _comment(self, state: str) -> str:
        return f"{state} | {self.attachment.name}"

    def _flush(self) -> list[Message]:
        return [self.table.flush(self.chain(prefix)) for prefix in self.PREFIXES]


def service_match(service: Service) -> Expressions:
    """A packet is of the service."""
    if not learning.has_port(service):
        return e.protocol_is(service.protocol)
    return (*e.protocol_is(service.protocol), *e.port_between(service.first, service.last))


def _in_group(group: RangeGroup, *, denied: bool = False) -> Iterator[Expressions]:
    """Conditions, one of which holds for a packet to the group's addresses with its services.

    A denial of every service is also one of the protocols that no rule can name; what opens every service opens none of these.
    """
    family = e.family_is(group.version)
    look = e.load_destination(group.version), e.lookup(name_of(group))
    if denied and group.services == EVERY:
        yield (*family, *look)
        return
    for service in group.services:
        yield (*family, *service_match(service), *look)


def _slot_match(slot: learning.Slot, protocol: int | None, attachment_id: str) -> Expressions:
    words = 1 if slot.version == 4 else 4
    head = e.family_is(slot.version)
    look = e.lookup(slot.name(attachment_id))
    if slot.service is not None:
        return (*head, *service_match(slot.service), e.load_destination(slot.version), look)
    assert protocol is not None
    port = e.R + words + 1
    return (
        *head,
        *e.protocol_is(protocol),
        e.load_destination(slot.version),
        e.meta(Meta.L4PROTO, e.R + words),
        e.payload(2, 2, 2, port),
        look,
    )
