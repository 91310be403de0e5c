"""Say what would happen to a connection, and by which rule. Nothing is sent.

TARGET is host, host:port, host:port/protocol, host/icmp, a URL, or git's user@host:path. Without a port it means tcp/443, and
everything else that the policy opens for that host is listed as well. The policy is FILE, or that of the project around the
working directory (.cspace.json with .cspace.local.json over it), or the built-in defaults; CSPACE_FIREWALL_DOMAINS adds to it.

With --role it is asked for another container of an instance than its first. Several policies count together: what any of them allows
is allowed, unless any denies it.

  netpolicy check api.github.com
  netpolicy check 192.0.2.1:22 --policy strict.json --json

Exit status 0: allowed, be it only because the policy observes; 1: denied; 2: bad target or bad policy.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from netpolicy import presets
from netpolicy.cli import asked
from netpolicy.decide import decide
from netpolicy.errors import Exit
from netpolicy.flow import Flow, Identity, Layer, Origin, Verdict
from netpolicy.policy import Policy, parse_flow
from netpolicy.policy.suggestion import place
from netpolicy.ruleset import Ruleset

_LAYERS = {
    Layer.LOCAL: "on the workload's own machine, link or network, or at its host",
    Layer.OFF: "the firewall is switched off",
    Layer.OBSERVE: "the firewall only observes; the policy would refuse it",
    Layer.DNS: "by name, before any packet is sent",
    Layer.ADDRESS: "by address, at the packet filter",
    Layer.PROTOCOL: "the target is known, but not with this protocol",
    Layer.PORT: "the target is known, but not at this port",
}
_IDENTITIES = {
    Identity.IP: "whoever else serves from the same address is reachable too",
    Identity.NONE: "nobody's identity is claimed",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One way to allow a flow."""

    file: str
    key: str
    add: str | bool
    """What to append to the list at `key`, or what to set it to."""

    def __str__(self) -> str:
        value = json.dumps(self.add)
        return (
            f"set {self.key} to {value} in {self.file}"
            if self.add is True
            else f"add {value} to {self.key} in {self.file}"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="TARGET", help="what to connect to, such as github.com or 192.0.2.1:22")
    asked.declare(parser)


def run(args: argparse.Namespace) -> int:
    """Judge one target."""
    flow = parse_flow(args.target)
    policies = asked.policies(args)
    # Whatever is missing belongs in the last one.
    policy, ruleset = policies[-1], asked.merged(policies, args)
    verdict = decide(ruleset, flow)
    document = {
        "target": args.target,
        "flow": str(flow),
        **asdict(verdict),
        "advice": [asdict(advice) for advice in advise(policy, flow, verdict)],
        "opened": opened(ruleset, flow),
        "policy": ruleset.policy,
        "ruleset": ruleset.id,
        "mode": ruleset.mode,
        "warnings": list(ruleset.warnings),
    }
    text = json.dumps(document) if args.json else "\n".join(lines(policy, ruleset, flow, verdict))
    print(text)  # noqa: T201
    return Exit.OK if verdict.allowed else Exit.DENIED


def lines(policy: Policy, ruleset: Ruleset, flow: Flow, verdict: Verdict) -> list[str]:
    """The answer for people."""
    rows = [("layer", f"{verdict.layer}: {_LAYERS[verdict.layer]}"), ("why", verdict.explanation)]
    if verdict.rule is not None:
        rows.append(
            ("nearest" if _refused(verdict) and not _denies(ruleset, verdict.rule) else "rule", str(verdict.rule))
        )
        if verdict.rule.reason:
            rows.append(("reason", verdict.rule.reason))
    if verdict.allowed:
        rows.append(("identity", f"{verdict.identity}: {_IDENTITIES[verdict.identity]}"))
    rows.append(("policy", f"{ruleset.policy}, ruleset {ruleset.id}"))
    services = opened(ruleset, flow)
    if verdict.allowed and len(services) > 1:
        rows.append(("opened", ", ".join(services)))
    rows += [("to allow" if i == 0 else "or", str(advice)) for i, advice in enumerate(advise(policy, flow, verdict))]
    rows += [("warning", warning) for warning in ruleset.warnings]
    said = "observed" if verdict.layer is Layer.OBSERVE else "allowed" if verdict.allowed else "denied"
    return [f"{said}  {flow}", *(f"  {name:<8}  {text}" for name, text in rows)]


def _refused(verdict: Verdict) -> bool:
    """Whether no rule lets the flow through."""
    return not verdict.allowed or verdict.layer is Layer.OBSERVE


def _denies(ruleset: Ruleset, rule: Origin) -> bool:
    names, ranges = ruleset.denied_names, ruleset.denied_ranges
    return rule in {denial.origin for denial in names} | {denial.origin for denial in ranges}


def advise(policy: Policy, flow: Flow, verdict: Verdict) -> list[Advice]:
    """What to put where so that the flow is allowed, the narrowest first; nothing where the policy cannot say it."""
    if verdict.suggestion is None:
        return []
    on = {preset.name for preset in policy.active}
    offering = [name for name in presets.naming(flow.name or "") if name not in on]
    return [
        Advice(*place(policy, "allow"), verdict.suggestion),
        *(Advice(*place(policy, f"presets.{name}"), True) for name in offering),
    ]


def opened(ruleset: Ruleset, flow: Flow) -> list[str]:
    """Everything that the policy opens for the flow's host, such as ``443/tcp``."""
    services = ruleset.services_of(flow.name or "") if flow.address is None else ruleset.services_at(flow.address)
    return [str(service) for service in services]
