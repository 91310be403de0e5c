"""What iptables holds of ours in one family, out of ``iptables-save``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from netpolicy.kernel.ipset.layout import JUMPS, OWN_CHAINS, Place
from netpolicy.kernel.ipset.naming import Names

_LOCK: Final = re.compile(r"-i (\S+)\+ -[gj] \S+-locked")


@dataclass(frozen=True)
class Picture:
    """Our chains, and our jumps in the built-in ones."""

    names: Names
    chains: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """By table and name; rules without the chain's name."""
    jumps: Mapping[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)
    """By table and built-in chain: how often our jump is there, and whether the chain begins with it."""

    @classmethod
    def read(cls, names: Names, lines: Iterable[str]) -> Picture:
        """Read what was saved."""
        chains: dict[tuple[str, str], list[str]] = {}
        builtin: dict[tuple[str, str], list[str]] = {}
        table = ""
        for line in lines:
            match line[:1]:
                case "*":
                    table = line[1:].strip()
                case ":":
                    chain = line[1:].split(" ", 1)[0]
                    if names.is_chain(chain):
                        chains[table, chain] = []
                case "-" if line.startswith("-A "):
                    chain, _, rule = line[3:].partition(" ")
                    (chains if names.is_chain(chain) else builtin).setdefault((table, chain), []).append(rule.strip())
        jumps = {}
        for where, chain, kind in JUMPS:
            rules = builtin.get((where, chain), [])
            own = f"-j {names.shared(kind)}"
            jumps[where, chain] = rules.count(own), rules[:1] == [own]
        return cls(names, {key: tuple(rules) for key, rules in chains.items()}, jumps)

    @property
    def places(self) -> dict[str, Place]:
        """The attachments, by id."""
        found: dict[str, Place] = {}
        for rule in self.chains.get(("mangle", self.names.shared("fwd")), ()):
            words = rule.split()
            if words[:1] == ["-i"] and len(words) == 4:
                attachment_id = self.names.id_of(words[3], "out")
                if attachment_id is not None:
                    found[attachment_id] = Place(attachment_id, words[1])
        for rule in self.chains.get(("filter", self.names.shared("self")), ()):
            attachment_id = self.names.id_of(rule.split()[-1], "out")
            if attachment_id is not None:
                found[attachment_id] = Place(attachment_id, "")
        return found

    def has_chains_of(self, place: Place) -> bool:
        """Whether all chains are there that the shared rules lead to for an attachment."""
        wanted = (
            (table, self.names.own(place.id, kind)) for table, kinds in OWN_CHAINS[place.hook].items() for kind in kinds
        )
        return all(key in self.chains for key in wanted)

    @property
    def prefix(self) -> str | None:
        """The prefix of interfaces that are locked."""
        rules = self.chains.get(("mangle", self.names.shared("fwd")), ())
        return next((found[1] for rule in rules if (found := _LOCK.fullmatch(rule))), None)

    @property
    def looks_back(self) -> bool:
        """Whether the rules look up the way back to a sender; so too where there is nothing to look it up for."""
        rules = self.chains.get(("raw", self.names.shared("from")), ())
        return self.prefix is None or any("rpfilter" in rule for rule in rules)

    def first_rule(self, attachment_id: str) -> str:
        """The rule that says what is in force; empty where there is none."""
        chain = self.names.own(attachment_id, "out")
        rules = self.chains.get(("mangle", chain)) or self.chains.get(("filter", chain)) or ("",)
        return rules[0]

    def sets(self, attachment_id: str | None = None) -> set[str]:
        """The sets that the rules (of one attachment's judgement) look into."""
        chain = None if attachment_id is None else self.names.own(attachment_id, "out")
        return {
            name
            for (_, where), rules in self.chains.items()
            if chain in (None, where)
            for rule in rules
            for name in re.findall(r"--(?:match|add)-set (\S+)", rule)
        }
