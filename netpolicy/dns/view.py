"""What a ruleset means to the DNS gate: which names are answered, and with which addresses."""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy import patterns
from netpolicy.addresses import forbidden
from netpolicy.dns.wire import WireError, name_to_text, name_to_wire
from netpolicy.flow import Address
from netpolicy.ruleset import NameRule, Ruleset
from netpolicy.services import Service, subtract

#: Names below wildcards that are remembered as judged; then it begins again.
_MOST_JUDGED = 4096


@dataclass(frozen=True, slots=True)
class Allowed:
    """A name that is answered."""

    name: str
    services: tuple[Service, ...]
    until: float | None = None
    """When the last of the rules that allow it ends, in seconds since 1970; None: never."""
    under: str | None = None
    """Where only wildcards allow it: what the nearest of them stands below (``example.com``)."""


class NameView:
    """A ruleset, indexed by names as they stand in questions. A new ruleset gets a new view."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.policy = ruleset.policy
        self.open = ruleset.mode == "off"
        """Everything is forwarded unseen, and nothing is learned."""
        self.observed = ruleset.mode == "observe"
        """Everything is answered unfiltered; what is allowed is learned, and the rest is counted."""
        self.ipv6 = ruleset.ipv6
        self._ruleset = ruleset
        self._ranges = tuple(rule.network for rule in ruleset.ranges)
        self._names: dict[bytes, Allowed] = {}
        self._suffixes: dict[bytes, str] = {}
        self._judged: dict[bytes, Allowed] = {}
        for name in ruleset.exact_names:
            wire = _wire(name)
            if wire is not None:
                self._names[wire] = self._allowed(name, None)
        for rule in ruleset.names:
            wire = None if rule.exact else _wire(patterns.suffix(rule.name))
            if wire is not None:
                self._suffixes[wire] = patterns.suffix(rule.name)

    def allowed(self, name: bytes) -> Allowed | None:
        """What is allowed of a name in canonical wire form, or None."""
        found = self._names.get(name)
        return found if found is not None or not self._suffixes else self._below(name)

    def by_text(self, name: str) -> Allowed | None:
        """The same for a name as it is written."""
        return self.allowed(name_to_wire(name))

    def denial(self, name: str) -> NameRule | None:
        """The rule that denies a name which is not answered; None where no rule speaks of it."""
        return next(iter(self._ruleset.denials_for(name)), None)

    def refuses(self, address: Address, services: tuple[Service, ...]) -> str | None:
        """Why an answer for a name with these services must not hold the address; None where it may.

        The host's, a neighbour's and nobody's (DNS rebinding); what deny rules close wholly; all of IPv6 where it is off.
        """
        if address.version == 6 and not self.ipv6:
            return f"{address} is IPv6, which is switched off"
        reason = forbidden(address, self._ranges)
        if reason is not None or not self._ruleset.denied_ranges:
            return reason
        denied = self._ruleset.denied_at(address)
        if not denied or subtract(services, denied):
            return None
        rule = next(iter(self._ruleset.denied_by_prefix.around(address)))
        return f"{address} is denied ({rule.network})"

    def _below(self, name: bytes) -> Allowed | None:
        """A name of which no rule speaks itself: one look for each of its labels."""
        found = self._judged.get(name)
        if found is not None:
            return found
        at = 1 + name[0]
        while at < len(name):
            suffix = self._suffixes.get(name[at:])
            if suffix is not None:
                break
            at += 1 + name[at]
        else:
            return None
        found = self._allowed(name_to_text(name), suffix)
        if not found.services:
            return None
        if len(self._judged) >= _MOST_JUDGED:
            self._judged.clear()
        self._judged[name] = found
        return found

    def _allowed(self, name: str, under: str | None) -> Allowed:
        rules = self._ruleset.rules_for(name)
        denied = [s for rule in self._ruleset.denials_for(name) for s in rule.services]
        if denied:
            rules = tuple(rule for rule in rules if subtract(rule.services, denied))
        services = subtract((s for rule in rules for s in rule.services), denied)
        ends = [rule.until for rule in rules]
        until = None if None in ends else max((end for end in ends if end is not None), default=None)
        return Allowed(name, services, until, under)


def _wire(name: str) -> bytes | None:
    try:
        return name_to_wire(name)
    except WireError:
        # No question can carry such a name, so it stays closed.
        return None
