"""The verification battery: tries connections for real (`attempt`), and judges what came of it (`verification`).

What enters here: single attempts with an honest outcome, and pure judgements over them. Standard library only, so that the
same file runs on the host, in a namespace and in a container that has only `python3`.
"""

from __future__ import annotations

from pathlib import Path

from netpolicy.probe import attempt, verification
from netpolicy.probe.attempt import ProbeResult, Target, parse, probe, probe_all
from netpolicy.probe.verification import Plan, Proof, VerificationReport, flow_of, judge, plan

__all__ = [
    "Plan",
    "ProbeResult",
    "Proof",
    "Target",
    "VerificationReport",
    "flow_of",
    "judge",
    "parse",
    "plan",
    "probe",
    "probe_all",
    "results",
    "source",
    "verification",
]


def source() -> str:
    """The text of the probe program, to be fed to ``python3 - TARGET...`` where the kit is not installed."""
    return Path(attempt.__file__).read_text(encoding="utf-8")


def results(output: str) -> list[ProbeResult]:
    """Read what the probe program printed: one JSON object a line. Lines that are not results are left out."""
    import json

    found = []
    for line in output.splitlines():
        try:
            found.append(ProbeResult(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
