"""The names of our chains (at most 28 bytes) and sets (at most 31), and what they say. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from netpolicy.kernel.nftables.learning import Slot
from netpolicy.services import Service

#: Learned sets have one of two kinds of names, in turn: the rules of a policy are written beside those of the one before.
_TURNS = (("n", "w"), ("m", "v"))


@dataclass(frozen=True, slots=True)
class Names:
    """What one enforcer calls its objects."""

    tag: str

    @classmethod
    def of(cls, name: str) -> Names:
        """For an enforcer's name; the default one has the shortest tag."""
        return cls("np" if name == "netpolicy" else f"np{_digest(name)[:4]}")

    def shared(self, kind: str) -> str:
        """A chain that all attachments share, e.g. ``np-fwd``."""
        return f"{self.tag}-{kind}"

    def own(self, attachment_id: str, kind: str) -> str:
        """An attachment's chain, e.g. ``np-ab12-out``."""
        return f"{self.tag}-{attachment_id}-{kind}"

    def id_of(self, chain: str, kind: str) -> str | None:
        """The attachment whose chain of this kind it is."""
        head, tail = f"{self.tag}-", f"-{kind}"
        if chain.startswith(head) and chain.endswith(tail) and len(chain) > len(head) + len(tail):
            return chain[len(head) : -len(tail)]
        return None

    def is_chain(self, chain: str) -> bool:
        """Whether a chain is ours."""
        return chain.startswith(f"{self.tag}-")

    def is_set(self, name: str) -> bool:
        """Whether a set is ours."""
        return name.startswith((f"{self.tag}-", f"{self.tag}."))

    def ranges(self, kind: str, digest: str) -> str:
        """A static set of ranges, named after its content: ``np.r4.`` (networks) or ``np.p4.`` (with ports), and its hash."""
        return f"{self.tag}.{kind}.{digest[:20]}"

    def is_ranges(self, name: str) -> bool:
        """Whether a set is a static one."""
        return name.startswith((f"{self.tag}.r", f"{self.tag}.p"))

    @property
    def filling(self) -> str:
        """The set that is being filled; it gets its name when that is done."""
        return f"{self.tag}.filling"

    def counts(self, version: int, attachment_id: str) -> str:
        """The set whose counters say how many packets were refused."""
        return f"{self._sets(attachment_id)}c{version}"

    def refusals(self, version: int, attachment_id: str) -> str:
        """The set of destinations that were refused."""
        return f"{self._sets(attachment_id)}d{version}"

    def barred(self, version: int, attachment_id: str) -> str:
        """The set of far ends of connections of a namespace that were cut."""
        return f"{self._sets(attachment_id)}b{version}"

    def uncut(self, attachment_id: str) -> str:
        """The set that is there while connections are still to be cut, also after a kill."""
        return f"{self._sets(attachment_id)}u"

    def learned(self, slot: Slot, attachment_id: str, turn: int) -> str:
        """The set of a slot, e.g. ``np-ab12-n4`` or ``np-ab12-w4-06-1f40-1f4a``."""
        head, service = self._sets(attachment_id), slot.service
        if service is None:
            return f"{head}{_TURNS[turn][0]}{slot.version}"
        numbers = f"{service.protocol:02x}-{service.first:04x}-{service.last:04x}"
        return f"{head}{_TURNS[turn][1]}{slot.version}-{numbers}"

    def slot(self, name: str, attachment_id: str) -> tuple[Slot, int] | None:
        """Read a learned set's name: its slot and turn; None where it is not one of this attachment's."""
        head = self._sets(attachment_id)
        if not name.startswith(head):
            return None
        kind, *numbers = name.removeprefix(head).split("-")
        for turn, (single, span) in enumerate(_TURNS):
            if kind[:1] == single and not numbers:
                return Slot(int(kind[1:]), None), turn
            if kind[:1] == span and len(numbers) == 3:
                return Slot(int(kind[1:]), Service(*(int(number, 16) for number in numbers))), turn
        return None

    def is_of(self, name: str, attachment_id: str) -> bool:
        """Whether a set belongs to the attachment alone."""
        return name.startswith(self._sets(attachment_id))

    def _sets(self, attachment_id: str) -> str:
        short = attachment_id if len(attachment_id) <= 8 else _digest(attachment_id)[:8]
        return f"{self.tag}-{short}-"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
