"""From a policy to the one `Ruleset`. Pure: the policy carries the data of its presets.

What it guarantees, and property tests hold: the order and repetition of rules do not change the meaning (nor the id); no
service of a name or network is listed twice; no network lies inside another one that has the same service, so the ranges of
one list of services never overlap. The first rule that opens something is the one that verdicts name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from netpolicy.flow import Origin
from netpolicy.policy import ports, target
from netpolicy.policy.model import Policy, Rule
from netpolicy.policy.problems import Refused
from netpolicy.policy.target import Target
from netpolicy.prefixes import Prefixes
from netpolicy.presets import Preset
from netpolicy.ruleset import HostRule, NameRule, Network, RangeRule, Ruleset
from netpolicy.services import Service, merged, subtract

_SSH = Service(ports.TCP, 22, 22)
#: What a bare target means, beside SSH while that is on.
DEFAULT = (Service(ports.TCP, 80, 80), Service(ports.TCP, 443, 443))
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def compile_policy(policy: Policy) -> Ruleset:
    """Everything the policy opens. Never raises: a line of a preset that means nothing becomes a warning."""
    warnings: list[str] = []
    rules = [*policy.domains, *policy.allow, *_preset_rules(policy.active, warnings), *_ssh_rules(policy)]
    opened = _opened(policy, rules)
    return Ruleset(
        policy=policy.source,
        mode="enforce" if policy.enabled else "off",
        names=tuple(_names((h, s, o) for h, s, o in opened if isinstance(h, str))),
        ranges=tuple(distinct([(h, s, o) for h, s, o in opened if not isinstance(h, str)])),
        host=tuple(_host(policy)),
        warnings=tuple(warnings),
    )


def written(policy: Policy) -> Ruleset:
    """Every rule as it is written, none joined or left out, so that rules can be told which nobody would miss.

    It means the same as what `compile_policy` makes. The presets come first: of two equal rules the policy's own is the one
    that can be spared.
    """
    rules = [*_preset_rules(policy.active, []), *_ssh_rules(policy), *policy.domains, *policy.allow]
    opened = _opened(policy, rules)
    return Ruleset(
        policy=policy.source,
        mode="enforce" if policy.enabled else "off",
        names=tuple(NameRule(h, s, o) for h, s, o in opened if isinstance(h, str)),
        ranges=tuple(RangeRule(h, s, o) for h, s, o in opened if not isinstance(h, str)),
        host=tuple(HostRule(entry.service, entry.origin) for entry in policy.host_access),
    )


def _opened(policy: Policy, rules: Iterable[Rule]) -> list[tuple[str | Network, tuple[Service, ...], Origin]]:
    default = merged((*DEFAULT, _SSH)) if policy.ssh is not False else DEFAULT
    return [(rule.target.host, rule.target.services or default, rule.origin) for rule in rules]


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


def _names(opened: Iterable[tuple[str, tuple[Service, ...], Origin]]) -> Iterator[NameRule]:
    known: dict[str, tuple[Service, ...]] = {}
    for name, services, origin in opened:
        new = subtract(services, known.get(name, ()))
        if new:
            known[name] = merged((*known.get(name, ()), *new))
            yield NameRule(name, new, origin)


def distinct(opened: Iterable[tuple[Network, tuple[Service, ...], Origin]]) -> Iterator[RangeRule]:
    """Widest network first, each reduced to the services that no network around it has."""
    known: Prefixes[Service] = Prefixes()
    for network, services, origin in sorted(opened, key=lambda row: row[0].prefixlen):
        new = subtract(services, known.around(network))
        if new:
            known.add(network, *new)
            yield RangeRule(network, new, origin)


def _host(policy: Policy) -> Iterator[HostRule]:
    known: tuple[Service, ...] = ()
    for entry in policy.host_access:
        for new in subtract([entry.service], known):
            yield HostRule(new, entry.origin)
        known = merged((*known, entry.service))
