"""What is judged (`Flow`) and the judgement (`Verdict`). Pure values; nothing here touches the system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

Address = IPv4Address | IPv6Address

#: IANA protocol numbers of the names that the policy language knows.
PROTOCOLS: dict[str, int] = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
#: The protocols whose packets carry a destination port in bytes 2 and 3 of their header.
PORTED: frozenset[int] = frozenset({6, 17, 132, 136})


def protocol_name(number: int) -> str:
    """The policy language's name for an IANA protocol number (the number itself, where it has none)."""
    return next((name for name, value in PROTOCOLS.items() if value == number), str(number))


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection attempt, as the workload would make it.

    Exactly one of `name` and `address` is set: a name is judged at the DNS layer first, an address literal is not.
    """

    protocol: int
    """IANA protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6."""
    port: int | None = None
    """Destination port, 1 to 65535; None for protocols without ports."""
    name: str | None = None
    """Lower-case ASCII (IDNA A-label) name without a trailing dot."""
    address: Address | None = None

    def __str__(self) -> str:
        target = self.name if self.name is not None else str(self.address)
        if self.address is not None and self.address.version == 6 and self.port is not None:
            target = f"[{target}]"
        port = "" if self.port is None else f":{self.port}"
        return f"{target}{port}/{protocol_name(self.protocol)}"


class Layer(StrEnum):
    """Where a flow is decided; the order is the order a packet meets them."""

    LOCAL = "local"
    """On the workload's own machine, link or network, or at the host that the gate runs on."""
    OFF = "off"
    """The policy is switched off: everything passes."""
    OBSERVE = "observe"
    """The policy would refuse it, but is only observed: it passes, and is counted."""
    DNS = "dns"
    """By name, at the gate's DNS: an unknown name is not answered, so that no packet is ever sent."""
    ADDRESS = "address"
    """By address, at the packet filter: an allowed range, or an address learned for an allowed name; or neither."""
    PROTOCOL = "protocol"
    """The target is known to the policy, but not with this protocol."""
    PORT = "port"
    """The target is known to the policy with this protocol, but not at this port."""


class Identity(StrEnum):
    """How sure a verdict is of who is at the other end (docs/threat-model.md)."""

    IP = "ip"
    """The address was learned for an allowed name, or lies in an allowed range; other tenants of it are reachable too."""
    NONE = "none"
    """No identity is claimed (denied, or the policy is off)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rule was written, for messages and reviews."""

    source: str
    """A file as the user named it, ``preset:NAME``, ``env:NAME`` or ``built-in``."""
    key: str
    """The key inside the source, e.g. ``firewall.domains[3]``."""
    text: str
    """The rule as it was written, e.g. ``github.com:443/tcp``."""
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.source}, {self.key})"


#: Says later why a verdict was made: the explanation and the suggestion.
Teller = Callable[[], tuple[str, "str | None"]]


class _Late:
    """Gives a verdict a slot that is no field of it."""

    __slots__ = ("_teller",)


@dataclass(frozen=True, slots=True)
class Verdict(_Late):
    """The judgement of one flow; `decide` makes it, a packet meets the same.

    A value in every respect. What it says to people is put into words when it is first read, for most verdicts are not.
    """

    allowed: bool
    layer: Layer
    rule: Origin | None
    """The rule that allowed it; for a denial the nearest rule, where one knows the same target."""
    identity: Identity
    explanation: str
    """One sentence for a person."""
    suggestion: str | None = None
    """For a denial: the rule text that would allow exactly this flow."""

    @staticmethod
    def told_later(allowed: bool, layer: Layer, rule: Origin | None, identity: Identity, teller: Teller) -> Verdict:
        """A verdict whose explanation and suggestion are asked for when they are first read."""
        verdict = _new(Verdict)
        _SET_ALLOWED(verdict, allowed)
        _SET_LAYER(verdict, layer)
        _SET_RULE(verdict, rule)
        _SET_IDENTITY(verdict, identity)
        _SET_TELLER(verdict, teller)
        return verdict

    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> Any:
            if name not in ("explanation", "suggestion"):
                raise AttributeError(f"a verdict has no {name!r}")
            for field, value in zip(("explanation", "suggestion"), self._teller(), strict=True):
                object.__setattr__(self, field, value)
            return getattr(self, name)


# A frozen dataclass fills its fields through object.__setattr__, which looks each of them up; these are the slots themselves.
_new = object.__new__
_SET_ALLOWED, _SET_LAYER, _SET_RULE, _SET_IDENTITY = (
    vars(Verdict)[name].__set__ for name in ("allowed", "layer", "rule", "identity")
)
_SET_TELLER = vars(_Late)["_teller"].__set__
