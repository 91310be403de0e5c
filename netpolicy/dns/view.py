"""What a ruleset means to the DNS gate: which names are answered, and with which addresses."""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy.addresses import forbidden
from netpolicy.dns.wire import WireError, name_to_wire
from netpolicy.flow import Address
from netpolicy.ruleset import Ruleset
from netpolicy.services import Service


@dataclass(frozen=True, slots=True)
class Allowed:
    """A name that is answered."""

    name: str
    services: tuple[Service, ...]


class NameView:
    """A ruleset, indexed by names as they stand in questions. Immutable: a new ruleset gets a new view."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.policy = ruleset.policy
        self.open = ruleset.mode == "off"
        """Everything is forwarded unseen, and nothing is learned."""
        self._ranges = tuple(rule.network for rule in ruleset.ranges)
        self._names: dict[bytes, Allowed] = {}
        for name in ruleset.by_name:
            try:
                self._names[name_to_wire(name)] = Allowed(name, ruleset.services_of(name))
            except WireError:
                # No question can carry such a name, so it stays closed.
                continue

    def allowed(self, name: bytes) -> Allowed | None:
        """The rule for a name in canonical wire form, or None."""
        return self._names.get(name)

    def by_text(self, name: str) -> Allowed | None:
        """The same for a name as it is written."""
        return self._names.get(name_to_wire(name))

    def refuses(self, address: Address) -> str | None:
        """Why an answer must not hold the address (the host's, a neighbour's, nobody's: DNS rebinding); None where it may."""
        return forbidden(address, self._ranges)
