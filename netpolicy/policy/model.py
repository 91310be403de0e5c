"""A checked policy, as values. `parse` makes it, `compile` turns it into a `Ruleset`, `to_json` prints it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from netpolicy.flow import Origin
from netpolicy.policy import ports, target
from netpolicy.policy.target import Target
from netpolicy.presets import Preset
from netpolicy.services import Service

#: The source of a policy that no file says.
DEFAULTS = "built-in defaults"

#: `ssh`: bare targets get tcp/22 (True) or not (False), or tcp/22 is open to every address ("any").
Ssh = bool | Literal["any"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One allowed target."""

    target: Target
    reason: str | None = None
    origin: Origin = field(default=Origin("built-in", "", ""), compare=False)
    """Where it is written; two rules that say the same in two places are equal."""

    def to_json(self) -> str | dict[str, Any]:
        """The shortest form that says all of it."""
        texts = ports.written(self.target.services)
        host = target.host_text(self.target.host)
        if self.reason is None and len(texts) < 2:
            return str(self.target)
        document: dict[str, Any] = {"host": host}
        if texts:
            document["ports"] = texts
        if self.reason is not None:
            document["reason"] = self.reason
        return document


@dataclass(frozen=True, slots=True)
class HostAccess:
    """One port, or range of ports, of the host itself."""

    service: Service
    origin: Origin = field(default=Origin("built-in", "", ""), compare=False)


@dataclass(frozen=True, slots=True)
class Verify:
    """What is proven after every apply; the words are probe targets (``host``, ``host:port``, ``https://host/path``)."""

    blocked: tuple[str, ...] = ("example.com",)
    """Must not be reachable from inside."""
    allowed: tuple[str, ...] = ("https://api.github.com/zen",)
    """Must be reachable from inside."""


@dataclass(frozen=True, slots=True)
class Dns:
    """How allowed names are resolved."""

    upstream: tuple[str, ...] = ()
    """Resolvers as ``address``, ``address:port`` or ``[IPv6]:port``; empty means those of the gate's own resolv.conf."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy file says, checked. Equal policies have the same canonical form."""

    source: str = field(default=DEFAULTS, compare=False)
    """For people: the file it came from, as they named it."""
    prefix: str = field(default="", compare=False)
    """The key that holds the policy in that file; empty where the file is the policy."""
    enabled: bool = True
    domains: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    presets: tuple[tuple[str, bool], ...] = ()
    """What the policy itself says of presets, sorted by name; the others keep their defaults."""
    active: tuple[Preset, ...] = ()
    """The presets that are on, sorted by name, with their data."""
    ssh: Ssh = True
    ssh_origin: Origin = field(default=Origin(DEFAULTS, "ssh", '"any"'), compare=False)
    host_access: tuple[HostAccess, ...] = ()
    verify: Verify = Verify()
    dns: Dns = Dns()

    def to_json(self) -> dict[str, Any]:
        """The canonical form, every key named; `netpolicy.policy.parse` reads it back as an equal policy."""
        return {
            "enabled": self.enabled,
            "domains": [rule.to_json() for rule in self.domains],
            "allow": [rule.to_json() for rule in self.allow],
            "presets": dict(self.presets),
            "ssh": self.ssh,
            "host_access": [str(entry.service) for entry in self.host_access],
            "verify": {"blocked": list(self.verify.blocked), "allowed": list(self.verify.allowed)},
            "dns": {"upstream": list(self.dns.upstream)},
        }
