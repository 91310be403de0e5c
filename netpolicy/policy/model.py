"""A checked policy, as values. `parse` makes it, `compile` turns it into a `Ruleset`, `to_json` prints it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from netpolicy.flow import Origin
from netpolicy.policy import ends, ports, target
from netpolicy.policy.target import Target
from netpolicy.presets import Preset
from netpolicy.ruleset import Mode, OnDrift
from netpolicy.services import Service

#: The source of a policy that no file says.
DEFAULTS = "built-in defaults"

#: `ssh`: bare targets get tcp/22 (True) or not (False), or tcp/22 is open to every address ("any").
Ssh = bool | Literal["any"]

#: The containers of an instance that a rule can be meant for.
Role = Literal["dev", "browser", "services"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Rule:
    """One target that is allowed, or denied."""

    target: Target
    reason: str | None = None
    origin: Origin = field(default=Origin("built-in", "", ""), compare=False)
    """Where it is written; two rules that say the same in two places are equal."""
    until: float | None = None
    """When it ends, in whole seconds since 1970 (UTC); None: never. A denial has no end."""
    roles: tuple[Role, ...] = ()
    """The containers that it is for, in the order of `ROLES`; empty: all of them."""

    def to_json(self) -> str | dict[str, Any]:
        """The shortest form that says all of it."""
        texts = ports.written(self.target.services)
        host = target.host_text(self.target.host)
        more = self._more()
        if not more and len(texts) < 2:
            return str(self.target)
        document: dict[str, Any] = {"host": host}
        if texts:
            document["ports"] = texts
        return document | more

    def _more(self) -> dict[str, Any]:
        """What only an object can say."""
        found: dict[str, Any] = {}
        if self.reason is not None:
            found["reason"] = self.reason
        if self.until is not None:
            found["expires"] = ends.written(self.until)
        if self.roles:
            found["roles"] = list(self.roles)
        return found


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
    mode: Mode = "enforce"
    domains: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    """They win over everything that allows; a bare target means every service."""
    presets: tuple[tuple[str, bool], ...] = ()
    """What the policy itself says of presets, sorted by name; the others keep their defaults."""
    active: tuple[Preset, ...] = ()
    """The presets that are on, sorted by name, with their data."""
    ssh: Ssh = True
    ssh_origin: Origin = field(default=Origin(DEFAULTS, "ssh", '"any"'), compare=False)
    host_access: tuple[HostAccess, ...] = ()
    ipv6: bool = True
    """False: nothing leaves by IPv6."""
    on_drift: OnDrift = "repair"
    """What the gate does when another program has changed its rules in the kernel."""
    verify: Verify = Verify()
    dns: Dns = Dns()

    @property
    def enabled(self) -> bool:
        """Whether the firewall is on at all, be it only to observe."""
        return self.mode != "off"

    def to_json(self) -> dict[str, Any]:
        """The canonical form, every key named; `netpolicy.policy.parse` reads it back as an equal policy."""
        return {
            "mode": self.mode,
            "domains": [rule.to_json() for rule in self.domains],
            "allow": [rule.to_json() for rule in self.allow],
            "deny": [rule.to_json() for rule in self.deny],
            "presets": dict(self.presets),
            "ssh": self.ssh,
            "host_access": [str(entry.service) for entry in self.host_access],
            "ipv6": self.ipv6,
            "on_drift": self.on_drift,
            "verify": {"blocked": list(self.verify.blocked), "allowed": list(self.verify.allowed)},
            "dns": {"upstream": list(self.dns.upstream)},
        }
