"""From a policy to the one `Ruleset`. Pure: the policy carries the data of its presets.

What it guarantees, and property tests hold: the order and repetition of rules do not change the meaning (nor the id); no
service of a name is listed twice; no network lies inside another one that has the same service for as long, unless it is the
owner's word for a private block (`netpolicy.lifted`). The first rule that opens something is the one that verdicts name; a rule
that ends never stands in the place of one that lasts longer. Denials are not taken out of what is allowed: both stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from netpolicy.flow import Origin
from netpolicy.lifted import blocks
from netpolicy.policy import ends, ports, target
from netpolicy.policy.model import Policy, Role, Rule
from netpolicy.policy.problems import Refused
from netpolicy.policy.target import Target
from netpolicy.prefixes import Prefixes
from netpolicy.presets import Preset
from netpolicy.presets.ages import stale
from netpolicy.ruleset import HostRule, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service, merged, subtract

_SSH = Service(ports.TCP, 22, 22)
#: What a bare target means, beside SSH while that is on.
DEFAULT = (Service(ports.TCP, 80, 80), Service(ports.TCP, 443, 443))
_WITH_SSH = merged((*DEFAULT, _SSH))
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def compile_policy(policy: Policy, *, role: Role = "dev", now: float | None = None) -> Ruleset:
    """Everything the policy opens and denies for one container.

    Never raises: a line of a preset that means nothing, a preset's list that is old, and a rule that has ended become warnings.

    Args:
        policy: A checked policy.
        role: The container's part; rules for other roles are left out.
        now: Seconds since 1970: rules that have ended by then are left out, and lists have an age. None: none has.
    """
    warnings: list[str] = []
    own = _Applying(policy, role, now, warnings)
    for preset in policy.active:
        warnings += stale(preset, now)
    rules = [*own.of((*policy.domains, *policy.allow), bare=own.bare), *own.of_presets(), *own.of_ssh()]
    denials = list(own.of(policy.deny, bare=EVERY))
    return Ruleset(
        policy=policy.source,
        mode=policy.mode,
        names=tuple(_names(rule for rule in rules if isinstance(rule, NameRule))),
        ranges=tuple(_ranges([rule for rule in rules if isinstance(rule, RangeRule)])),
        host=tuple(_host(policy)),
        denied_names=tuple(_names(rule for rule in denials if isinstance(rule, NameRule))),
        denied_ranges=tuple(_ranges([rule for rule in denials if isinstance(rule, RangeRule)])),
        ipv6=policy.ipv6,
        on_drift=policy.on_drift,
        warnings=tuple(warnings),
    )


def written(policy: Policy, *, role: Role = "dev", now: float | None = None) -> Ruleset:
    """Every rule as it is written, none joined or left out, so that rules can be told which nobody would miss.

    It means the same as what `compile_policy` makes of the same arguments. The presets come first: of two equal rules the
    policy's own is the one that can be spared.
    """
    own = _Applying(policy, role, now, [])
    rules = [*own.of_presets(), *own.of_ssh(), *own.of((*policy.domains, *policy.allow), bare=own.bare)]
    denials = list(own.of(policy.deny, bare=EVERY))
    return Ruleset(
        policy=policy.source,
        mode=policy.mode,
        names=tuple(rule for rule in rules if isinstance(rule, NameRule)),
        ranges=tuple(rule for rule in rules if isinstance(rule, RangeRule)),
        host=tuple(HostRule(entry.service, entry.origin) for entry in policy.host_access),
        denied_names=tuple(rule for rule in denials if isinstance(rule, NameRule)),
        denied_ranges=tuple(rule for rule in denials if isinstance(rule, RangeRule)),
        ipv6=policy.ipv6,
        on_drift=policy.on_drift,
    )


@dataclass(frozen=True, slots=True)
class _Applying:
    """The rules of a policy that apply to one container at one time, with services."""

    policy: Policy
    role: Role
    now: float | None
    warnings: list[str]

    @property
    def bare(self) -> tuple[Service, ...]:
        """What a bare target means where it is allowed."""
        return DEFAULT if self.policy.ssh is False else _WITH_SSH

    def of(self, rules: Iterable[Rule], bare: tuple[Service, ...]) -> Iterator[NameRule | RangeRule]:
        """Of rules that a person wrote; for what is left out that they may count on, there is a warning."""
        for rule in rules:
            if rule.roles and self.role not in rule.roles:
                continue
            if self.now is not None and rule.until is not None and rule.until <= self.now:
                self._left_out(rule, f"it ended on {ends.written(rule.until)}")
            elif not self._fits(rule):
                self._left_out(rule, "`ipv6` is false, so nothing leaves by IPv6")
            else:
                yield _with_services(rule, bare)

    def of_presets(self) -> Iterator[NameRule | RangeRule]:
        """Of the presets that are on."""
        rules = _preset_rules(self.policy.active, self.warnings)
        return (_with_services(rule, self.bare) for rule in rules if self._fits(rule))

    def of_ssh(self) -> Iterator[NameRule | RangeRule]:
        """Of ``ssh: any``."""
        return (_with_services(rule, self.bare) for rule in _ssh_rules(self.policy) if self._fits(rule))

    def _fits(self, rule: Rule) -> bool:
        host = rule.target.host
        return self.policy.ipv6 or isinstance(host, str) or host.version == 4

    def _left_out(self, rule: Rule, why: str) -> None:
        self.warnings.append(f"{rule.origin.source}: {rule.origin.key} {rule.target} is left out: {why}")


def _with_services(rule: Rule, bare: tuple[Service, ...]) -> NameRule | RangeRule:
    host, services = rule.target.host, rule.target.services or bare
    if isinstance(host, str):
        return NameRule(host, services, rule.origin, rule.until)
    return RangeRule(host, services, rule.origin, rule.until)


def _preset_rules(presets: Iterable[Preset], warnings: list[str]) -> Iterator[Rule]:
    for preset in presets:
        for key, texts in (("names", preset.names), ("ranges", preset.ranges)):
            for index, text in enumerate(texts):
                origin = Origin(preset.file, f"{key}[{index}]", text, preset.summary or None)
                try:
                    found = target.parse(text)
                except Refused as refusal:
                    warnings.append(f"{preset.file}: {key}[{index}] {text!r} is left out: {refusal}")
                else:
                    yield Rule(found, None, origin)


def _ssh_rules(policy: Policy) -> Iterator[Rule]:
    if policy.ssh == "any":
        for everywhere in _EVERYWHERE:
            yield Rule(Target(ip_network(everywhere), (_SSH,)), None, policy.ssh_origin)


def _names(rules: Iterable[NameRule]) -> Iterator[NameRule]:
    """Those that last longest first, each reduced to the services that no rule before it has for its name."""
    known: dict[str, tuple[Service, ...]] = {}
    for rule in sorted(rules, key=_lasting):
        new = subtract(rule.services, known.get(rule.name, ()))
        if new:
            known[rule.name] = merged((*known.get(rule.name, ()), *new))
            yield replace(rule, services=new)


def _ranges(rules: Iterable[RangeRule]) -> Iterator[RangeRule]:
    """Widest network first, each reduced to the services that no network around it has for as long.

    One that lies in a block which answers are kept out of, as no network around it does, keeps all of them: it is the owner's
    word that names may resolve to there.
    """
    known: Prefixes[RangeRule] = Prefixes()
    for rule in sorted(rules, key=lambda rule: (rule.network.prefixlen, _lasting(rule))):
        around = [wider for wider in known.around(rule.network) if _lasting(wider) <= _lasting(rule)]
        inside = blocks(rule.network)
        told = not inside or any(blocks(wider.network) == inside for wider in around)
        new = subtract(rule.services, (s for wider in around for s in wider.services)) if told else rule.services
        if new:
            found = replace(rule, services=merged(new))
            known.add(rule.network, found)
            yield found


def _lasting(rule: NameRule | RangeRule) -> float:
    """A number that is the smaller, the longer a rule lasts."""
    return -math.inf if rule.until is None else -rule.until


def _host(policy: Policy) -> Iterator[HostRule]:
    known: tuple[Service, ...] = ()
    for entry in policy.host_access:
        for new in subtract([entry.service], known):
            yield HostRule(new, entry.origin)
        known = merged((*known, entry.service))
