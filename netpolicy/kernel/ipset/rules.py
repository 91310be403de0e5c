"""Our rules in iptables: reading them, writing what is to change, and seeing what others changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from netpolicy.clock import Clock
from netpolicy.kernel import attributes as a
from netpolicy.kernel.ipset import drift, programs
from netpolicy.kernel.ipset.layout import Layout, Place
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.programs import Programs
from netpolicy.kernel.ipset.reading import Picture
from netpolicy.kernel.ipset.script import Script
from netpolicy.kernel.netlink import SUBSYSTEM_NFTABLES, Message, Netlink
from netpolicy.kernel.netns import Namespace

_GENERATION: Final = SUBSYSTEM_NFTABLES << 8 | 16  # NFT_MSG_GETGEN
#: How often the older sort of iptables, which does not count its changes, is read for changes: in seconds.
_SELDOM: Final = 0.9

#: What no chain is to have.
_NOTHING: Final = ["-j nothing"]

Pictures = Mapping[int, Picture]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What was found when the rules were compared last."""

    moment: float
    generation: int | None
    found: tuple[str, ...]


class Rules:
    """The rules of one name in one namespace."""

    def __init__(self, names: Names, namespace: Namespace, link: Netlink, clock: Clock) -> None:
        self._names = names
        self._namespace = namespace
        self._link = link
        self._clock = clock
        self.places: dict[str, Place] = {}
        """The attachments that we wrote."""
        self._wanted: Pictures | None = None
        """Our chains as they read after we wrote them; None before the first writing."""
        self._generation: int | None = None
        """The kernel's count of changes to nf_tables after our last writing; None where the rules are not in there."""
        self.seen: Pictures = {}
        """What there was when we looked last."""
        self._sent: dict[tuple[int, str, str], list[str]] = {}
        """By family, table and chain: the rules we wrote last, in our own words."""
        self._compared: _Comparison | None = None

    @cached_property
    def programs(self) -> Programs:
        """The iptables programs that this host has."""
        return programs.choose(self._namespace, self._names.shared("fwd"))

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """The address families that this kernel has."""
        return programs.families()

    def read(self) -> Pictures:
        """What iptables holds now."""
        generation = self._count()
        if generation is None or generation != self._generation or not self.seen:
            self.seen = {v: Picture.read(self._names, self.programs.save(v)) for v in self.versions}
            self._generation = generation
        return self.seen

    def scripts(
        self, prefix: str | None, looks_back: bool, change: Mapping[str, Place | None] | None = None
    ) -> dict[int, Script]:
        """The shared rules, with some attachments put in (or, with None, left out)."""
        found = {}
        for version, picture in self.seen.items():
            here = {key: p for key, p in self.places.items() if picture.has_chains_of(p)}
            places = {**picture.places, **here, **(change or {})}
            script = found[version] = Script(version)
            standing = [place for place in places.values() if place is not None]
            Layout(self._names, version, prefix, looks_back, standing).write(script)
        return found

    def write(self, scripts: Mapping[int, Script], order: Sequence[str]) -> None:
        """Carry out scripts on what was read last, the families one after the other, and keep in mind what there is then.

        Chains that we wrote the same before, and that are as we wrote them, are left as they are.
        """
        before, wanted = self.seen, self._wanted or {}
        try:
            for version, script in scripts.items():
                for table, chain in list(script.chains):
                    key = table, chain
                    was = wanted[version].chains.get(key) if version in wanted else None
                    if was is not None and before[version].chains.get(key) == was:
                        script.leave(*key, self._sent.get((version, *key), _NOTHING))
                for key in script.chains:
                    self._sent.pop((version, *key), None)
                if text := script.text(order):
                    self.programs.restore(version, text)
        finally:
            self._generation = None
            self._compared = None
            now = self.read()
            self._wanted = {
                version: replace(now[version], chains=_as_wanted(wanted.get(version), now[version], scripts[version]))
                for version in scripts
            }
        for version, script in scripts.items():
            for (table, chain), rules in script.chains.items():
                self._sent[version, table, chain] = rules

    def forget(self) -> None:
        """There is nothing of ours any more."""
        self.places.clear()
        self._sent.clear()
        self._wanted = self._compared = None

    def changed(self) -> tuple[str, ...]:
        """What others changed since we wrote, a sentence each, as of what was read last."""
        wanted = self._wanted or {}
        return tuple(text for v, picture in wanted.items() for text in drift.in_rules(v, picture, self.seen[v]))

    def look(self) -> tuple[str, ...]:
        """The same as of now; where the kernel does not count changes, as of a second ago at most."""
        if self._wanted is None:
            return ()
        last, moment, generation = self._compared, self._clock.monotonic(), self._count()
        if last is not None:
            fresh = moment - last.moment < _SELDOM if generation is None else generation == last.generation
            if fresh:
                return last.found
        self.read()
        self._compared = _Comparison(moment, generation, self.changed())
        return self._compared.found

    def _count(self) -> int | None:
        if self.programs.sort != "nft":
            return None
        row = self._link.get(Message(_GENERATION, b"", "ask for the count of changes"))
        return a.number(a.table(row or b"").get(1, b""))


def _as_wanted(before: Picture | None, now: Picture, script: Script) -> dict[tuple[str, str], tuple[str, ...]]:
    """The chains as they should be: those just written as they read now, the others as they read when they were written."""
    if before is None:
        return dict(now.chains)
    kept = {key: rules for key, rules in before.chains.items() if key not in script.chains}
    return {**kept, **{key: now.chains[key] for key in script.chains if key in now.chains}}
