"""What other programs did to our rules: the picture after our last writing, compared with the one now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netpolicy.kernel.ipset.messages import Header
from netpolicy.kernel.ipset.reading import Picture

_PROGRAMS = {4: "iptables", 6: "ip6tables"}


def in_rules(version: int, before: Picture, now: Picture) -> Iterator[str]:
    """The changes in one family's rules, a sentence each."""
    program = _PROGRAMS[version]
    for (table, builtin), (times, first) in now.jumps.items():
        if times == 0:
            yield f"{program}: the jump to our rules was deleted from {builtin} of table {table}"
        elif not first:
            yield f"{program}: other rules were put before ours in {builtin} of table {table}"
    for key in sorted({*before.chains, *now.chains}):
        table, chain = key
        was, is_now = before.chains.get(key), now.chains.get(key)
        if was == is_now:
            continue
        what = "was deleted" if is_now is None else "was made" if was is None else "was changed"
        if is_now == ():
            what = "was emptied"
        yield f"{program}: chain {chain} of table {table} {what}"


def in_sets(before: Mapping[str, int], now: Mapping[str, Header]) -> Iterator[str]:
    """The changes in sets whose number of elements we know."""
    for name, elements in sorted(before.items()):
        if name not in now:
            yield f"ipset: set {name} was deleted"
        elif now[name].elements != elements:
            yield f"ipset: set {name} has {now[name].elements} elements, not {elements}"
