"""The rule that would allow exactly one flow, as text to add to `allow`."""

from __future__ import annotations

from netpolicy.flow import PORTED, Flow
from netpolicy.policy import ports, target
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
