"""An instance in words: the table at the end of `up`, and one row of `list`."""

from __future__ import annotations

from cspace_mcp.cli.table import columns, fields
from cspace_mcp.results import Firewall, Instance, Probe


def told(instance: Instance) -> str:
    """Everything that the one who made an instance wants to know, and what to type next."""
    rows = [
        ("instance", f"{instance.name} of {instance.project}"),
        ("branch", instance.branch),
        ("firewall", firewall(instance.firewall)),
    ]
    proof = instance.verification
    if proof is not None:
        rows += _many("blocked", [_tried(probe) for probe in proof.blocked])
        rows += _many("reachable", [_tried(probe) for probe in proof.allowed])
    rows += [("network", ", ".join(instance.subnets)), ("state", instance.state)]
    rows += [("", reason) for reason in instance.reasons]
    rows += _many("note", instance.notes)
    return f"{fields(rows)}\n\nnext\n{fields((f'  {command}', what) for command, what in following(instance))}"


def following(instance: Instance) -> list[tuple[str, str]]:
    """The commands that make sense now: (command, what it does)."""
    name = instance.name
    return [
        (f"cspace ssh {name}", "a shell in it"),
        (f"cspace exec {name} -- claude", "Claude Code in it"),
        (f"cspace exec {name} -- CMD", "one command"),
        (f"cspace down {name}", "remove it"),
    ]


def listed(instances: list[Instance], *, all_projects: bool) -> str:
    """One row an instance."""
    if not instances:
        return "no instances; 'cspace up' makes one"
    head = ["name", "state", "branch", "firewall", "verified", "made"]
    rows = [
        [
            i.name,
            i.state,
            i.branch,
            firewall(i.firewall),
            i.verification.state if i.verification else "no",
            _minute(i.created),
        ]
        for i in instances
    ]
    if all_projects:
        head.insert(0, "project")
        rows = [[i.project, *row] for i, row in zip(instances, rows, strict=True)]
    reasons = [f"{i.name}: {reason}" for i in instances for reason in i.reasons]
    return columns(head, rows) + "".join(f"\n{line}" for line in ["", *reasons] if reasons)


def firewall(rule: Firewall) -> str:
    """The rule around an instance, in a few words."""
    match rule.state:
        case "off":
            return "OFF: everything may leave"
        case "observed":
            return (
                f"OBSERVED ONLY: everything may leave; {rule.refused} packets would have been refused ({rule.policy})"
            )
        case "locked":
            return "locked: nothing may leave"
        case "unknown":
            return "unknown: the gate does not answer (what was denied stays denied)"
        case "enforced":
            ranges = f", {rule.ranges} ranges" if rule.ranges else ""
            ends = f", the next rule ends {_minute(rule.ends_at)} UTC" if rule.ends_at else ""
            return f"enforced, {rule.names} names{ranges}{ends} ({rule.policy})"


def _many(label: str, values: list[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", value) for index, value in enumerate(values)]


def _tried(probe: Probe) -> str:
    took = "" if probe.milliseconds is None else f" in {probe.milliseconds:.0f} ms"
    verdict = {"proven": "", "unproven": " (not proven)", "failed": " (WRONG)"}[probe.state]
    why = f": {probe.reason}" if probe.reason else ""
    return f"{probe.target}  {probe.outcome}{took}{verdict}{why}"


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")
