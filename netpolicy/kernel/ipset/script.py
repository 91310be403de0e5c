"""What goes into ``iptables-restore``: chains and rules by table, each table's part taken at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

#: The order in which a policy is opened: what shuts comes before what opens, which is in ``mangle`` (or, at the output hook,
#: in ``filter``); and translations are there before what they are for.
OPENING: Final = ("raw", "security", "nat", "filter", "mangle")
#: The order in which it is shut.
SHUTTING: Final = ("mangle", "filter", "security", "raw", "nat")


@dataclass
class Script:
    """Changes of one family's rules."""

    version: int
    chains: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """By table and name: the rules of our chains."""
    _before: dict[str, list[str]] = field(default_factory=dict)
    _after: dict[str, list[str]] = field(default_factory=dict)

    def chain(self, table: str, chain: str, rules: Iterable[str] = ()) -> None:
        """Let one of our chains have these rules and no others; it is made where it is missing."""
        self.chains[table, chain] = list(rules)

    def leave(self, table: str, chain: str, rules: list[str]) -> None:
        """Leave a chain out that has these rules already, if it was to have them."""
        removed = f"-X {chain}" in self._after.get(table, ())
        if self.chains.get((table, chain)) == rules and not removed:
            del self.chains[table, chain]

    def remove(self, table: str, chain: str) -> None:
        """Remove one of our chains, which exists."""
        self.chains[table, chain] = []
        after = self._after.setdefault(table, [])
        if f"-X {chain}" not in after:
            after.append(f"-X {chain}")

    def first(self, table: str, builtin: str, chain: str, times: int) -> None:
        """Let a built-in chain begin with our jump; it has had it this many times so far."""
        self.without(table, builtin, chain, times)
        self._after.setdefault(table, []).append(f"-I {builtin} 1 -j {chain}")

    def without(self, table: str, builtin: str, chain: str, times: int) -> None:
        """Take our jump, which is there this many times, out of a built-in chain."""
        self._before.setdefault(table, []).extend([f"-D {builtin} -j {chain}"] * times)

    def text(self, order: Iterable[str]) -> str:
        """All of it, its tables in this order."""
        return "".join(self._table(table) for table in order)

    def _table(self, table: str) -> str:
        own = {chain: rules for (where, chain), rules in self.chains.items() if where == table}
        if not (own or table in self._before or table in self._after):
            return ""
        lines = [f"*{table}", *(f":{chain} - [0:0]" for chain in own), *self._before.get(table, ())]
        lines += [f"-A {chain} {rule}" for chain, rules in own.items() for rule in rules]
        return "\n".join([*lines, *self._after.get(table, ()), "COMMIT", ""])
