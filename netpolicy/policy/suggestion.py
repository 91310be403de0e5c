"""The rule that would allow exactly one flow, as text to add to `allow`, and where in a policy things are added."""

from __future__ import annotations

from netpolicy.flow import PORTED, Flow
from netpolicy.policy import ports, target
from netpolicy.policy.files import COMMITTED
from netpolicy.policy.model import DEFAULTS, Policy
from netpolicy.policy.problems import Refused


def suggestion(flow: Flow) -> str | None:
    """The text; None where the language cannot say it (a protocol it has no word for, a target no rule can open)."""
    if flow.protocol in PORTED:
        text = str(flow)
    elif any(service.protocol == flow.protocol for service in ports.ICMP):
        text = f"{flow.name or flow.address}/icmp"
    else:
        return None
    try:
        found = target.parse(text)
    except Refused:
        return None
    return text if any(s.covers(flow.protocol, flow.port) for s in found.services) else None


def place(policy: Policy, key: str) -> tuple[str, str]:
    """The file, and the whole key in it, at which a key of the policy is changed; for the defaults a project's own file."""
    file, prefix = (COMMITTED, "firewall") if policy.source == DEFAULTS else (policy.source, policy.prefix)
    return file, f"{prefix}.{key}" if prefix else key
