"""What the kernel holds of our table: listings over netlink, as plain values."""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netpolicy.attachment import Refusal
from netpolicy.kernel import attributes as a
from netpolicy.kernel.netlink import KernelError, Message, Netlink
from netpolicy.kernel.nftables import learning, noting
from netpolicy.kernel.nftables.messages import Op, SetFlag, Table, comment_of, element
from netpolicy.kernel.nftables.ranges import RANGE_SET


@dataclass(frozen=True, slots=True)
class Count:
    """A named counter."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Reader:
    """Asks for what is in the table. A table that does not exist has nothing in it."""

    link: Netlink
    table: Table

    def owner(self) -> int:
        """The number of the netlink socket that owns the table; 0 where none does."""
        found = self.link.get(self.table.ask())
        return 0 if found is None else a.number(a.table(found).get(7, b""))

    def chains(self) -> list[str]:
        """The names of all chains."""
        rows = self._dump(self.table.question(Op.GETCHAIN, "list chains"))
        return [a.string(row[3]) for row in rows if self._ours(row)]

    def has_chain(self, name: str) -> bool:
        """Whether a chain exists."""
        return self.link.get(self.table.question(Op.GETCHAIN, f"look up chain {name}", name=name)) is not None

    def sets(self) -> list[str]:
        """The names of all sets and maps."""
        return [a.string(row[2]) for row in self._dump(self.table.question(Op.GETSET, "list sets")) if self._ours(row)]

    def has_set(self, name: str) -> bool:
        """Whether a set exists."""
        return self.link.get(self.table.question(Op.GETSET, f"look up set {name}", set_name=name)) is not None

    def comments(self, chain: str) -> list[str]:
        """The comments of a chain's rules, in order; empty strings for rules without."""
        rows = self._dump(self.table.question(Op.GETRULE, f"list chain {chain}", name=chain))
        return [comment_of(row.get(7)) for row in rows if a.string(row[2]) == chain]

    def ranges_in_use(self, chain: str = "") -> set[str]:
        """The names of the range sets that the rules (of one chain) look into."""
        message = self.table.question(Op.GETRULE, "list rules", name=chain)
        # Hundreds of attachments have ten thousand rules: their bytes are searched, not taken apart.
        return {name.decode() for row in self._rows(message) for name in RANGE_SET.findall(row)}

    def elements(self, name: str) -> list[Mapping[int, memoryview]]:
        """The attributes of each element of a set; nothing where the set does not exist."""
        found: list[Mapping[int, memoryview]] = []
        for row in self._dump(self.table.question(Op.GETSETELEM, f"list set {name}", set_name=name)):
            found += [a.table(one) for _, one in a.walk(row.get(3, b""))]
        return found

    def slots(self, attachment_id: str) -> list[learning.Slot]:
        """The sets of learned addresses of an attachment."""
        return [slot for name in self.sets() if (slot := learning.Slot.parse(name, attachment_id)) is not None]

    def learned(
        self, attachment_id: str, slots: Iterable[learning.Slot] | None = None
    ) -> dict[learning.Entry, learning.Alive]:
        """The learned elements of an attachment (in these of its sets)."""
        found: dict[learning.Entry, learning.Alive] = {}
        for slot in self.slots(attachment_id) if slots is None else slots:
            found.update(learning.read(slot, self.elements(slot.name(attachment_id))))
        return found

    def dispatched(self, name: str) -> dict[str, str]:
        """What a dispatch map holds: interface name -> chain (empty for other verdicts)."""
        found: dict[str, str] = {}
        for one in self.elements(name):
            verdict = a.table(a.table(one[2])[2])
            found[a.string(a.table(one[1])[1])] = a.string(verdict.get(2, b""))
        return found

    def dispatch_of(self, name: str, key: bytes) -> str | None:
        """The chain that one key of a dispatch map leads to (empty for other verdicts); None where it leads nowhere."""
        row = self.link.get(self.table.look_up(name, element(key)))
        for _, one in a.walk(b"" if row is None else a.table(row).get(3, b"")):
            return a.string(a.table(a.table(a.table(one)[2])[2]).get(2, b""))
        return None

    def refusals(self, attachment_id: str) -> list[Refusal]:
        """The destinations an attachment's workload was refused."""
        return [
            one
            for version in (4, 6)
            for one in noting.read(version, self.elements(noting.set_of(version, attachment_id)))
        ]

    def digests(self) -> dict[str, bytes]:
        """A digest of every object of the table whose content only a writer changes, by what a person calls it."""
        found: dict[str, bytes] = {}
        for row in self._dump(self.table.question(Op.GETCHAIN, "list chains")):
            if self._ours(row):
                found |= _chain_digest(row)
        found |= self._rules_digests(self._dump(self.table.question(Op.GETRULE, "list rules")))
        for row in self._dump(self.table.question(Op.GETSET, "list sets")):
            if self._ours(row):
                found |= self._set_digest(row)
        return found

    def chain_digests(self, name: str) -> dict[str, bytes]:
        """What `digests` says of one chain and its rules; nothing where it does not exist."""
        row = self.link.get(self.table.question(Op.GETCHAIN, f"look up chain {name}", name=name))
        if row is None:
            return {}
        rules = self._dump(self.table.question(Op.GETRULE, f"list chain {name}", name=name))
        return _chain_digest(a.table(row)) | self._rules_digests(row for row in rules if a.string(row[2]) == name)

    def set_digests(self, name: str) -> dict[str, bytes]:
        """What `digests` says of one set; nothing where it does not exist."""
        row = self.link.get(self.table.question(Op.GETSET, f"look up set {name}", set_name=name))
        return {} if row is None else self._set_digest(a.table(row))

    def _rules_digests(self, rows: Iterable[Mapping[int, memoryview]]) -> dict[str, bytes]:
        rules: dict[str, list[memoryview | bytes]] = {}
        for row in rows:
            if self._ours(row):
                rules.setdefault(a.string(row[2]), []).extend(row.get(kind, b"") for kind in (3, 4, 7))
        return {rules_of(chain): _digest(parts) for chain, parts in rules.items()}

    def _set_digest(self, row: Mapping[int, memoryview]) -> dict[str, bytes]:
        name, flags = a.string(row[2]), a.number(row.get(3, b""))
        content = b"" if flags & SetFlag.TIMEOUT else b"".join(self._content(name))
        return {f"set {name}": _digest([*(row.get(kind, b"") for kind in (3, 4, 5)), content])}

    def _content(self, name: str) -> Iterator[memoryview]:
        for row in self._rows(self.table.question(Op.GETSETELEM, f"list set {name}", set_name=name)):
            yield a.table(row).get(3, memoryview(b""))

    def counters(self) -> dict[str, Count]:
        """All named counters."""
        found: dict[str, Count] = {}
        for row in self._dump(self.table.question(Op.GETOBJ, "list counters")):
            if self._ours(row):
                found |= _count(row)
        return found

    def counter(self, name: str) -> dict[str, Count]:
        """One named counter, by its name; nothing where it does not exist."""
        row = self.link.get(self.table.question(Op.GETOBJ, f"look up counter {name}", name=name))
        return {} if row is None else _count(a.table(row))

    def _ours(self, row: Mapping[int, memoryview]) -> bool:
        # Old kernels list all tables of the family, whatever table is named.
        return a.string(row[1]) == self.table.name

    def _dump(self, message: Message) -> list[Mapping[int, memoryview]]:
        return [a.table(row) for row in self._rows(message)]

    def _rows(self, message: Message) -> list[memoryview]:
        try:
            return self.link.dump(message)
        except KernelError as error:
            if error.number == errno.ENOENT:
                return []
            raise


def _count(row: Mapping[int, memoryview]) -> dict[str, Count]:
    data = a.table(row[4])
    return {a.string(row[2]): Count(a.number(data[2]), a.number(data[1]))}


def rules_of(chain: str) -> str:
    """What a person calls all rules of a chain."""
    return f"the rules of chain {chain}"


def _chain_digest(row: Mapping[int, memoryview]) -> dict[str, bytes]:
    return {f"chain {a.string(row[3])}": _digest(row.get(kind, b"") for kind in (4, 5, 7))}


def _digest(parts: Iterable[bytes | memoryview]) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(struct.pack("=I", len(part)))
        found.update(part)
    return found.digest()
